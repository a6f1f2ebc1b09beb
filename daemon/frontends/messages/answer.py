"""How an answer looks to a client of the Messages API. Pure."""

from collections.abc import Iterator
from typing import Any

from daemon.frontends.exchange import Answer, event, sentence, status_of
from daemon.frontends.messages.request import UNPARSED
from runners.errors import ContextOverflowError, RunnerError
from runners.messages import ChatRequest, ChatResponse, Usage
from runners.stream import (
    ChatChunk,
    Done,
    Failed,
    Reasoning,
    Start,
    Text,
    ToolRequestArg,
    ToolRequestComplete,
    ToolRequestStart,
    UsageReport,
    Warn,
)
from runners.tools import ToolCall

_STOP_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "stop_sequence": "stop_sequence",
}
"""Whatever else ends an answer is the end of the model's turn."""

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_NOTHING_YET = {"input_tokens": 0, "output_tokens": 0}
"""The API wants numbers at the begin of a stream, where no CLI knows any. Those at its end count."""


def error_body(status: int, message: str, error: RunnerError | None) -> dict[str, Any]:
    """An error as Anthropic's clients read it, and beside it what we know besides."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    if isinstance(error, ContextOverflowError):
        # By these words Claude Code knows that it has to shorten the conversation.
        counts = (error.requested_tokens, error.max_tokens)
        message = (
            f"prompt is too long: {message}"
            if None in counts
            else "prompt is too long: {} tokens > {} maximum".format(*counts)
        )
    body = {"type": kind, "message": message}
    return {"type": "error", "error": body if error is None else body | {"runnerd": error.to_dict()}}


class MessagesAnswer(Answer):
    """One answer. Its blocks follow each other, but those of tools, which may be told in turns."""

    def __init__(self, request: ChatRequest, warnings: list[str]) -> None:
        super().__init__(request, warnings)
        self._blocks = 0
        self._open: str | None = None  # the kind of the block that text or thinking goes on in
        self._calls: dict[str, int] = {}
        self._usage: dict[str, Any] = {}

    def frames(self, chunk: ChatChunk) -> Iterator[bytes]:
        match chunk:
            case Start():
                message = self._message(chunk.message_id, chunk.runner, chunk.model)
                yield _event("message_start", message=message | {"usage": _NOTHING_YET})
            case Text():
                yield from self._block("text", {"text": ""})
                yield self._delta(self._blocks - 1, {"type": "text_delta", "text": chunk.chunk})
            case Reasoning():
                yield from self._block("thinking", {"thinking": "", "signature": ""})
                yield self._delta(self._blocks - 1, {"type": "thinking_delta", "thinking": chunk.chunk})
            case ToolRequestStart():
                yield from self._end_block()
                self._calls[chunk.id] = self._blocks
                yield self._begin({"type": "tool_use", "id": chunk.id, "name": chunk.name, "input": {}})
            case ToolRequestArg():
                yield self._delta(self._calls[chunk.id], {"type": "input_json_delta", "partial_json": chunk.chunk})
            case ToolRequestComplete(tool_call=call):
                yield _event("content_block_stop", index=self._calls[call.id])
            case Warn():
                self.warnings.append(chunk.message)
            case UsageReport():
                self._usage = _usage(chunk.usage)
            case Done():
                yield from self._end_block()
                self.note_end(chunk.stop_reason)
                warnings = {"warnings": self.warnings} if self.warnings else {}
                yield _event("message_delta", delta=self._end(chunk.stop_reason), usage=self._usage, **warnings)
                yield _event("message_stop")
            case Failed(error=error):
                yield event(error_body(status_of(error), sentence(error), error), "error")

    def whole(self, response: ChatResponse) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if response.reasoning:
            content.append({"type": "thinking", "thinking": response.reasoning, "signature": ""})
        if response.content:
            content.append({"type": "text", "text": response.content})
        content += [_tool_use(call) for call in response.tool_calls]
        message = self._message(response.id, response.runner, response.model)
        message |= {"content": content, "usage": _usage(response.usage)} | self._end(response.stop_reason)
        self.note_end(response.stop_reason)
        warnings = [*self.warnings, *response.warnings]
        return message | ({"warnings": warnings} if warnings else {})

    @staticmethod
    def _message(message_id: str, runner: str, model: str) -> dict[str, Any]:
        head = {"id": message_id, "type": "message", "role": "assistant", "model": f"{runner}:{model}"}
        return head | {"content": [], "stop_reason": None, "stop_sequence": None}

    def _end(self, stop_reason: str) -> dict[str, Any]:
        # Which of several it was no CLI says.
        is_known = stop_reason == "stop_sequence" and len(self.request.stop) == 1
        return {
            "stop_reason": _STOP_REASONS.get(stop_reason, "end_turn"),
            "stop_sequence": self.request.stop[0] if is_known else None,
        }

    def _block(self, kind: str, empty: dict[str, str]) -> Iterator[bytes]:
        """Begins a block of that kind, unless it is open."""
        if self._open != kind:
            yield from self._end_block()
            self._open = kind
            yield self._begin({"type": kind} | empty)

    def _begin(self, block: dict[str, Any]) -> bytes:
        self._blocks += 1
        return _event("content_block_start", index=self._blocks - 1, content_block=block)

    def _end_block(self) -> Iterator[bytes]:
        if self._open is not None:
            self._open = None
            yield _event("content_block_stop", index=self._blocks - 1)

    @staticmethod
    def _delta(index: int, delta: dict[str, str]) -> bytes:
        return _event("content_block_delta", index=index, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind} | fields, kind)


def _tool_use(call: ToolCall) -> dict[str, Any]:
    raw = call.arguments_raw
    unparsed = None if raw is None else {UNPARSED: {"raw": raw, "len": len(raw)}}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": unparsed or call.arguments}


def _usage(usage: Usage) -> dict[str, Any]:
    """Here, unlike with us, `input_tokens` are those that no cache had a part in. What nobody said is null."""
    cached, created = usage.cached_input_tokens, usage.cache_creation_input_tokens
    whole = usage.input_tokens
    counted = {
        "input_tokens": None if whole is None else whole - (cached or 0) - (created or 0),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": created,
        "output_tokens": usage.output_tokens,
    }
    return counted | ({} if usage.cost_usd is None else {"cost_usd": usage.cost_usd})
