"""The events of a session between the process that tells them and the client that reads them."""

import asyncio
from collections import deque

from runners.errors import RunnerError
from runners.translator import Event

JOINED_CHARACTERS = 4096
"""Longer texts are not joined any more: that again and again would cost more than keeping them apart."""


class Inbox:
    """The events of the turn that is under way, from `begin` to `end`, until its client reads them.

    Other sessions share the process, so nobody can tell it to wait: deltas that pile up are joined, as far as a
    subclass says how, and what is held is no more than the answer itself.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self.is_open = False
        """A turn is under way."""
        self._error: RunnerError | None = None
        self._changed = asyncio.Event()

    def begin(self) -> None:
        """A turn begins now: what was told before is none of its events."""
        self._events.clear()
        self.is_open = True

    def end(self) -> None:
        """The turn has ended: what is unread of it, and what may still come, is forgotten."""
        self._events.clear()
        self.is_open = False

    def put(self, event: Event) -> None:
        """Takes the next event."""
        if self._error is not None or not self.is_open:
            return
        if not (self._events and self.joined(self._events[-1], event)):
            self._events.append(event)
        self._changed.set()

    def joined(self, last: Event, event: Event) -> bool:  # noqa: ARG002 its overriders need it
        """Whether `event` is a delta that went into the one before it, `last`, which nobody has read yet."""
        return False

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
            await self.change()
        return self._events.popleft()

    async def change(self) -> None:
        """Waits until something has come in; raises the error behind which nothing will."""
        if self._error is not None:
            raise self._error
        self._changed.clear()
        await self._changed.wait()
