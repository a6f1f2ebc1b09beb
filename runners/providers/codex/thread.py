"""A thread of the CLI's: the conversation as codex's process has it, in its memory alone.

It lives on from turn to turn as long as each of them ends well. A turn that was interrupted leaves a message of the
CLI's own in it, and one that failed its question: whoever has another conversation begins another thread. Facts are
from 0.169.0 and 0.171.0, where a new one takes 3 to 8 ms.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runners.errors import ProtocolError
from runners.messages import ChatMessage
from runners.providers.codex.inbox import CodexInbox
from runners.providers.codex.items import input_of, items, result_of
from runners.stream import mended
from runners.tools import ToolNames

if TYPE_CHECKING:
    from runners.providers.codex.server import CodexServer

_NO_AGENT = {
    "approvalPolicy": "never",
    "environments": [],
    "ephemeral": True,
    "experimentalRawEvents": True,  # what a model wrote as the arguments of a call is told nowhere else
    "sandbox": "read-only",
}


class CodexThread:
    """One thread in the process, from its first turn to its end.

    `settings` are its parameters, `names` what its model calls the client's tools.
    """

    def __init__(self, server: "CodexServer", settings: dict[str, Any], names: ToolNames) -> None:
        self.inbox = CodexInbox()
        self.is_spent = False
        """It was asked to stop: no other turn may follow."""
        self.is_parked = False
        """It waits for the results of the tools that its model has called."""
        self.model = str(settings["model"])
        """Which one answers: the CLI says it where it chooses."""
        self._server = server
        self._settings = settings
        self._names = names
        self._id = self._turn = ""
        self._told = 0
        self._saying: asyncio.Task[bool] | None = None
        self._is_over = False
        self._results: dict[str, asyncio.Future[dict[str, Any]]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether the CLI is in a turn, or on its way into one."""
        return (self._saying is not None and not self._saying.done()) or not self.inbox.is_idle.is_set()

    def continues(self, before: Sequence[ChatMessage], new: Sequence[ChatMessage], settings: dict[str, Any]) -> bool:
        """Whether `new` can be said here: the thread holds exactly `before`. For one whose turns have all ended well.

        One that is parked takes the results that it waits for, and goes on with the turn that it is in.
        """
        is_fit = all((message.role == "tool") == self.is_parked for message in new)
        if not is_fit or (self.is_parked and not self._waits_for(new)):
            return False
        # One answer may not have reached the conversation all the same.
        return not self.is_spent and len(before) == self._told + 1 and settings == self._settings

    def _waits_for(self, results: Sequence[ChatMessage]) -> bool:
        """Whether the CLI is still in the turn that asks for these."""
        asked = [self._results.get(str(result.tool_call_id)) for result in results]
        return not self.inbox.is_idle.is_set() and not any(future is not None and future.done() for future in asked)

    def rest(self, *, awaits_results: bool) -> None:
        """Its turn has ended well, or waits for results."""
        self.inbox.end()
        self.is_parked = awaits_results

    async def say(self, conversation: list[ChatMessage], turn: dict[str, Any]) -> None:
        """Lets the model answer a whole conversation, of which the CLI is told what it does not hold.

        `turn` are parameters for this one answer.
        """
        self._saying = asyncio.create_task(self._say(conversation, turn), name="codex-say")
        # A turn that was given up may have nobody who waits for it: then its failure is no bug.
        self._saying.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._saying)

    async def _say(self, conversation: list[ChatMessage], turn: dict[str, Any]) -> bool:
        """Whether the CLI was let answer: not when the thread was over before that."""
        untold = conversation[self._told :]
        self._told = len(conversation)
        if self.is_parked:
            self.is_parked = False
            self.inbox.begin()
            for message in untold:
                if message.role == "tool":
                    self._result(str(message.tool_call_id)).set_result(mended(result_of(message)))
            return True
        if not self._id:
            started = await self._server.call("thread/start", mended(_NO_AGENT | self._settings))
            self._id, self.model = started["thread"]["id"], started["model"]
            self._server.sessions[self._id] = self
        else:
            untold = [message for message in untold if message.role != "assistant"]
        turn = {"threadId": self._id, "input": input_of(untold[-1])} | turn
        past = [mended(item) for item in items(untold[:-1] if turn["input"] else untold, self._names)]
        if past:
            await self._server.call("thread/inject_items", {"threadId": self._id, "items": past})
        if self._is_over:
            return False  # nobody waits for the answer any more, and the call of the model would be paid for
        self.inbox.begin()
        begun = await self._server.call("turn/start", mended(turn))
        self._turn = begun["turn"]["id"]
        return True

    def _result(self, call_id: str) -> "asyncio.Future[dict[str, Any]]":
        """Where the result of a call will be: the CLI may ask for it before or after it is there."""
        if call_id not in self._results:
            self._results[call_id] = asyncio.get_running_loop().create_future()
        return self._results[call_id]

    async def result_of(self, call_id: str) -> dict[str, Any]:
        """What the CLI asks for: the result of a call, once the client has brought it. Cancelled when it will not."""
        return await self._result(call_id)

    async def interrupt(self) -> None:
        """Asks the CLI to stop; its turn then ends as interrupted."""
        self.is_spent = True
        if await self._was_let() and not self.inbox.is_idle.is_set():
            try:
                await self._server.call("turn/interrupt", {"threadId": self._id, "turnId": self._turn})
            except ProtocolError:
                if not self.inbox.is_idle.is_set():
                    raise  # else it has ended by itself in the meantime

    async def end(self) -> None:
        """Takes the thread out of the process, and stops what it does before: it would go on calling the model."""
        self._is_over = True
        await self.interrupt()
        if self._saying is not None and self._saying.exception() is None:
            await self.inbox.is_idle.wait()
        self._server.sessions.pop(self._id, None)  # from now on no call of it is taken
        for result in self._results.values():
            result.cancel()
        if self._id:
            await self._server.call("thread/unsubscribe", {"threadId": self._id})

    async def _was_let(self) -> bool:
        """Waits for the sending, which an interruption must not overtake, and says whether the CLI took the turn."""
        if self._saying is None:
            return False
        await asyncio.wait([self._saying])
        return self._saying.exception() is None and self._saying.result()
