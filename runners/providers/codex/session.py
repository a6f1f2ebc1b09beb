"""A conversation with codex: one thread of the CLI's as long as its turns end well.

After a turn that was cancelled, failed or cut that thread holds what is no part of the conversation. It is taken out of
the process, and the next turn begins another, which is told the conversation as it was before.
"""

import asyncio
from typing import Any

from runners.errors import RequestCancelledError
from runners.event_session import TranscriptSession
from runners.messages import ChatMessage, ResponseFormat
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.codex.events import CodexTranslator
from runners.providers.codex.inbox import CodexInbox
from runners.providers.codex.items import definitions, names_of
from runners.providers.codex.server import CodexServer
from runners.providers.codex.thread import CodexThread
from runners.shared_process import SharedProcess
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines

VENDORS_DEFAULT = "default"
"""What stands for the model that the CLI takes where it is given none."""


class CodexSession(TranscriptSession):
    """A conversation in the process. After a cancelled or failed turn it can go on from before that turn."""

    def __init__(
        self, provider: LlmProvider, shared: SharedProcess[CodexServer], server: CodexServer, *, is_own_server: bool
    ) -> None:
        super().__init__(provider)
        self.server = server
        self.process = server.process
        self._shared = shared
        self._is_own_server = is_own_server
        self._options = SessionOptions()
        self._settings: dict[str, Any] = {}
        self._names = names_of(())
        self._last = CodexTranslator(provider.name, self.model)
        self._thread: CodexThread | None = None
        self._inbox = CodexInbox()
        self._farewells: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None
        server.when_retired.add(self.cli_is_gone)

    @property
    def holds_conversation(self) -> bool:
        return self._thread is not None

    async def prepare(self, options: SessionOptions) -> None:
        if self.state == "dead":
            raise self.server.reason()
        self._options = options
        self._names = names_of(options.tools)
        reasoning = {"model_reasoning_summary": "auto"}
        if options.reasoning_effort is not None:
            reasoning["model_reasoning_effort"] = options.reasoning_effort
        self._settings = {
            "model": None if self.model == VENDORS_DEFAULT else self.model,
            # In the place of its own instructions some models would be told ours twice.
            "baseInstructions": "",
            "developerInstructions": options.system,
            "dynamicTools": definitions(options.tools, self._names),
            "config": reasoning,
            "cwd": str(self.server.cwd),
        }
        self.state = "idle"

    def translator(self) -> CodexTranslator:
        self._last = CodexTranslator(
            self.provider.name,
            self.model,
            tools=self._options.tools,
            names=self._names,
            is_own_server=self._is_own_server,
        )
        return self._last

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        new = messages[len(self.transcript) :]
        self.resent = self._thread is None or not self._thread.continues(self.transcript, new, self._settings)
        if self._thread is None or self.resent:
            self._part()
            self._thread = CodexThread(self.server, self._settings, self._names)
        self._inbox = self._thread.inbox
        await deadlines.wait(self._thread.say(messages, _shape(sampling.response_format)))
        self._last.model = self._thread.model

    async def event(self) -> Event:
        return await self._inbox.get()

    async def interrupt(self) -> None:
        if self.state == "busy" and self._thread is not None:
            await self._thread.interrupt()

    def settle(self, *, is_clean: bool) -> None:
        is_well = self._thread is not None and is_clean and not self._thread.is_spent
        if not is_well:
            self.awaits = frozenset()
        self.state = "dead" if self.server.is_retired else "parked" if self.awaits else "idle"
        if self._thread is not None and is_well:
            self._thread.rest(awaits_results=bool(self.awaits))
        else:
            self._part()

    def _part(self) -> None:
        """Lets the thread end, without waiting for it."""
        thread, self._thread = self._thread, None
        if thread is not None:
            task = asyncio.create_task(self.server.farewell(thread), name="codex-farewell")
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    def cli_is_gone(self) -> None:
        if self.state in ("starting", "idle", "parked"):
            self._part()
        super().cli_is_gone()

    async def aclose(self) -> None:
        if self.state == "busy":
            self._inbox.close(RequestCancelledError("its session was closed"))
        self.state = "dead"
        self._part()
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="codex-leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        """Waits for what its turns leave behind."""
        await asyncio.gather(*self._farewells)
        self.server.when_retired.discard(self.cli_is_gone)
        await self._shared.release(self.server)
        self.provider.sessions.discard(self)


def _shape(response_format: ResponseFormat | None) -> dict[str, Any]:
    """The parameters of a turn whose answer is to be shaped."""
    if response_format is None or response_format.type != "json_schema":
        return {}
    return {"outputSchema": (response_format.wrapped or {}).get("schema")}
