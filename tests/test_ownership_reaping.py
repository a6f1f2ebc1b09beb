"""Whose exit codes a subreaper takes. Each test is a program of its own: the tests' own process is no subreaper."""

from tests.programs import FAMILY, UNTIL
from tests.world import World

SUBREAPER = (
    UNTIL
    + """
import asyncio, ctypes, os, resource, sys, time
from pathlib import Path

import psutil

from runners.wire import ownership
from runners.wire.process import CliProcess

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)

async def spawn(*argv):
    return await CliProcess.spawn(argv, env=dict(os.environ), cwd=Path.cwd())

def is_zombie(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # reaped while we looked
        return False
"""
)

ORPHANS = """
import os, sys
# Two forks away from us, and dead at once.
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(1, b"%d\\n" % os.getpid())
        os._exit(0)
    os.wait()
sys.stdin.read()
sys.exit(7)
"""


def test_the_exit_codes_of_orphans_are_taken_and_no_cli_s_own(world: World) -> None:
    orphans = world.program("orphans", ORPHANS)
    world.python(
        SUBREAPER
        + """
async def main():
    cli = await spawn(sys.argv[1], "3")
    pids = [int(await cli.read_line()) for _ in range(3)]
    await until(lambda: all(map(is_zombie, pids)))
    assert set(pids) <= set(ownership.zombies())
    assert ownership.reap(ownership.zombies())
    assert not any(map(psutil.pid_exists, pids))
    assert cli.returncode is None
    cli.close_stdin()
    assert await cli.wait() == 7
    await cli.aclose()

asyncio.run(main())
""",
        str(orphans),
    )


def test_a_cli_that_has_died_keeps_its_exit_code_for_who_waits_for_it(world: World) -> None:
    """Its pid is among those that are offered, as it is when it was seen before asyncio took its code."""
    world.python(
        SUBREAPER
        + """
async def main():
    for code in range(20):
        cli = await spawn(sys.executable, "-IS", "-c", f"import os; os._exit({code})")
        while cli.returncode is None:
            ownership.reap([cli.pid])
            await asyncio.sleep(0)
        assert cli.returncode == code
        await cli.aclose()

asyncio.run(main())
"""
    )


def test_while_a_start_is_under_way_nobody_s_exit_code_is_taken(world: World) -> None:
    orphans = world.program("orphans", ORPHANS)
    world.python(
        SUBREAPER
        + """
async def main():
    cli = await spawn(sys.argv[1], "1")
    orphan = int(await cli.read_line())
    await until(lambda: is_zombie(orphan))
    with ownership.starting() as mark:
        # A child that nobody knows yet.
        child = os.spawnl(os.P_NOWAIT, sys.executable, sys.executable, "-c", "import os; os._exit(9)")
        await until(lambda: is_zombie(child))
        assert not ownership.reap(ownership.zombies())
        assert is_zombie(orphan)
        ownership.started(mark, child)
    assert ownership.reap(ownership.zombies())
    assert not psutil.pid_exists(orphan)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    ownership.forget(mark)
    await cli.aclose()

asyncio.run(main())
""",
        str(orphans),
    )


def test_in_a_storm_of_starts_and_orphans_every_exit_code_arrives_and_no_zombie_stays(world: World) -> None:
    orphans = world.program("orphans", ORPHANS)
    world.python(
        SUBREAPER
        + """
async def reaping():
    while True:
        ownership.reap(await asyncio.to_thread(ownership.zombies))
        await asyncio.sleep(0)

async def one(code):
    cli = await spawn(sys.executable, "-IS", "-c", f"import os; os._exit({code})")
    mother = await spawn(sys.argv[1], "2")
    assert await cli.wait() == code
    mother.close_stdin()
    assert await mother.wait() == 7
    await asyncio.gather(cli.aclose(), mother.aclose())

async def main():
    reaper = asyncio.create_task(reaping())
    for batch in range(2):
        await asyncio.gather(*(one(10 * batch + code) for code in range(10)))
    await until(lambda: not ownership.zombies())
    reaper.cancel()

asyncio.run(main())
""",
        str(orphans),
    )


def test_out_of_file_descriptors_a_process_is_closed_all_the_same_and_what_it_left_is_unwanted(world: World) -> None:
    family = world.program("family", FAMILY)
    world.python(
        SUBREAPER
        + """
async def main():
    cli = await spawn(sys.argv[1])
    child, daemon = [int(await cli.read_line()) for _ in range(2)]
    used = max(map(int, os.listdir("/dev/fd")))
    await asyncio.to_thread(int)  # threads are there
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    closing = cli.close(ask=False)
    # What its pipes free is taken at once.
    while not closing.done():
        try:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            await asyncio.sleep(0)
    await closing
    assert cli.returncode is not None
    for descriptor in taken:
        os.close(descriptor)
    assert {process.pid for process in ownership.unwanted()} == {child, daemon}
    ownership.kill(ownership.unwanted())

asyncio.run(main())
""",
        str(family),
    )
