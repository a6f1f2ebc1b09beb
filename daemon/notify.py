"""What a service manager is told: that we serve, that we reload, that we end, and that the event loop still turns.

The protocol is sd_notify(3): datagrams of `NAME=value` lines. It owns one socket, and knows nothing of the daemon.
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog

# A manager that reads nothing holds up the loop for no longer; but a READY must not get lost in a full queue either.
_SEND_S = 1.0

_log = structlog.get_logger()


class Notifier:
    """Tells the service manager that `environ` names. Without one nothing is done.

    What cannot be sent is logged once and never fatal. The socket is held from the start, for a daemon that is out of
    file descriptors must not be taken for a stuck one.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        named = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + named[1:] if named.startswith("@") else named
        self._socket: socket.socket | None = None
        self._failed = False
        interval_us, for_pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
        is_watched = interval_us.isdecimal() and for_pid in (None, str(os.getpid()))
        self._watchdog_s = int(interval_us) / 1e6 if is_watched else 0.0

    def __enter__(self) -> Self:
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(_SEND_S)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ready(self, status: str) -> None:
        """We serve, for the first time or again after `reloading`. `status` is one line for a person."""
        self._send("READY=1", f"STATUS={' '.join(status.split())}")

    def reloading(self) -> None:
        """The configuration is read again; `ready` must follow, whether it was taken or not."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """We take no more chats, and end when those that run have."""
        self._send("STOPPING=1")

    async def watchdog(self) -> None:
        """Says twice in each interval that the loop turns, for as long as it is let; returns when nobody watches."""
        while self._socket is not None and self._watchdog_s:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            # Each time, for a manager that was restarted has a new socket of the same name.
            self._socket.connect(self._address)
            self._socket.send("\n".join(lines).encode(errors="replace"))
        except OSError as error:
            if not self._failed:
                _log.warning("notify.failed", told=lines[0], error=str(error))
            self._failed = True
