"""How an answer looks to a client of chat completions. Pure.

What the API has no word for stands in fields of our own that its clients pass over: `warnings`, and the reasoning in
`reasoning_content`, where most of them look for it.
"""

from collections.abc import Iterator
from typing import Any

from daemon.frontends import openai
from daemon.frontends.exchange import Answer, event, sentence, status_of
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

_FINISH_REASONS = {"length": "length", "tool_calls": "tool_calls", "content_filter": "content_filter"}
"""Whatever else ends an answer is a stop, of which `end_turn` and `stop_sequence` are two."""


class CompletionAnswer(Answer):
    """One answer. `tells_usage`: its stream ends with what it cost."""

    def __init__(self, request: ChatRequest, warnings: list[str], *, tells_usage: bool) -> None:
        super().__init__(request, warnings)
        self._tells_usage = tells_usage
        self._head: dict[str, Any] = {}
        self._calls: dict[str, int] = {}
        self._without_arguments: set[str] = set()
        self._usage: dict[str, Any] | None = None

    def frames(self, chunk: ChatChunk) -> Iterator[bytes]:
        match chunk:
            case Start():
                self._head = self._named("chat.completion.chunk", chunk.message_id, chunk.runner, chunk.model)
                yield self._delta({"role": "assistant", "content": ""})
            case Text():
                yield self._delta({"content": chunk.chunk})
            case Reasoning():
                yield self._delta({"reasoning_content": chunk.chunk})
            case ToolRequestStart():
                self._calls[chunk.id] = len(self._calls)
                self._without_arguments.add(chunk.id)
                function = {"name": chunk.name, "arguments": ""}
                yield self._call_delta(chunk.id, {"id": chunk.id, "type": "function", "function": function})
            case ToolRequestArg():
                self._without_arguments.discard(chunk.id)
                yield self._call_delta(chunk.id, {"function": {"arguments": chunk.chunk}})
            case ToolRequestComplete(tool_call=call) if call.id in self._without_arguments:
                # A call without arguments is told without a piece of them, and clients parse what they were told.
                yield self._call_delta(call.id, {"function": {"arguments": openai.arguments_of(call)}})
            case Warn():
                self.warnings.append(chunk.message)
            case UsageReport():
                self._usage = _usage(chunk.usage)
            case Done():
                self.note_end(chunk.stop_reason)
                yield self._chunk(
                    [{"index": 0, "delta": {}, "finish_reason": _finish_reason(chunk.stop_reason)}], last=True
                )
                if self._tells_usage:
                    yield event(self._head | {"choices": [], "usage": self._usage})
                yield b"data: [DONE]\n\n"
            case Failed(error=error):
                yield event(openai.error_body(status_of(error), sentence(error), error))

    def whole(self, response: ChatResponse) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": response.content, "refusal": None}
        if response.reasoning is not None:
            message["reasoning_content"] = response.reasoning
        if response.tool_calls:
            message["content"] = response.content or None
            message["tool_calls"] = [_call(call) for call in response.tool_calls]
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": _finish_reason(response.stop_reason),
            "logprobs": None,
        }
        body = self._named("chat.completion", response.id, response.runner, response.model)
        body |= {"choices": [choice], "usage": _usage(response.usage)}
        self.note_end(response.stop_reason)
        warnings = [*self.warnings, *response.warnings]
        return body | ({"warnings": warnings} if warnings else {})

    def _named(self, kind: str, message_id: str, runner: str, model: str) -> dict[str, Any]:
        return {"id": message_id, "object": kind, "created": self.created_s, "model": f"{runner}:{model}"}

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    def _call_delta(self, call_id: str, fields: dict[str, Any]) -> bytes:
        return self._delta({"tool_calls": [{"index": self._calls[call_id]} | fields]})

    def _chunk(self, choices: list[dict[str, Any]], *, last: bool = False) -> bytes:
        # As the API does it: where a usage is to come, every chunk before it says that there is none yet.
        chunk = self._head | {"choices": choices} | ({"usage": None} if self._tells_usage else {})
        return event(chunk | ({"warnings": self.warnings} if last and self.warnings else {}))


def _finish_reason(stop_reason: str) -> str:
    return _FINISH_REASONS.get(stop_reason, "stop")


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": openai.arguments_of(call)}}


def _usage(usage: Usage) -> dict[str, Any] | None:
    counts = openai.token_counts(usage)
    if counts is None:
        return None
    counted: dict[str, Any] = {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}
    if usage.cached_input_tokens is not None:
        counted["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_tokens is not None:
        counted["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counted | ({} if usage.cost_usd is None else {"cost_usd": usage.cost_usd})
