"""How much memory the CLI processes take together, and which of them go when it is more than they may.

Looked at after something has happened, and while chats run; an idle daemon looks at nothing.
"""

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import psutil
import structlog

from daemon.worker import Worker, WorkerState
from runners.errors import QueueFullError

_SETTLED_S = 2.0
"""So long after something has happened it is looked at: a CLI that has just been started has not its size yet."""
_LOOKS_EVERY_S = 5.0
_WAITS_S = 30.0
"""How long a new chat waits for others to end, which may never be: their clients may not read."""
_UNSEEN_BYTES = 100_000_000
"""What a CLI takes of a runner of which none was looked at yet."""

_log = structlog.get_logger()


class Holder(Protocol):
    """Who has workers of one runner, and can close them."""

    name: str
    workers: list[Worker]
    counts_children: bool
    """Whether what its CLIs start counts as theirs."""

    @property
    def starting(self) -> int:
        """How many processes are on their way."""
        ...

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
    def is_leaving(self) -> bool:
        """Whether it ends by now."""
        return all(worker.state == "draining" for _, worker in self.workers)

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

    A process that has not been looked at yet counts as much as the largest one of its runner that was seen last.
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

        Raises QueueFullError when that takes more than 30 s. Where nobody else runs there is nobody to wait for: then
        it is more than there may be.
        """
        try:
            async with asyncio.timeout(_WAITS_S):
                await self._room(name)
        except TimeoutError:
            full = f"the CLIs that run take all of max_cli_memory ({_megabytes(self.limit_bytes)} MB)"
            hint = "wait for their chats to end, or raise daemon.max_cli_memory"
            raise QueueFullError(full, runner=name, hint=hint) from None

    async def _room(self, name: str) -> None:
        while (excess_bytes := self._excess_bytes(name)) > 0:
            self._freed.clear()
            closing = self._let_go(excess_bytes)
            if closing:
                await asyncio.wait(closing)
            elif self._is_at_work("starting", "busy", "draining"):
                _log.info("memory.short", runner=name, limit_bytes=self.limit_bytes)
                await self._freed.wait()
            else:
                _log.warning("memory.exceeded", runner=name, limit_bytes=self.limit_bytes)
                return

    def _is_at_work(self, *states: WorkerState) -> bool:
        return any(worker.state in states for holder in self.holders for worker in holder.workers)

    def _let_go(self, excess_bytes: float) -> "list[asyncio.Task[None]]":
        processes = self._processes().values()
        leaving_bytes = sum(process.size_bytes for process in processes if process.is_leaving)
        going = to_go(processes, excess_bytes - leaving_bytes)
        if going:
            _log.info("memory.evicts", processes=len(going), limit_bytes=self.limit_bytes)
        return [holder.close(worker) for process in going for holder, worker in process.workers]

    def _excess_bytes(self, name: str | None = None) -> float:
        used_bytes = sum(process.size_bytes for process in self._processes().values())
        to_come = [holder.name for holder in self.holders for _ in range(holder.starting)] + ([name] if name else [])
        return used_bytes + sum(map(self._expected_bytes, to_come)) - self.limit_bytes

    def _expected_bytes(self, name: str) -> int:
        return self._largest.get(name, _UNSEEN_BYTES)

    def _processes(self) -> dict[int, Process]:
        processes: dict[int, Process] = {}
        for holder, worker, pid in self._served():
            size_bytes = self._sizes.get(pid) or self._expected_bytes(holder.name)
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
        whole = {pid: holder.counts_children for holder, _, pid in self._served()}
        self._sizes = await asyncio.to_thread(sizes_bytes, whole)
        # Of those that live: one that was very large once says nothing of the next.
        largest: dict[str, int] = {}
        for pid, size in self._sizes.items():
            largest[names[pid]] = max(size, largest.get(names[pid], 1))
        self._largest |= largest


def sizes_bytes(pids: Mapping[int, bool]) -> dict[int, int]:
    """What processes take, each with all that it has started where that is wanted: a CLI may stand behind a launcher.

    0 for one that is gone. Slow: milliseconds for each.
    """
    children: dict[int, list[int]] = {}
    if any(pids.values()):
        for process in psutil.process_iter(["ppid"]):
            children.setdefault(process.info["ppid"], []).append(process.pid)
    return {pid: sum(map(size_bytes, _tree(pid, children) if is_whole else [pid])) for pid, is_whole in pids.items()}


def _tree(pid: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in children.get(pid, ()):
        yield from _tree(child, children)


def size_bytes(pid: int) -> int:
    """What one process takes, its share of what it shares with others; 0 when it is gone.

    Where the system does not tell the share, all that it has in memory.
    """
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        with suppress(psutil.AccessDenied):
            info = process.memory_full_info()
            return int(getattr(info, "pss", info.rss))
        return int(process.memory_info().rss)
    return 0


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f}"
