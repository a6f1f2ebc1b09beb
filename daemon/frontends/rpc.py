"""JSON-RPC 2.0 on the Unix socket: one message a line, many requests at once on a connection.

Owns connections, request ids and the forms of errors. What the methods do is `daemon.service`'s business.
"""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from daemon.service import Service
from daemon.unix_socket import peer_uid
from runners.errors import LineTooLongError, RequestCancelledError, RunnerError
from runners.messages import ChatRequest
from runners.stream import ChatStream, ResponseBuilder
from runners.wire.framing import LineFramer, dump_json, parse_json_exactly

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
RUNNER_ERROR = -32010
_READ_BYTES = 256 * 1024
_HANG_UP_CHECK_S = 0.25
_LAST_WORDS_S = 1.0
_PROBLEMS_TOLD = 10

_log = structlog.get_logger()
RequestId = str | int


class RpcError(Exception):
    """A request that was answered with an error of the protocol."""

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def reply(self) -> dict[str, Any]:
        """The `error` of a response."""
        data = {} if self.data is None else {"data": self.data}
        return {"error": {"code": self.code, "message": str(self)} | data}


class _HealthParams(BaseModel):
    model_config = ConfigDict(strict=True)

    runner: str | None = None
    deep: bool = False


class RpcFrontend:
    """Serves the socket. `shut_down` is called, once answered, when a client asks for it."""

    def __init__(self, service: Service, shut_down: Callable[[], None], line_cap_bytes: int) -> None:
        self._service = service
        self._shut_down = shut_down
        self._line_cap_bytes = line_cap_bytes
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.answering: set[asyncio.Task[None]] = set()

    async def start(self, listening: socket.socket) -> None:
        """Accepts connections on a socket that is bound already."""
        self._server = await asyncio.start_unix_server(self._accept, sock=listening, backlog=socket.SOMAXCONN)

    async def answered(self) -> None:
        """Waits until every request has its answer, and its client has taken it."""
        while self.answering:
            await asyncio.wait(self.answering)

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
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        uid = peer_uid(writer.get_extra_info("socket"))
        connection = Connection(self, reader, writer)
        try:
            if uid == os.getuid():
                await connection.serve(self._line_cap_bytes)
            else:
                _log.warning("connection.refused", uid=uid)
        except asyncio.CancelledError:
            pass  # the daemon ends; asyncio would log a cancelled connection as an error
        finally:
            await connection.aclose()

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        """Answers a method that is no chat; RpcError for one that does not exist."""
        match method:
            case "health":
                wanted = validated(_HealthParams, params)
                return await self._service.health(wanted.runner, deep=wanted.deep)
            case "models":
                return self._service.models()
            case "runners":
                return self._service.runners()
            case "status":
                return self._service.status()
            case "version":
                return self._service.version()
            case "shutdown":
                self._shut_down()
                return {"ok": True}
        raise RpcError(METHOD_NOT_FOUND, f"there is no method {method!r}")

    def chat(self, params: dict[str, Any]) -> tuple[ChatRequest, ChatStream]:
        """The request, and the stream that answers it."""
        request = validated(ChatRequest, params)
        return request, self._service.chat(request)


class Connection:
    """One client: its lines, and the tasks that answer its requests."""

    def __init__(self, frontend: RpcFrontend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._frontend = frontend
        self._reader = reader
        self._writer = writer
        # What is sent has left us when `drain` returns: nothing of an answer is lost when the daemon ends behind it.
        writer.transport.set_write_buffer_limits(high=0)
        self._requests: dict[RequestId, asyncio.Task[None]] = {}
        self._closing = False

    async def serve(self, line_cap_bytes: int) -> None:
        """Reads until the client is gone. One that only ended its own sending still gets its answers."""
        framer = LineFramer(line_cap_bytes)
        try:
            while data := await self._reader.read(_READ_BYTES):
                for line in framer.feed(data):
                    await self._take(line)
                if framer.overflow is not None:
                    await self._refuse_the_rest(framer.overflow)
                    return
            for line in framer.rest():
                await self._take(line)
            while self._requests and not self._is_hung_up():
                await asyncio.wait(self._requests.values(), timeout=_HANG_UP_CHECK_S)
        except ConnectionError:
            pass  # the client is gone, with whatever was on its way to it

    async def aclose(self) -> None:
        """Cancels what still runs for this client, and says so to one that listens."""
        self._closing = True
        requests = list(self._requests.values())
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        self._writer.close()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError):
            self._writer.transport.abort()

    async def _refuse_the_rest(self, error: LineTooLongError) -> None:
        """Says why, and reads on for a moment: a client that is cut off while it sends may never see the reason."""
        await self._reply(None, _runner_error(error))
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
            message = self._parsed(line)
        except RpcError as error:
            await self._reply(None, error.reply())
            return
        request_id = message["id"] if is_request_id(message.get("id")) else None
        try:
            method, params = self._checked(message)
        except RpcError as error:
            # A notification is never answered; what is no JSON-RPC at all is none.
            if "id" in message or error.code == INVALID_REQUEST:
                await self._reply(request_id, error.reply())
            return
        if method == "$/cancelRequest":
            self._cancel(params.get("id"))
            if request_id is not None:
                await self._reply(request_id, {"result": None})
        elif request_id is not None:
            task = asyncio.create_task(self._answer(request_id, method, params), name=f"rpc-{method}-{request_id}")
            self._requests[request_id] = task
            self._frontend.answering.add(task)
            task.add_done_callback(self._frontend.answering.discard)
            task.add_done_callback(lambda _: self._requests.pop(request_id))

    def _cancel(self, request_id: Any) -> None:
        running = self._requests.get(request_id) if is_request_id(request_id) else None
        if running is not None:
            # Behind the task's first step: one that was cancelled before it began would never answer.
            asyncio.get_running_loop().call_soon(running.cancel)

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            message = parse_json_exactly(line)
        except ValueError as error:
            raise RpcError(PARSE_ERROR, f"not JSON: {error}") from error
        if not isinstance(message, dict):
            raise RpcError(INVALID_REQUEST, "a message is a JSON object on one line; batches are not served")
        return message

    def _checked(self, message: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        method, params = message.get("method"), message.get("params", {})
        if message.get("jsonrpc") != "2.0":
            raise RpcError(INVALID_REQUEST, 'jsonrpc: must be "2.0"')
        if not isinstance(method, str):
            raise RpcError(INVALID_REQUEST, "method: must be a string")
        if "id" in message and not is_request_id(message["id"]):
            raise RpcError(INVALID_REQUEST, "id: must be a string or an integer")
        if message.get("id") in self._requests:
            raise RpcError(INVALID_REQUEST, f"id: {message['id']!r} is still in flight")
        if not isinstance(params, dict):
            raise RpcError(INVALID_PARAMS, "params: must be an object")
        return method, params

    async def _answer(self, request_id: RequestId, method: str, params: dict[str, Any]) -> None:
        try:
            if method == "chat":
                reply = {"result": await self._chat(request_id, params)}
            else:
                reply = {"result": await self._frontend.call(method, params)}
        except RpcError as error:
            reply = error.reply()
        except RunnerError as error:
            reply = _runner_error(error)
        except asyncio.CancelledError:
            reply = _runner_error(RequestCancelledError("the request was cancelled"))
        except ConnectionError:
            return  # the client is gone; its connection ends this
        except Exception:  # noqa: BLE001 a bug of ours must reach the log, and the client who waits for an answer
            _log.exception("rpc.bug", method=method)
            reply = RpcError(INTERNAL_ERROR, "the daemon failed; its log says how").reply()
        await self._reply(request_id, reply)

    async def _chat(self, request_id: RequestId, params: dict[str, Any]) -> Any:
        request, stream = self._frontend.chat(params)
        builder = ResponseBuilder()
        async with stream:
            async for chunk in stream:
                if request.stream:
                    notification = {"id": request_id, "chunk": chunk}
                    await self._send({"jsonrpc": "2.0", "method": "chat.chunk", "params": notification})
                builder.add(chunk)
        return builder.response()

    async def _reply(self, request_id: RequestId | None, reply: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):
            await self._send({"jsonrpc": "2.0", "id": request_id} | reply)

    async def _send(self, message: dict[str, Any]) -> None:
        """Waits while the client does not read: that stops the reading of its CLI, and nobody else's."""
        self._writer.write(dump_json(message))
        if not self._closing:
            await self._writer.drain()


def _runner_error(error: RunnerError) -> dict[str, Any]:
    return RpcError(RUNNER_ERROR, error.message, error.to_dict()).reply()


def is_request_id(value: Any) -> bool:
    """Whether a JSON value may be the id of a request."""
    return isinstance(value, str | int) and not isinstance(value, bool)


def validated(model: type[Any], params: dict[str, Any]) -> Any:
    """`params` as the model, or an RpcError that names every wrong field by its path."""
    try:
        return model.model_validate(params)
    except ValidationError as error:
        problems = [_problem(params, detail) for detail in error.errors()[:_PROBLEMS_TOLD]]
        first = problems[0]
        raise RpcError(INVALID_PARAMS, f"params.{first['path']}: {first['message']}", {"fields": problems}) from error


def _problem(params: dict[str, Any], detail: Any) -> dict[str, str]:
    location = detail["loc"]
    if detail["type"].startswith("union_tag"):
        location = (*location, "type")
    return {"path": field_path(params, location), "message": detail["msg"]}


def field_path(value: Any, location: tuple[int | str, ...]) -> str:
    """The path of a field as its sender wrote it: pydantic's location less the names of union branches."""
    path = ""
    named = [step for step in location if not str(step).startswith("<")]
    for position, step in enumerate(named):
        is_last = position == len(named) - 1
        if isinstance(value, list) and isinstance(step, int):
            path += f"[{step}]"
            value = value[step] if step < len(value) else None
        elif isinstance(value, dict) and (is_last or (step in value and step != value.get("type"))):
            path += f".{step}"
            value = value.get(step)
    return path.lstrip(".")
