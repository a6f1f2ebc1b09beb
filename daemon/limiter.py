"""How many requests of one runner run at once and how many wait, fair between clients.

Pure: it counts tickets and says whose turn it is, and knows nothing of what they stand for.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from runners.errors import QueueFullError

_REMEMBERED_CLIENTS = 1000
"""Whose last turn is known. Clients come and go for as long as the daemon lives."""


@dataclass(eq=False)
class Ticket:
    """One client's request, from `enter` until `leave`: it waits until `is_running`."""

    client: str
    _admitted: Callable[[], None]
    _dropped: Callable[[QueueFullError], None]
    is_running: bool = False


class Limiter:
    """At most `max_running` tickets run and `max_queued` wait; `max_queued` = 0 means that nobody waits.

    A free place goes to the waiting client with the fewest running tickets; of those with equally few to the one
    that was served longest ago, and within a client to the ticket that came first. A client that was never served
    counts as served `max_running` turns before it came: ahead of those who had theirs just now, and yet no endless
    row of new clients keeps one waiting for ever.

    Callbacks are called when everything is settled, one after another, and may call every method.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._running: Counter[str] = Counter()
        # By client; a dict serves as a queue that anybody may leave. A client with nothing waiting has no entry.
        self._waiting: dict[str, dict[Ticket, None]] = {}
        self._turns = 0
        self._last_turn: dict[str, int] = {}
        self._news: dict[Ticket, Callable[[], None]] = {}
        self._is_telling = False

    @property
    def running(self) -> int:
        """How many tickets run."""
        return self._running.total()

    @property
    def queued(self) -> int:
        """How many tickets wait."""
        return sum(map(len, self._waiting.values()))

    def enter(self, client: str, admitted: Callable[[], None], dropped: Callable[[QueueFullError], None]) -> Ticket:
        """A ticket that runs at once, or waits: then `admitted` is called when it runs, `dropped` when it never will.

        At most one of them is called, once, and none after `leave`. Another client's ticket may be dropped for this
        one; raises QueueFullError when nobody has at least two more waiting than this client.
        """
        ticket = Ticket(client, admitted, dropped)
        if self.running < self._max_running:  # and so nobody waits
            self._run(ticket)
            return ticket
        if self.queued >= self._max_queued:
            self._drop_for(client)
        self._waiting.setdefault(client, {})[ticket] = None
        if client not in self._last_turn:
            self._remember(client, self._turns - self._max_running)
        self._tell()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Ends a ticket, running or waiting, and admits who is next. Idempotent; a dropped one need not leave."""
        self._news.pop(ticket, None)
        if ticket.is_running:
            ticket.is_running = False
            self._running[ticket.client] -= 1
            self._running += Counter()  # clients without a running ticket are forgotten
            self._admit()
        elif ticket in self._waiting.get(ticket.client, {}):
            self._stop_waiting(ticket)

    def resize(self, max_running: int, max_queued: int) -> None:
        """Sets new limits. More room is filled at once; less drops nobody that runs or waits."""
        self._max_running = max_running
        self._max_queued = max_queued
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.running < self._max_running:
            # Of equals, min takes the client that has been waiting longest.
            client = min(self._waiting, key=lambda client: (self._running[client], self._last_turn.get(client, 0)))
            ticket = next(iter(self._waiting[client]))
            self._stop_waiting(ticket)
            self._run(ticket)
            self._news[ticket] = ticket._admitted
        self._tell()

    def _run(self, ticket: Ticket) -> None:
        ticket.is_running = True
        self._running[ticket.client] += 1
        self._turns += 1
        self._remember(ticket.client, self._turns)

    def _stop_waiting(self, ticket: Ticket) -> None:
        waiting = self._waiting[ticket.client]
        del waiting[ticket]
        if not waiting:
            del self._waiting[ticket.client]

    def _remember(self, client: str, turn: int) -> None:
        self._last_turn.pop(client, None)
        self._last_turn[client] = turn
        if len(self._last_turn) > _REMEMBERED_CLIENTS:
            # Who was served longest ago; unknown, it counts as just that while it waits.
            del self._last_turn[next(iter(self._last_turn))]

    def _drop_for(self, client: str) -> None:
        full = f"{self.running} requests run and {self.queued} wait"
        greediest = max(self._waiting, key=lambda other: len(self._waiting[other]), default=client)
        if len(self._waiting.get(greediest, {})) < len(self._waiting.get(client, {})) + 2:
            raise QueueFullError(f"{full}: no more may")
        ticket = next(reversed(self._waiting[greediest]))
        self._stop_waiting(ticket)
        error = QueueFullError(f"{full}: the newest of the client with most of them made room for another client")
        self._news[ticket] = partial(ticket._dropped, error)

    def _tell(self) -> None:
        """Calls the callbacks that are due. What they cause is due after them, so that no depth of calls builds up."""
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while self._news:
                self._news.pop(next(iter(self._news)))()
        finally:
            self._is_telling = False
            if self._news:
                self._tell()  # a callback that raised keeps nobody else waiting
