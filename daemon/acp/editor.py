"""The line to the editor: JSON-RPC on stdin and stdout, one message a line.

It stands in the place of the package's own transport, which ends at the first line that is no message, waits for ever
for a reader that has gone, and knows `session/set_model` no more. Knows no session.
"""

import asyncio
import contextlib
import json
import sys
from typing import Any, Self

from daemon.errors import DaemonError

SET_MODEL = "session/set_model"
"""How editors chose a model before there were config options. To the package it is an extension."""

_LINE_BYTES = 64 * 1024 * 1024
_PARSE_ERROR, _INVALID_REQUEST = -32700, -32600


class _Outgoing(asyncio.StreamReaderProtocol):
    """The protocol of stdout. One for streams, though nothing is read: it wakes a writer whose reader has gone."""

    def __init__(self, stdin: asyncio.BaseTransport) -> None:
        super().__init__(asyncio.StreamReader())
        self._stdin = stdin

    def connection_lost(self, exc: Exception | None) -> None:
        """An editor that reads no more has gone: stdin ends too."""
        super().connection_lost(exc)
        self._stdin.close()


class Editor:
    """Messages from the editor and to it; the `Transport` of the package."""

    def __init__(
        self, reader: asyncio.StreamReader, stdin: asyncio.BaseTransport, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._stdin = stdin
        self._writer = writer
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def on_stdio(cls) -> Self:
        """The editor that has started this process; DaemonError when stdin and stdout are no channels."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LINE_BYTES)
        try:
            stdin, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
            stdout, protocol = await loop.connect_write_pipe(lambda: _Outgoing(stdin), sys.stdout)
        except ValueError as error:
            raise DaemonError("an editor starts `runnerd acp`, with pipes as its stdin and stdout") from error
        return cls(reader, stdin, asyncio.StreamWriter(stdout, protocol, None, loop))

    async def receive(self) -> dict[str, Any] | None:
        """The next message, or None when there is none any more."""
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                line = error.partial
                if not line:
                    return None
            except asyncio.LimitOverrunError:
                await self._refuse(_INVALID_REQUEST, f"a line passes the cap of {_LINE_BYTES} bytes")
                return None
            message = await self._message(line) if line.strip() else None
            if message is not None:
                return message

    async def _message(self, line: bytes) -> dict[str, Any] | None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            await self._refuse(_PARSE_ERROR, f"not JSON: {error}")
            return None
        if not isinstance(message, dict) or not isinstance(message.get("id"), str | int | None):
            await self._refuse(_INVALID_REQUEST, "a message is an object, and its id a number or a text")
            return None
        method = message.get("method")
        if method == SET_MODEL:
            return message | {"method": f"_{method}"}
        # Of these the protocol says that who does not know one passes it over.
        return None if str(method).startswith("$/") and "id" not in message else message

    async def send(self, message: dict[str, Any]) -> None:
        """Sends a message, if there is still somebody who reads it."""
        # A detail of an error may be anything.
        line = json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"
        async with self._one_at_a_time:
            if not self._writer.is_closing():
                self._writer.write(line)
                with contextlib.suppress(ConnectionError):
                    await self._writer.drain()

    async def close(self) -> None:
        """Ends the line."""
        self._stdin.close()
        self._writer.close()

    async def _refuse(self, code: int, message: str) -> None:
        await self.send({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}})
