"""How an answer looks to a client of the Responses API. Pure.

An answer is a list of items: the reasoning, the text, and a call for each tool. Each is told piece by piece, and then
whole; at the end the response is told whole, with all of them.
"""

import json
import uuid
from collections.abc import Iterator
from itertools import count
from typing import Any

from daemon.frontends import openai
from daemon.frontends.exchange import Answer, event, told
from daemon.frontends.responses.request import Offered
from runners.errors import RunnerError
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

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_SAID_BACK = ("instructions", "max_output_tokens", "metadata", "reasoning", "temperature", "text", "top_p")


class ResponsesAnswer(Answer):
    """One answer. `said` is the body of the request, of which the API says a part again; `offered` see the request."""

    def __init__(
        self, request: ChatRequest, warnings: list[str], *, said: dict[str, Any], offered: dict[str, Offered]
    ) -> None:
        super().__init__(request, warnings)
        self._said = said
        self._offered = offered
        self._id = f"resp_{uuid.uuid4().hex}"
        self._numbers = count()
        self._model = ""
        self._items: list[dict[str, Any]] = []
        self._open: int | None = None  # the item that text or reasoning goes on in
        self._pieces: list[str] = []
        self._calls: dict[str, int] = {}
        self._usage: dict[str, Any] | None = None

    def frames(self, chunk: ChatChunk) -> Iterator[bytes]:
        match chunk:
            case Start():
                self._model = f"{chunk.runner}:{chunk.model}"
                yield self._event("response.created", response=self._response("in_progress"))
                yield self._event("response.in_progress", response=self._response("in_progress"))
            case Text():
                yield from self._piece("message", chunk.chunk)
            case Reasoning():
                yield from self._piece("reasoning", chunk.chunk)
            case ToolRequestStart():
                yield from self._end_item()
                self._calls[chunk.id] = len(self._items)
                yield self._added(self._call(chunk.id, chunk.name, "") | {"status": "in_progress"})
            case ToolRequestArg() if self._items[self._calls[chunk.id]]["type"] == "function_call":
                yield self._item_event("response.function_call_arguments.delta", chunk.id, delta=chunk.chunk)
            case ToolRequestComplete(tool_call=call):
                yield from self._end_call(call)
            case Warn():
                self.warnings.append(chunk.message)
            case UsageReport():
                self._usage = _usage(chunk.usage)
            case Done():
                yield from self._end_item()
                status = "incomplete" if chunk.stop_reason in _INCOMPLETE else "completed"
                yield self._event(f"response.{status}", response=self._ended(chunk.stop_reason, self._usage))
            case Failed(error=error):
                yield from self._end_item()
                yield self._event("response.failed", response=self._response("failed") | {"error": _error(error)})

    def whole(self, response: ChatResponse) -> dict[str, Any]:
        self._model = f"{response.runner}:{response.model}"
        self.warnings += response.warnings
        if response.reasoning:
            self._items.append(self._spoken("reasoning", response.reasoning))
        if response.content:
            self._items.append(self._spoken("message", response.content))
        for call in response.tool_calls:
            self._items.append(self._call(call.id, call.name, self._input(call)))
        return self._ended(response.stop_reason, _usage(response.usage))

    # The response

    def _response(self, status: str) -> dict[str, Any]:
        said = {name: self._said.get(name) for name in _SAID_BACK}
        return said | {
            "id": self._id,
            "object": "response",
            "created_at": self.created_s,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._model,
            "output": self._items,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "tool_choice": self._said.get("tool_choice") or "auto",
            "tools": self._said.get("tools") or [],
            "truncation": "disabled",
            "usage": None,
        }

    def _ended(self, stop_reason: str, usage: dict[str, Any] | None) -> dict[str, Any]:
        why = _INCOMPLETE.get(stop_reason)
        ended = self._response("incomplete" if why else "completed") | {"usage": usage}
        if why:
            ended["incomplete_details"] = {"reason": why}
        return ended | ({"warnings": self.warnings} if self.warnings else {})

    # Text and reasoning

    def _piece(self, kind: str, piece: str) -> Iterator[bytes]:
        if self._open is None or self._items[self._open]["type"] != kind:
            yield from self._end_item()
            self._open = len(self._items)
            item = self._spoken(kind, "") | {"status": "in_progress"}
            part = item.pop("content" if kind == "message" else "summary")[0]
            yield self._added(item | {"content" if kind == "message" else "summary": []})
            yield self._part_event("added", part)
        self._pieces.append(piece)
        if kind == "message":
            yield self._part_event("delta", None, delta=piece, logprobs=[])
        else:
            yield self._part_event("delta", None, delta=piece)

    def _end_item(self) -> Iterator[bytes]:
        """Ends the item that text or reasoning goes on in, if there is one."""
        if self._open is None:
            return
        kind, text = self._items[self._open]["type"], "".join(self._pieces)
        self._pieces.clear()
        item = self._spoken(kind, text, self._items[self._open]["id"])
        yield self._part_event("text_done", None, text=text, **({"logprobs": []} if kind == "message" else {}))
        yield self._part_event("done", item["content" if kind == "message" else "summary"][0])
        self._items[self._open] = item
        yield self._event("response.output_item.done", output_index=self._open, item=item)
        self._open = None

    def _part_event(self, what: str, part: dict[str, Any] | None, **fields: Any) -> bytes:
        """An event of the one part that an item of text or reasoning has."""
        assert self._open is not None
        item = self._items[self._open]
        is_message = item["type"] == "message"
        part_of, text_of = (
            ("content_part", "output_text") if is_message else ("reasoning_summary_part", "reasoning_summary_text")
        )
        names = {
            "added": f"response.{part_of}.added",
            "delta": f"response.{text_of}.delta",
            "text_done": f"response.{text_of}.done",
            "done": f"response.{part_of}.done",
        }
        place = {
            "item_id": item["id"],
            "output_index": self._open,
            "content_index" if is_message else "summary_index": 0,
        }
        return self._event(names[what], **place, **({} if part is None else {"part": part}), **fields)

    @staticmethod
    def _spoken(kind: str, text: str, item_id: str | None = None) -> dict[str, Any]:
        if kind == "reasoning":
            item: dict[str, Any] = {"id": item_id or f"rs_{uuid.uuid4().hex}", "type": kind, "encrypted_content": None}
            return item | {"summary": [{"type": "summary_text", "text": text}]}
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        item = {"id": item_id or f"msg_{uuid.uuid4().hex}", "type": kind, "role": "assistant"}
        return item | {"status": "completed", "content": content}

    # Calls of tools

    def _call(self, call_id: str, our_name: str, text: str, item_id: str | None = None) -> dict[str, Any]:
        tool = self._offered.get(our_name, Offered(our_name))
        call = {
            "id": item_id or f"{'ctc' if tool.is_custom else 'fc'}_{uuid.uuid4().hex}",
            "type": "custom_tool_call" if tool.is_custom else "function_call",
            "status": "completed",
            "call_id": call_id,
            "name": tool.name,
            "input" if tool.is_custom else "arguments": text,
        }
        return call | ({} if tool.namespace is None else {"namespace": tool.namespace})

    def _input(self, call: ToolCall) -> str:
        text = call.arguments.get("input")
        if call.name in self._offered and self._offered[call.name].is_custom and isinstance(text, str):
            return text
        return json.dumps(call.arguments, ensure_ascii=False) if call.arguments_raw is None else call.arguments_raw

    def _end_call(self, call: ToolCall) -> Iterator[bytes]:
        index, text = self._calls[call.id], self._input(call)
        item = self._items[index] = self._call(call.id, call.name, text, self._items[index]["id"])
        if item["type"] == "custom_tool_call":
            yield self._item_event("response.custom_tool_call_input.delta", call.id, delta=text)
            yield self._item_event("response.custom_tool_call_input.done", call.id, input=text)
        else:
            yield self._item_event("response.function_call_arguments.done", call.id, name=item["name"], arguments=text)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _item_event(self, kind: str, call_id: str, **fields: Any) -> bytes:
        index = self._calls[call_id]
        return self._event(kind, item_id=self._items[index]["id"], output_index=index, **fields)

    def _added(self, item: dict[str, Any]) -> bytes:
        self._items.append(item)
        return self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)

    def _event(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, "sequence_number": next(self._numbers)} | fields, kind)


def _error(error: RunnerError) -> dict[str, Any]:
    return {"code": openai.error_code(error.kind), "message": told(error), "runnerd": error.to_dict()}


def _usage(usage: Usage) -> dict[str, Any] | None:
    counts = openai.token_counts(usage)
    if counts is None:
        return None
    told: dict[str, Any] = {
        "input_tokens": counts[0],
        "input_tokens_details": _details("cached_tokens", usage.cached_input_tokens),
        "output_tokens": counts[1],
        "output_tokens_details": _details("reasoning_tokens", usage.reasoning_tokens),
        "total_tokens": sum(counts),
    }
    return told | ({} if usage.cost_usd is None else {"cost_usd": usage.cost_usd})


def _details(name: str, count: int | None) -> dict[str, int] | None:
    # Codex takes no null for a count, and leaves out what is not there.
    return None if count is None else {name: count}
