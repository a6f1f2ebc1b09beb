"""The way to a runner: its breaker, which may refuse a chat, and its limit of chats at a time, at which one waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from daemon.breaker import Admission, Breaker
from daemon.limiter import Limiter, Ticket
from runners.errors import QueueFullError
from runners.provider import LlmProvider
from runners.wire.deadlines import Watch, within

_STALLED_S = 2.0


class ClientReads:
    """The context in which a client takes a chunk. `stalled` is called when it takes too long, then `resumed`."""

    def __init__(self, stalled: Callable[[], None], resumed: Callable[[], None]) -> None:
        self._resumed = resumed
        self._clock = asyncio.get_running_loop().time
        self._stalls_at: float | None = None
        self._watch = Watch(lambda: self._stalls_at, stalled)

    def __enter__(self) -> None:
        self._stalls_at = self._clock() + _STALLED_S
        self._watch.begin()

    def __exit__(self, *_exc: object) -> None:
        self._stalls_at = None
        self._resumed()

    def close(self) -> None:
        """No more chunks come."""
        self._watch.close()


class Place:
    """A chat's place in a runner: how it went is for `admission`.

    A chunk goes to the client inside `client_reads`: one that takes it too slowly keeps no other client waiting.
    """

    def __init__(self, limiter: Limiter, ticket: Ticket, admission: Admission) -> None:
        self._limiter = limiter
        self._ticket = ticket
        self.admission = admission
        self.client_reads = ClientReads(self._stall, lambda: limiter.resume(ticket))

    def _stall(self) -> None:
        self._limiter.pause(self._ticket)
        self.admission.stalled()


class Gate:
    """One for each provider, as long as that is in use. `when_empty` is called each time that the last chat leaves.

    The `limiter` counts the chats of the one that this provider replaces as well.
    """

    def __init__(self, runner: LlmProvider, limiter: Limiter, clock: Callable[[], float]) -> None:
        self.runner = runner
        self.limiter = limiter
        self.breaker = Breaker(runner.settings.breaker, clock)
        self.when_empty: Callable[[], None] = lambda: None
        self._chats = 0

    @property
    def is_empty(self) -> bool:
        """Whether no chat is inside or waits."""
        return self._chats == 0

    @asynccontextmanager
    async def place(self, client: str, *, limit_s: float) -> AsyncIterator[Place]:
        """A place, after a wait of at most `limit_s` that is fair between clients.

        Raises the breaker's refusal, QueueFullError, or DeadlineExceededError for a wait that took too long. A chat of
        which nothing was told when it leaves was abandoned.
        """
        if (refusal := self.breaker.refusal()) is not None:
            raise refusal
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def admitted() -> None:
            if not turn.done():
                turn.set_result(None)

        def dropped(error: QueueFullError) -> None:
            if not turn.done():
                turn.set_exception(error)

        ticket = self.limiter.enter(client, admitted, dropped)
        self._chats += 1
        try:
            if not ticket.is_running:
                await within(turn, limit_s, deadline="turn_s", doing="waiting behind other chats")
            # What others met while this one waited is known by now.
            admission = self.breaker.admit()
            place = Place(self.limiter, ticket, admission)
            try:
                yield place
            finally:
                place.client_reads.close()
                admission.abandoned()
        finally:
            self.limiter.leave(ticket)
            self._chats -= 1
            if self.is_empty:
                self.when_empty()
