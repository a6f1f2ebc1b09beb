"""A stand-in for the Gemini API (`streamGenerateContent`), to run a real CLI against loopback.

It owns one aiohttp server on 127.0.0.1 and what that server saw. It knows the shape of the API's stream, and nothing
about the programs that call it.

    async with GeminiApi() as api:
        api.script(text("Hel", "lo"), error(429, "slow down", "RESOURCE_EXHAUSTED"))
        ...run the program with api.url as its base URL...
        first = await asyncio.wait_for(api.received(1), 5)
        assert first.body["contents"] == [...]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from runners.testing.apis.stand_in import BaseError, BaseReply, Json, StandIn, sse_data

_USAGE = {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18}


@dataclass(frozen=True)
class Reply(BaseReply):
    """A 200 answer. `deltas` are parts of its content, each sent in a piece of its own."""

    deltas: tuple[Json, ...]
    finish_reason: str = "STOP"
    usage: Mapping[str, Any] = field(default_factory=dict)

    def whole(self, id: str, model: str) -> Json:
        return self._piece(id, model, list(self.deltas), self.finish_reason)

    def frames(self, id: str, body: Json) -> Iterator[tuple[int | None, bytes]]:
        model = str(body["model"])
        for index, delta in enumerate(self.deltas):
            yield index, _data(self._piece(id, model, [delta], None))
        yield len(self.deltas), _data(self._piece(id, model, [{"text": ""}], self.finish_reason))

    def error_frame(self) -> bytes:
        return _data(STREAM_ERROR.body())

    def _piece(self, id: str, model: str, parts: list[Json], finish_reason: str | None) -> Json:
        candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
        if finish_reason is not None:
            candidate["finishReason"] = finish_reason
        usage = {**_USAGE, **self.usage}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": id}


@dataclass(frozen=True)
class Error(BaseError):
    """An HTTP error in the API's JSON shape."""

    code: int
    message: str
    status: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> Json:
        return {"error": {"code": self.code, "message": self.message, "status": self.status}}

    def response(self) -> web.Response:
        return web.json_response(self.body(), status=self.code, headers=self.headers)


AnyReply = Reply | Error

STREAM_ERROR = Error(500, "An internal error has occurred", "INTERNAL")
"""What `broken("error")` sends in the middle of a stream."""


def text(*deltas: str, reasoning: str | None = None, **fields: Any) -> Reply:
    """These exact text deltas (none: an empty answer), after a thought if `reasoning` is given.

    A lone surrogate is sent as its JSON escape. `fields` are those of Reply: `usage` overrides single counts; behind
    `pause_after` deltas the rest waits for `pause`; an answer that was cut is `finish_reason="MAX_TOKENS"`.
    """
    thought: tuple[Json, ...] = () if reasoning is None else ({"text": reasoning, "thought": True},)
    return Reply(thought + tuple({"text": delta} for delta in deltas), **fields)


def tool_calls(*calls: tuple[str, str], text: str = "", **fields: Any) -> Reply:
    """Calls of tools as (name, the text of the arguments, a JSON object), behind a text where there is one."""
    told: list[Json] = [{"text": text}] if text else []
    told += [{"functionCall": {"name": name, "args": json.loads(raw)}} for name, raw in calls]
    return Reply(tuple(told), **fields)


def error(code: int, message: str, status: str, *, headers: Mapping[str, str] | None = None) -> Error:
    """An HTTP error; `status` is the API's word for it."""
    return Error(code, message, status, headers or {})


def system_of(body: Json) -> str:
    """The system prompt of a request."""
    return "".join(part.get("text", "") for part in (body.get("systemInstruction") or {}).get("parts", []))


def told(body: Json) -> list[tuple[str, str]]:
    """The messages of a request as (role, text), where each part of a content stands for itself."""
    roles = {"user": "user", "model": "assistant"}
    return [
        (roles[content["role"]], part["text"])
        for content in body["contents"]
        for part in content["parts"]
        if "text" in part
    ]


def _data(value: Json) -> bytes:
    # Google's API escapes these two, and its clients rely on that.
    return sse_data(value).replace("\u2028".encode(), b"\\u2028").replace("\u2029".encode(), b"\\u2029")


class GeminiApi(StandIn):
    """The server; see StandIn. In a request's body its `model` stands too, which the API tells by its path."""

    path = "/v1beta/models/{model}:streamGenerateContent"
    id_prefix = "resp-"
    default = text("ok")

    def understood(self, request: web.Request, body: Json) -> Json:
        return body | {"model": request.match_info["model"], "stream": True}

    def not_found(self) -> Error:
        return Error(404, "Not found", "NOT_FOUND")
