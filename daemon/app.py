"""The daemon as a program: put together from its parts, run until it is told to end."""

import asyncio
import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import structlog

from daemon import __version__
from daemon.config import Config, find_config, load_config
from daemon.doors import Doors, Sockets, listening
from daemon.memory import Memory
from daemon.notify import Notifier
from daemon.paths import private_directory, socket_path, state_directory
from daemon.reaper import Reaper, leased, sweep
from daemon.registry import Registry
from daemon.service import Service
from daemon.supervisor import Supervisor
from runners.errors import ConfigError

_DESCRIPTORS = 8192
_ENDS = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Launch:
    """How this daemon was started.

    `config` is the file that was named, if any: a reload looks again which one is in force. Whom a command has started
    in passing ends by itself after `idle_exit_s` without use, and writes a line to `ready_fd` when it serves.
    """

    config: Path | None = None
    socket: Path | None = None
    idle_exit_s: float | None = None
    ready_fd: int | None = None


def serves_at(config: Config, named: Path | None) -> Path:
    """The socket of a daemon with this configuration; `named` on the command line counts more."""
    return (named or config.daemon.socket or socket_path()).expanduser()


def serve(config: Config, launch: Launch) -> None:
    """Serves until SIGTERM, SIGINT or `shutdown`. Raises DaemonError when it cannot start."""
    if launch.ready_fd is not None:
        os.set_inheritable(launch.ready_fd, False)
    _raise_descriptor_limit()
    state_dir = private_directory(state_directory())
    path = serves_at(config, launch.socket)
    with listening(path, config.daemon.http) as sockets, Notifier(os.environ) as notifier:
        sweep(state_dir)
        with leased(state_dir) as run_dir:
            daemon = _Daemon(config, launch, path, sockets, notifier, state_dir=state_dir, run_dir=run_dir)
            asyncio.run(daemon.run())


def _raise_descriptor_limit() -> None:
    """A CLI takes four descriptors, a client one: the usual 1,024 are soon gone, and more may be had for the asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Daemon:
    def __init__(
        self,
        config: Config,
        launch: Launch,
        path: Path,
        sockets: Sockets,
        notifier: Notifier,
        *,
        state_dir: Path,
        run_dir: Path | None,
    ) -> None:
        self._config = config
        self._launch = launch
        self._path = path
        self._addresses = sockets.addresses
        self._http = config.daemon.http  # what is served, whatever a reload may say
        self._notifier = notifier
        self._state_dir = state_dir
        self._run_dir = run_dir
        self._end = asyncio.Event()
        self._force = asyncio.Event()
        self._terminal = _Terminal()
        self._reloading = asyncio.Lock()
        self._hang_ups: set[asyncio.Task[None]] = set()
        self._registry = Registry(config, state_dir, run_dir)
        self._supervisor = Supervisor(self._registry, memory=Memory(_limit_bytes(config)))
        is_autostarted = launch.idle_exit_s is not None
        self._service = Service(self._registry, self._supervisor, is_autostarted=is_autostarted)
        self._doors = Doors(
            self._service,
            sockets,
            shut_down=self._shut_down,
            reload=self._reload,
            line_cap_bytes=config.daemon.parse_cap_bytes,
        )

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _ENDS:
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        reaper = Reaper(self._state_dir)
        watchdog = asyncio.create_task(self._notifier.watchdog(), name="watchdog")
        try:
            reaper.start()
            self._supervisor.start()
            await self._doors.start()
            _log.info(
                "daemon.ready",
                version=__version__,
                socket=str(self._path),
                http=self._addresses,
                config=str(self._config.path),
                runners=list(self._registry.runners),
            )
            self._tell_ready()
            await self._until_its_end()
            self._notifier.stopping()
            self._service.refuse_chats()
            await self._drain()
        finally:
            # A reload that is under way would begin new probes behind the end of all others.
            loop.remove_signal_handler(signal.SIGHUP)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            for task in self._hang_ups:
                task.cancel()
            await asyncio.gather(*self._hang_ups, return_exceptions=True)
            await self._doors.aclose()
            await self._supervisor.aclose()
            await reaper.aclose()
            watchdog.cancel()
            for number in _ENDS:
                # One that comes now is late, and must not make a failure of a good end.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            _log.info("daemon.ended")

    def _tell_ready(self) -> None:
        self._notifier.ready(f"serves {self._path}")
        if self._launch.ready_fd is not None:
            # Who has started us may have lost patience.
            with suppress(BrokenPipeError):
                os.write(self._launch.ready_fd, b"ready\n")
            os.close(self._launch.ready_fd)

    async def _until_its_end(self) -> None:
        while not self._end.is_set():
            limit_s = self._launch.idle_exit_s
            left_s = None if limit_s is None else limit_s - self._doors.unused_s
            if left_s is not None and left_s <= 0:
                _log.info("daemon.unused", unused_s=round(self._doors.unused_s))
                self._end.set()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._end.wait()

    def _shut_down(self) -> dict[str, Any]:
        self._end.set()
        return {"ok": True}

    def _signalled(self) -> None:
        """The first time running chats may end by themselves; the second time they are cut."""
        (self._force if self._end.is_set() else self._end).set()

    def _hung_up(self) -> None:
        """SIGHUP: a reload is wanted, or the terminal that it was started in has gone."""
        if self._terminal.is_gone():
            self._signalled()
        if self._end.is_set():
            return
        task = asyncio.create_task(self._reload_logged(), name="reload")
        self._hang_ups.add(task)
        task.add_done_callback(self._hang_ups.discard)

    async def _reload_logged(self) -> None:
        with suppress(ConfigError):  # it is in the log
            await self._reload()

    async def _reload(self) -> dict[str, Any]:
        """Reads the configuration and swaps it in; ConfigError for a bad one, which changes nothing."""
        async with self._reloading:
            self._notifier.reloading()
            try:
                config = await asyncio.to_thread(lambda: load_config(find_config(self._launch.config)))
                registry = Registry(config, self._state_dir, self._run_dir, before=self._registry)
                self._doors.renew_token(self._http)
            except ConfigError as error:
                _log.error("daemon.kept_configuration", error=error.message)
                raise
            finally:
                self._notifier.ready(f"serves {self._path}")
            is_moved = self._launch.socket is None and config.daemon.socket != self._config.daemon.socket
            moved = ["daemon.socket"] * is_moved + ["daemon.http"] * (config.daemon.http != self._http)
            before, self._config, self._registry = self._registry.runners, config, registry
            self._supervisor.memory.limit_bytes = _limit_bytes(config)
            self._supervisor.memory.happened()
            self._service.replace(registry)
            self._doors.set_line_cap(config.daemon.parse_cap_bytes)
            told = {
                "config": str(config.path),
                "added": [name for name in registry.runners if name not in before],
                "changed": [n for n, runner in registry.runners.items() if n in before and before[n] is not runner],
                "removed": [name for name in before if name not in registry.runners],
                "needs_restart": moved,
            }
            _log.info("daemon.reloaded", **told)
            return {"ok": True, **told}

    async def _drain(self) -> None:
        _log.info("daemon.draining", limit_s=self._config.daemon.drain_s)
        waits = [asyncio.create_task(self._doors.answered()), asyncio.create_task(self._force.wait())]
        await asyncio.wait(waits, timeout=self._config.daemon.drain_s, return_when=asyncio.FIRST_COMPLETED)
        if not waits[0].done():
            _log.warning("daemon.cut_chats", requests=len(self._doors.answering))
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _limit_bytes(config: Config) -> int:
    """For all CLIs together: a quarter of the machine's memory when nothing is said."""
    return config.daemon.max_cli_memory or int(psutil.virtual_memory().total) // 4


class _Terminal:
    """The terminal that this process belongs to, when it does to one."""

    def __init__(self) -> None:
        # Who says `nohup` wants it to stay.
        self._was_there = _can_be_opened() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def is_gone(self) -> bool:
        """Whether it was there and is no more."""
        return self._was_there and not _can_be_opened()


def _can_be_opened() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
