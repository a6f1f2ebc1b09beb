"""How an answer looks to a client of the Responses API. Pure.

An answer is a list of items: the reasoning, the text, and a call for each tool. Each is told piece by piece, and then
whole; at the end the response is told whole, with all of them.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from daemon.frontends import openai
from daemon.frontends.exchange import Answer, event, sentence
from daemon.frontends.responses.items import item_id
from daemon.frontends.responses.tools import Offered
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


@dataclass(frozen=True)
class _Kind:
    """How the API tells text and reasoning: alike, but for all names."""

    type: str
    prefix: str
    parts: str
    part: str
    text: str
    index: str
    fields: dict[str, Any]
    one: dict[str, Any]
    more: dict[str, Any]


_MESSAGE = _Kind(
    type="message",
    prefix="msg",
    parts="content",
    part="content_part",
    text="output_text",
    index="content_index",
    fields={"role": "assistant"},
    one={"type": "output_text", "annotations": [], "logprobs": []},
    more={"logprobs": []},
)
_REASONING = _Kind(
    type="reasoning",
    prefix="rs",
    parts="summary",
    part="reasoning_summary_part",
    text="reasoning_summary_text",
    index="summary_index",
    fields={"encrypted_content": None},
    one={"type": "summary_text"},
    more={},
)


class ResponsesAnswer(Answer):
    """One answer. `said` is the body of the request, of which the API says a part again; `offered` see the request."""

    def __init__(
        self, request: ChatRequest, warnings: list[str], *, said: dict[str, Any], offered: dict[str, Offered]
    ) -> None:
        super().__init__(request, warnings)
        self._said = said
        self._offered = offered
        self._id = uuid.uuid4().hex
        self._numbers = count()
        self._model = ""
        self._items: list[dict[str, Any]] = []
        self._kind: _Kind | None = None  # of the item that text or reasoning goes on in
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
                yield from self._piece(_MESSAGE, chunk.chunk)
            case Reasoning():
                yield from self._piece(_REASONING, chunk.chunk)
            case ToolRequestStart():
                yield from self._end_item()
                self._calls[chunk.id] = len(self._items)
                yield self._added(self._call(chunk.id, chunk.name, "", len(self._items)) | {"status": "in_progress"})
            case ToolRequestArg() if self._items[self._calls[chunk.id]]["type"] == "function_call":
                yield self._item_event("response.function_call_arguments.delta", chunk.id, delta=chunk.chunk)
            case ToolRequestComplete(tool_call=call):
                yield from self._end_call(call)
            case Warn():
                self.warnings.append(chunk.message)
            case UsageReport():
                self._usage = _usage(chunk.usage)
            case Done():
                status = "incomplete" if chunk.stop_reason in _INCOMPLETE else "completed"
                yield from self._end_item(status)
                self.note_end(chunk.stop_reason)
                yield self._event(f"response.{status}", response=self._ended(chunk.stop_reason, self._usage))
            case Failed(error=error):
                # What it was in has no end: Codex keeps what has one, and asks for the rest behind it.
                yield self._event("response.failed", response=self._response("failed") | {"error": _error(error)})

    def whole(self, response: ChatResponse) -> dict[str, Any]:
        self._model = f"{response.runner}:{response.model}"
        self.warnings += response.warnings
        self.note_end(response.stop_reason)
        if response.reasoning:
            self._items.append(self._spoken(_REASONING, response.reasoning, len(self._items)))
        if response.content:
            self._items.append(self._spoken(_MESSAGE, response.content, len(self._items)))
        for call in response.tool_calls:
            self._items.append(self._call(call.id, call.name, self._input(call), len(self._items)))
        return self._ended(response.stop_reason, _usage(response.usage))

    # The response

    def _response(self, status: str) -> dict[str, Any]:
        said = {name: self._said.get(name) for name in _SAID_BACK}
        return said | {
            "id": f"resp_{self._id}",
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

    def _piece(self, kind: _Kind, piece: str) -> Iterator[bytes]:
        if self._kind is not kind:
            yield from self._end_item()
            self._kind = kind
            item = self._spoken(kind, "", len(self._items)) | {"status": "in_progress"}
            [part] = item[kind.parts]
            yield self._added(item | {kind.parts: []})
            yield self._part_event(f"response.{kind.part}.added", part=part)
        self._pieces.append(piece)
        yield self._part_event(f"response.{kind.text}.delta", delta=piece, **kind.more)

    def _end_item(self, status: str = "completed") -> Iterator[bytes]:
        """Ends the item that text or reasoning goes on in, which is the last one, if there is one."""
        if self._kind is None:
            return
        kind, text, number = self._kind, "".join(self._pieces), len(self._items) - 1
        item = self._spoken(kind, text, number) | {"status": status}
        yield self._part_event(f"response.{kind.text}.done", text=text, **kind.more)
        yield self._part_event(f"response.{kind.part}.done", part=item[kind.parts][0])
        self._items[number] = item
        self._kind = None
        self._pieces.clear()
        yield self._event("response.output_item.done", output_index=number, item=item)

    def _part_event(self, name: str, **fields: Any) -> bytes:
        """An event of the one part that an item of text or reasoning has."""
        assert self._kind is not None
        number = len(self._items) - 1
        place = {"item_id": self._items[number]["id"], "output_index": number, self._kind.index: 0}
        return self._event(name, **place, **fields)

    def _spoken(self, kind: _Kind, text: str, number: int) -> dict[str, Any]:
        item = {"id": item_id(kind.prefix, self._id, number), "type": kind.type, "status": "completed"}
        return item | kind.fields | {kind.parts: [kind.one | {"text": text}]}

    # Calls of tools

    def _call(self, call_id: str, our_name: str, text: str, number: int) -> dict[str, Any]:
        tool = self._offered.get(our_name, Offered(our_name))
        call = {
            "id": item_id("ctc" if tool.is_custom else "fc", self._id, number),
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
        return openai.arguments_of(call)

    def _end_call(self, call: ToolCall) -> Iterator[bytes]:
        index, text = self._calls[call.id], self._input(call)
        item = self._items[index] = self._call(call.id, call.name, text, index)
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
    code = openai.error_code(error.kind)
    if code == error.kind:
        # One of the API's own. Codex asks again, but for those that no asking mends, of which this shows our words.
        code = "server_error" if error.retryable else "invalid_prompt"
    return {"code": code, "message": sentence(error), "runnerd": error.to_dict()}


def _usage(usage: Usage) -> dict[str, Any] | None:
    counts = openai.token_counts(usage)
    if counts is None:
        return None
    counted: dict[str, Any] = {
        "input_tokens": counts[0],
        "input_tokens_details": _details("cached_tokens", usage.cached_input_tokens),
        "output_tokens": counts[1],
        "output_tokens_details": _details("reasoning_tokens", usage.reasoning_tokens),
        "total_tokens": sum(counts),
    }
    return counted | ({} if usage.cost_usd is None else {"cost_usd": usage.cost_usd})


def _details(name: str, count: int | None) -> dict[str, int] | None:
    # Codex takes no null for a count, and leaves out what is not there.
    return None if count is None else {name: count}
