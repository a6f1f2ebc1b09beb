"""What the daemon adds to the way of a chunk when many streams run at once, and the memory that it takes.

The programs say what time it is, fifty times a second each; the client notes when that arrives. It does nothing else
until all have ended.
"""

import json
import os
import re
import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.fakes import STAMPING, with_value
from tests.bench.figures import Row
from tests.bench.house import MEGABYTE, House, calm, open_house, open_world, proportional
from tests.bench.reading import WAIT_S, Child, Json
from tests.bench.size import Size
from tests.bench.targets import DIRECT
from tests.world import World, user

GROUP = "streams"

_READ_BYTES = 64 * 1024
_STAMP = re.compile(rb"(\d+\.\d{6}) ")
_RESPONSE = b'"result"'
# Where the pieces of what is looked for may lie.
_LOOK_BACK_BYTES = 32


class Seen(NamedTuple):
    """The daemon at a moment: its memory in MB, and the CPU time that it has had."""

    rss: float
    pss: float
    cpu_s: float


Look = Callable[[], Seen | None]


class Load(NamedTuple):
    """What was seen of many streams: the delay of each chunk in ms, and what the daemon was before and behind them."""

    delays_ms: list[float]
    before: Seen | None
    behind: Seen | None


def measure(size: Size) -> Iterator[Row]:
    with open_world() as world:
        source = with_value(STAMPING, "SECONDS", size.stream_s)
        program = world.program("stamping", source)
        most = max(size.streams)
        entry = {"kind": "echo", "binary": str(program), "max_running": most, "max_queued": most}
        with open_house(world, {"cli": entry}) as house:
            calm(world)
            idle = _seen(house)
            for number in size.streams:
                yield from _compared(size, house, program, number, idle)


def _compared(size: Size, house: House, program: Path, number: int, idle: Seen) -> list[Row]:
    subject = f"{number} stream{'s' if number > 1 else ''}"
    median, p99 = (Row(GROUP, subject, f"delay of a chunk, {what}", DIRECT, "ms") for what in ("median", "p99"))
    rss, pss = (Row(GROUP, subject, f"memory of the daemon ({what})", "idle", "MB") for what in ("RSS", "PSS"))
    each = Row(GROUP, subject, "memory of the daemon (PSS) a stream", "", "KB")
    cpu = Row(GROUP, subject, "CPU time of the daemon a chunk", "", "us")
    expected = int(size.stream_s * 50)
    for _ in size.rounds(size.stream_runs):
        direct = _direct(house.world, program, number, expected)
        calm(house.world)
        ours = _through(house, program, number, expected)
        calm(house.world)
        median.add(statistics.median(ours.delays_ms), statistics.median(direct.delays_ms))
        p99.add(_p99(ours.delays_ms), _p99(direct.delays_ms))
        assert ours.before is not None
        assert ours.behind is not None
        rss.add(ours.behind.rss, idle.rss)
        pss.add(ours.behind.pss, idle.pss)
        each.add((ours.behind.pss - idle.pss) * 1024 / number)
        cpu.add((ours.behind.cpu_s - ours.before.cpu_s) * 1e6 / len(ours.delays_ms))
    return [median, p99, rss, pss, each, cpu]


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def _through(house: House, program: Path, number: int, expected: int) -> Load:
    """A connection for each stream, as many editors have."""
    sockets = []
    try:
        for _ in range(number):
            connected = socket.socket(socket.AF_UNIX)
            sockets.append(connected)
            connected.connect(str(house.world.socket))
            params: Json = {"model": "cli", "messages": user("What time is it?")}
            request = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": params}
            connected.sendall(json.dumps(request).encode() + b"\n")
        return _read(program, [each.fileno() for each in sockets], _RESPONSE, expected, lambda: _seen(house))
    finally:
        for connected in sockets:
            connected.close()


def _direct(world: World, program: Path, number: int, expected: int) -> Load:
    children = []
    try:
        for _ in range(number):
            children.append(Child([str(program)], env=world.env, cwd=world.root))
            children[-1].write(b'{"type": "turn"}\n')
        return _read(program, [child.output for child in children], b'"end"', expected, lambda: None)
    finally:
        for child in children:
            child.end()


def _read(program: Path, descriptors: list[int], ends: bytes, expected: int, look: Look) -> Load:
    """Reads all to their ends, and lets them go when all wait. None of it may be missing.

    What arrives when the first has ended is not counted: the others have more room then.
    """
    go = program.with_name(f"{program.name}.go")
    arrived: dict[int, list[tuple[float, bytes]]] = {descriptor: [(0.0, b"")] for descriptor in descriptors}
    waiting = set(descriptors)
    first_end_s = 0.0
    before = behind = None
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(WAIT_S)
            assert ready, "nothing comes"
            for key, _ in ready:
                data = os.read(key.fd, _READ_BYTES)
                now_s = time.monotonic()
                newest = arrived[key.fd][-1][1][-_LOOK_BACK_BYTES:] + data
                arrived[key.fd].append((now_s, data))
                if waiting and b"waiting" in newest:
                    waiting.discard(key.fd)
                    if not waiting:
                        before = look()
                        go.touch()
                if not data or ends in newest:
                    selector.unregister(key.fd)
                    if not first_end_s:
                        first_end_s, behind = now_s, look()
    go.unlink()
    stamps = [_stamps(pieces) for pieces in arrived.values()]
    assert {len(of_one) for of_one in stamps} == {expected}, "some of it is missing"
    return Load([(at - said) * 1000 for of_one in stamps for said, at in of_one if at <= first_end_s], before, behind)


def _stamps(pieces: list[tuple[float, bytes]]) -> list[tuple[float, float]]:
    """Each stamp with when its last byte came: a piece may end in the middle of one. The response repeats them."""
    found = []
    rest = b""
    for at_s, data in pieces:
        rest, is_over, _ = (rest + data).partition(_RESPONSE)
        end = 0
        for match in _STAMP.finditer(rest):
            found.append((float(match[1]), at_s))
            end = match.end()
        if is_over:
            break
        rest = rest[end:]
    return found


def _seen(house: House) -> Seen:
    memory, times = house.process.memory_full_info(), house.process.cpu_times()
    return Seen(memory.rss / MEGABYTE, proportional(memory), times.user + times.system)
