"""The mark that what we start carries, wherever it goes, and what is killed and reaped by it."""

import asyncio
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from runners.errors import RunnerError
from runners.wire import ownership
from runners.wire.process import CliProcess, run
from tests.programs import FAMILY
from tests.world import World, until

IDLE = "import time; time.sleep(3600)"


def mark_of(pid: int) -> str | None:
    return psutil.Process(pid).environ().get(ownership.VARIABLE)


def new_owner() -> str:
    return f"{os.getpid()}-{secrets.token_hex(4)}"


async def family(world: World) -> tuple[CliProcess, list[int]]:
    """A CLI, and the pids of it, of its child in a session of its own and of its daemon, whose parent has gone."""
    program = world.program("family", FAMILY)
    process = await CliProcess.spawn([str(program)], env=world.env, cwd=world.root)
    pids = [process.pid]
    for _ in range(2):
        line = await process.read_line()
        assert line is not None
        pids.append(int(line))
    return process, pids


async def only(world: World, *pids: int) -> None:
    """Waits until these are all that live in the world."""

    async def are_left() -> bool:
        return {process.pid for process in world.processes()} == set(pids)

    assert await until(are_left)


class Marked:
    """Processes that wait, started with whatever mark."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, mark: str | None, program: str = IDLE) -> int:
        env = self.world.env if mark is None else {**self.world.env, ownership.VARIABLE: mark}
        process = subprocess.Popen([sys.executable, "-IS", "-c", program], env=env)
        self.started.append(process)
        while not psutil.Process(process.pid).environ():
            time.sleep(0.001)  # right behind its start it has none that others can read
        return process.pid

    def living(self) -> set[int]:
        return {process.pid for process in self.started if process.poll() is None}


@pytest.fixture
def marked(world: World) -> Iterator[Marked]:
    made = Marked(world)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


async def test_a_child_its_child_in_another_session_and_its_daemon_carry_the_same_mark_of_ours(world: World) -> None:
    process, pids = await family(world)
    marks = {mark_of(pid) for pid in pids}
    assert len(marks) == 1
    assert str(marks.pop()).startswith(f"{ownership.owner}/")
    assert len({os.getsid(pid) for pid in pids}) == 3
    await process.aclose(ask=False)
    await only(world)


async def test_each_start_has_a_mark_of_its_own_whatever_its_environment_says(world: World) -> None:
    env = {**world.env, ownership.VARIABLE: "somebody/1"}
    processes = [
        await CliProcess.spawn([sys.executable, "-c", IDLE], env=env, cwd=world.root),
        await CliProcess.spawn([sys.executable, "-c", IDLE], env=world.env, cwd=world.root),
    ]
    marks = {mark_of(process.pid) for process in processes}
    assert len(marks) == 2
    assert all(mark and mark.startswith(f"{ownership.owner}/") for mark in marks)
    await asyncio.gather(*(process.aclose(ask=False) for process in processes))


@pytest.mark.parametrize("ask", [True, False])
async def test_a_process_that_is_closed_leaves_nothing_that_left_its_group(
    world: World, no_leaks: None, ask: bool
) -> None:
    process, _ = await family(world)
    await process.aclose(ask=ask)
    await only(world)


async def test_a_close_that_is_cancelled_leaves_nothing_either(world: World, no_leaks: None) -> None:
    process, _ = await family(world)
    closing = asyncio.create_task(process.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    assert closing.cancelled()
    await only(world)
    await process.aclose()


async def test_two_families_end_one_by_one(world: World) -> None:
    first, _ = await family(world)
    second, pids = await family(world)
    await first.aclose(ask=False)
    await only(world, *pids)
    await second.aclose(ask=False)
    await only(world)


async def test_a_short_command_leaves_nothing_that_left_its_group(world: World, no_leaks: None) -> None:
    program = world.program("family", FAMILY + "sys.exit(3)\n")
    finished = await run([str(program)], env=world.env, cwd=world.root)
    assert finished.exit_code == 3
    assert len(finished.output.split()) == 2
    await only(world)


def test_what_carries_the_mark_is_killed_and_nothing_else(marked: Marked) -> None:
    owner, other = new_owner(), new_owner()
    theirs = {
        marked.start(None),
        marked.start(f"{other}/1"),
        marked.start(f"{owner}/12"),
        marked.start(f"{owner}/2"),
        marked.start(f"x{owner}/1"),
        marked.start(f"{owner}"),
    }
    ours = {marked.start(f"{owner}/1"), marked.start(f"{owner}/1")}
    assert {process.pid for process in ownership.marked(f"{owner}/1")} == ours
    assert ownership.kill_marked(f"{owner}/1") == 2
    assert marked.living() == theirs
    assert ownership.kill_marked(f"{owner}/1") == 0


def test_an_owner_s_name_means_all_that_it_started_and_nobody_whose_name_begins_alike(marked: Marked) -> None:
    owner = new_owner()
    theirs = {marked.start(None), marked.start(f"{owner}0/1"), marked.start(new_owner() + "/1")}
    for number in (1, 2, 12):
        marked.start(f"{owner}/{number}")
    assert ownership.kill_marked(owner) == 3
    assert marked.living() == theirs


def test_who_is_excepted_lives_on(marked: Marked) -> None:
    owner = new_owner()
    spared, other = marked.start(f"{owner}/1"), marked.start(f"{owner}/1")
    assert ownership.kill_marked(f"{owner}/1", besides=spared) == 1
    assert marked.living() == {spared}
    assert other not in marked.living()


def test_what_starts_others_faster_than_it_is_killed_is_killed_with_them(world: World, marked: Marked) -> None:
    owner = new_owner()
    breeding = """
import os, time
for _ in range(30):
    if os.fork():
        break
    os.setsid()
    time.sleep(0.01)
time.sleep(3600)
"""
    marked.start(f"{owner}/1", breeding)
    # Each generation begins the next one while the last is looked for.
    while ownership.marked(owner):
        ownership.kill_marked(owner)
    assert world.processes() == []


def test_ours_is_unwanted_once_it_is_forgotten_or_when_it_did_not_start(marked: Marked) -> None:
    with ownership.starting() as wanted:
        marked.start(f"{ownership.owner}/{wanted.partition('/')[2]}0")  # was never wanted
    pid = marked.start(wanted)
    ownership.started(wanted, pid)
    with suppress(LookupError), ownership.starting() as failed:
        raise LookupError
    theirs = [marked.start(None), marked.start(new_owner() + "/1")]
    stray, late = marked.started[0].pid, marked.start(failed)
    assert {process.pid for process in ownership.unwanted()} == {stray, late}
    ownership.forget(wanted)
    assert {process.pid for process in ownership.unwanted()} == {stray, late, pid}
    ownership.kill(ownership.unwanted())
    for process in marked.started:
        if process.pid not in theirs:
            process.wait()
    assert marked.living() == set(theirs)


async def test_a_family_in_use_is_wanted_until_its_process_is_closed(world: World) -> None:
    process, pids = await family(world)
    assert not {found.pid for found in ownership.unwanted()} & set(pids)
    await process.aclose(ask=False)
    await only(world)


async def test_a_program_that_cannot_be_started_is_not_waited_for(world: World) -> None:
    for argv, cwd in ((["/nonexistent"], world.root), ([str(world.root)], world.root), ([sys.executable], Path("/no"))):
        with pytest.raises(RunnerError):
            await CliProcess.spawn(argv, env=world.env, cwd=cwd)
    assert ownership.reap([])  # no start is under way
