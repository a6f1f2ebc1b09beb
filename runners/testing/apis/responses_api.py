"""A stand-in for the OpenAI Responses API, to run a real CLI against loopback.

It owns one aiohttp server on 127.0.0.1 and what that server saw. It knows the shape of the API's stream, and nothing
about the programs that call it.

    async with ResponsesApi() as api:
        api.script(text("Hel", "lo"), error(429, "slow down", code="rate_limit_exceeded", headers={"retry-after": "7"}))
        api.script(text("a", "b").broken("drop", after=1))
        ...run the program with api.url as its base URL...
        first = await asyncio.wait_for(api.received(1), 5)
        assert first.body["input"] == [...]
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from runners.testing.apis.stand_in import BaseError, BaseReply, Json, StandIn, cut, sse_data

_USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 18,
}


@dataclass(frozen=True)
class Item:
    """One output item: as it is `added`, the `deltas` that fill it, and as it is `done`."""

    added: Json
    deltas: tuple[Json, ...]
    done: Json


@dataclass(frozen=True)
class Reply(BaseReply):
    """A 200 answer. Deltas are those of any item. `incomplete` is why the answer was cut."""

    items: tuple[Item, ...]
    incomplete: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)

    def whole(self, id: str, model: str) -> Json:
        return _response(id, model, "incomplete" if self.incomplete else "completed") | {
            "output": [item.done for item in self.items],
            "usage": {**_USAGE, **self.usage},
            "incomplete_details": {"reason": self.incomplete} if self.incomplete else None,
        }

    def events(self, id: str, model: str) -> Iterator[tuple[int | None, Json]]:
        """The whole stream, each event with how many deltas stand before it."""
        deltas = 0
        yield None, {"type": "response.created", "response": _response(id, model, "in_progress")}
        for index, item in enumerate(self.items):
            place = {"output_index": index}
            yield None, {"type": "response.output_item.added", **place, "item": item.added}
            for delta in item.deltas:
                yield deltas, {**delta, **place, "item_id": item.added["id"]}
                deltas += 1
            yield deltas, {"type": "response.output_item.done", **place, "item": item.done}
        whole = self.whole(id, model)
        yield deltas, {"type": f"response.{whole['status']}", "response": whole}

    def frames(self, id: str, body: Json) -> Iterator[tuple[int | None, bytes]]:
        for deltas, event in self.events(id, str(body.get("model"))):
            yield deltas, _sse(event)

    def error_frame(self) -> bytes:
        failed = _response("resp_failed", "", "failed")
        return _sse({"type": "response.failed", "response": {**failed, "error": STREAM_ERROR}})


@dataclass(frozen=True)
class Error(BaseError):
    """An HTTP error in the API's JSON shape."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def response(self) -> web.Response:
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code, **self.more}
        return web.json_response({"error": error}, status=self.status, headers=self.headers)


AnyReply = Reply | Error

STREAM_ERROR = {"code": "server_error", "message": "The server had an error"}
"""What `broken("error")` sends in the middle of a stream."""


def text(*deltas: str, reasoning: str | None = None, **fields: Any) -> Reply:
    """A message of these exact deltas (none: no message), behind a summary of `reasoning` where that is given.

    A lone surrogate is sent as its JSON escape. `fields` are those of Reply: `usage` overrides single counts; behind
    `pause_after` deltas the rest waits for `pause`; an answer that was cut is `incomplete="max_output_tokens"`, a
    blocked one `"content_filter"`.
    """
    items = () if reasoning is None else (_reasoning(reasoning),)
    return Reply((*items, *((_message(*deltas),) if deltas else ())), **fields)


def several(*texts: str) -> Reply:
    """An answer of several messages."""
    return Reply(tuple(_message(text) for text in texts))


def tool_calls(*calls: tuple[str, str], text: str = "", **fields: Any) -> Reply:
    """Calls of tools as (name, the text of the arguments), behind a message where there is text.

    Each has an id of its own. The text of its arguments is sent as it is, in several deltas; none where it is empty.
    """
    items = [_message(text)] if text else []
    items += [_call(name, raw, f"call_{uuid.uuid4().hex}") for name, raw in calls]
    return Reply(tuple(items), **fields)


def error(
    status: int,
    message: str,
    type: str = "invalid_request_error",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Error:
    """`more` stands beside the message in the error."""
    return Error(status, message, type, code, headers or {}, more)


def _message(*deltas: str) -> Item:
    head: Json = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant"}
    pieces = tuple({"type": "response.output_text.delta", "content_index": 0, "delta": delta} for delta in deltas)
    content = [{"type": "output_text", "text": "".join(deltas), "annotations": []}]
    return Item(
        {**head, "status": "in_progress", "content": []}, pieces, {**head, "status": "completed", "content": content}
    )


def _reasoning(summary: str) -> Item:
    head: Json = {"id": f"rs_{uuid.uuid4().hex}", "type": "reasoning"}
    part = {"type": "summary_text", "text": summary}
    pieces: tuple[Json, ...] = (
        {"type": "response.reasoning_summary_part.added", "summary_index": 0, "part": {**part, "text": ""}},
        {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": summary},
    )
    return Item({**head, "summary": []}, pieces, {**head, "summary": [part], "encrypted_content": "c2VjcmV0"})


def _call(name: str, raw: str, call_id: str) -> Item:
    head: Json = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "call_id": call_id, "name": name}
    pieces = tuple({"type": "response.function_call_arguments.delta", "delta": piece} for piece in cut(raw))
    return Item(
        {**head, "status": "in_progress", "arguments": ""}, pieces, {**head, "status": "completed", "arguments": raw}
    )


def _response(id: str, model: str, status: str) -> Json:
    return {
        "id": id,
        "object": "response",
        "created_at": 1_700_000_000,
        "model": model,
        "status": status,
        "error": None,
    }


def _sse(event: Json) -> bytes:
    return f"event: {event['type']}\n".encode() + sse_data(event)


class ResponsesApi(StandIn):
    """The server; see StandIn."""

    path = "/v1/responses"
    base = "/v1"
    id_prefix = "resp_"
    default = text("ok")

    def not_found(self) -> Error:
        return Error(404, "Not found")
