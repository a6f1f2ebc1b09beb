"""All ways into the daemon: the JSON-RPC socket, and HTTP on a socket beside it and, where it is wanted, on TCP.

The HTTP sockets are bound at the start; what serves them is loaded when the first client comes, for it is heavy, and
most daemons need none of it.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from daemon.config import HttpSettings
from daemon.errors import DaemonError
from daemon.frontends.rpc import RpcFrontend
from daemon.http_token import ensured_token
from daemon.service import Service
from daemon.unix_socket import Instance, fits
from runners.errors import ConfigError

if TYPE_CHECKING:
    from daemon.frontends.guard import Guard
    from daemon.frontends.http import HttpFrontend

_log = structlog.get_logger()


@dataclass(frozen=True)
class Sockets:
    """What the daemon listens on. `token` is that of TCP, None where nothing listens there."""

    rpc: socket.socket
    http: list[socket.socket]
    token: str | None
    addresses: list[str]
    """Of HTTP, for the log."""


@contextmanager
def listening(path: Path, http: HttpSettings) -> Iterator[Sockets]:
    """Binds every socket; DaemonError for one that cannot be had."""
    with ExitStack() as stack:
        rpc = stack.enter_context(Instance(path)).socket
        assert rpc is not None
        bound, addresses, secret = [], [], None
        beside = http.socket_beside(path)
        if beside is not None and http.unix is True and not fits(beside):
            # The other socket's name is shorter: who has asked for none of this shall not miss that for it.
            _log.warning("http.no_socket", why="its path is longer than the system allows", path=str(beside))
        elif beside is not None:
            unix = stack.enter_context(Instance(beside)).socket
            assert unix is not None
            bound.append(unix)
            addresses.append(str(beside))
        if http.address is not None:
            secret = ensured_token(http.token_place)
            bound.append(stack.enter_context(_tcp(*http.address)))
            addresses.append("http://{}:{}".format(*_named(bound[-1])))
        yield Sockets(rpc, bound, secret, addresses)


def _tcp(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # One that has just ended leaves the port in use for a while, to nobody's use.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(socket.SOMAXCONN)
    except OSError as error:
        bound.close()
        raise DaemonError(f"cannot listen on {host}:{port}: {error.strerror} (daemon.http.tcp)") from error
    return bound


def _named(bound: socket.socket) -> tuple[str, int]:
    host, port = bound.getsockname()[:2]
    return (f"[{host}]" if ":" in host else host), port


class Doors:
    """The front ends, as one. `shut_down` and `reload` are what a client may ask of the daemon itself."""

    def __init__(
        self,
        service: Service,
        sockets: Sockets,
        *,
        shut_down: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        line_cap_bytes: int,
    ) -> None:
        self._service = service
        self._sockets = sockets
        self._line_cap_bytes = line_cap_bytes
        self._rpc = RpcFrontend(
            service, shut_down=shut_down, reload=reload, line_cap_bytes=line_cap_bytes, http=sockets.addresses
        )
        self._token = sockets.token
        self._guard: Guard | None = None
        self._http: HttpFrontend | None = None
        self._opening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accepts connections."""
        await self._rpc.start(self._sockets.rpc)
        for bound in self._sockets.http:
            asyncio.get_running_loop().add_reader(bound, self._open_http)

    def _open_http(self) -> None:
        """Somebody waits at an HTTP socket."""
        self._stop_waiting()
        self._opening = asyncio.create_task(self._opened_http(), name="http-opening")

    def _stop_waiting(self) -> None:
        for bound in self._sockets.http:
            asyncio.get_running_loop().remove_reader(bound)

    async def _opened_http(self) -> None:
        try:
            # Not on the loop: it takes its time, and chats are under way.
            frontend, guard = await asyncio.to_thread(_http_modules)
            self._guard = guard(self._token)
            http = frontend(self._service, self._guard, body_cap_bytes=self._line_cap_bytes)
            await http.start(self._sockets.http)
        except (ImportError, OSError, DaemonError):
            # What is installed has changed under a daemon that runs. Who connects must not wait for ever.
            _log.exception("http.failed", hint="start the daemon again")
            for bound in self._sockets.http:
                bound.close()
            return
        self._http = http
        _log.info("http.opened", addresses=self._sockets.addresses)

    @property
    def _all(self) -> "list[RpcFrontend | HttpFrontend]":
        return [self._rpc] if self._http is None else [self._rpc, self._http]

    def renew_token(self, http: HttpSettings) -> None:
        """Reads the token again, which may be another by now; ConfigError when there is none to be had."""
        if self._token is None:
            return
        try:
            self._token = ensured_token(http.token_place)
        except DaemonError as error:
            raise ConfigError(str(error)) from error
        if self._guard is not None:
            self._guard.token = self._token

    def set_line_cap(self, line_cap_bytes: int) -> None:
        """How long what a client sends may be from now on."""
        self._line_cap_bytes = self._rpc.line_cap_bytes = line_cap_bytes
        if self._http is not None:
            self._http.body_cap_bytes = line_cap_bytes

    @property
    def answering(self) -> "list[asyncio.Task[None]]":
        """The requests that have no answer yet."""
        return [task for door in self._all for task in door.answering]

    @property
    def unused_s(self) -> float:
        """Seconds since anybody has wanted anything; 0 while somebody does, as who waits for HTTP to be loaded."""
        if self._opening is not None and not self._opening.done():
            return 0.0
        return min(door.unused_s for door in self._all)

    async def answered(self) -> None:
        """Waits until every request has its answer, and its client has taken it."""
        while answering := self.answering:
            await asyncio.wait(answering)

    async def aclose(self) -> None:
        """Accepts no more, and ends every connection with what still runs on it."""
        self._stop_waiting()
        if self._opening is not None:
            await asyncio.wait([self._opening])
        await asyncio.gather(*(door.aclose() for door in self._all))


def _http_modules() -> "tuple[Any, Any]":
    from daemon.frontends.guard import Guard
    from daemon.frontends.http import HttpFrontend

    return HttpFrontend, Guard
