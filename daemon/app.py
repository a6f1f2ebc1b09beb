"""The daemon as a program: put together from its parts, run until it is told to end."""

import asyncio
import signal
from pathlib import Path

import structlog

from daemon import __version__
from daemon.config import Config
from daemon.frontends.rpc import RpcFrontend
from daemon.paths import private_directory, socket_path, state_directory
from daemon.registry import Registry
from daemon.service import Service
from daemon.supervisor import Supervisor
from daemon.unix_socket import Instance

# SIGHUP: the terminal that it ran in is gone.
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_log = structlog.get_logger()


def serve(config: Config, socket: Path | None) -> None:
    """Serves until SIGTERM, SIGINT or `shutdown`. Raises DaemonError when it cannot start."""
    state_dir = private_directory(state_directory())
    path = (socket or config.daemon.socket or socket_path()).expanduser()
    with Instance(path) as instance:
        asyncio.run(_Daemon(config, state_dir).run(instance, path))


class _Daemon:
    def __init__(self, config: Config, state_dir: Path) -> None:
        self._config = config
        self._state_dir = state_dir
        self._end = asyncio.Event()
        self._force = asyncio.Event()

    async def run(self, instance: Instance, path: Path) -> None:
        assert instance.socket is not None
        loop = asyncio.get_running_loop()
        for number in _ENDS:
            loop.add_signal_handler(number, self._signalled)
        registry = Registry(self._config, self._state_dir)
        supervisor = Supervisor(registry)
        service = Service(registry, supervisor)
        rpc = RpcFrontend(service, self._end.set, self._config.daemon.parse_cap_bytes)
        try:
            supervisor.start()
            await rpc.start(instance.socket)
            _log.info(
                "daemon.ready",
                version=__version__,
                socket=str(path),
                config=str(self._config.path),
                runners=list(registry.runners),
            )
            await self._end.wait()
            service.refuse_chats()
            await self._drain(rpc)
        finally:
            await rpc.aclose()
            await supervisor.aclose()
            await registry.aclose()
            for number in _ENDS:
                # One that comes now is late, and must not make a failure of a good end.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            _log.info("daemon.ended")

    def _signalled(self) -> None:
        """The first time running chats may end by themselves; the second time they are cut."""
        (self._force if self._end.is_set() else self._end).set()

    async def _drain(self, rpc: RpcFrontend) -> None:
        _log.info("daemon.draining", limit_s=self._config.daemon.drain_s)
        waits = [asyncio.create_task(rpc.answered()), asyncio.create_task(self._force.wait())]
        await asyncio.wait(waits, timeout=self._config.daemon.drain_s, return_when=asyncio.FIRST_COMPLETED)
        if not waits[0].done():
            _log.warning("daemon.cut_chats", requests=len(rpc.answering))
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
