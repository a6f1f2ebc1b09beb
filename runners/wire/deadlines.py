"""The deadlines of one turn: every wait for a CLI goes through here, so that nothing hangs.

`spawn_s` is a plain time limit (`within`); the other three run together while a turn does (`TurnDeadlines`).
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from runners.errors import DeadlineExceededError
from runners.settings import Timeouts

T = TypeVar("T")
_TURN = "the turn has not ended"


async def within(awaitable: Awaitable[T], limit_s: float, *, deadline: str, doing: str) -> T:
    """Waits at most `limit_s` seconds, else raises DeadlineExceededError that says what we were `doing`."""
    ends = asyncio.get_running_loop().time() + limit_s
    return await _until(ends, awaitable, deadline, limit_s, f"{doing} did not end")


class TurnDeadlines:
    """`first_chunk_s`, `silence_s` and `turn_s` of a turn that begins now.

    The time between two waits is the client's, and counts in `turn_s` alone.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self.turn_ends = self._began + timeouts.turn_s
        self._content_seen = False

    def content_seen(self) -> None:
        """The first content has come: `first_chunk_s` no longer runs."""
        self._content_seen = True

    def check(self) -> None:
        """Raises DeadlineExceededError when the turn's time is over, whatever has come meanwhile."""
        if self._clock() >= self.turn_ends:
            raise _exceeded("turn_s", self._timeouts.turn_s, _TURN)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """The CLI's next event, or DeadlineExceededError naming the deadline that came first."""
        limits = self._timeouts
        waits = [
            (self.turn_ends, "turn_s", limits.turn_s, _TURN),
            (self._clock() + limits.silence_s, "silence_s", limits.silence_s, "the CLI fell silent"),
        ]
        if not self._content_seen:
            first_chunk_s = limits.first_chunk_s
            waits.append((self._began + first_chunk_s, "first_chunk_s", first_chunk_s, "no content has come"))
        ends, deadline, limit_s, what = min(waits)
        return await _until(ends, awaitable, deadline, limit_s, what)


async def _until(ends: float, awaitable: Awaitable[T], deadline: str, limit_s: float, what: str) -> T:
    try:
        async with asyncio.timeout_at(ends) as scope:
            return await awaitable
    except TimeoutError:
        if not scope.expired():
            raise
        raise _exceeded(deadline, limit_s, what) from None


def _exceeded(deadline: str, limit_s: float, what: str) -> DeadlineExceededError:
    told_s = round(limit_s, 2)
    return DeadlineExceededError(f"{what} within {told_s:g} s ({deadline})", deadline=deadline, limit_s=limit_s)
