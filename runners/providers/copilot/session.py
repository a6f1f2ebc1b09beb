"""A conversation on copilot's headless server.

Every turn is a session of the CLI's own: a directory with the conversation so far as its history, resumed, sent the new
message, destroyed. There is no call that adds a message of the past, and in a session that went on a cancelled or
failed turn would stay in its history. Measured on 1.0.102, where a turn costs 40 to 60 ms for it.
"""

import asyncio
import json
import tempfile
import uuid
from pathlib import Path
from typing import Any

from runners.errors import ConfigError, ContextOverflowError, RequestCancelledError
from runners.event_session import TranscriptSession
from runners.messages import ChatMessage, TextPart
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.copilot.events import CopilotTranslator
from runners.providers.copilot.inbox import Inbox
from runners.providers.copilot.seed import attachments, mended, seed
from runners.providers.copilot.server import CopilotServer, SharedServer
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines

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

_CONVERSATION_CAP = 16 * 1024 * 1024


class CliTurn:
    """One turn as the CLI has it: a session of its own, seeded with the conversation, and the events it tells."""

    def __init__(self, server: CopilotServer, temporary: "tempfile.TemporaryDirectory[str]") -> None:
        self.id = str(uuid.uuid4())
        self.inbox = Inbox()
        self._server = server
        # Its configuration directory too, so that no MCP server and no hook of the user's is started.
        self._temporary = temporary
        self._directory = Path(temporary.name)
        self._beginning: asyncio.Task[bool] | None = None
        self._is_resumed = self._is_over = False
        self._prompt: str | None = None
        server.turns[self.id] = self

    async def begin(self, messages: list[ChatMessage], settings: dict[str, Any], last: dict[str, Any]) -> None:
        """Lets the model answer `messages`: `settings` are for the session, `last` for this one answer."""
        self._beginning = asyncio.create_task(self._begin(messages, settings, last), name=f"copilot-begin-{self.id}")
        # A turn that was given up may have nobody who waits for it: then its failure is no bug.
        self._beginning.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._beginning)

    async def _begin(self, messages: list[ChatMessage], settings: dict[str, Any], last: dict[str, Any]) -> bool:
        """Whether the CLI was sent the message: not when the turn was over before that."""
        *history, new = messages
        if new.role == "tool":
            # Without a message the CLI goes on by itself, as it should behind the result of a tool.
            history, prompts = messages, []
        else:
            self._prompt = mended(new.text)
            prompts = [{"prompt": self._prompt, **attachments(new)}]
        events = seed(self.id, history, str(self._server.cwd), str(settings.get("model", "")))
        record = "".join(json.dumps(mended(event)) + "\n" for event in events)
        new_size = sum(len(part.text if isinstance(part, TextPart) else part.data) for part in new.parts)
        if len(record) + new_size > _CONVERSATION_CAP:
            # The CLI tells some of it back, in a frame that must stay below the cap of a line.
            cap_mb = _CONVERSATION_CAP >> 20
            raise ContextOverflowError(f"the conversation is over {cap_mb} MiB, more than copilot is told")
        self._write(record)
        place = {"sessionId": self.id, "configDir": str(self._directory), "workingDirectory": str(self._server.cwd)}
        await self._server.call("session.resume", _NO_AGENT | mended(settings) | place | {"disableResume": True})
        self._is_resumed = True
        if self._is_over:
            return False  # nobody waits for the answer any more, and the call of the model would be paid for
        await self._server.call("session.sendMessages", {"sessionId": self.id, "messages": prompts} | mended(last))
        return True

    def _write(self, record: str) -> None:
        state = self._directory / "session-state" / self.id
        try:
            state.mkdir(parents=True, mode=0o700)
            (state / "events.jsonl").write_text(record, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{state} cannot be written: {error.strerror}") from error

    def hook(self, kind: str) -> dict[str, Any]:
        """Answers what the CLI asks its host. The user's text stays as it is: the CLI would trim and date it."""
        if kind == "userPromptTransformed" and self._prompt is not None:
            return {"output": {"modifiedTransformedPrompt": self._prompt}}
        return {}

    async def abort(self) -> None:
        """Asks the CLI to stop; its events then end with an idle that is `aborted`."""
        if await self._has_begun():
            await self._server.call("session.abort", {"sessionId": self.id})

    async def end(self, *, abort: bool) -> None:
        """Takes the session out of the CLI once it is at rest: else it would go on calling the model."""
        self._is_over = True
        if await self._has_begun() and not self.inbox.is_idle.is_set():
            if abort:
                await self.abort()
            await self.inbox.is_idle.wait()
        if self._is_resumed:
            await self._server.call("session.destroy", {"sessionId": self.id})

    async def _has_begun(self) -> bool:
        """Waits for the beginning, which an abort must not overtake, and says whether the CLI took the message."""
        if self._beginning is None:
            return False
        await asyncio.wait([self._beginning])
        return self._beginning.exception() is None and self._beginning.result()

    def remove(self) -> None:
        """Removes its directory."""
        self._temporary.cleanup()


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
        self._turn_now = CliTurn(self.server, self.provider.temporary("turns"))
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

    def settle(self, *, is_clean: bool) -> None:
        self.state = "dead" if self.server.is_retired else "idle"
        if self._turn_now is not None:
            farewell = self.server.farewell(self._turn_now, abort=not is_clean)
            task = asyncio.create_task(farewell, name=f"copilot-end-{self._turn_now.id}")
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
