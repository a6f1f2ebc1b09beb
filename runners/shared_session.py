"""A conversation in a process that many share: one session of the CLI's own as long as its turns end well.

After a turn that was cancelled, failed or cut that session holds what is no part of the conversation. It is taken out
of the process, and the next turn begins another, which is told the conversation as it was before.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from runners.errors import RequestCancelledError
from runners.event_session import TranscriptSession
from runners.inbox import Inbox
from runners.provider import LlmProvider, SessionOptions
from runners.shared_process import Hosted, HostProcess
from runners.translator import Event

P = TypeVar("P", bound=HostProcess[Any])
H = TypeVar("H", bound=Hosted)


class SharedSession(TranscriptSession, Generic[P, H]):
    """A conversation in `host`. After a cancelled or failed turn it can go on from before that turn.

    `held` is the session of the CLI's in which it goes on, `inbox` that of its turn, `options` are those of the
    conversation. A subclass says what a turn is begun with, and in which session.
    """

    def __init__(self, provider: LlmProvider, host: P) -> None:
        super().__init__(provider)
        self.host = host
        self.process = host.process
        self.options = SessionOptions()
        self.held: H | None = None
        self.inbox = Inbox()
        self._farewells: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None
        host.when_retired.add(self.cli_is_gone)

    @property
    def holds_conversation(self) -> bool:
        """See Session.holds_conversation."""
        return self.held is not None

    async def event(self) -> Event:
        """See EventSession.event."""
        return await self.inbox.get()

    async def interrupt(self) -> None:
        """See Session.interrupt."""
        if self.state == "busy" and self.held is not None:
            await self.held.interrupt()

    def settle(self, *, is_clean: bool) -> None:
        """See EventSession.settle."""
        is_well = self.held is not None and is_clean and not self.held.is_spent
        if not is_well:
            self.awaits = frozenset()
        self.state = "dead" if self.host.is_retired else "parked" if self.awaits else "idle"
        if self.held is not None and is_clean:
            self.held.rest(awaits_results=bool(self.awaits))
        if not is_well:
            self.let_go()

    def let_go(self) -> None:
        """Lets the session that it holds end, without waiting for it."""
        left, self.held = self.held, None
        if left is not None:
            self.leave_behind(self.host.farewell(left))

    def leave_behind(self, ending: Coroutine[Any, Any, None]) -> None:
        """Has something end that only `aclose` waits for."""
        task = asyncio.create_task(ending, name="farewell")
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    def cli_is_gone(self) -> None:
        """See EventSession.cli_is_gone."""
        if self.state in ("starting", "idle", "parked"):
            self.let_go()
        super().cli_is_gone()

    async def aclose(self) -> None:
        """See Session.aclose."""
        if self.state == "busy":
            self.inbox.close(RequestCancelledError("its session was closed"))
        self.state = "dead"
        self.let_go()
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        """Waits for what its turns leave behind."""
        if self._farewells:
            # Not gathered: a bug in one, which the log gets, must not keep the process alive.
            await asyncio.wait(self._farewells)
        self.host.when_retired.discard(self.cli_is_gone)
        await self.host.release()
        self.provider.sessions.discard(self)
