"""The memory of all CLIs together: what goes when it is too much, who waits, and who is not started."""

import asyncio
import errno
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from daemon import memory as memory_module
from daemon.memory import Memory, Process, size_bytes, sizes_bytes, to_go
from daemon.worker import Worker, WorkerState
from runners.errors import QueueFullError
from tests.stage import Stage
from tests.world import until

_BALLAST_BYTES = 80 << 20
_HEAVY = f"import sys; ballast = b'x' * {_BALLAST_BYTES}; print(flush=True); sys.stdin.read()"


@contextmanager
def heavy(number: int) -> Iterator[list[int]]:
    """Processes of about the ballast's size each."""
    children = [
        subprocess.Popen([sys.executable, "-IS", "-c", _HEAVY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(number)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield [child.pid for child in children]
    finally:
        for child in children:
            child.communicate()


def fits(processes: int) -> int:
    """A limit that so many of them stay below."""
    return processes * _BALLAST_BYTES + _BALLAST_BYTES // 2


class House:
    """Has workers in the states and with the processes that a test gives them; a closed one goes when `may_close`."""

    def __init__(self, memory: Memory) -> None:
        self.name = "h"
        self.counts_children = True
        self.workers: list[Worker] = []
        self.closed: list[Worker] = []
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.memory = memory
        self.stage = Stage()
        self._closing: set[asyncio.Task[None]] = set()
        memory.holders.append(self)

    @property
    def starting(self) -> int:
        return sum(worker.session is None for worker in self.workers)

    async def add(self, state: WorkerState, pid: int, used_s: float = 0.0) -> Worker:
        self.stage.pids = iter([pid])
        worker = Worker("m", self.stage.open())
        await worker.opening
        worker.state, worker.used_s = state, used_s
        self.workers.append(worker)
        return worker

    def close(self, worker: Worker) -> "asyncio.Task[None]":
        worker.move("draining")
        self.closed.append(worker)
        task = asyncio.create_task(self._close(worker))
        self._closing.add(task)
        return task

    async def _close(self, worker: Worker) -> None:
        await self.may_close.wait()
        await worker.aclose()
        self.workers.remove(worker)
        self.memory.happened()

    async def aclose(self) -> None:
        await asyncio.gather(*self._closing)

    async def looked_at(self) -> None:
        """Returns when the memory knows the sizes of its processes, of which there is one more than it may be."""
        self.memory.happened()

        async def is_known() -> bool:
            return not self.memory.has_room("h")

        await until(is_known)


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch, no_leaks: None) -> AsyncIterator[House]:
    monkeypatch.setattr(memory_module, "_SETTLED_S", 0)
    monkeypatch.setattr(memory_module, "_UNSEEN_BYTES", 0)
    memory = Memory()
    memory.start()
    made = House(memory)
    yield made
    await made.aclose()
    await memory.aclose()


@pytest.mark.parametrize(
    ("excess_bytes", "going"),
    [
        (-1, []),
        (0, []),
        (1, ["oldest"]),
        (10, ["oldest"]),
        (11, ["oldest", "parked"]),
        # Busy ones stay whatever it takes, and with them who shares their process.
        (10**9, ["oldest", "parked", "shared", "young"]),
    ],
)
async def test_those_go_that_rest_the_longest_a_shared_process_whole_or_not_at_all(
    house: House, excess_bytes: float, going: list[str]
) -> None:
    kept: dict[str, list[tuple[WorkerState, float]]] = {
        "young": [("idle", 9)],
        "half busy": [("idle", 0), ("busy", 1)],
        "shared": [("idle", 0), ("parked", 5)],  # as young as the youngest of those that share it
        "oldest": [("idle", 1)],
        "parked": [("parked", 2)],
        "draining": [("draining", 0)],
        "half draining": [("draining", 0), ("idle", 0)],
        "busy": [("busy", 0)],
    }
    names = list(kept)
    processes = [
        Process(pid, 10, [(house, await house.add(state, pid, used_s)) for state, used_s in kept[name]])
        for pid, name in enumerate(names)
    ]
    assert [names[process.pid] for process in to_go(processes, excess_bytes)] == going


def test_the_size_of_a_process_is_what_it_has_in_memory_and_of_one_that_has_gone_nothing() -> None:
    with heavy(1) as [pid]:
        assert _BALLAST_BYTES < size_bytes(pid) < 2 * _BALLAST_BYTES
    assert size_bytes(pid) == 0


async def test_idle_ones_go_for_one_that_is_to_start_and_it_waits_until_they_have_gone(house: House) -> None:
    with heavy(3) as pids:
        young, old, middle = [await house.add("idle", pid, used_s) for pid, used_s in zip(pids, (3, 1, 2), strict=True)]
        house.memory.limit_bytes = fits(3)
        await house.looked_at()
        house.may_close.clear()
        waiting = asyncio.create_task(house.memory.room("h"))

        async def one_closes() -> bool:
            return bool(house.closed)

        await until(one_closes)
        assert not waiting.done()
        assert not house.memory.has_room("h")
        house.may_close.set()
        await waiting
        assert house.closed == [old]
        assert house.workers == [young, middle]


@pytest.mark.parametrize("rests", ["idle", "parked", "draining"])
async def test_where_all_are_busy_it_waits_for_one_that_ends(house: House, rests: WorkerState) -> None:
    with heavy(2) as pids:
        first, second = [await house.add("busy", pid) for pid in pids]
        house.memory.limit_bytes = fits(2)
        await house.looked_at()
        waiting = asyncio.create_task(house.memory.room("h"))
        house.memory.happened()
        done, _ = await asyncio.wait([waiting], timeout=0)
        assert not done
        if rests == "draining":
            house.close(first)
        else:
            first.move(rests)
            house.memory.happened()
        await waiting
        assert house.closed == [first]
        assert house.workers == [second]


async def test_who_is_only_just_leaving_is_waited_for(house: House) -> None:
    with heavy(1) as [pid]:
        leaving = await house.add("idle", pid)
        house.memory.limit_bytes = fits(1)
        await house.looked_at()
        house.may_close.clear()
        house.close(leaving)
        waiting = asyncio.create_task(house.memory.room("h"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        house.may_close.set()
        await waiting
        assert house.workers == []


async def test_where_nobody_else_runs_one_may_start_however_little_there_is(house: House) -> None:
    with heavy(1) as [pid]:
        only = await house.add("idle", pid)
        house.memory.limit_bytes = fits(1)
        await house.looked_at()
        house.memory.limit_bytes = 1
        await house.memory.room("h")
        assert house.closed == [only]
        assert not house.memory.has_room("h")
        await house.memory.room("h")


async def test_one_that_is_on_its_way_counts_as_much_as_the_largest_of_its_runner(house: House) -> None:
    with heavy(1) as [pid]:
        kept = await house.add("busy", pid)
        house.memory.limit_bytes = fits(1)
        await house.looked_at()
        house.memory.limit_bytes = fits(2)
        assert house.memory.has_room("h")
        assert house.memory.has_room("another, of which nothing is known")
        house.stage.may_open.clear()
        starting = Worker("m", house.stage.open())
        house.workers.append(starting)
        assert not house.memory.has_room("h")
        house.workers.remove(starting)
        assert house.memory.has_room("h")
        await starting.aclose()
        await kept.aclose()


async def test_a_process_that_several_share_counts_once(house: House) -> None:
    with heavy(2) as [shared, other]:
        for state in ("idle", "idle", "busy"):
            await house.add("idle" if state == "idle" else "busy", shared)
        await house.add("busy", other)
        house.memory.limit_bytes = fits(2)
        await house.looked_at()
        house.memory.limit_bytes = fits(3)
        assert house.memory.has_room("h")


async def test_what_grows_beyond_the_limit_is_seen_without_anybody_asking(house: House) -> None:
    with heavy(2) as pids:
        old, _ = [await house.add("idle", pid, used_s) for used_s, pid in enumerate(pids)]
        house.memory.limit_bytes = fits(1)
        house.memory.happened()

        async def one_is_left() -> bool:
            return len(house.workers) == 1

        await until(one_is_left)
        assert house.closed == [old]


@pytest.mark.parametrize("failure", [OSError(errno.EMFILE, "Too many open files"), RuntimeError("no new thread")])
async def test_who_cannot_look_once_looks_again(
    house: House, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    failures = [failure]

    def size(pid: int) -> int:
        if failures:
            raise failures.pop()
        return size_bytes(pid)

    monkeypatch.setattr(memory_module, "size_bytes", size)
    with heavy(2) as pids:
        old, _ = [await house.add("idle", pid, used_s) for used_s, pid in enumerate(pids)]
        house.memory.limit_bytes = fits(1)

        async def one_is_left() -> bool:
            house.memory.happened()
            return len(house.workers) == 1

        await until(one_is_left)
        assert (house.closed, failures) == ([old], [])


async def test_of_whom_nothing_is_known_much_is_expected(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_UNSEEN_BYTES", 100)
    house.memory.limit_bytes = 99
    assert not house.memory.has_room("h")
    house.memory.limit_bytes = 100
    assert house.memory.has_room("h")


async def test_who_waits_too_long_for_memory_is_told_what_mends_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "_WAITS_S", 0.01)
    await house.add("busy", 1)
    house.memory.limit_bytes = 0
    monkeypatch.setattr(memory_module, "_UNSEEN_BYTES", 1)
    with pytest.raises(QueueFullError, match="max_cli_memory") as refused:
        await house.memory.room("h")
    assert "daemon.max_cli_memory" in (refused.value.hint or "")


def test_what_a_launcher_has_started_counts_as_its_own() -> None:
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-IS', '-c', {_HEAVY!r}])"
    command = [sys.executable, "-IS", "-c", source]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        alone, whole = sizes_bytes({launcher.pid: False}), sizes_bytes({launcher.pid: True})
        launcher.communicate()
    assert whole[launcher.pid] - alone[launcher.pid] > _BALLAST_BYTES / 2
    assert sizes_bytes({launcher.pid: True}) == {launcher.pid: 0}
