"""What the stand-ins for the vendors' model APIs share: one aiohttp server on 127.0.0.1 and what that server saw.

It knows nothing of the shape of an API's answers, and nothing about the programs that call it.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from aiohttp import web

Json = dict[str, Any]
Break = Literal["drop", "cut", "error", "stall"]
"""drop: the connection is reset. cut: the response ends as HTTP should, the answer does not. error: the API's error in
a stream takes the place of the rest. stall: nothing more comes until the client leaves or the server closes."""

_MAX_BODY_BYTES = 256 * 1024 * 1024
_WRITE_BYTES = 16 * 1024
_SHUTDOWN_S = 0.05  # aiohttp waits this long for its handlers before it cancels them


@dataclass(frozen=True, kw_only=True)
class BaseReply(ABC):
    """A 200 answer. Behind `pause_after` deltas the rest waits for `pause`; deltas are counted from 1."""

    headers: Mapping[str, str] = field(default_factory=dict)
    pause: asyncio.Event | None = None
    pause_after: int = 1
    break_how: Break | None = None
    break_after: int | None = None

    def broken(self, how: Break, after: int | None = None) -> Self:
        """This reply, broken off behind so many deltas; None (drop and stall only): before the response's headers.

        A reset may overtake deltas that the client has not read: where they matter, `pause` at the same delta.
        """
        return replace(self, break_how=how, break_after=after)

    @abstractmethod
    def whole(self, id: str, model: str) -> Json:
        """The answer to a request that did not ask for a stream."""

    @abstractmethod
    def frames(self, id: str, body: Json) -> Iterator[tuple[int | None, bytes]]:
        """The whole stream, each piece with how many deltas stand before it; None where no break may come."""

    @abstractmethod
    def error_frame(self) -> bytes:
        """What `broken("error")` sends in the middle of a stream."""


@dataclass(frozen=True)
class BaseError(ABC):
    """An HTTP error."""

    @abstractmethod
    def response(self) -> web.Response:
        """In the API's JSON shape."""


@dataclass(eq=False)
class Received:
    """One request for an answer. `sent` counts the pieces of its stream that were handed to the socket, `gone` says
    that the client dropped the connection before the reply finished, `finished` that the reply went out as scripted
    and HTTP ended as it should."""

    body: Json
    raw: bytes
    headers: Mapping[str, str]
    sent: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)


class StandIn(ABC):
    """The server. `url` is valid inside `async with`; leaving it ends every connection that is still open."""

    path: ClassVar[str]
    base: ClassVar[str] = ""
    id_prefix: ClassVar[str]
    default: BaseReply | BaseError

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Received] = []
        self.others: list[tuple[str, str]] = []
        self.answer: Callable[[Json], BaseReply | BaseError] | None = None
        self._scripted: deque[BaseReply | BaseError] = deque()
        self._arrived = asyncio.Condition()
        self._closing = False
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post(self.path, self._asked)
        app.router.add_route("*", "/{path:.*}", self._other)
        # Cancelling the handler is how a stalled reply learns that its client has left.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S, access_log=None)

    def script(self, *replies: BaseReply | BaseError) -> None:
        """Queue replies, one per request. An empty queue falls back to `answer(body)`, then to `default`."""
        self._scripted.extend(replies)

    async def received(self, n: int) -> Received:
        """The n-th request for an answer, from 1, as soon as its body has arrived. Waits without bound."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= n)
        return self.requests[n - 1]

    async def forget(self) -> None:
        """Drop what was received and what is still queued, once every connection has ended. Waits without bound.

        What a killed client sent with its last breath is read before that, so it is forgotten too.
        """
        while self._runner.server is not None and self._runner.server.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.requests.clear()
        self.others.clear()
        self._scripted.clear()
        self.answer = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{self.base}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closing = True
        await self._runner.cleanup()

    @abstractmethod
    def not_found(self) -> BaseError:
        """The answer to every other path."""

    def understood(self, request: web.Request, body: Json) -> Json:  # noqa: ARG002 its overriders need it
        """A request's body, with `model` and `stream` in it where the API tells these by its path."""
        return body

    async def _other(self, request: web.Request) -> web.Response:
        self.others.append((request.method, request.path))
        return web.Response() if request.method == "HEAD" else self.not_found().response()

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        received = Received(self.understood(request, json.loads(raw)), raw, request.headers.copy())
        self.requests.append(received)
        id = f"{self.id_prefix}{len(self.requests):04}"
        async with self._arrived:
            self._arrived.notify_all()
        if self._scripted:
            reply = self._scripted.popleft()
        else:
            reply = self.answer(received.body) if self.answer else self.default
        try:
            return await _send(request, received, reply, id)
        except ConnectionError:
            received.gone.set()
            return web.Response()  # goes nowhere, like the rest of the reply
        except asyncio.CancelledError:
            if not self._closing:
                received.gone.set()
            raise


async def _send(request: web.Request, received: Received, reply: BaseReply | BaseError, id: str) -> web.StreamResponse:
    model, streaming = str(received.body.get("model")), received.body.get("stream") is True
    response: web.StreamResponse
    if isinstance(reply, BaseError):
        response = reply.response()
    elif reply.break_how and (reply.break_after is None or not streaming):
        return await _break_off(request, reply.break_how, web.Response())
    elif not streaming:
        response = web.json_response(reply.whole(id, model), headers=reply.headers)
    else:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **reply.headers})
    await response.prepare(request)
    if isinstance(reply, BaseReply) and streaming:
        await _stream(response, received, reply, reply.frames(id, received.body))
        if reply.break_how in ("drop", "stall"):
            return await _break_off(request, reply.break_how, response)
    await response.write_eof()
    received.finished.set()
    return response


async def _stream(
    response: web.StreamResponse, received: Received, reply: BaseReply, frames: Iterator[tuple[int | None, bytes]]
) -> None:
    """Send the pieces up to the break, many to a write where nothing lies between them: 5,000 deltas stay cheap."""
    batch: list[bytes] = []
    batch_bytes = 0

    async def flush() -> None:
        nonlocal batch_bytes
        await response.write(b"".join(batch))
        received.sent += len(batch)
        batch.clear()
        batch_bytes = 0

    for deltas, frame in frames:
        if deltas is not None and reply.pause is not None and deltas == reply.pause_after:
            await flush()
            await reply.pause.wait()
        if deltas is not None and reply.break_how and deltas == reply.break_after:
            if reply.break_how == "error":
                batch.append(reply.error_frame())
            break
        batch.append(frame)
        batch_bytes += len(frame)
        if batch_bytes > _WRITE_BYTES:
            await flush()
    await flush()


def cut(raw: str) -> list[str]:
    """The arguments of a call in about seven pieces, as a model streams them; none where there is nothing."""
    size = max(1, len(raw) // 7)
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def sse_data(value: Json) -> bytes:
    """The `data` line of a server-sent event, and its end."""
    # backslashreplace writes a lone surrogate as \udXXX, which is its JSON escape; all else is plain UTF-8.
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {data}\n\n".encode("utf-8", "backslashreplace")


async def _break_off(request: web.Request, how: Break, response: web.StreamResponse) -> web.StreamResponse:
    """Stall until this handler is cancelled, or reset the connection; `response` then goes nowhere."""
    if how == "stall":
        await asyncio.Event().wait()
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.abort()
    return response
