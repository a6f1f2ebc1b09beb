"""A stand-in for an OpenAI-compatible chat completions API, for tests that run a real CLI against loopback.

It owns one aiohttp server on 127.0.0.1 and what that server saw. It knows the shape of the API's stream, and nothing
about the programs that call it.

    async with CompletionsApi() as api:
        api.script(text("Hel", "lo"), error(429, "slow down", code="rate_limited", headers={"retry-after": "7"}))
        api.script(text("a", "b").broken("drop", after=1))
        ...run the program with api.url as its base URL...
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
Break = Literal["drop", "cut", "error", "stall"]
"""drop: the connection is reset. cut: the response ends as HTTP should, the answer does not. error: an error object
takes the place of the rest. stall: nothing more comes until the client leaves or the server closes."""

_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
_MAX_BODY_BYTES = 256 * 1024 * 1024
_WRITE_BYTES = 16 * 1024
_SHUTDOWN_S = 0.05  # aiohttp waits this long for its handlers before it cancels them
_CREATED = 1_700_000_000


@dataclass(frozen=True)
class Reply:
    """A 200 answer. `deltas` are those of choice 0, counted from 1; the first chunk, of the role alone, is none."""

    deltas: tuple[Json, ...]
    message: Json
    finish_reason: str = "stop"
    usage: Mapping[str, Any] = field(default_factory=dict)
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

    def whole(self, id: str, model: str) -> Json:
        """The answer to a request that did not ask for a stream."""
        choice = {"index": 0, "message": self.message, "finish_reason": self.finish_reason}
        return {**_head("chat.completion", id, model), "choices": [choice], "usage": {**_USAGE, **self.usage}}

    def chunks(self, id: str, model: str, *, usage: bool) -> Iterator[Json]:
        """The whole stream up to its `[DONE]`; pauses and breaks are the sender's business."""
        head = _head("chat.completion.chunk", id, model)
        nothing_yet: Json = {"usage": None} if usage else {}

        def chunk(delta: Json, finish_reason: str | None) -> Json:
            return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **nothing_yet}

        yield chunk({"role": "assistant"}, None)
        for delta in self.deltas:
            yield chunk(delta, None)
        yield chunk({}, self.finish_reason)
        if usage:
            yield {**head, "choices": [], "usage": {**_USAGE, **self.usage}}


@dataclass(frozen=True)
class Error:
    """An HTTP error in the API's JSON shape."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> Json:
        return {"error": {"message": self.message, "type": self.type, "param": None, "code": self.code}}

    def response(self) -> web.Response:
        return web.json_response(self.body(), status=self.status, headers=self.headers)


AnyReply = Reply | Error

STREAM_ERROR = Error(500, "The server had an error", "server_error", "server_error")
"""What `broken("error")` sends in the middle of a stream."""


def text(*deltas: str, reasoning: str | None = None, **fields: Any) -> Reply:
    """These exact text deltas (none: an empty answer), after one of `reasoning_content` if `reasoning` is given.

    A lone surrogate is sent as its JSON escape, so ("\\ud83d", "\\ude00") is an emoji split over two deltas. `fields`
    are those of Reply: `usage` overrides single counts; behind `pause_after` deltas the rest waits for `pause`; an
    answer that was cut is `finish_reason="length"`, a blocked one `"content_filter"`.
    """
    thought: Json = {} if reasoning is None else {"reasoning_content": reasoning}
    parts = ((thought,) if thought else ()) + tuple({"content": delta} for delta in deltas)
    return Reply(parts, {"role": "assistant", "content": "".join(deltas), **thought}, **fields)


def tool_call(name: str, arguments: Json, *, id: str = "call_01", **fields: Any) -> Reply:
    """One call of a tool: its name in a first delta, its arguments in a second."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call: Json = {"id": id, "type": "function"}
    deltas = (
        {"tool_calls": [{"index": 0, **call, "function": {**function, "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": function["arguments"]}}]},
    )
    message = {"role": "assistant", "content": None, "tool_calls": [{**call, "function": function}]}
    return Reply(deltas, message, "tool_calls", **fields)


def error(
    status: int,
    message: str,
    type: str = "invalid_request_error",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Error:
    return Error(status, message, type, code, headers or {})


@dataclass(eq=False)
class Received:
    """One POST /v1/chat/completions. `sent` counts SSE events handed to the socket, `gone` says that the client
    dropped the connection before the reply finished, `finished` that the reply went out as scripted and HTTP ended as
    it should."""

    body: Json
    raw: bytes
    headers: Mapping[str, str]
    sent: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)


class CompletionsApi:
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
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_route("*", "/{path:.*}", self._other)
        # Cancelling the handler is how a stalled reply learns that its client has left.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_S, access_log=None)

    def script(self, *replies: AnyReply) -> None:
        """Queue replies, one per request. An empty queue falls back to `answer(body)`, then to `default`."""
        self._scripted.extend(replies)

    async def received(self, n: int) -> Received:
        """The n-th request for a completion, from 1, as soon as its body has arrived. Waits without bound."""
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
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._closing = True
        await self._runner.cleanup()

    async def _other(self, request: web.Request) -> web.Response:
        self.others.append((request.method, request.path))
        return web.Response() if request.method == "HEAD" else Error(404, "Not found").response()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        received = Received(json.loads(raw), raw, request.headers.copy())
        self.requests.append(received)
        id = f"chatcmpl-{len(self.requests):04}"
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
        response = web.json_response(reply.whole(id, model), headers=reply.headers)
    else:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **reply.headers})
    await response.prepare(request)
    if isinstance(reply, Reply) and streaming:
        options = received.body.get("stream_options")
        usage = isinstance(options, dict) and options.get("include_usage") is True
        await _stream(response, received, reply, reply.chunks(id, model, usage=usage))
        if reply.break_how in ("drop", "stall"):
            return await _break_off(request, reply.break_how, response)
    await response.write_eof()
    received.finished.set()
    return response


async def _stream(response: web.StreamResponse, received: Received, reply: Reply, chunks: Iterator[Json]) -> None:
    """Send the chunks up to the break, many to a write where nothing lies between them: 5,000 deltas stay cheap."""
    batch: list[bytes] = []
    batch_bytes = 0

    async def flush() -> None:
        nonlocal batch_bytes
        await response.write(b"".join(batch))
        received.sent += len(batch)
        batch.clear()
        batch_bytes = 0

    # The chunk in front of delta 1 is the role's: `deltas` have been sent when a chunk's turn has come.
    for deltas, chunk in enumerate(chunks, -1):
        if reply.pause is not None and deltas == reply.pause_after:
            await flush()
            await reply.pause.wait()
        if reply.break_how and deltas == reply.break_after:
            if reply.break_how == "error":
                batch.append(_sse(STREAM_ERROR.body()))
            break
        batch.append(_sse(chunk))
        batch_bytes += len(batch[-1])
        if batch_bytes > _WRITE_BYTES:
            await flush()
    else:
        batch.append(b"data: [DONE]\n\n")
    await flush()


def _head(object: str, id: str, model: str) -> Json:
    return {"id": id, "object": object, "created": _CREATED, "model": model}


def _sse(chunk: Json) -> bytes:
    # backslashreplace writes a lone surrogate as \udXXX, which is its JSON escape; all else is plain UTF-8.
    data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return f"data: {data}\n\n".encode("utf-8", "backslashreplace")


async def _break_off(request: web.Request, how: Break, response: web.StreamResponse) -> web.StreamResponse:
    """Stall until this handler is cancelled, or reset the connection; `response` then goes nowhere."""
    if how == "stall":
        await asyncio.Event().wait()
    if isinstance(request.transport, asyncio.WriteTransport):
        request.transport.abort()
    return response
