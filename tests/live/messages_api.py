"""A stand-in for the Anthropic Messages API, for tests that run a real CLI or client against loopback.

It owns one aiohttp server on 127.0.0.1 and what that server saw. It knows the shape of the API's stream, and nothing
about the programs that call it.

    async with MessagesApi() as api:
        api.script(text("Hel", "lo"), error(429, "rate_limit_error", "slow down", {"retry-after": "7"}))
        api.script(text("a", "b").broken("drop", after=1))
        ...run the program with ANTHROPIC_BASE_URL=api.url...
        first = await asyncio.wait_for(api.received(1), 5)
        assert first.body["messages"] == [...]
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from aiohttp import web

Json = dict[str, Any]
Break = Literal["drop", "cut", "overloaded", "stall"]
"""drop: the connection is reset. cut: the response ends as HTTP should, the message does not. overloaded: an `event:
error` takes the place of the rest. stall: nothing more comes until the client leaves or the server closes."""

_USAGE = {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 7}
_MAX_BODY_BYTES = 256 * 1024 * 1024
_WRITE_BYTES = 16 * 1024
_SHUTDOWN_S = 0.05  # aiohttp waits this long for its handlers before it cancels them


@dataclass(frozen=True)
class Block:
    """One content block: `start` opens it, the `deltas` fill it, `whole` is what a non-streaming answer holds."""

    start: Json
    deltas: tuple[Json, ...]
    whole: Json


@dataclass(frozen=True)
class Reply:
    """A 200 answer. Deltas are `content_block_delta` events of any block, counted from 1."""

    blocks: tuple[Block, ...]
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: asyncio.Event | None = None
    pause_after: int = 1
    break_how: Break | None = None
    break_after: int | None = None

    def broken(self, how: Break, after: int | None = None) -> Reply:
        """This reply, broken off behind so many deltas; None (drop and stall only): before the response's headers.

        A reset may overtake deltas that the client has not read: where they matter, `pause` at the same delta.
        """
        return replace(self, break_how=how, break_after=after)

    def message(self, id: str, model: str) -> Json:
        stop = {"stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence}
        content = [block.whole for block in self.blocks]
        usage = {**_USAGE, **self.usage}
        message = {"id": id, "type": "message", "role": "assistant", "model": model, "content": content}
        return {**message, **stop, "usage": usage}

    def events(self, id: str, model: str) -> Iterator[Json]:
        """The whole stream; pauses and breaks are the sender's business."""
        whole = self.message(id, model)
        usage = {**whole["usage"], "output_tokens": 1}
        nothing_yet: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        yield {"type": "message_start", "message": {**whole, **nothing_yet}}
        for index, block in enumerate(self.blocks):
            yield {"type": "content_block_start", "index": index, "content_block": block.start}
            if index == 0:
                yield {"type": "ping"}
            for delta in block.deltas:
                yield {"type": "content_block_delta", "index": index, "delta": delta}
            yield {"type": "content_block_stop", "index": index}
        stop = {"stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence}
        yield {"type": "message_delta", "delta": stop, "usage": whole["usage"]}
        yield {"type": "message_stop"}


@dataclass(frozen=True)
class Error:
    """An HTTP error in the API's JSON shape."""

    status: int
    type: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        body = {"type": "error", "error": {"type": self.type, "message": self.message}, "request_id": "req_error"}
        return web.json_response(body, status=self.status, headers=self.headers)


AnyReply = Reply | Error


def text(*deltas: str, thinking: str | None = None, **fields: Any) -> Reply:
    """A text block of these exact deltas (none: no block), after a signed thinking block if `thinking` is given.

    A lone surrogate is sent as its JSON escape, so ("\\ud83d", "\\ude00") is an emoji split over two deltas. `fields`
    are those of Reply: `usage` overrides single counts; behind `pause_after` deltas the rest waits for `pause`; a
    refusal is `stop_reason="refusal"`.
    """
    blocks: list[Block] = []
    if thinking is not None:
        start, whole = ({"type": "thinking", "thinking": t, "signature": s} for t, s in (("", ""), (thinking, "c2ln")))
        parts = ({"type": "thinking_delta", "thinking": thinking}, {"type": "signature_delta", "signature": "c2ln"})
        blocks.append(Block(start, parts, whole))
    if deltas:
        pieces = tuple({"type": "text_delta", "text": delta} for delta in deltas)
        blocks.append(Block({"type": "text", "text": ""}, pieces, {"type": "text", "text": "".join(deltas)}))
    return Reply(tuple(blocks), **fields)


def tool_use(name: str, arguments: Json, *, id: str = "toolu_01") -> Reply:
    """One call of a client tool, its input sent as a single JSON delta."""
    start = {"type": "tool_use", "id": id, "name": name, "input": {}}
    delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
    return Reply((Block(start, (delta,), {**start, "input": arguments}),), "tool_use")


def error(status: int, type: str, message: str, headers: Mapping[str, str] | None = None) -> Error:
    return Error(status, type, message, headers or {})


@dataclass(eq=False)
class Received:
    """One POST /v1/messages. `sent` counts SSE events handed to the socket, `gone` says that the client dropped the
    connection before the reply finished, `finished` that the reply went out as scripted and HTTP ended as it should."""

    body: Json
    raw: bytes
    headers: Mapping[str, str]
    sent: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)


class MessagesApi:
    """The server. `url` is valid inside `async with`; leaving it ends every connection that is still open."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Received] = []
        self.others: list[tuple[str, str]] = []
        self.default: AnyReply = text("ok")
        self.answer: Callable[[Json], AnyReply] | None = None
        self._scripted: deque[AnyReply] = deque()
        self._arrived = asyncio.Condition()
        self._closing = False
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_route("*", "/{path:.*}", self._other)
        # Cancelling the handler is how a stalled reply learns that its client has left.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S, access_log=None)

    def script(self, *replies: AnyReply) -> None:
        """Queue replies, one per request. An empty queue falls back to `answer(body)`, then to `default`."""
        self._scripted.extend(replies)

    async def received(self, n: int) -> Received:
        """The n-th message request, from 1, as soon as its body has arrived. Waits without bound."""
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
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closing = True
        await self._runner.cleanup()

    async def _other(self, request: web.Request) -> web.Response:
        self.others.append((request.method, request.path))
        return web.Response() if request.method == "HEAD" else Error(404, "not_found_error", "Not found").response()

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        received = Received(json.loads(raw), raw, request.headers.copy())
        self.requests.append(received)
        id = f"msg_{len(self.requests):04}"
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


async def _send(request: web.Request, received: Received, reply: AnyReply, id: str) -> web.StreamResponse:
    model, streaming = str(received.body.get("model")), received.body.get("stream") is True
    response: web.StreamResponse
    if isinstance(reply, Error):
        response = reply.response()
    elif reply.break_how and (reply.break_after is None or not streaming):
        return await _break_off(request, reply.break_how, web.Response())
    elif not streaming:
        response = web.json_response(reply.message(id, model), headers=reply.headers)
    else:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **reply.headers})
    await response.prepare(request)
    if isinstance(reply, Reply) and streaming:
        await _stream(response, received, reply, reply.events(id, model))
        if reply.break_how in ("drop", "stall"):
            return await _break_off(request, reply.break_how, response)
    await response.write_eof()
    received.finished.set()
    return response


async def _stream(response: web.StreamResponse, received: Received, reply: Reply, events: Iterator[Json]) -> None:
    """Send the events up to the break, many to a write where nothing lies between them: 5,000 deltas stay cheap."""
    batch: list[bytes] = []
    batch_bytes = deltas = 0

    async def flush() -> None:
        nonlocal batch_bytes
        await response.write(b"".join(batch))
        received.sent += len(batch)
        batch.clear()
        batch_bytes = 0

    for event in events:
        # Behind delta k means before whatever follows it; behind 0, before the first delta.
        if event["type"] not in ("message_start", "content_block_start", "ping"):
            if reply.pause is not None and deltas == reply.pause_after:
                await flush()
                await reply.pause.wait()
            if reply.break_how and deltas == reply.break_after:
                if reply.break_how == "overloaded":
                    details = {"type": "overloaded_error", "message": "Overloaded"}
                    batch.append(_sse({"type": "error", "error": details}))
                break
            deltas += event["type"] == "content_block_delta"
        batch.append(_sse(event))
        batch_bytes += len(batch[-1])
        if batch_bytes > _WRITE_BYTES:
            await flush()
    await flush()


def _sse(event: Json) -> bytes:
    # backslashreplace writes a lone surrogate as \udXXX, which is its JSON escape; all else is plain UTF-8.
    data = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event['type']}\ndata: {data}\n\n".encode("utf-8", "backslashreplace")


async def _break_off(request: web.Request, how: Break, response: web.StreamResponse) -> web.StreamResponse:
    """Stall until this handler is cancelled, or reset the connection; `response` then goes nowhere."""
    if how == "stall":
        await asyncio.Event().wait()
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.abort()
    return response
