"""The deadlines of one turn: every wait for a CLI goes through here, so that nothing hangs.

`spawn_s` is a plain time limit (`within`); the other three run together while a turn does (`TurnDeadlines`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from runners.errors import DeadlineExceededError
from runners.settings import Timeouts

T = TypeVar("T")
_TURN = "the turn has not ended"


async def within(awaitable: Awaitable[T], limit_s: float, *, deadline: str, doing: str) -> T:
    """Waits at most `limit_s` seconds, else raises DeadlineExceededError that says what we were `doing`."""
    try:
        async with asyncio.timeout(limit_s) as scope:
            return await awaitable
    except TimeoutError:
        if not scope.expired():
            raise
        raise _exceeded(deadline, limit_s, f"{doing} did not end") from None


class Watch:
    """One timer for many waits in a row, most of which end at once: none of these sets or cancels one of its own.

    `ends` tells when the wait that is under way is over, on the loop's clock, and None when there is none; `over` is
    called when one has not ended by then. A wait must not be over earlier than one that began before it.
    """

    def __init__(self, ends: Callable[[], float | None], over: Callable[[], None]) -> None:
        self._ends = ends
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A wait has begun."""
        # Else the timer of an earlier one stands, and looks at this one when it goes off.
        if self._timer is None:
            self._look()

    def close(self) -> None:
        """No other wait begins."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        ends = self._ends()
        self._timer = None if ends is None else self._loop.call_at(ends, self._gone_off)

    def _gone_off(self) -> None:
        ends = self._ends()
        if ends is None or self._loop.time() < ends:
            self._look()
        else:
            self._timer = None
            self._over()


class TurnDeadlines:
    """`first_chunk_s`, `silence_s` and `turn_s` of a turn that begins now, which waits in one task at a time.

    The time between two waits is the client's, and counts in `turn_s` alone.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._began = self._clock()
        self.turn_ends = self._began + timeouts.turn_s
        self.is_content_seen = False
        """Set when the first content has come: `first_chunk_s` no longer runs."""

        self._watch = Watch(lambda: self._first()[0] if self._waiting else None, self._interrupt)
        self._waiting: asyncio.Task[Any] | None = None
        self._waits_since = 0.0
        self._met: DeadlineExceededError | None = None

    def check(self) -> None:
        """Raises DeadlineExceededError when the turn's time is over, whatever has come meanwhile."""
        if self._clock() >= self.turn_ends:
            raise _exceeded("turn_s", self._timeouts.turn_s, _TURN)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """The CLI's next event, or DeadlineExceededError naming the deadline that came first."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        cancels = task.cancelling()
        self._waiting, self._waits_since = task, self._clock()
        self._watch.begin()
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Another's cancel beside ours stays one.
            if self._met is None or task.cancelling() > cancels + 1:
                raise
            raise self._met from None
        finally:
            self._waiting = None
            if self._met is not None:
                self._met = None
                task.uncancel()

    def close(self) -> None:
        """The turn has ended."""
        self._watch.close()

    def _first(self) -> tuple[float, str, float, str]:
        """The deadline that comes first in the wait that is under way."""
        limits = self._timeouts
        deadlines = [
            (self.turn_ends, "turn_s", limits.turn_s, _TURN),
            (self._waits_since + limits.silence_s, "silence_s", limits.silence_s, "the CLI told nothing more"),
        ]
        if not self.is_content_seen:
            first_chunk_s = limits.first_chunk_s
            deadlines.append((self._began + first_chunk_s, "first_chunk_s", first_chunk_s, "no content has come"))
        return min(deadlines)

    def _interrupt(self) -> None:
        assert self._waiting is not None
        _, deadline, limit_s, what = self._first()
        self._met = _exceeded(deadline, limit_s, what)
        self._waiting.cancel()


def _exceeded(deadline: str, limit_s: float, what: str) -> DeadlineExceededError:
    told_s = round(limit_s, 2)
    return DeadlineExceededError(f"{what} within {told_s:g} s ({deadline})", deadline=deadline, limit_s=limit_s)
