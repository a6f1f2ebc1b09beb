"""How much memory the CLI processes take together, and which of them go when it is more than they may.

Looked at after something has happened, and while chats run; an idle daemon looks at nothing.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import psutil
import structlog

from daemon.worker import Worker, WorkerState

_SETTLED_S = 2.0
"""So long after something has happened it is looked at: a CLI that has just been started has not its size yet."""
_LOOKS_EVERY_S = 5.0

_log = structlog.get_logger()


class Holder(Protocol):
    """Who has workers of one runner, and can close them."""

    name: str
    workers: list[Worker]

    def close(self, worker: Worker) -> "asyncio.Task[None]":
        """Begins to close one that is not in use."""
        ...


@dataclass(slots=True)
class Process:
    """A CLI process with the workers that it serves, each with its holder."""

    pid: int
    size_bytes: int
    workers: list[tuple[Holder, Worker]] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it now."""
        return all(worker.state in ("idle", "parked") for _, worker in self.workers)

    @property
    def used_s(self) -> float:
        """When it was last used."""
        return max(worker.used_s for _, worker in self.workers)


def to_go(processes: Iterable[Process], excess_bytes: float) -> list[Process]:
    """Those that must go for `excess_bytes` to be saved: idle ones, and of these those that rest the longest."""
    going: list[Process] = []
    for process in sorted((process for process in processes if process.is_idle), key=lambda process: process.used_s):
        if excess_bytes <= 0:
            break
        going.append(process)
        excess_bytes -= process.size_bytes
    return going


class Memory:
    """Holds all CLI processes together below `limit_bytes`, which may be changed. `holders` are all who have workers.

    A process that has not been looked at yet counts as much as the largest one of its runner.
    """

    def __init__(self, limit_bytes: float = math.inf) -> None:
        self.limit_bytes = limit_bytes
        self.holders: list[Holder] = []
        self._sizes: dict[int, int] = {}
        self._largest: dict[str, int] = {}
        self._happened = asyncio.Event()
        self._freed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look after the processes."""
        self._watching = asyncio.create_task(self._watch(), name="memory")

    async def aclose(self) -> None:
        """Ends that."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    def happened(self) -> None:
        """A process was started or closed, or has done something."""
        self._happened.set()
        self._freed.set()

    def has_room(self, name: str) -> bool:
        """Whether one more process of a runner fits, as far as is known."""
        return self._excess_bytes(name) <= 0

    async def room(self, name: str) -> None:
        """Returns when one more process of a runner fits, for which idle ones must go, and else some chat must end.

        Where nobody else runs there is nobody to wait for: then it is more than there may be.
        """
        while (excess_bytes := self._excess_bytes(name)) > 0:
            self._freed.clear()
            closing = self._let_go(excess_bytes)
            if closing:
                await asyncio.wait(closing)
            elif self._is_at_work("starting", "busy", "draining"):
                await self._freed.wait()
            else:
                _log.warning("memory.exceeded", runner=name, limit_bytes=self.limit_bytes)
                return

    def _is_at_work(self, *states: WorkerState) -> bool:
        return any(worker.state in states for holder in self.holders for worker in holder.workers)

    def _let_go(self, excess_bytes: float) -> "list[asyncio.Task[None]]":
        going = to_go(self._processes().values(), excess_bytes)
        if going:
            _log.info("memory.evicts", processes=len(going), limit_bytes=self.limit_bytes)
        return [holder.close(worker) for process in going for holder, worker in process.workers]

    def _excess_bytes(self, name: str | None = None) -> float:
        used_bytes = sum(process.size_bytes for process in self._processes().values())
        starting = [holder.name for holder in self.holders for worker in holder.workers if worker.session is None]
        to_come = [*starting, *([name] if name else [])]
        return used_bytes + sum(self._largest.get(name, 0) for name in to_come) - self.limit_bytes

    def _processes(self) -> dict[int, Process]:
        processes: dict[int, Process] = {}
        for holder, worker, pid in self._served():
            size_bytes = self._sizes.get(pid, self._largest.get(holder.name, 0))
            processes.setdefault(pid, Process(pid, size_bytes)).workers.append((holder, worker))
        return processes

    def _served(self) -> Iterator[tuple[Holder, Worker, int]]:
        for holder in self.holders:
            for worker in holder.workers:
                if worker.session is not None and worker.session.process is not None:
                    yield holder, worker, worker.session.process.pid

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOKS_EVERY_S if self._is_at_work("busy") else None):
                    await self._happened.wait()
            await asyncio.sleep(_SETTLED_S)
            self._happened.clear()
            # Without a descriptor or a thread to look with, what was seen before holds until the next time.
            with suppress(OSError, RuntimeError):
                await self._look()
            self._let_go(self._excess_bytes())

    async def _look(self) -> None:
        names = {pid: holder.name for holder, _, pid in self._served()}
        self._sizes = await asyncio.to_thread(lambda: {pid: size_bytes(pid) for pid in names})
        for pid, size in self._sizes.items():
            self._largest[names[pid]] = max(size, self._largest.get(names[pid], 0))


def size_bytes(pid: int) -> int:
    """What a process takes, its share of what it shares with others; 0 when it is gone. Slow: milliseconds.

    Where the system does not tell the share, all that it has in memory.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        with suppress(psutil.AccessDenied):
            info = process.memory_full_info()
            return int(getattr(info, "pss", info.rss))
        return int(process.memory_info().rss)
    return 0
