"""Connections over TCP that have not shown the token: anybody on this machine can open them, so few may be open, and
none for long. Without that they would take the descriptors that the daemon needs for everybody else.
"""

import asyncio
import socket
from collections.abc import Callable

import structlog

_AT_MOST = 64
_PATIENCE_S = 10.0
_LOOK_S = 0.1
_ACCEPTS_AGAIN_S = 1.0

_log = structlog.get_logger()


class Strangers:
    """Accepts connections for `protocol`, and ends those that stay strangers."""

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], *, at_most: int = _AT_MOST, patience_s: float = _PATIENCE_S
    ) -> None:
        self._protocol = protocol
        self._at_most = at_most
        self._patience_s = patience_s
        self._limits: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    async def accept(self, listening: socket.socket) -> None:
        """Accepts until it is cancelled. Who comes when there is no room waits in the system's queue."""
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            await self._room()
            try:
                connected, _ = await loop.sock_accept(listening)
            except OSError as error:
                # The daemon is out of descriptors, or who came has gone.
                _log.warning("http.not_accepted", error=str(error))
                await asyncio.sleep(_ACCEPTS_AGAIN_S)
                continue
            transport, _ = await loop.connect_accepted_socket(self._protocol, connected)
            self._limits[transport] = loop.call_later(self._patience_s, self._end, transport)

    def is_known(self, transport: asyncio.BaseTransport | None) -> None:
        """A connection has shown the token: it may stay."""
        if transport is not None and transport in self._limits:
            self._limits.pop(transport).cancel()

    async def _room(self) -> None:
        """Waits until one more may come. Those that have left are found by looking: no transport tells."""
        while len(self._limits) >= self._at_most:
            for transport in [one for one in self._limits if one.is_closing()]:
                self._limits.pop(transport).cancel()
            await asyncio.sleep(_LOOK_S)

    def _end(self, transport: asyncio.Transport) -> None:
        del self._limits[transport]
        transport.abort()

    def aclose(self) -> None:
        """Forgets all of them; who owns the protocols ends them."""
        for limit in self._limits.values():
            limit.cancel()
        self._limits.clear()
