"""JSON-RPC 2.0 between equals: either end calls, answers and notifies, with many requests under way at once.

`Peer` is the protocol, over frames that somebody else reads and writes; `RpcProcess` is a CLI that speaks it on its
stdin and stdout. What the methods mean is the business of whoever holds one.
"""

import asyncio
import copy
import logging
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runners.errors import RunnerError
from runners.wire.framing import Framer, LineFramer, dump_json, parse_json_exactly
from runners.wire.process import CliProcess

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
REQUEST_CANCELLED = -32800

RequestId = str | int
Answer = Callable[[RequestId, str, dict[str, Any]], Awaitable[Any]]
Heard = Callable[[str, dict[str, Any]], None]

_log = logging.getLogger(__name__)


class RpcError(Exception):
    """An error of the protocol: what a request is answered with, or what the other end answered."""

    def __init__(self, code: int, message: str, data: Any = None, *, request_id: RequestId | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.request_id = request_id

    def reply(self) -> dict[str, Any]:
        """The `error` of a response."""
        data = {} if self.data is None else {"data": self.data}
        return {"error": {"code": self.code, "message": str(self)} | data}


class Peer:
    """Our end of a connection. `send` writes one message and waits while the other end does not read.

    `answer` serves a request of the other end, in a task of its own: what it returns is the result, and an RpcError
    the error. A notification `$/cancelRequest` cancels that task. `heard` is told of every other notification, in
    order. Where `needs_version` is false a message without the member `jsonrpc` is one too: codex leaves it out.
    """

    def __init__(
        self, send: Callable[[bytes], Awaitable[None]], *, answer: Answer, heard: Heard, needs_version: bool = True
    ) -> None:
        self._send_frame = send
        self._answer = answer
        self._heard = heard
        self._needs_version = needs_version
        self._calls = 0
        self._pending: dict[RequestId, asyncio.Future[Any]] = {}
        self._ended: RunnerError | None = None
        self.requests: dict[RequestId, asyncio.Task[None]] = {}
        """What we are answering."""

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The other end's result; RpcError when it answers with an error, and what `fail` was told when it is gone.

        Cancelling forgets the call, and the other end is not told.
        """
        if self._ended is not None:
            raise copy.copy(self._ended)
        self._calls += 1
        request_id, future = self._calls, asyncio.get_running_loop().create_future()
        self._pending[request_id] = future
        try:
            await self._send({"id": request_id, "method": method, "params": params})
            return await future
        except RunnerError as error:
            raise error if self._ended is None else copy.copy(self._ended) from None
        finally:
            del self._pending[request_id]
            # An error that came while we were still sending is nobody's any more.
            if future.done() and not future.cancelled():
                future.exception()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Tells the other end something that it does not answer."""
        await self._send_frame(notification(method, params))

    async def refuse(self, error: RpcError) -> None:
        """Answers what `take` raised."""
        await self._deliver(dump_json(_response(error.request_id, error.reply())))

    async def take(self, frame: bytes) -> None:
        """Takes in one message; RpcError when it is none, or none that can be served now.

        What nobody would answer, such as a response that nobody waits for any more, is an RpcError all the same.
        """
        message = _message(frame, needs_version=self._needs_version)
        request_id = message["id"] if _is_request_id(message.get("id")) else None
        if "method" not in message and ("result" in message or "error" in message):
            self._settle(message, request_id)
            return
        method, params = message.get("method"), message.get("params", {})
        if not isinstance(method, str):
            raise RpcError(INVALID_REQUEST, "method: must be a string", request_id=request_id)
        if "id" in message and request_id is None:
            raise RpcError(INVALID_REQUEST, "id: must be a string or an integer")
        if request_id in self.requests:
            raise RpcError(INVALID_REQUEST, f"id: {request_id!r} is still in flight", request_id=request_id)
        if request_id is not None:
            task = asyncio.create_task(self._serve(request_id, method, params), name=f"rpc-{method}-{request_id}")
            self.requests[request_id] = task
            task.add_done_callback(lambda _: self.requests.pop(request_id))
        elif isinstance(params, dict):
            self._hear(method, params)

    def fail(self, error: RunnerError) -> None:
        """The other end is gone: every call fails with `error`, those that come later too."""
        self._ended = error
        for future in self._pending.values():
            if not future.done():
                future.set_exception(copy.copy(error))

    async def aclose(self) -> None:
        """Cancels what we still answer, and waits until each has said so."""
        requests = list(self.requests.values())
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

    def _settle(self, response: dict[str, Any], request_id: RequestId | None) -> None:
        future = None if request_id is None else self._pending.get(request_id)
        if future is None or future.done():
            raise RpcError(INVALID_REQUEST, "id: nobody waits for this response", request_id=request_id)
        error = response.get("error")
        if "result" in response:
            future.set_result(response["result"])
        elif isinstance(error, dict):
            message, code = str(error.get("message", "")), error.get("code")
            future.set_exception(RpcError(code if isinstance(code, int) else 0, message, error.get("data")))
        else:
            future.set_exception(RpcError(0, str(error)))

    def _cancel(self, request_id: Any) -> None:
        running = self.requests.get(request_id) if _is_request_id(request_id) else None
        if running is not None:
            # Behind the task's first step: one that was cancelled before it began would never answer.
            asyncio.get_running_loop().call_soon(running.cancel)

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        if method == "$/cancelRequest":
            self._cancel(params.get("id"))
            return
        try:
            self._heard(method, params)
        except Exception:  # noqa: BLE001 a bug of ours must reach the log, and end no call
            _log.exception("hearing %s failed", method)

    async def _serve(self, request_id: RequestId, method: str, params: Any) -> None:
        try:
            reply = dump_json(_response(request_id, await self._replied(request_id, method, params)))
        except Exception:  # noqa: BLE001 a bug of ours must reach the log, and whoever waits for an answer
            _log.exception("the answer to %s failed", method)
            error = RpcError(INTERNAL_ERROR, "the request failed by a bug; the log says how")
            reply = dump_json(_response(request_id, error.reply()))
        await self._deliver(reply)

    async def _replied(self, request_id: RequestId, method: str, params: Any) -> dict[str, Any]:
        try:
            if not isinstance(params, dict):
                return RpcError(INVALID_PARAMS, "params: must be an object").reply()
            if method == "$/cancelRequest":
                self._cancel(params.get("id"))
                return {"result": None}
            return {"result": await self._answer(request_id, method, params)}
        except RpcError as error:
            return error.reply()
        except asyncio.CancelledError:
            return RpcError(REQUEST_CANCELLED, "the request was cancelled").reply()
        except ConnectionError:
            # Most often the other end's: then nobody reads this, and who reads from it ends us.
            return RpcError(INTERNAL_ERROR, "a connection broke").reply()

    async def _deliver(self, reply: bytes) -> None:
        # Who does not listen any more gets no answer.
        with suppress(ConnectionError, RunnerError):
            await self._send_frame(reply)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._send_frame(dump_json({"jsonrpc": "2.0"} | message))


def notification(method: str, params: Mapping[str, Any]) -> bytes:
    """A message that nobody answers."""
    return dump_json({"jsonrpc": "2.0", "method": method, "params": params})


def _response(request_id: RequestId | None, reply: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id} | reply


def _message(frame: bytes, *, needs_version: bool) -> dict[str, Any]:
    try:
        message = parse_json_exactly(frame)
    except ValueError as error:
        raise RpcError(PARSE_ERROR, f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise RpcError(INVALID_REQUEST, "a message is a JSON object; batches are not served")
    if message.get("jsonrpc", None if needs_version else "2.0") != "2.0":
        request_id = message["id"] if _is_request_id(message.get("id")) else None
        raise RpcError(INVALID_REQUEST, 'jsonrpc: must be "2.0"', request_id=request_id)
    return message


def _is_request_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


class RpcProcess:
    """A CLI that speaks JSON-RPC on its stdin and stdout. A frame that is no message of it is skipped and counted.

    When it ends, however that comes, every call fails with its exit code and the tail of its stderr, and `gone` is
    called with the same error.
    """

    def __init__(
        self,
        cli: CliProcess,
        framer: Framer,
        *,
        answer: Answer,
        heard: Heard,
        gone: Callable[[RunnerError], None],
        needs_version: bool,
    ) -> None:
        self.cli = cli
        self.peer = Peer(
            lambda message: cli.write(framer.framed(message)), answer=answer, heard=heard, needs_version=needs_version
        )
        self.stray_frames = 0
        self._gone = gone
        self._reader = asyncio.create_task(self._read(), name=f"rpc-reader-{cli.pid}")
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        answer: Answer,
        heard: Heard,
        gone: Callable[[RunnerError], None],
        temporary: "tempfile.TemporaryDirectory[str] | None" = None,
        framer: Framer | None = None,
        needs_version: bool = True,
    ) -> "RpcProcess":
        """Starts the CLI; see CliProcess.spawn and Peer."""
        framer = framer or LineFramer()
        cli = await CliProcess.spawn(argv, env=env, cwd=cwd, temporary=temporary, framer=framer)
        return cls(cli, framer, answer=answer, heard=heard, gone=gone, needs_version=needs_version)

    async def _read(self) -> None:
        try:
            while (frame := await self.cli.read_line()) is not None:
                try:
                    await self.peer.take(frame)
                except RpcError as error:
                    self._skip(frame, error)
            ended: RunnerError = await self.cli.exited_early("it closed its output")
        except RunnerError as error:
            ended = error
        self.peer.fail(ended)
        self.cli.give_up_stdin()
        self._gone(ended)

    def _skip(self, frame: bytes, error: RpcError) -> None:
        self.stray_frames += 1
        if self.stray_frames == 1:
            # Never its content, of which a mistake of JSON's would show none.
            _log.warning("%s: skips %d bytes: %s", self.cli.pid, len(frame), error)

    def close(self, *, ask: bool = True) -> "asyncio.Future[None]":
        """Begins to end the process, see CliProcess.close. Idempotent; calls that are under way fail.

        It goes on when who waits for what this returns is cancelled.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(ask=ask), name=f"rpc-close-{self.cli.pid}")
        return asyncio.shield(self._closing)

    async def _close(self, *, ask: bool) -> None:
        await self.cli.aclose(ask=ask)
        await self._reader
        await self.peer.aclose()
