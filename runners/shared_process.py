"""A CLI process that many sessions share: when it starts, and when it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from runners.errors import DeadlineExceededError, ProcessExitedError, ProtocolError
from runners.wire.restarts import Restarts


class Shareable(Protocol):
    """A process as its sharing sees it. `users` is how many hold it, and is counted here."""

    users: int
    is_retired: bool
    """Nobody new may use it: it ends, has ended, or is deaf."""
    has_died: bool
    """It has ended by itself."""

    def close(self) -> "asyncio.Future[None]":
        """Begins to end it; idempotent."""
        ...


P = TypeVar("P", bound=Shareable)


class SharedProcess(Generic[P]):
    """One process for all sessions of a provider: started by `start` for the first that needs one, ended with the last.

    One that has died soon after its start, or did not start, is started again after a wait, see Restarts.
    """

    def __init__(self, start: Callable[[], Awaitable[P]]) -> None:
        self._start = start
        self._starting = asyncio.Lock()
        self._process: P | None = None
        self._restarts = Restarts()
        self._has_failed = False

    async def acquire(self) -> P:
        """The process, a new one when there is none that lives; `release` is due."""
        async with self._starting:
            if self._process is None or self._process.is_retired:
                has_died = self._has_failed or (self._process is not None and self._process.has_died)
                await asyncio.sleep(self._restarts.wait_s(has_died=has_died))
                try:
                    self._process = await self._start()
                except (ProcessExitedError, DeadlineExceededError, ProtocolError):
                    self._has_failed = True
                    raise
                self._has_failed = False
            self._process.users += 1
            return self._process

    async def release(self, process: P) -> None:
        """Gives back what `acquire` gave."""
        process.users -= 1
        if process.users == 0:
            await process.close()
