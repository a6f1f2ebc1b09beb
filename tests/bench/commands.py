"""The daemon's start, what it takes when it has nothing to do, and whole commands, each against an idle Python's."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.bench.figures import Row
from tests.bench.house import MEGABYTE, calm, open_house, open_world, proportional
from tests.bench.reading import WAIT_S, Child
from tests.bench.size import Size
from tests.bench.targets import IMPORTS, PYTHON
from tests.world import Daemon, World

GROUP = "commands"

_RUNNERD = str(Path(sys.executable).with_name("runnerd"))
_BASELINES = {
    PYTHON: [sys.executable, "-c", "pass"],
    IMPORTS: [sys.executable, "-c", "import click, json, socket"],
}
_ECHO = {"echo": {"kind": "echo"}}


def measure(size: Size) -> Iterator[Row]:
    with open_world() as world:
        yield _start(size, world)
    with open_world() as world, open_house(world, _ECHO) as house:
        for command in (["health"], ["chat", "-m", "echo", "Hello"]):
            yield from _command(size, world, command)
        yield from _idle(size, house.process, world)


def _start(size: Size, world: World) -> Row:
    row = Row(GROUP, "daemon", "start to socket ready", PYTHON, "ms")
    config = world.config("runners: {echo: {kind: echo}}\n")
    for _ in size.rounds():
        python_s = _ran(world, _BASELINES[PYTHON])
        began_s = time.monotonic()
        daemon = Daemon(world, [_RUNNERD, "serve", "--config", str(config)])
        try:
            _until_it_accepts(world)
            row.add((time.monotonic() - began_s) * 1000, python_s * 1000)
            daemon.wait_for("daemon.ready")
        finally:
            daemon.end()
    return row


def _until_it_accepts(world: World) -> None:
    ends_s = time.monotonic() + WAIT_S
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(world.socket))
            except OSError:
                assert time.monotonic() < ends_s, "the daemon does not listen"
                time.sleep(0.001)
            else:
                return


def _command(size: Size, world: World, arguments: list[str]) -> Iterator[Row]:
    name = f"runnerd {arguments[0]}"
    rows = {against: Row(GROUP, "daemon", name, against, "ms") for against in _BASELINES}
    for _ in size.rounds():
        theirs = {against: _ran(world, argv) for against, argv in _BASELINES.items()}
        ours_s = _ran(world, [_RUNNERD, *arguments])
        for against, row in rows.items():
            row.add(ours_s * 1000, theirs[against] * 1000)
    yield from rows.values()


def _ran(world: World, argv: list[str]) -> float:
    """The seconds of a whole command. `health` of an echo alone is 1: an echo is no model."""
    began_s = time.monotonic()
    done = subprocess.run(argv, env=world.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    took_s = time.monotonic() - began_s
    assert done.returncode == 0 or ("health" in argv and done.returncode == 1), done.stderr.decode()
    return took_s


def _idle(size: Size, daemon: psutil.Process, world: World) -> Iterator[Row]:
    """Of one daemon, which has answered a few chats, and of a Python that waits."""
    against = "an idle Python"
    rss, pss = (Row(GROUP, "daemon", f"idle memory ({what})", against, "MB") for what in ("RSS", "PSS"))
    cpu = Row(GROUP, "daemon", "idle CPU", against, "% CPU")
    child = Child([sys.executable, "-c", "input()"], env=world.env, cwd=world.root)
    python = psutil.Process(child.process.pid)
    try:
        calm(world)
        for _ in size.rounds(3):
            ours, theirs = daemon.memory_full_info(), python.memory_full_info()
            rss.add(ours.rss / MEGABYTE, theirs.rss / MEGABYTE)
            pss.add(proportional(ours), proportional(theirs))
            ours_s, theirs_s = _cpu_s(daemon), _cpu_s(python)
            time.sleep(size.idle_s)
            percent = 100 / size.idle_s
            cpu.add((_cpu_s(daemon) - ours_s) * percent, (_cpu_s(python) - theirs_s) * percent)
    finally:
        child.end()
    yield from (rss, pss, cpu)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
