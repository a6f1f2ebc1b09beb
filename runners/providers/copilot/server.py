"""Copilot's headless server: one process for many conversations, over JSON-RPC with `Content-Length` frames.

Every turn is a session of the CLI's own: a directory with the conversation so far as its history, resumed, sent the new
message, destroyed. There is no call that adds a message of the past, and in a session that went on a cancelled or
failed turn would stay in its history. Measured on 1.0.102, where a turn costs 40 to 60 ms for it.
"""

import asyncio
import copy
import json
import logging
import re
import shutil
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.errors import ModelNotFoundError, ProtocolError, RequestCancelledError, RunnerError
from runners.event_session import Event, TranscriptSession
from runners.messages import ChatMessage, ImagePart
from runners.provider import LlmProvider, ProcessRef, Sampling, SessionOptions
from runners.providers.copilot.events import CopilotTranslator
from runners.wire.deadlines import TurnDeadlines, within
from runners.wire.framing import HeaderFramer
from runners.wire.jsonrpc import METHOD_NOT_FOUND, RequestId, RpcError, RpcProcess

_log = logging.getLogger(__name__)

# What is no business of a model: everything that would add to the conversation, act, or be kept.
_NO_AGENT = {
    "availableTools": [],
    "toolFilterPrecedence": "excluded",
    "requestPermission": False,
    # Else a summary takes the place of a long conversation, from 80 % of the model's window on.
    "infiniteSessions": {"enabled": False, "backgroundCompactionThreshold": 1.0, "bufferExhaustionThreshold": 1.0},
    "memory": {"enabled": False},
    "customAgentsLocalOnly": True,
    "skipEmbeddingRetrieval": True,
    "enableSkills": False,
    "enableSessionStore": False,
    "enableFileHooks": False,
    "enableHostGitOperations": False,
    "enableConfigDiscovery": False,
    "enableOnDemandInstructionDiscovery": False,
    "enableSessionTelemetry": False,
    "envValueMode": "direct",
    "hooks": True,  # the CLI asks us before it sends the user's text, see `CliTurn.hook`
    "streaming": True,
}
_NO_SUCH_MODEL = re.compile(r"\bmodel\b.*\b(not found|not available|unknown)\b", re.IGNORECASE)
_DELTAS = ("assistant.message_delta", "assistant.reasoning_delta")
_MERGED_CHARACTERS = 4096
_CLEAN_UP_S = 10.0


class CopilotServer:
    """A headless `copilot` and the turns that run in it."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.is_gone = False
        self.users = 0
        self.turns: dict[str, CliTurn] = {}
        self._rpc: RpcProcess

    @classmethod
    async def start(
        cls, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, scratch: Path, limit_s: float
    ) -> "CopilotServer":
        """Starts the process and waits until it answers; DeadlineExceededError when it does not within `limit_s`."""
        server = cls(cwd)
        server._rpc = await RpcProcess.spawn(
            argv,
            env=env,
            cwd=cwd,
            scratch=scratch,
            framer=HeaderFramer(),
            answer=server._answer,
            heard=server._heard,
            gone=server._ended,
        )
        try:
            connect = server.call("connect", {"supportedTaskKinds": []})
            await within(connect, limit_s, deadline="spawn_s", doing="waiting for copilot to connect")
        except BaseException:
            await server.close(ask=False)
            raise
        return server

    @property
    def process(self) -> ProcessRef:
        """The CLI process."""
        return ProcessRef(self._rpc.cli.pid, self._rpc.cli.start_time)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The CLI's answer to a call; ProcessExitedError when it has gone, ProtocolError when it refuses."""
        try:
            return await self._rpc.peer.call(method, params)
        except RpcError as error:
            if _NO_SUCH_MODEL.search(str(error)):
                raise ModelNotFoundError(f"copilot refused: {error}") from error
            raise ProtocolError(f"copilot refused {method}: {error}") from error

    async def farewell(self, turn: "CliTurn") -> None:
        """Ends what a turn left in the CLI; a process that does not answer that is killed."""
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await turn.end()
        except TimeoutError:
            _log.warning("copilot %d does not end a session: it is killed", self._rpc.cli.pid)
            self._rpc.cli.kill()
        except RunnerError as error:
            if not self.is_gone:
                _log.warning("copilot %d: %s", self._rpc.cli.pid, error)
        finally:
            self.turns.pop(turn.id, None)
            turn.remove()

    def close(self, *, ask: bool = True) -> "asyncio.Future[None]":
        """Begins to end the process; idempotent."""
        self.is_gone = True
        return self._rpc.close(ask=ask)

    async def _answer(self, _request_id: RequestId, method: str, params: dict[str, Any]) -> Any:
        turn = self.turns.get(str(params.get("sessionId")))
        if method == "hooks.invoke" and turn is not None:
            return turn.hook(str(params.get("hookType")))
        raise RpcError(METHOD_NOT_FOUND, f"this host grants nothing, {method} included")

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        turn = self.turns.get(str(params.get("sessionId"))) if method == "session.event" else None
        if turn is not None and isinstance(params.get("event"), dict):
            turn.inbox.put(params["event"])

    def _ended(self, error: RunnerError) -> None:
        self.is_gone = True
        for turn in self.turns.values():
            turn.inbox.fail(copy.copy(error))
            turn.inbox.is_idle.set()


class SharedServer:
    """The server that a provider's sessions share: started for the first that needs one, ended with the last."""

    def __init__(self, start: Callable[[], Awaitable[CopilotServer]]) -> None:
        self._start = start
        self._starting = asyncio.Lock()
        self._server: CopilotServer | None = None

    async def acquire(self) -> CopilotServer:
        """The server, a new one when there is none that lives; `release` is due."""
        async with self._starting:
            if self._server is None or self._server.is_gone:
                self._server = await self._start()
            self._server.users += 1
            return self._server

    async def release(self, server: CopilotServer) -> None:
        """Gives back what `acquire` gave."""
        server.users -= 1
        if server.users == 0:
            await server.close()


class CliTurn:
    """One turn as the CLI has it: a session of its own, seeded with the conversation, and the events it tells."""

    def __init__(self, server: CopilotServer, directory: Path) -> None:
        self.id = str(uuid.uuid4())
        self.inbox = Inbox()
        self._server = server
        # Its configuration directory too, so that no MCP server and no hook of the user's is started.
        self._directory = Path(tempfile.mkdtemp(dir=directory))
        self._beginning: asyncio.Task[None] | None = None
        self._is_resumed = False
        self._new: ChatMessage | None = None
        server.turns[self.id] = self

    async def begin(self, messages: list[ChatMessage], settings: dict[str, Any], last: dict[str, Any]) -> None:
        """Lets the model answer `messages`: `settings` are for the session, `last` for this one answer."""
        self._beginning = asyncio.create_task(self._begin(messages, settings, last), name=f"copilot-begin-{self.id}")
        await asyncio.shield(self._beginning)

    async def _begin(self, messages: list[ChatMessage], settings: dict[str, Any], last: dict[str, Any]) -> None:
        *history, self._new = messages
        if self._new.role == "tool":
            history, self._new = messages, None
        state = self._directory / "session-state" / self.id
        state.mkdir(parents=True, mode=0o700)
        seed = _seed(self.id, history, str(self._server.cwd), str(settings.get("model", "")))
        (state / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in seed), encoding="utf-8")
        place = {"sessionId": self.id, "configDir": str(self._directory), "workingDirectory": str(self._server.cwd)}
        await self._server.call("session.resume", _NO_AGENT | settings | place | {"disableResume": True})
        self._is_resumed = True
        # Without a message the CLI goes on by itself, as it should behind the result of a tool.
        new = [] if self._new is None else [{"prompt": self._new.text, **_attachments(self._new)}]
        await self._server.call("session.sendMessages", {"sessionId": self.id, "messages": new} | last)

    def hook(self, kind: str) -> dict[str, Any]:
        """Answers what the CLI asks its host. The user's text stays as it is: the CLI would trim and date it."""
        if kind == "userPromptTransformed" and self._new is not None:
            return {"output": {"modifiedTransformedPrompt": self._new.text}}
        return {}

    async def abort(self) -> None:
        """Asks the CLI to stop; its events then end with an idle that is `aborted`."""
        await self._server.call("session.abort", {"sessionId": self.id})

    async def end(self) -> None:
        """Stops what still runs and takes the session out of the CLI."""
        if self._beginning is None:
            return
        # An abort that overtakes the beginning is lost, and a session that is not at rest would go on calling.
        await asyncio.wait([self._beginning])
        if not self._beginning.exception() and not self.inbox.is_idle.is_set():
            await self.abort()
            await self.inbox.is_idle.wait()
        if self._is_resumed:
            await self._server.call("session.destroy", {"sessionId": self.id})

    def remove(self) -> None:
        """Removes its directory."""
        shutil.rmtree(self._directory, ignore_errors=True)


class Inbox:
    """The events of one turn until its client reads them.

    Other turns share the process, so nobody can tell it to wait: deltas that pile up are joined, and what is held is
    no more than the answer itself.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._error: RunnerError | None = None
        self._changed = asyncio.Event()
        self.is_idle = asyncio.Event()
        """The CLI's session is at rest, or gone."""

    def put(self, event: Event) -> None:
        """Takes the next event."""
        if event.get("type") == "session.idle":
            self.is_idle.set()
        if self._error is not None or event.get("type") == "assistant.streaming_delta":
            return  # the latter stands before each delta, and says nothing but how long the answer is by now
        last = self._events[-1] if self._events else None
        if last is None or not _joined(last, event):
            self._events.append(event)
        self._changed.set()

    def fail(self, error: RunnerError) -> None:
        """No more events come, for this reason, behind those that are unread; the first reason counts."""
        self._error = self._error or error
        self._changed.set()

    def close(self, error: RunnerError) -> None:
        """The same, and those that are unread are forgotten."""
        self._events.clear()
        self.fail(error)

    async def get(self) -> Event:
        """The next event; behind the last one the error that ended them."""
        while not self._events:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()


def _joined(last: Event, event: Event) -> bool:
    """Whether `event` is a delta that went into the one before it, which nobody has read yet."""
    if event.get("type") not in _DELTAS or last.get("type") != event["type"]:
        return False
    before, new = last.get("data"), event.get("data")
    if not isinstance(before, dict) or not isinstance(new, dict):
        return False
    pieces = (before.get("deltaContent"), new.get("deltaContent"))
    same = all(before.get(name) == new.get(name) for name in ("messageId", "reasoningId"))
    if not same or not isinstance(pieces[0], str) or not isinstance(pieces[1], str):
        return False
    if len(pieces[0]) > _MERGED_CHARACTERS:
        return False  # joining long texts again and again would cost more than keeping them
    before["deltaContent"] = pieces[0] + pieces[1]
    return True


class CopilotSession(TranscriptSession):
    """A conversation on the headless server. After a cancelled or failed turn it can go on from before that turn.

    `settings` are the parameters of the CLI's sessions that come from runners.yaml.
    """

    def __init__(
        self, provider: LlmProvider, shared: SharedServer, server: CopilotServer, settings: dict[str, Any]
    ) -> None:
        super().__init__(provider)
        self.server = server
        self.process = server.process
        self._shared = shared
        self._settings = settings
        self._options = SessionOptions()
        self._turn_now: CliTurn | None = None
        self._farewells: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None

    async def prepare(self, options: SessionOptions) -> None:
        self._options = options
        self.state = "idle"

    def translator(self) -> CopilotTranslator:
        return CopilotTranslator(self.provider.name, self.model)

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        self._turn_now = CliTurn(self.server, self.provider.directory("turns"))
        settings = self._settings | {"systemMessage": {"mode": "replace", "content": self._options.system}}
        if self._options.reasoning_effort is not None:
            settings["reasoningEffort"] = self._options.reasoning_effort
        if sampling.max_tokens is not None:
            settings["provider"] = settings["provider"] | {"maxOutputTokens": sampling.max_tokens}
        shape = sampling.response_format.wrapped if sampling.response_format else None
        last = {} if shape is None else {"responseFormat": {"type": "json_schema", "jsonSchema": shape}}
        await deadlines.wait(self._turn_now.begin(messages, settings, last))

    async def event(self) -> Event:
        assert self._turn_now is not None
        return await self._turn_now.inbox.get()

    async def interrupt(self) -> None:
        if self.state == "busy" and self._turn_now is not None:
            await self._turn_now.abort()

    def settle(self, *, is_clean: bool) -> None:  # noqa: ARG002 the CLI's session goes in any case
        self.state = "dead" if self.server.is_gone else "idle"
        if self._turn_now is not None:
            task = asyncio.create_task(self.server.farewell(self._turn_now), name=f"copilot-end-{self._turn_now.id}")
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    async def aclose(self) -> None:
        if self.state == "busy" and self._turn_now is not None:
            self._turn_now.inbox.close(RequestCancelledError("its session was closed"))
            self.settle(is_clean=False)
        self.state = "dead"
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="copilot-leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        """Waits for what its turns leave behind."""
        await asyncio.gather(*self._farewells)
        await self._shared.release(self.server)
        self.provider.sessions.discard(self)


def _seed(session_id: str, messages: list[ChatMessage], cwd: str, model: str) -> Iterator[Event]:
    """A conversation as the CLI's own record of it, which it reads when it resumes a session."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    parent: str | None = None
    started = {
        "sessionId": session_id,
        "version": 1,
        "producer": "copilot-agent",
        "copilotVersion": "",
        "startTime": now,
        "selectedModel": model,
        "context": {"cwd": cwd},
    }
    for kind, data in [("session.start", started), *(entry for message in messages for entry in _entries(message))]:
        event_id = str(uuid.uuid4())
        yield {"type": kind, "data": data, "id": event_id, "timestamp": now, "parentId": parent}
        parent = event_id


def _entries(message: ChatMessage) -> Iterator[tuple[str, dict[str, Any]]]:
    if message.role == "assistant":
        calls = [
            {"toolCallId": call.id, "name": call.name, "arguments": call.arguments, "type": "function"}
            for call in message.tool_calls
        ]
        answer = {"messageId": str(uuid.uuid4()), "content": message.text, "toolRequests": calls}
        yield "assistant.message", answer
    elif message.role == "tool":
        result = {"toolCallId": message.tool_call_id, "success": True, "result": {"content": message.text}}
        yield "tool.execution_complete", result
    else:
        # `transformedContent` is what the model is sent.
        text = {"content": message.text, "transformedContent": message.text}
        yield "user.message", text | _attachments(message)


def _attachments(message: ChatMessage) -> dict[str, Any]:
    images = [
        {"type": "blob", "data": part.data, "mimeType": part.media_type, "displayName": "image"}
        for part in message.parts
        if isinstance(part, ImagePart)
    ]
    return {"attachments": images} if images else {}
