"""A session of the CLI's own: the conversation as copilot's server has it, and the files that the server keeps of it.

It lives on from turn to turn as long as each of them ends well. No call takes a message of it back or adds one of the
past: whoever has another conversation begins another session. Facts are from 1.0.102, where the first turn of a
session takes 30 ms to the first delta, 40 ms with a history, and each later one 10 to 15.
"""

import asyncio
import json
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.errors import ConfigError, ContextOverflowError, ProtocolError, RequestCancelledError
from runners.messages import ChatMessage, TextPart
from runners.providers.copilot.inbox import CopilotInbox
from runners.providers.copilot.seed import attachments, seed
from runners.providers.copilot.tools import result_of
from runners.stream import mended
from runners.tools import ToolNames

if TYPE_CHECKING:
    from runners.providers.copilot.server import CopilotServer

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
    "hooks": True,  # the CLI asks us before it sends the user's text, see `CliSession.hook`
    "streaming": True,
}

_ASKS_WITHIN_S = 10.0
_CONVERSATION_CAP = 16 * 1024 * 1024


class CliSession:
    """One session in the server, from its first turn to its end.

    `settings` are its parameters, `names` what its model calls the client's tools.
    """

    def __init__(
        self,
        server: "CopilotServer",
        temporary: "tempfile.TemporaryDirectory[str]",
        settings: dict[str, Any],
        names: ToolNames,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.inbox = CopilotInbox()
        self.is_spent = False
        """It was asked to stop, and may tell of that at any time: no other turn may follow."""
        self.is_parked = False
        """It waits for the results of the tools that its model has called."""
        self._server = server
        self._settings = settings
        self._names = names
        # Its configuration directory too, so that no MCP server and no hook of the user's is started.
        self._temporary = temporary
        self._directory = Path(temporary.name)
        self._saying: asyncio.Task[bool] | None = None
        self._is_open = self._is_over = self._is_giving = False
        self._failures_given = 0
        self._is_leaving = asyncio.Event()
        self._told = self._size = 0
        self._prompt: str | None = None
        self._last: dict[str, Any] = {}
        server.sessions[self.id] = self

    @property
    def is_busy(self) -> bool:
        """Whether the CLI is in a turn, or on its way into one."""
        return (self._saying is not None and not self._saying.done()) or not self.inbox.is_idle.is_set()

    def continues(
        self,
        before: Sequence[ChatMessage],
        new: Sequence[ChatMessage],
        settings: dict[str, Any],
        last: dict[str, Any],
    ) -> bool:
        """Whether `new` can be said here: the session holds exactly `before`, and takes one message of a user's.

        One that is parked takes the results that it waits for, and goes on with the `last` parameters that it had. For
        a session whose turns have all ended well. One answer may not have reached the conversation all the same.
        """
        is_fit = last == self._last if self.is_parked else len(new) == 1 and new[0].role == "user"
        return is_fit and not self.is_spent and len(before) == self._told + 1 and settings == self._settings

    def rest(self, *, awaits_results: bool) -> None:
        """Its turn has ended well, or waits for results."""
        self.inbox.end()
        self.is_parked = awaits_results

    async def say(self, conversation: list[ChatMessage], last: dict[str, Any]) -> None:
        """Lets the model answer a whole conversation, of which the CLI is told what it does not hold.

        `last` are parameters for this one answer.
        """
        self._last = last
        self._saying = asyncio.create_task(self._say(conversation, last), name=f"copilot-say-{self.id}")
        # A turn that was given up may have nobody who waits for it: then its failure is no bug.
        self._saying.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._saying)

    async def _say(self, conversation: list[ChatMessage], last: dict[str, Any]) -> bool:
        """Whether the CLI was sent the message: not when the session was over before that."""
        untold = conversation[self._told :]
        self._size += sum(map(_size, untold))
        self._told = len(conversation)
        if self._size > _CONVERSATION_CAP:
            # The CLI tells all of it back, in a frame that must stay below the cap of a line.
            cap_mb = _CONVERSATION_CAP >> 20
            raise ContextOverflowError(f"the conversation is over {cap_mb} MiB, more than copilot is told")
        if self.is_parked:
            await self._give([message for message in untold if message.role == "tool"])
            return True
        *history, new = conversation
        prompts = []
        if new.role == "tool":
            # Without a message the CLI goes on by itself, as it should behind the result of a tool.
            history = conversation
        else:
            prompts = [{"prompt": mended(new.text), **attachments(new)}]
        if not self._is_open:
            await self._open(history)
        await self.inbox.is_idle.wait()  # the rest of the turn before, behind its answer
        if self._is_over:
            return False  # nobody waits for the answer any more, and the call of the model would be paid for
        self._prompt = prompts[0]["prompt"] if prompts else None
        self.inbox.begin()
        await self._server.call("session.sendMessages", {"sessionId": self.id, "messages": prompts} | mended(last))
        return True

    async def _give(self, results: list[ChatMessage]) -> None:
        """Hands on the results that the CLI waits for: when it has all of them it goes on with its turn."""
        self.is_parked, self._is_giving = False, True
        self.inbox.begin()
        for result in results:
            request_id = await self._request_of(str(result.tool_call_id))
            self._failures_given += result.is_error
            given = {"sessionId": self.id, "requestId": request_id, "result": mended(result_of(result))}
            if not (await self._server.call("session.tools.handlePendingToolCall", given)).get("success"):
                raise ProtocolError(f"copilot does not take the result of {result.tool_call_id!r}")
        self._is_giving = False

    async def _request_of(self, call_id: str) -> str:
        """The id under which the CLI asks for a call, which it does at once; a ProtocolError to try again after."""
        try:
            async with asyncio.timeout(_ASKS_WITHIN_S):
                return await self.inbox.request_of(call_id)
        except TimeoutError:
            raise ProtocolError(f"copilot does not ask for the call {call_id!r}", retryable=True) from None

    async def _open(self, history: list[ChatMessage]) -> None:
        place = {"sessionId": self.id, "configDir": str(self._directory), "workingDirectory": str(self._server.cwd)}
        parameters = _NO_AGENT | mended(self._settings) | place
        if history:
            self._write(history)
            await self._server.call("session.resume", parameters | {"disableResume": True})
        else:
            await self._server.call("session.create", parameters)
        self._is_open = True

    def _write(self, history: list[ChatMessage]) -> None:
        events = seed(self.id, history, str(self._server.cwd), str(self._settings.get("model", "")), self._names)
        record = "".join(json.dumps(mended(event)) + "\n" for event in events)
        state = self._directory / "session-state" / self.id
        try:
            state.mkdir(parents=True, mode=0o700)
            (state / "events.jsonl").write_text(record, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{state} cannot be written: {error.strerror}") from error

    async def hook(self, kind: str) -> dict[str, Any]:
        """Answers what the CLI asks its host. The user's text stays as it is: the CLI would trim and date it.

        A call that it cannot hand on (of no tool, with arguments that are no object) it answers itself, and would then
        ask its model again, but for this answer: it gets that when it was asked to stop.
        """
        if kind == "postToolUseFailure":
            if self._failures_given == 0:
                await self._is_leaving.wait()
            else:
                self._failures_given -= 1
        if kind == "userPromptTransformed" and self._prompt is not None:
            return {"output": {"modifiedTransformedPrompt": self._prompt}}
        return {}

    async def interrupt(self) -> None:
        """Asks the CLI to stop; its events then end with an idle that is `aborted`."""
        self.is_spent = True
        if await self._was_told():
            aborting = asyncio.create_task(self._server.call("session.abort", {"sessionId": self.id}))
            self._is_leaving.set()  # whose answer goes out behind this: it is waited for
            await aborting

    async def end(self) -> None:
        """Takes the session out of the CLI once it is at rest: else it would go on calling the model."""
        self._is_over = True
        if await self._was_told() and not self.inbox.is_idle.is_set():
            if self.inbox.is_open or self.is_parked:
                await self.interrupt()  # it is in the midst of its turn, and not in the rest behind an answer
            await self.inbox.is_idle.wait()
        self._is_leaving.set()
        if self._is_open:
            await self._server.call("session.destroy", {"sessionId": self.id})

    async def _was_told(self) -> bool:
        """Waits for the sending, which an abort must not overtake, and says whether the CLI took the message."""
        if self._saying is None:
            return False
        if self._is_giving:
            # It may wait for a call that the CLI never asks for.
            self.inbox.fail(RequestCancelledError("interrupted before the answer began"))
        await asyncio.wait([self._saying])
        return self._is_giving or (self._saying.exception() is None and self._saying.result())

    def remove(self) -> None:
        """Removes its directory."""
        self._temporary.cleanup()


def _size(message: ChatMessage) -> int:
    parts = sum(len(json.dumps(part.text)) if isinstance(part, TextPart) else len(part.data) for part in message.parts)
    return parts + sum(len(call.arguments_raw or json.dumps(call.arguments)) for call in message.tool_calls)
