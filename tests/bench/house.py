"""A daemon to measure, and its client: one blocking connection, as lean as an editor's could be."""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Self

import psutil

from tests.bench.reading import WAIT_S, Json, Timing, lines
from tests.world import Daemon, World, user

_CALM_S = 0.3
_CALM_CPU_S = 0.02
"""An idle copilot takes 1 % of a core."""

MEGABYTE = 1024 * 1024

_NO_POOL: Json = {"warm": 0, "idle_ttl_s": 0}


def unrouted(entry: Json) -> Json:
    """The same entry of runners.yaml without blank and without kept sessions: each turn begins from nothing."""
    return entry | _NO_POOL


@dataclass(frozen=True)
class Told:
    """A chat as its client saw it. `span_s` lies between the first and the last piece of the text."""

    timing: Timing
    span_s: float
    text: str
    served: str


class Client:
    """A connection to the daemon's socket."""

    def __init__(self, world: World) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(world.socket))
        self._lines = lines(self._socket.fileno())
        self._ids = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, method: str, **params: Any) -> None:
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def call(self, method: str, **params: Any) -> Json:
        """A request and its result."""
        self.send(method, **params)
        return _result(next(self._lines))

    def chat(self, messages: list[Json], **params: Any) -> Told:
        """A chat to its end. The lines behind the first text are looked into only when all have come."""
        began_s = time.monotonic()
        self.send("chat", messages=messages, **params)
        first_s = last_s = 0.0
        chunks = []
        for line in self._lines:
            if b'"chat.chunk"' not in line:
                break
            if not first_s:
                first_s = time.monotonic() if _text(line) else 0.0
            elif b'"text"' in line:
                last_s = time.monotonic()
            chunks.append(line)
        ended_s = time.monotonic()
        result, text = _result(line), "".join(map(_text, chunks))
        assert text == result["content"], "what was streamed is not what was answered"
        timing = Timing(first_s - began_s, ended_s - began_s)
        return Told(timing, last_s - first_s, text, result.get("served", "cold"))


def _text(line: bytes) -> str:
    chunk = json.loads(line)["params"]["chunk"]
    return str(chunk["chunk"]) if chunk["type"] == "text" else ""


def _result(line: bytes) -> Json:
    response = json.loads(line)
    assert "result" in response, response
    result = response["result"]
    assert isinstance(result, dict)
    return result


class House:
    """A world with a daemon in it, which knows the health of its runners."""

    def __init__(self, world: World, daemon: Daemon) -> None:
        self.world = world
        self.process = psutil.Process(daemon.process.pid)

    def client(self) -> Client:
        return Client(self.world)

    def ready(self, runner: str) -> None:
        """Waits until a new chat finds all that it may find: a blank, and nobody at work."""
        with self.client() as client:
            if not _blanks(client, runner):
                # There are blanks of what was asked for lately.
                client.chat(user("Hello"), model=runner)
                ends_s = time.monotonic() + WAIT_S
                while not _blanks(client, runner):
                    assert time.monotonic() < ends_s, f"{runner} has no blank"
                    time.sleep(0.02)
        calm(self.world)


def _blanks(client: Client, runner: str) -> int:
    """How many sessions of a runner have not been said anything yet."""
    [workers] = [row["workers"] for row in client.call("status")["runners"] if row["name"] == runner]
    return sum((worker["state"], worker["turns"]) == ("idle", 0) for worker in workers)


def calm(world: World) -> None:
    """Waits until no process of the world is at work: what was started ahead has then come to where it waits."""
    ends_s = time.monotonic() + WAIT_S
    while True:
        before = _cpu_s(world)
        time.sleep(_CALM_S)
        after = _cpu_s(world)
        if before.keys() == after.keys() and sum(after.values()) - sum(before.values()) <= _CALM_CPU_S:
            return
        assert time.monotonic() < ends_s, "it does not come to rest"


def _cpu_s(world: World) -> dict[int, float]:
    found = {}
    for process in world.processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[process.pid] = times.user + times.system
    return found


@contextmanager
def open_house(world: World, runners: Mapping[str, Json]) -> Iterator[House]:
    """A running daemon with these entries of runners.yaml."""
    config = world.config(json.dumps({"daemon": {"drain_s": 5}, "runners": runners}))  # JSON is YAML
    with world.daemon(config) as daemon:
        house = House(world, daemon)
        with house.client() as client:
            rows = [{"reason": "timeout"}]
            while any(row["reason"] == "timeout" for row in rows):
                rows = client.call("health")["runners"]
        yield house


@contextmanager
def open_world() -> Iterator[World]:
    """A world with a directory for what the programs in it leave behind, which goes with it."""
    world = World()
    temporary = world.root / "tmp"
    temporary.mkdir()
    world.env["TMPDIR"] = str(temporary)
    try:
        yield world
    finally:
        world.close()


def proportional(memory: Any) -> float:
    """The PSS in MB of what psutil tells of a process; where there is none, the memory that is its alone."""
    return float(getattr(memory, "pss", memory.uss) / MEGABYTE)
