"""The deadlines of one turn: every wait for a CLI goes through here, so that nothing hangs.

`spawn_s` is a plain time limit (`within`); the other three run together while a turn does (`TurnDeadlines`).
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from runners.errors import DeadlineExceededError
from runners.settings import Timeouts

T = TypeVar("T")


async def within(awaitable: Awaitable[T], limit_s: float, *, deadline: str, doing: str) -> T:
    """Waits at most `limit_s` seconds, else raises DeadlineExceededError that says what we were `doing`."""
    try:
        async with asyncio.timeout(limit_s):
            return await awaitable
    except TimeoutError:
        message = f"no end after {limit_s:g} s ({deadline}): {doing}"
        raise DeadlineExceededError(message, deadline=deadline, limit_s=limit_s) from None


class TurnDeadlines:
    """`first_chunk_s`, `silence_s` and `turn_s` of a turn that begins now.

    The time between two waits is the client's, and counts in `turn_s` alone.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._content_seen = False

    def content_seen(self) -> None:
        """The first content has come: `first_chunk_s` no longer runs."""
        self._content_seen = True

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """The CLI's next event, or DeadlineExceededError naming the deadline that came first."""
        limits = self._timeouts
        ends = {
            "turn_s": (self._began + limits.turn_s, limits.turn_s, "the turn has not ended"),
            "silence_s": (self._clock() + limits.silence_s, limits.silence_s, "the CLI fell silent"),
        }
        if not self._content_seen:
            first = (self._began + limits.first_chunk_s, limits.first_chunk_s, "no content has come")
            ends["first_chunk_s"] = first
        deadline, (when, limit_s, what) = min(ends.items(), key=lambda item: item[1][0])
        try:
            async with asyncio.timeout_at(when):
                return await awaitable
        except TimeoutError:
            message = f"{what} within {limit_s:g} s ({deadline})"
            raise DeadlineExceededError(message, deadline=deadline, limit_s=limit_s) from None
