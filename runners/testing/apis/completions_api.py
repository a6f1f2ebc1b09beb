"""A stand-in for an OpenAI-compatible chat completions API, to run a real CLI against loopback.

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

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from runners.testing.apis.stand_in import BaseError, BaseReply, Json, StandIn, cut, sse_data

_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
_CREATED = 1_700_000_000


@dataclass(frozen=True)
class Reply(BaseReply):
    """A 200 answer. `deltas` are those of choice 0; the first chunk, of the role alone, is none."""

    deltas: tuple[Json, ...]
    message: Json
    finish_reason: str = "stop"
    usage: Mapping[str, Any] = field(default_factory=dict)

    def whole(self, id: str, model: str) -> Json:
        choice = {"index": 0, "message": self.message, "finish_reason": self.finish_reason}
        return {**_head("chat.completion", id, model), "choices": [choice], "usage": {**_USAGE, **self.usage}}

    def chunks(self, id: str, model: str, *, usage: bool) -> Iterator[Json]:
        """The whole stream up to its `[DONE]`."""
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

    def frames(self, id: str, body: Json) -> Iterator[tuple[int | None, bytes]]:
        options = body.get("stream_options")
        usage = isinstance(options, dict) and options.get("include_usage") is True
        # The chunk in front of delta 1 is the role's: that many have been sent when a chunk's turn has come.
        for deltas, chunk in enumerate(self.chunks(id, str(body.get("model")), usage=usage), -1):
            yield deltas, sse_data(chunk)
        yield None, b"data: [DONE]\n\n"

    def error_frame(self) -> bytes:
        return sse_data(STREAM_ERROR.body())


@dataclass(frozen=True)
class Error(BaseError):
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
    return _calls([], [(id, name, [json.dumps(arguments)])], **fields)


def tool_calls(*calls: tuple[str, str], text: str = "", **fields: Any) -> Reply:
    """Calls of tools as (name, the text of the arguments), behind a text where there is one.

    Each has an id of its own. The text of its arguments is sent as it is, in several deltas; none where it is empty.
    """
    told = [(f"call_{uuid.uuid4().hex}", name, cut(raw)) for name, raw in calls]
    return _calls([text] if text else [], told, **fields)


def error(
    status: int,
    message: str,
    type: str = "invalid_request_error",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Error:
    """An HTTP error in the API's JSON shape."""
    return Error(status, message, type, code, headers or {})


class CompletionsApi(StandIn):
    """The server; see StandIn."""

    path = "/v1/chat/completions"
    base = "/v1"
    id_prefix = "chatcmpl-"
    default = text("ok")

    def not_found(self) -> Error:
        return Error(404, "Not found")


def _calls(texts: list[str], calls: list[tuple[str, str, list[str]]], **fields: Any) -> Reply:
    """Texts and calls, as (id, name, pieces of the arguments)."""
    deltas: list[Json] = [{"content": text} for text in texts]
    whole: list[Json] = []
    for index, (id, name, pieces) in enumerate(calls):
        call: Json = {"id": id, "type": "function"}
        head = {"index": index, **call, "function": {"name": name, "arguments": ""}}
        rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        deltas += [{"tool_calls": [delta]} for delta in (head, *rest)]
        whole.append({**call, "function": {"name": name, "arguments": "".join(pieces)}})
    message = {"role": "assistant", "content": "".join(texts) or None, "tool_calls": whole}
    return Reply(tuple(deltas), message, **{"finish_reason": "tool_calls"} | fields)


def _head(object: str, id: str, model: str) -> Json:
    return {"id": id, "object": object, "created": _CREATED, "model": model}
