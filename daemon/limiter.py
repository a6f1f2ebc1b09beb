"""How many chats of one runner run at once and how many wait, fair between clients.

Pure: it counts tickets and says whose turn it is, and knows nothing of what they stand for.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from runners.errors import QueueFullError


@dataclass(eq=False, slots=True)
class Ticket:
    """One client's chat, from `enter` until `leave`: it waits until `is_running`."""

    client: str
    admitted: Callable[[], None]
    dropped: Callable[[QueueFullError], None]
    is_running: bool = False
    is_paused: bool = False


class Limiter:
    """At most `max_running` tickets run and `max_queued` wait; `max_queued` = 0 means that nobody waits.

    A free place goes to the waiting client with the fewest running tickets, clients that have equally few take turns,
    and within a client the first to come is the first to go. A paused ticket leaves its place to another client, and to
    none of its own: who stops can stop nobody else.
    """

    def __init__(self, max_running: int, max_queued: int) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._running: Counter[str] = Counter()
        self._paused = 0
        # In the order of their turns. A client with nothing waiting has no entry.
        self._waiting: dict[str, deque[Ticket]] = {}

    @property
    def running(self) -> int:
        """How many tickets run, those that pause included."""
        return self._running.total()

    @property
    def queued(self) -> int:
        """How many tickets wait."""
        return sum(map(len, self._waiting.values()))

    def enter(self, client: str, admitted: Callable[[], None], dropped: Callable[[QueueFullError], None]) -> Ticket:
        """A ticket that runs at once, or waits: then `admitted` is called when it runs, `dropped` when it never will.

        At most one of them is called, once, and none after `leave`. Another client's newest ticket is dropped for this
        one when that has at least two more waiting; else QueueFullError is raised.
        """
        ticket = Ticket(client, admitted, dropped)
        if self._has_room(client):  # and so nobody waits who could have it
            self._run(ticket)
            return ticket
        loser = self._who_makes_room(client) if self.queued >= self._max_queued else None
        self._waiting.setdefault(client, deque()).append(ticket)
        if loser is not None:
            full = f"{self.running} chats run and {self._max_queued} wait"
            loser.dropped(QueueFullError(f"{full}: the newest of who has most of them made room for another client"))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Ends a ticket, running or waiting, and admits who is next. Idempotent; a dropped one need not leave."""
        if ticket.is_running:
            self._paused -= ticket.is_paused
            ticket.is_running = ticket.is_paused = False
            self._running[ticket.client] -= 1
            self._running += Counter()  # clients without a running ticket are forgotten
            self._admit()
        elif ticket in self._waiting.get(ticket.client, ()):
            self._stop_waiting(ticket)

    def resize(self, max_running: int, max_queued: int) -> None:
        """Sets new limits. More room is filled at once; less drops nobody that runs or waits."""
        self._max_running = max_running
        self._max_queued = max_queued
        self._admit()

    def pause(self, ticket: Ticket) -> None:
        """The ticket waits for its own client: until it resumes, or leaves, another client's may run as well."""
        if ticket.is_running and not ticket.is_paused:
            ticket.is_paused = True
            self._paused += 1
            self._admit()

    def resume(self, ticket: Ticket) -> None:
        """The ticket goes on, also where more run by now than may."""
        if ticket.is_paused:
            ticket.is_paused = False
            self._paused -= 1

    def _has_room(self, client: str) -> bool:
        return self.running - self._paused < self._max_running and self._running[client] < self._max_running

    def _admit(self) -> None:
        while waiting := [client for client in self._waiting if self._has_room(client)]:
            client = min(waiting, key=lambda client: self._running[client])  # of equals the first
            ticket = self._waiting[client][0]
            self._stop_waiting(ticket)
            if client in self._waiting:
                self._waiting[client] = self._waiting.pop(client)
            self._run(ticket)
            ticket.admitted()

    def _run(self, ticket: Ticket) -> None:
        ticket.is_running = True
        self._running[ticket.client] += 1

    def _stop_waiting(self, ticket: Ticket) -> None:
        waiting = self._waiting[ticket.client]
        waiting.remove(ticket)
        if not waiting:
            del self._waiting[ticket.client]

    def _who_makes_room(self, client: str) -> Ticket:
        greediest = max(self._waiting, key=lambda other: len(self._waiting[other]), default=client)
        if len(self._waiting.get(greediest, ())) < len(self._waiting.get(client, ())) + 2:
            raise QueueFullError(f"{self.running} chats run and {self.queued} wait: no more may")
        ticket = self._waiting[greediest][-1]
        self._stop_waiting(ticket)
        return ticket
