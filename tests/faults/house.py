"""The house in which a fault is tried: a world, the daemon in it, and what both hold when nothing goes on.

Owns the daemon's start and end between tries, and the look at what was left behind. Knows no fault.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.faults.chat import Chat
from tests.faults.entries import Entry
from tests.world import Daemon, Wire, World, until

_SETTLE_S = 10.0
_NOBODY = "nobody"
_STABLE = (
    "state/runnerd",
    "state/runnerd/leases",
    "state/runnerd/leases/lock",
    "state/runnerd/leases/{pid}-*",
    "state/runnerd/leases/{pid}-*/lock",
    "state/runnerd/leases/{pid}-*/*",
    "state/runnerd/leases/{pid}-*/*/tmp",
    "state/runnerd/leases/{pid}-*/*/turns",
    "state/runnerd/runners",
    "state/runnerd/runners/*",
    "state/runnerd/runners/*/cwd",
    "state/runnerd/runners/*/home",
    "run/runnerd",
    "run/runnerd/runnerd.sock",
    "run/runnerd/runnerd.sock.lock",
    "run/runnerd/http.sock",
    "run/runnerd/http.sock.lock",
)
"""What the daemon of that pid makes once and keeps. Anything else below the world's directories is temporary."""


@dataclass(frozen=True, slots=True)
class Held:
    """Processes beside the daemon and files that are there for a time, by name; the daemon's descriptors and tasks."""

    processes: tuple[str, ...] = ()
    descriptors: int = 0
    tasks: int = 0
    files: tuple[str, ...] = ()

    def beyond(self, rest: "Held") -> "Held":
        """What is more than at rest."""
        return Held(
            self.processes,
            max(self.descriptors - rest.descriptors, 0),
            max(self.tasks - rest.tasks, 0),
            tuple(file for file in self.files if file not in rest.files),
        )


NOTHING = Held()


class House:
    """A world and its daemon, which is there whenever a try begins.

    `is_full` is whether the fault is tried in its full size (`sized`), as the table has it.
    """

    def __init__(self, world: World, runners: Mapping[str, Entry], settings: Mapping[str, Any]) -> None:
        self.world = world
        self.is_full = False
        self.entries = {name: entry(world, name) for name, entry in runners.items()}
        self._settings = settings
        self.configure(self.entries)
        self.daemon: Daemon
        self._rest = NOTHING

    def sized(self, full: int, short: int) -> int:
        """The measure of a fault: in full, or as short as shows it."""
        return full if self.is_full else short

    def configure(self, entries: Mapping[str, Any], default: str = _NOBODY) -> None:
        """Writes runners.yaml, without telling the daemon.

        Who is asked by default is one that is not there: of one that is, a blank would stay for ever.
        """
        runners = {**entries, _NOBODY: {"kind": "claude", "binary": "/nonexistent", "warm": 0}}
        config = {"daemon": dict(self._settings), "default": default, "runners": runners}
        self.world.config(json.dumps(config, indent=1))

    # The daemon

    async def start(self, *wrapper: str) -> None:
        """Starts the daemon and waits until it answers; `wrapper` is a command that executes the one behind it."""
        self.daemon = self.begin(*wrapper)
        await until(self.answers)

    def begin(self, *wrapper: str) -> Daemon:
        """Starts a daemon, without waiting."""
        serve = [sys.executable, "-m", "runnerd", "serve", "--config", str(self.world.root / "runners.yaml")]
        return Daemon(self.world, [*wrapper, *serve])

    async def answers(self) -> bool:
        """Whether the daemon takes connections."""
        assert self.daemon.process.poll() is None, f"the daemon ended; its log: {self.daemon.log[-3:]}"
        try:
            async with await Wire.connect(self.world.socket) as wire:
                return bool((await wire.call("version"))["result"]["pid"] == self.daemon.process.pid)
        except (FileNotFoundError, ConnectionError):
            return False

    async def ends(self) -> str:
        """Waits for the daemon's end, in words; what it leaves is looked for before another one may sweep it up."""
        code = await asyncio.to_thread(self.daemon.wait)
        left = await self._orphans()
        return f"the daemon exits with {code}" + (f" and leaves {left}" if left else "")

    async def stop(self) -> None:
        """Ends the daemon, which must end well and leave nothing."""
        await asyncio.to_thread(self.daemon.end)
        left = await self._orphans()
        assert not left, f"the daemon's end leaves {left}"

    async def _orphans(self) -> list[str]:
        """What a daemon that is gone has left."""
        left: list[str] = []

        async def nothing_left() -> bool:
            left[:] = [*map(_described, self.world.processes()), *self._files()]
            return not left

        await soon(nothing_left)
        return left

    async def kill(self) -> None:
        """Kills the daemon, and nobody else."""
        self.daemon.signal(signal.SIGKILL)
        await asyncio.to_thread(self.daemon.wait)

    async def restart(self, *wrapper: str) -> None:
        """Ends the daemon and starts one anew."""
        await self.stop()
        await self.start(*wrapper)

    @property
    def process(self) -> psutil.Process:
        """The daemon's process."""
        return psutil.Process(self.daemon.process.pid)

    # What a client sees

    async def wire(self) -> Wire:
        """A new connection."""
        return await Wire.connect(self.world.socket)

    async def begun(self, model: str, text: str = "[hold]", *, history: Sequence[dict[str, Any]] = ()) -> Chat:
        """A chat of a client of its own, whose CLI is in the middle of its answer."""
        chat = await Chat.ask(await self.wire(), model, text, history=history)
        await chat.begins()
        return chat

    async def chat(self, model: str, text: str = "hello world") -> str:
        """What a client of its own sees of a whole chat."""
        async with await Chat.ask(await self.wire(), model, text) as chat:
            return await chat.seen()

    async def workers(self, *states: str) -> list[dict[str, Any]]:
        """The sessions of all runners, or those that are in one of these states."""
        async with await self.wire() as wire:
            rows = (await wire.call("status"))["result"]["runners"]
        return [worker for row in rows for worker in row["workers"] if not states or worker["state"] in states]

    # What it holds

    async def held(self) -> Held:
        """What is held now."""
        async with await self.wire() as wire:
            status = (await wire.call("status"))["result"]
        children = {child.pid for child in self.process.children()}
        others = [process for process in self.world.processes() if process.pid != self.daemon.process.pid]
        names = [_described(process) for process in others]
        names += [f"{pid} (zombie)" for pid in children - {process.pid for process in others}]
        return Held(tuple(names), status["descriptors"], status["tasks"], tuple(self._files()))

    def _files(self) -> list[str]:
        watched = [self.world.state, self.world.home, self.world.root / "run"]
        # Not rglob: it fails on a directory that is removed while it looks.
        found = [
            Path(directory, name).relative_to(self.world.root)
            for top in watched
            for directory, directories, files in os.walk(top)
            for name in (*directories, *files)
        ]
        lives = self.daemon.process.poll() is None
        stable = [pattern.format(pid=self.daemon.process.pid if lives else "none") for pattern in _STABLE]
        return [str(path) for path in found if not any(path.match(pattern) for pattern in stable)]

    async def settle(self) -> None:
        """Takes what is held now, behind a first try, as what is held at rest; processes and files never are."""

        async def only_the_daemon() -> bool:
            held = await self.held()
            return not held.processes and not held.files

        await soon(only_the_daemon)
        self.clear()
        before = await self.held()

        async def at_rest() -> bool:
            nonlocal before
            now, last = await self.held(), before
            before = now
            return now == last

        await until(at_rest)
        self._rest = Held((), before.descriptors, before.tasks, ())

    async def left(self) -> Held:
        """What is still there beyond what is held at rest, when it had time to go."""
        left = NOTHING

        async def nothing_left() -> bool:
            nonlocal left
            left = (await self.held()).beyond(self._rest)
            return left == NOTHING

        await soon(nothing_left)
        return left

    def clear(self) -> None:
        """Removes processes and files that were left behind, so that the next try is not to blame for them."""
        for process in self.world.processes():
            if process.pid != self.daemon.process.pid:
                process.kill()
        for file in self._files():
            path = self.world.root / file
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    async def revive(self) -> None:
        """Starts the daemon again where a try has gone wrong and left none."""
        if self.daemon.process.poll() is not None or not await soon(self.answers):
            self.daemon.process.kill()
            await asyncio.to_thread(self.daemon.wait)
            await self.start()


@asynccontextmanager
async def open_house(runners: Mapping[str, Entry], settings: Mapping[str, Any]) -> AsyncIterator[House]:
    """A house whose daemon runs; both are ended, and must end well."""
    world = World()
    try:
        house = House(world, runners, settings)
        try:
            await house.start()
            yield house
        finally:
            await house.stop()
    finally:
        await asyncio.to_thread(world.close)


async def soon(look: Callable[[], Awaitable[bool]]) -> bool:
    """Whether what it looks for comes about in some seconds."""
    try:
        async with asyncio.timeout(_SETTLE_S):
            return await until(look)
    except TimeoutError:
        return False


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[-60:]}"
    except psutil.NoSuchProcess:
        return f"{process.pid} (gone)"
