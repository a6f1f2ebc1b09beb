"""The reaper at work in a process of its own: its periodic sweep, its children, its own end."""

from tests.programs import FAMILY, UNTIL
from tests.world import World

REAPER = (
    UNTIL
    + """
import asyncio, os, resource, signal, sys
from pathlib import Path

import psutil

from daemon import logs
from daemon.reaper import Lease, Reaper
from runners.wire import ownership
from runners.wire.process import CliProcess

STATE = Path(sys.argv[1])
told = []
logs.structlog.configure(processors=[lambda _logger, _method, event: told.append(event) or ""])

def start(mark):
    env = {**os.environ, ownership.VARIABLE: mark}
    program = "import time; time.sleep(3600)"
    return os.spawnle(os.P_NOWAIT, sys.executable, sys.executable, "-IS", "-c", program, env)

def take_all_descriptors():
    used = max(map(int, os.listdir("/dev/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return taken
"""
)


def test_the_periodic_sweep_kills_what_nobody_wants_and_what_dead_daemons_left(world: World) -> None:
    world.python(
        REAPER
        + """
async def main():
    lease = Lease(STATE)
    reaper = Reaper(STATE, sweeps_every_s=0.1)
    reaper.start()
    cli = await CliProcess.spawn([sys.argv[2]], env=dict(os.environ), cwd=STATE)
    family = [cli.pid, *[int(await cli.read_line()) for _ in range(2)]]
    foreign = start("1-00000000/1")
    stray = start(f"{ownership.owner}/999")
    orphan = start("4194304-0123abcd/1")
    (STATE / "leases" / "4194304-0123abcd").mkdir()
    (STATE / "leases" / "4194304-0123abcd" / "lock").touch()
    await until(lambda: not psutil.pid_exists(stray) and not psutil.pid_exists(orphan))
    await until(lambda: not (STATE / "leases" / "4194304-0123abcd").exists())
    assert all(map(psutil.pid_exists, [foreign, *family]))
    assert {"reaper.killed", "reaper.swept"} <= {event["event"] for event in told}
    os.kill(foreign, signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(foreign))
    await cli.aclose(ask=False)
    await reaper.aclose()
    lease.release()
    assert [path.name for path in (STATE / "leases").iterdir()] == ["lock"]

asyncio.run(main())
""",
        str(world.state),
        str(world.program("family", FAMILY)),
    )


def test_its_end_ends_what_is_left_and_takes_its_exit_code(world: World) -> None:
    world.python(
        REAPER
        + """
async def main():
    reaper = Reaper(STATE)
    reaper.start()
    left = start(f"{ownership.owner}/999")
    await reaper.aclose()
    assert not psutil.pid_exists(left)
    assert [event["event"] for event in told] == ["reaper.killed"]

asyncio.run(main())
""",
        str(world.state),
    )


def test_a_moment_without_file_descriptors_does_not_end_its_work(world: World) -> None:
    world.python(
        REAPER
        + """
async def main():
    reaper = Reaper(STATE, sweeps_every_s=0.1)
    reaper.start()
    await asyncio.to_thread(int)
    first, second, stray = start("1-00000000/1"), start("1-00000000/1"), start(f"{ownership.owner}/999")
    taken = take_all_descriptors()
    os.kill(first, signal.SIGKILL)
    await until(lambda: [event for event in told if event["event"] == "reaper.failed"])
    for descriptor in taken:
        os.close(descriptor)
    os.kill(second, signal.SIGKILL)
    await until(lambda: not any(map(psutil.pid_exists, (first, second, stray))))
    await reaper.aclose()

asyncio.run(main())
""",
        str(world.state),
    )


def test_a_lease_that_was_made_by_half_is_none(world: World) -> None:
    """Nobody must find one without its lock: it would look like that of a daemon that has died."""
    world.python(
        REAPER
        + """
(STATE / "leases").mkdir(mode=0o700)
taken = take_all_descriptors()
os.close(taken.pop())  # one is enough for the directory
try:
    Lease(STATE)
except OSError:
    pass
else:
    raise AssertionError
for descriptor in taken:
    os.close(descriptor)
assert [path.name for path in (STATE / "leases").iterdir()] == ["lock"]
Lease(STATE).release()
""",
        str(world.state),
    )
