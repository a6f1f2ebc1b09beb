"""The lines of Ollama's `/api/chat` as chunks, and its errors: pure, no I/O.

The facts are from the source of 0.33.0-rc2 and of older versions back to 0.5, not from a running server.
"""

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from runners.errors import (
    ContextOverflowError,
    InvalidRequestError,
    ModelNotFoundError,
    NotAuthenticatedError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitedError,
    RequestCancelledError,
    RunnerError,
    UnsupportedError,
    VendorError,
)
from runners.messages import Usage
from runners.stream import ChatChunk, Done, Reasoning, Start, Text, UsageReport
from runners.tool_calls import ToolCalls
from runners.tools import ToolDefinition
from runners.translator import Event, Translator

INTERRUPTED: Event = {"done": True, "done_reason": "interrupted"}
"""Our own last line of an answer whose connection we closed: the server has no word for that."""

_STOP_REASONS = {"stop": "end_turn", "length": "length", "interrupted": "cancelled"}
_OVERFLOW = re.compile(r"input length.*exceeds|longer than the context length|exceeds the available context size")
_NUMBERS = re.compile(r"\((\d+) tokens\).*?\((\d+) tokens\)", re.DOTALL)
_OUR_FAULT = re.compile(r"^(option |invalid format)")
_NANOSECONDS = 1e9

T = TypeVar("T")


class OllamaTranslator(Translator):
    """The lines of one answer.

    The server has no id for an answer, so it is given one. Calls of tools come whole, and end the answer.
    """

    def __init__(self, runner: str, message_id: str, *, tools: Sequence[ToolDefinition] = ()) -> None:
        super().__init__(runner)
        self._message_id = message_id
        self._calls = ToolCalls(tools)
        self._started = False

    def _chunks(self, event: Event) -> Iterator[ChatChunk] | None:
        return self._line(event) if event.keys() & {"message", "done", "error"} else None

    def _line(self, event: Event) -> Iterator[ChatChunk]:
        if "error" in event:
            raise failure(200, event)
        message = event.get("message") or {}
        said = {name: _typed(message.get(name), str) for name in ("thinking", "content")}
        if event.get("done_reason") == "interrupted" and not self._started:
            raise RequestCancelledError("interrupted before the answer began")
        if not self._started:
            self._started = True
            yield Start(self._message_id, self._runner, _typed(event["model"], str) or "")
        yield from (Reasoning(piece) for piece in [said["thinking"]] if piece)
        yield from (Text(piece) for piece in [said["content"]] if piece)
        for call in message.get("tool_calls") or []:
            # Before 0.12.10 a call has no id, and one that is unique to its conversation takes its place.
            call_id = _typed(call.get("id"), str) or f"call_{uuid.uuid4().hex}"
            called = call["function"]
            arguments = json.dumps(called["arguments"], ensure_ascii=False) if called.get("arguments") else ""
            yield from self._calls.whole(call_id, called["name"], arguments)
        if event.get("done"):
            raw = _typed(event.get("done_reason"), str) or "stop"
            if raw != "interrupted":
                yield UsageReport(_usage(event))
            is_called = bool(self._calls.made) and raw in ("stop", "length")
            yield Done("tool_calls" if is_called else _STOP_REASONS.get(raw, raw), raw)
            self.ended = True
            self.is_clean = raw != "interrupted"


def _typed(value: Any, wanted: type[T]) -> T | None:
    """A field's value, or None where there is none; TypeError, for ProtocolError, when it is of another type."""
    if value is not None and not isinstance(value, wanted):
        raise TypeError(f"{value!r:.40} is no {wanted.__name__}")
    return value


def _usage(event: Event) -> Usage:
    """Zeros are left out by the server, so a count that is missing beside others is one."""
    counts = (_typed(event.get("prompt_eval_count"), int), _typed(event.get("eval_count"), int))
    known = any(count is not None for count in counts)
    total, load = _typed(event.get("total_duration"), int), _typed(event.get("load_duration"), int)
    return Usage(
        input_tokens=(counts[0] or 0) if known else None,
        output_tokens=(counts[1] or 0) if known else None,
        duration_s=total / _NANOSECONDS if total else None,
        load_s=load / _NANOSECONDS if load else None,
    )


def failure(status: int, body: Event, model: str = "") -> RunnerError:  # noqa: PLR0911 the vendor's table
    """What an HTTP answer, or a line `{"error": ...}` of an answer that began (status 200), means."""
    text = _message(body.get("error"))
    message = text or f"ollama answered with HTTP {status}"
    if _OVERFLOW.search(message):
        numbers = _NUMBERS.search(message)
        requested, limit = (int(numbers[1]), int(numbers[2])) if numbers else (None, None)
        return ContextOverflowError(message, requested_tokens=requested, max_tokens=limit)
    if status == 404 and text:  # the server's own page for a path that it lacks has no such text
        return ModelNotFoundError(message, hint=f"ollama pull {model}" if model else None)
    if status == 401:
        return NotAuthenticatedError(message, hint="ollama signin")
    if status == 403:
        return PermissionDeniedError(message)
    if status == 429:
        return RateLimitedError(message)
    if status == 503:
        return OverloadedError(message)
    if "does not support" in message or "image input is not supported" in message:
        return UnsupportedError(message)
    if 400 <= status < 500 or _OUR_FAULT.search(message):
        return InvalidRequestError(message)
    return VendorError(message)


def _message(error: Any) -> str:
    """The sentence in an error, which may be the JSON of another program's error as text."""
    if isinstance(error, dict):
        return _message(error.get("message"))
    if not isinstance(error, str):
        return ""
    try:
        inner = json.loads(error)
    except (ValueError, RecursionError):
        return error
    return _message(inner.get("error")) or error if isinstance(inner, dict) else error
