"""JSON-RPC 2.0 on the Unix socket: one message a line, many requests at once on a connection.

Owns connections, the methods and the forms of errors. The protocol itself is `runners.wire.jsonrpc`, what the methods
do is `daemon.service`'s business.
"""

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict

from daemon.frontends.incoming import Model, WrongFieldsError, checked
from daemon.service import Service
from daemon.unix_socket import peer_uid
from runners.errors import LineTooLongError, RequestCancelledError, RunnerError
from runners.messages import ChatRequest
from runners.stream import ChatStream, ResponseBuilder
from runners.wire.framing import LineFramer
from runners.wire.jsonrpc import INVALID_PARAMS, METHOD_NOT_FOUND, Peer, RequestId, RpcError, notification

RUNNER_ERROR = -32010
_READ_BYTES = 256 * 1024
_BATCH_BYTES = 64 * 1024
_HANG_UP_CHECK_S = 0.25
_LAST_WORDS_S = 1.0
_numbers = count(1)

_log = structlog.get_logger()


class _HealthParams(BaseModel):
    model_config = ConfigDict(strict=True)

    runner: str | None = None
    deep: bool = False


class _ResolveParams(BaseModel):
    model_config = ConfigDict(strict=True)

    model: str | None = None


class RpcFrontend:
    """Serves the socket. `shut_down` and `reload` are what a client may ask of the daemon itself.

    `line_cap_bytes` may be changed: it holds for connections that come later. `http` is where else the daemon is.
    """

    def __init__(
        self,
        service: Service,
        *,
        shut_down: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        line_cap_bytes: int,
        http: list[str],
    ) -> None:
        self._service = service
        self._http = http
        self._shut_down = shut_down
        self._reload = reload
        self.line_cap_bytes = line_cap_bytes
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._last_use_s = time.monotonic()

    async def start(self, listening: socket.socket) -> None:
        """Accepts connections on a socket that is bound already."""
        # asyncio accepts as many as its backlog in one go, and without descriptors fails, logs and retries as often.
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, backlog=1)
        listening.listen(socket.SOMAXCONN)

    @property
    def answering(self) -> list[asyncio.Task[None]]:
        """The requests that have no answer yet."""
        return [request for connection in self._connections.values() for request in connection.requests]

    @property
    def unused_s(self) -> float:
        """Seconds since the last client has gone that had asked something; 0 while there is one."""
        if any(connection.has_asked for connection in self._connections.values()):
            return 0.0
        return time.monotonic() - self._last_use_s

    async def aclose(self) -> None:
        """Accepts no more, and ends every connection with what still runs on it."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(self, reader, writer)
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)
        uid = peer_uid(writer.get_extra_info("socket"))
        try:
            if uid == os.getuid():
                await connection.serve(self.line_cap_bytes)
            else:
                _log.warning("connection.refused", uid=uid)
        except asyncio.CancelledError:
            pass  # the daemon ends; asyncio would log a cancelled connection as an error
        finally:
            await connection.aclose()
            if connection.has_asked:
                self._last_use_s = time.monotonic()

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """Answers a method that is no chat; RpcError for one that does not exist."""
        match method:
            case "health":
                wanted = _validated(_HealthParams, params)
                return await self._service.health(wanted.runner, deep=wanted.deep)
            case "models":
                return await self._service.models()
            case "resolve":
                return await self._service.resolve(_validated(_ResolveParams, params).model)
            case "status":
                return await self._service.status()
            case "reload":
                return await self._reload()
        answers = {
            "runners": self._service.runners,
            "version": lambda: self._service.version() | {"http": self._http},
            "shutdown": self._shut_down,
        }
        if method not in answers:
            raise RpcError(METHOD_NOT_FOUND, f"there is no method {method!r}")
        return answers[method]()

    async def chat(self, params: dict[str, Any], client: str) -> tuple[ChatRequest, ChatStream]:
        """The request, and the stream that answers it."""
        request = _validated(ChatRequest, params)
        return request, await self._service.chat(request, client=client)


class Connection:
    """One client: its lines, and the tasks that answer its requests."""

    def __init__(self, frontend: RpcFrontend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._frontend = frontend
        self._reader = reader
        self._writer = writer
        # What is sent has left us when `drain` returns: nothing of an answer is lost when the daemon ends behind it.
        writer.transport.set_write_buffer_limits(high=0)
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._peer = Peer(self._send, answer=self._answer, heard=lambda _method, _params: None)
        self._closing = False
        self._has_ended = False
        self._name = f"connection {next(_numbers)}"
        self.has_asked = False

    @property
    def requests(self) -> list[asyncio.Task[None]]:
        """The tasks that answer this client's requests."""
        return list(self._peer.requests.values())

    async def serve(self, line_cap_bytes: int) -> None:
        """Reads until the client is gone. One that only ended its own sending still gets its answers."""
        framer = LineFramer(line_cap_bytes)
        try:
            while data := await self._reader.read(_READ_BYTES):
                for line in framer.feed(data):
                    await self._take(line)
                    await asyncio.sleep(0)  # a flood of requests must leave the others their turn
                if framer.overflow is not None:
                    await self._refuse_the_rest(framer.overflow)
                    return
            for line in framer.rest():
                await self._take(line)
            while self.requests and not self._is_hung_up():
                await asyncio.wait(self.requests, timeout=_HANG_UP_CHECK_S)
        except ConnectionError:
            pass  # the client is gone, with whatever was on its way to it

    async def aclose(self) -> None:
        """Cancels what still runs for this client, and says so to one that listens."""
        self._closing = True
        await self._peer.aclose()
        self._writer.close()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError):
            self._writer.transport.abort()

    async def _refuse_the_rest(self, error: LineTooLongError) -> None:
        """Says why, and reads on for a moment: a client that is cut off while it sends may never see the reason."""
        await self._peer.refuse(_runner_error(error))
        self._has_ended = True
        self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                while await self._reader.read(_READ_BYTES):
                    pass

    def _is_hung_up(self) -> bool:
        # A closed connection and a half-closed one look the same to a reader; only poll tells them apart.
        descriptor = self._writer.get_extra_info("socket").fileno()
        poll = select.poll()
        if descriptor >= 0:
            poll.register(descriptor, 0)
        return descriptor < 0 or bool(poll.poll(0))

    async def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            await self._peer.take(line)
        except RpcError as error:
            await self._peer.refuse(error)

    async def _answer(self, request_id: RequestId, method: str, params: dict[str, Any]) -> Any:
        self.has_asked = True
        try:
            if method == "chat":
                return await self._chat(request_id, params)
            return await self._frontend.call(method, params)
        except RunnerError as error:
            raise _runner_error(error) from error
        except asyncio.CancelledError:
            why = "the daemon ends, and the request was cut" if self._closing else "the request was cancelled"
            raise _runner_error(RequestCancelledError(why)) from None

    async def _chat(self, request_id: RequestId, params: dict[str, Any]) -> Any:
        request, stream = await self._frontend.chat(params, self._name)
        builder = ResponseBuilder()
        async with stream:
            async for chunk in stream:
                if request.stream:
                    await self._show(notification("chat.chunk", {"id": request_id, "chunk": chunk}))
                builder.add(chunk)
        return builder.response()

    async def _show(self, chunk: bytes) -> None:
        """Sends a chunk, in one write with the others that are there already, those of other chats too.

        Waits while the client does not read what it was sent: that stops the reading of its CLI, and nobody else's.
        """
        if not self._batch:
            # Behind the task's step: as long as there are chunks that nobody has to wait for, it goes on.
            asyncio.get_running_loop().call_soon(self._write_batch)
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)
        if self._batch_bytes >= _BATCH_BYTES:
            self._write_batch()
        if not self._closing:
            await self._writer.drain()

    async def _send(self, message: bytes) -> None:
        """Sends a message, and what stands before it, and waits until all has left us."""
        self._batch.append(message)
        self._write_batch()
        if not self._closing:
            await self._writer.drain()

    def _write_batch(self) -> None:
        if self._batch and not self._has_ended:
            self._writer.write(b"".join(self._batch))
        self._batch.clear()
        self._batch_bytes = 0


def _runner_error(error: RunnerError) -> RpcError:
    return RpcError(RUNNER_ERROR, error.message, error.to_dict())


def _validated(model: type[Model], params: dict[str, Any]) -> Model:
    """`params` as the model, or an RpcError that names every wrong field by its path."""
    try:
        return checked(model, params)
    except WrongFieldsError as error:
        fields = [{"path": problem.path, "message": problem.message} for problem in error.problems]
        raise RpcError(INVALID_PARAMS, f"params.{error.message}", {"fields": fields}) from error
