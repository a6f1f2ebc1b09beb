"""A stand-in for the Anthropic Messages API, to run a real CLI or client against loopback.

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

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from runners.testing.apis.stand_in import BaseError, BaseReply, Json, StandIn, cut, sse_data

_USAGE = {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 7}


@dataclass(frozen=True)
class Block:
    """One content block: `start` opens it, the `deltas` fill it, `whole` is what a non-streaming answer holds."""

    start: Json
    deltas: tuple[Json, ...]
    whole: Json


@dataclass(frozen=True)
class Reply(BaseReply):
    """A 200 answer. Deltas are `content_block_delta` events of any block."""

    blocks: tuple[Block, ...]
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)

    def whole(self, id: str, model: str) -> Json:
        stop = {"stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence}
        content = [block.whole for block in self.blocks]
        usage = {**_USAGE, **self.usage}
        message = {"id": id, "type": "message", "role": "assistant", "model": model, "content": content}
        return {**message, **stop, "usage": usage}

    def events(self, id: str, model: str) -> Iterator[Json]:
        """The whole stream."""
        whole = self.whole(id, model)
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

    def frames(self, id: str, body: Json) -> Iterator[tuple[int | None, bytes]]:
        deltas = 0
        for event in self.events(id, str(body.get("model"))):
            # Behind delta k means before whatever follows it; behind 0, before the first delta.
            opens = event["type"] in ("message_start", "content_block_start", "ping")
            yield None if opens else deltas, _sse(event)
            deltas += event["type"] == "content_block_delta"

    def error_frame(self) -> bytes:
        return _sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


@dataclass(frozen=True)
class Error(BaseError):
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
        blocks.append(_text_block(deltas))
    return Reply(tuple(blocks), **fields)


def several(*texts: str) -> Reply:
    """An answer of several text blocks."""
    return Reply(tuple(block for whole in texts for block in text(whole).blocks))


def tool_use(name: str, arguments: Json, *, id: str = "toolu_01") -> Reply:
    """One call of a client tool, its input sent as a single JSON delta."""
    return Reply((_call_block(name, [json.dumps(arguments)], id),), "tool_use")


def tool_calls(*calls: tuple[str, str], text: str = "", **fields: Any) -> Reply:
    """A text block, where there is text, and calls of client tools as (name, the text of the input).

    Each has an id of its own. The text of an input is sent as it is, in several deltas, and none where it is empty.
    """
    blocks = [_text_block([text])] if text else []
    blocks += [_call_block(name, cut(raw), f"toolu_{uuid.uuid4().hex}") for name, raw in calls]
    return Reply(tuple(blocks), **{"stop_reason": "tool_use"} | fields)


def error(status: int, type: str, message: str, headers: Mapping[str, str] | None = None) -> Error:
    """An HTTP error in the API's JSON shape."""
    return Error(status, type, message, headers or {})


def _text_block(deltas: Iterable[str]) -> Block:
    pieces = tuple({"type": "text_delta", "text": delta} for delta in deltas)
    return Block({"type": "text", "text": ""}, pieces, {"type": "text", "text": "".join(deltas)})


def _call_block(name: str, pieces: Iterable[str], id: str) -> Block:
    start: Json = {"type": "tool_use", "id": id, "name": name, "input": {}}
    deltas = tuple({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return Block(start, deltas, {**start, "input": _object_of("".join(pieces))})


def _object_of(raw: str) -> Json:
    """The object that arguments are; an empty one where they are none."""
    try:
        value = json.loads(raw or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class MessagesApi(StandIn):
    """The server; see StandIn."""

    path = "/v1/messages"
    id_prefix = "msg_"
    default = text("ok")

    def not_found(self) -> Error:
        return Error(404, "not_found_error", "Not found")


def _sse(event: Json) -> bytes:
    return f"event: {event['type']}\n".encode() + sse_data(event)
