"""Small programs that stand in for the echo CLI's Python: `binary` of an entry of kind echo.

With them a test holds a chat in the middle, sees what a CLI is given, or makes it fail.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.world import Daemon, World

KEEPS_NOTHING = "warm: 0, idle_ttl_s: 0"
"""The settings of a runner whose CLIs end with their chats."""

ECHO = f"  echo: {{kind: echo, {KEEPS_NOTHING}}}\n"
"""The entry of such an echo, indented."""

HELD = """
import json, sys

def emit(**event):
    print(json.dumps(event), flush=True)

for line in sys.stdin:
    match json.loads(line)["type"]:
        case "start":
            emit(type="ready")
        case "turn":
            emit(type="begin", id="held-1", model="echo")
            emit(type="delta", text="so far")
"""
"""Begins its answer with `so far` and never ends it."""

BROKEN = """
import sys

sys.exit("these are my last words")
"""
"""Exits at once with code 1."""

GATED = (
    HELD
    + """
            import os, time
            while not os.path.exists(f"{sys.argv[0]}.open"):
                time.sleep(0.01)
            emit(type="delta", text=", so good")
            emit(type="end", reason="end")
"""
)
"""Begins its answer with `so far`, and ends it with `, so good` when there is a file beside it with `.open` behind its
name."""

FLOOD = (
    HELD
    + """
            import itertools
            for number in range(5_000):
                emit(type="delta", text=f" {number}")
            emit(type="end", reason="end")
"""
)
"""Counts behind `so far`, as fast as it can."""

ENDLESS = FLOOD.replace("range(5_000)", "itertools.count()")
"""The same without an end."""

RECORDING = f"""
import json, os, stat, sys

def is_open(fd):
    try:
        return bool(os.fstat(fd))
    except OSError:
        return False

stdin = os.fstat(0)
record = {{
    "env": dict(os.environ),
    "argv": sys.argv[1:],
    "cwd": os.getcwd(),
    "leads_its_session": os.getsid(0) == os.getpid(),
    "stdin_is_a_channel": stat.S_ISFIFO(stdin.st_mode) or stat.S_ISSOCK(stdin.st_mode),
    "open": [fd for fd in range(1024) if is_open(fd)],
}}
part = f"{{sys.argv[0]}}.{{os.getpid()}}"
with open(part, "w") as file:
    json.dump(record, file)
os.replace(part, f"{{sys.argv[0]}}.json")
os.execv({sys.executable!r}, ["python", *sys.argv[1:]])
"""
"""Writes what it was given into a file beside it, then becomes the real echo CLI."""

TALKATIVE = """
import json, sys

def emit(**event):
    print(json.dumps(event), flush=True)

for line in sys.stdin:
    print("not JSON at all:", line, flush=True)
    print("[1, 2]", flush=True)
    emit(type="news", line=line)
    match json.loads(line)["type"]:
        case "start":
            emit(type="ready")
        case "turn":
            emit(type="begin", id="talkative-1", model="echo")
            emit(type="delta", text="done")
            emit(type="usage", input_tokens=1, output_tokens=1)
            emit(type="end", reason="end")
"""
"""Repeats what it was sent in lines that are no JSON, no objects, no events that anybody knows; answers `done`."""


FAMILY = """
import os, sys, time

def start(times):
    # Told by the last of them, so that nobody is killed before all are there.
    if os.fork() == 0:
        os.setsid()
        if times == 1 or os.fork() == 0:
            os.write(1, b"%d\\n" % os.getpid())
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
            time.sleep(3600)
        os._exit(0)

start(1)
start(2)
sys.stdin.read()
"""
"""Starts a child in a session of its own, and a daemon (two forks away); tells their pids; ends with its input."""


HELD_FAMILY = FAMILY.replace("sys.stdin.read()", "") + HELD
"""HELD, with such a family."""


UNTIL = """
import asyncio

async def until(look):
    async with asyncio.timeout(20):
        while not (seen := look()):
            await asyncio.sleep(0.01)
    return seen
"""
"""Begins a test that is a program of its own: waits until what it looks at is so."""


def entry(world: World, name: str, source: str, settings: str = "") -> str:
    """An entry of runners.yaml, indented, whose CLI is such a program, and is started for each chat."""
    settings = f"{KEEPS_NOTHING}{settings and ', '}{settings}"
    return f"  {name}: {{kind: echo, binary: {world.program(name, source)}, {settings}}}\n"


def record(world: World, name: str) -> dict[str, Any]:
    """What the program RECORDING of that entry saw last."""
    seen = json.loads((world.root / f"{name}.json").read_text())
    assert isinstance(seen, dict)
    return seen


@contextmanager
def echo_daemon() -> Iterator[Daemon]:
    """A daemon in a world of its own with the runners `echo`, `held` and `broken`, for the tests of one file."""
    world = World()
    broken = entry(world, "broken", BROKEN, "retry: {attempts: 1}, breaker: {failures: 1000}")
    runners = ECHO + entry(world, "held", HELD) + broken
    try:
        with world.daemon(world.config(f"runners:\n{runners}")) as daemon:
            yield daemon
    finally:
        world.close()
