"""One chat over HTTP: the body is read, the answer told, whole or as server-sent events, and every failure said.

Knows no API: what a request means and how an answer looks in an API's words is its `Dialect`'s business, and what is
done about it that of `daemon.service`.
"""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web

from daemon.service import Service
from runners.errors import InvalidRequestError, LineTooLongError, ProtocolError, RequestCancelledError, RunnerError
from runners.messages import ChatRequest, ChatResponse
from runners.stream import ChatChunk, ChatStream, Failed, Start, fold
from runners.wire.framing import dump_json, parse_json_exactly

BODY = web.RequestKey("body", object)
"""Where the JSON of a request's body is, for its handler."""

_log = structlog.get_logger()

_PING_S = 15.0
_BODY_S = 120.0
_STATUS = {
    "invalid_request": 400,
    "unsupported": 400,
    "context_overflow": 400,
    "not_authenticated": 401,
    "auth_expired": 401,
    "permission": 403,
    "model_not_found": 404,
    "line_too_long": 413,
    "rate_limited": 429,
    "quota_exhausted": 429,
    "not_installed": 424,
    "overloaded": 503,
    "queue_full": 503,
    "cancelled": 503,
    "config": 503,
    "timeout": 504,
}
"""By the kind of a RunnerError; every other is a failure of what stands behind us."""
_FAILED_BEHIND_US = 502
_ENDS = ("end_turn", "stop_sequence", "length", "tool_calls", "content_filter")


class Answer(ABC):
    """How one answer is told in the words of an API. Pure, one object for each answer.

    `warnings` are those of the translation, and then those of the runner: they stand in what is told last.
    """

    def __init__(self, request: ChatRequest, warnings: list[str]) -> None:
        self.request = request
        self.warnings = warnings
        self.created_s = int(time.time())

    def note_end(self, stop_reason: str) -> None:
        """Warns of an end that no API has a word for."""
        if stop_reason not in _ENDS:
            self.warnings.append(f"the runner ended its answer with {stop_reason!r}")

    @abstractmethod
    def frames(self, chunk: ChatChunk) -> Iterator[bytes]:
        """The server-sent events that a chunk makes; a Failed is the last one."""

    @abstractmethod
    def whole(self, response: ChatResponse) -> dict[str, Any]:
        """The answer to who does not want it as a stream."""


class Dialect(ABC):
    """An API: what it is asked, and how it answers."""

    ping: bytes = b": still at it\n\n"
    """An event without meaning, told where nothing else is for a while: who listens knows that we are there."""

    @abstractmethod
    def read(self, body: Any) -> Answer:
        """The request that a JSON body makes, in the Answer that tells of it; raises WrongFieldsError."""

    @abstractmethod
    def error(self, status: int, message: str, error: RunnerError | None) -> dict[str, Any]:
        """The body of an error; `error` where it is one of ours and not of HTTP itself."""


def event(data: Any, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return b"".join((head, b"data: ", dump_json(data), b"\n"))


def sentence(error: RunnerError) -> str:
    """What a person is told of a failure."""
    return f"{error.message} ({error.hint})" if error.hint else error.message


def status_of(error: RunnerError) -> int:
    """The HTTP status of a failure."""
    return _STATUS.get(error.kind, _FAILED_BEHIND_US)


def refusal(dialect: Dialect, error: RunnerError) -> web.Response:
    """A failure as a whole answer. The vendors' clients obey its headers: whether to try again, and when."""
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    status = status_of(error)
    return json_response(dialect.error(status, sentence(error), error), status, headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in one piece."""
    return web.Response(body=dump_json(body), status=status, headers=headers, content_type="application/json")


async def body_of(request: web.Request, cap_bytes: int) -> Any:
    """The JSON that a request brings: InvalidRequestError when it is none, LineTooLongError when it is too much."""
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            await _gathered(request, data, cap_bytes)
    except TimeoutError:
        raise InvalidRequestError(f"the body has not come within {_BODY_S:.0f} s") from None
    except web.RequestPayloadError as error:
        raise InvalidRequestError(
            "the body is not what its headers say: its encoding or its chunks are wrong"
        ) from error
    try:
        return parse_json_exactly(bytes(data))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is no JSON: {error}") from error


async def _gathered(request: web.Request, data: bytearray, cap_bytes: int) -> None:
    # Not iter_chunks: on the body of a second request that has none it never ends, and gives way to nobody.
    async for piece in request.content.iter_any():
        data += piece
        if len(data) > cap_bytes:
            raise LineTooLongError(f"the body is longer than {cap_bytes} bytes (daemon.parse_cap_bytes)")


class Exchange:
    """Serves chats in one dialect. `is_closing` says that it is we who cancel, and not the client who has gone."""

    def __init__(self, service: Service, dialect: Dialect, *, is_closing: Callable[[], bool]) -> None:
        self._service = service
        self._dialect = dialect
        self._is_closing = is_closing

    async def answered(self, request: web.Request) -> web.StreamResponse:
        """Answers one request; raises the RunnerError of one that has no answer yet."""
        answer = self._dialect.read(request[BODY])
        # A connection is a client: it may have as much as another one.
        stream = await self._service.chat(answer.request, client=f"http {id(request.transport)}")
        if answer.request.stream:
            return await self._streamed(request, answer, stream)
        response = await fold(stream)
        return json_response(answer.whole(response), headers={"x-runnerd-served": response.served})

    async def _streamed(self, request: web.Request, answer: Answer, stream: ChatStream) -> web.StreamResponse:
        # Until the answer begins its failure is an HTTP status, which clients understand best.
        async with stream:
            served, begin = await self._begun(answer, stream)
            headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
            response = web.StreamResponse(headers=headers | {"x-runnerd-served": served})
            try:
                await response.prepare(request)
                async with self._kept_alive(response) as write:
                    await self._told(answer, begin, stream, write)
                await response.write_eof()
            except ConnectionError:
                pass  # nobody listens any more: leaving ends the turn
        return response

    async def _begun(self, answer: Answer, stream: ChatStream) -> tuple[str, bytes]:
        """How the answer is served, and what is told of it so far."""
        frames: list[bytes] = []
        async for chunk in stream:
            frames += answer.frames(chunk)
            if isinstance(chunk, Start):
                return chunk.served, b"".join(frames)
        raise ProtocolError("the answer has no begin")

    async def _told(self, answer: Answer, begin: bytes, stream: ChatStream, write: Callable[[bytes], Any]) -> None:
        """Tells an answer that has begun. From here on a failure can only be told in the stream."""
        try:
            await write(begin)
            async for chunk in stream:
                if frames := b"".join(answer.frames(chunk)):
                    await write(frames)
        except asyncio.CancelledError:
            if not self._is_closing():
                raise
            failure: RunnerError = RequestCancelledError("the daemon ends, and the answer was cut")
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 a bug of ours, whatever it is: the answer must not look whole
            _log.exception("http.bug", dialect=type(self._dialect).__name__)
            failure = ProtocolError("a bug in runnerd: see its log")
        else:
            return
        await write(b"".join(answer.frames(Failed(failure))))

    @asynccontextmanager
    async def _kept_alive(self, response: web.StreamResponse) -> AsyncIterator[Callable[[bytes], Any]]:
        """Writes what it is given, and a ping where nothing was given for a while."""
        wrote_s = time.monotonic()

        async def write(data: bytes) -> None:
            nonlocal wrote_s
            await response.write(data)
            wrote_s = time.monotonic()

        async def ping() -> None:
            while True:
                await asyncio.sleep(wrote_s + _PING_S - time.monotonic())
                if time.monotonic() - wrote_s >= _PING_S:
                    await write(self._dialect.ping)

        pinging = asyncio.create_task(ping(), name="http-ping")
        try:
            yield write
        finally:
            pinging.cancel()
            # One that failed met the same closed connection as we do.
            await asyncio.gather(pinging, return_exceptions=True)
