"""The socket's client: plain blocking calls, light enough for a command that has to be quick."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemon.errors import CallError, ConnectionLostError, DaemonError, NoDaemonError

_READ_BYTES = 256 * 1024
_CONNECTS_WITHIN_S = 10.0


class Client:
    """One connection to the daemon at `path`, and one call at a time on it. Closing it cancels the call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        # Where nobody takes connections any more, they queue up, and then connecting waits.
        self._socket.settimeout(_CONNECTS_WITHIN_S)
        try:
            self._socket.connect(os.fspath(path))
            self._socket.settimeout(None)
        except OSError as error:
            self._socket.close()
            raise NoDaemonError(
                f"no daemon answers on {path} ({error.strerror or error}): start one with `runnerd serve`"
            ) from error
        self._last_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and with it a call that still runs."""
        self._socket.close()

    def hang_up(self) -> None:
        """Ends the connection under a call that another thread waits in: to it the daemon goes away."""
        with contextlib.suppress(OSError):  # it has gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def call(self, method: str, **params: Any) -> Any:
        """The result of a method; CallError when the daemon says no."""
        for message in self._exchange(method, params):
            if "method" not in message:
                return message["result"]
        raise ConnectionLostError("the daemon went away before it had answered")

    def call_within(self, limit_s: float | None, method: str, **params: Any) -> Any:
        """The same, by a daemon that is silent for at most `limit_s`, if that is given; else DaemonError."""
        self._socket.settimeout(limit_s)
        try:
            return self.call(method, **params)
        except TimeoutError as error:
            raise DaemonError(f"the daemon on {self.path} has not answered for {limit_s:.0f} s") from error
        finally:
            self._socket.settimeout(None)

    def chat(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The chunks of an answer as they come; CallError when it fails. Reading to the end means that it is whole."""
        for message in self._exchange("chat", request):
            if "method" not in message:
                return
            yield message["params"]["chunk"]
        raise ConnectionLostError("the daemon went away in the middle of the answer")

    @staticmethod
    def wait_for_end(lock: Path) -> None:
        """Waits until a daemon that was asked to shut down has: it holds its lock as long as it lives."""
        with contextlib.suppress(FileNotFoundError), lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_SH)

    def _exchange(self, method: str, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}
        try:
            # A daemon that refuses a line hangs up in the middle of it, and has said why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # ASCII escapes: arguments of a command may hold bytes that are no UTF-8.
                self._socket.sendall(json.dumps(request).encode() + b"\n")
            for line in self._lines():
                message = json.loads(line)
                if "error" in message:
                    error = message["error"]
                    raise CallError(error["code"], error["message"], error.get("data"))
                yield message
        except ConnectionError as error:
            raise ConnectionLostError(f"the daemon went away: {error.strerror}") from error

    def _lines(self) -> Iterator[bytes]:
        pieces: list[bytes] = []
        while data := self._socket.recv(_READ_BYTES):
            *complete, rest = data.split(b"\n")
            for line in complete:
                yield b"".join((*pieces, line))
                pieces.clear()
            pieces.append(rest)
