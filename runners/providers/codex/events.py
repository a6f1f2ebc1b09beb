"""Codex's events as chunks: pure, one translator for each turn, no I/O.

An event is a notification of its process, `{type: method, params}`. Facts are from 0.169.0 and 0.171.0; the tests are
the recorded transcripts.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from runners.errors import ProtocolError, RequestCancelledError, RunnerError
from runners.messages import Usage
from runners.providers.codex.failures import POLICIES, failure
from runners.providers.codex.items import names_of
from runners.stream import ChatChunk, Done, Reasoning, Retrying, Start, Text, UsageReport, Warn
from runners.tool_calls import ToolCalls
from runners.tools import ToolDefinition, ToolNames
from runners.translator import Event, Translator

_RETRIED = re.compile(r"(\d+)/(\d+)$")
_INCOMPLETE = re.compile(r"Incomplete response returned, reason: (\w+)")
_CUTS = {"max_output_tokens": "length"}


class CodexTranslator(Translator):
    """Codex's events.

    A turn is one call of the model. The CLI makes more of it by itself where it cannot hand on a call of a tool: it
    answers that itself. What ends the first call ends the turn, and its thread must be interrupted. Behind calls of the
    client's `tools`, by their `names`, it waits for the results.
    """

    def __init__(
        self,
        runner: str,
        model: str,
        *,
        tools: Sequence[ToolDefinition] = (),
        names: ToolNames | None = None,
        is_own_server: bool = False,
    ) -> None:
        super().__init__(runner)
        self.model = model
        """Which one answers."""
        self._names = names or names_of(tools)
        self._calls = ToolCalls(tools)
        self._is_own_server = is_own_server
        self._started = False
        self._texts: dict[str, list[str]] = {}
        self._thoughts: set[str] = set()
        self._cost: Counter[str] = Counter()
        self._last_cost: Counter[str] = Counter()
        self._handlers: dict[str, Callable[[Event], Iterator[ChatChunk]]] = {
            "item/agentMessage/delta": self._message_delta,
            "item/reasoning/summaryPartAdded": self._reasoning_part,
            "item/reasoning/summaryTextDelta": self._reasoning_delta,
            "item/reasoning/textDelta": self._reasoning_delta,
            "item/completed": self._item,
            "rawResponseItem/completed": self._raw_item,
            "rawResponse/completed": self._call_end,
            "thread/tokenUsage/updated": self._usage_told,
            "model/rerouted": self._rerouted,
            "error": self._error,
            "turn/completed": self._turn_end,
        }

    def _chunks(self, event: Event) -> Iterator[ChatChunk] | None:
        handler = self._handlers.get(str(event.get("type")))
        return handler(event["params"]) if handler else None

    # What the answer is made of

    def _start(self, message_id: str) -> Iterator[ChatChunk]:
        if not self._started:
            self._started = True
            self.retried_error = None
            yield Start(message_id, self._runner, self.model)

    def _rerouted(self, params: Event) -> Iterator[ChatChunk]:
        self.model = params["toModel"]
        yield from ()

    def _message_delta(self, params: Event) -> Iterator[ChatChunk]:
        yield from self._start(params["itemId"])
        self._texts.setdefault(params["itemId"], []).append(params["delta"])
        yield Text(params["delta"])

    def _reasoning_part(self, params: Event) -> Iterator[ChatChunk]:
        yield from self._start(params["itemId"])
        if params["summaryIndex"] > 0:
            yield Reasoning("\n\n")

    def _reasoning_delta(self, params: Event) -> Iterator[ChatChunk]:
        yield from self._start(params["itemId"])
        self._thoughts.add(params["itemId"])
        yield Reasoning(params["delta"])

    def _item(self, params: Event) -> Iterator[ChatChunk]:
        """The whole of a message, of which comes here what did not come as deltas, or of reasoning that had none."""
        item = params["item"]
        if item["type"] == "agentMessage":
            yield from self._start(item["id"])
            told = "".join(self._texts.get(item["id"], []))
            if not item["text"].startswith(told):
                raise ProtocolError("codex told another answer than the pieces of it before")
            rest = item["text"][len(told) :]
            self._texts[item["id"]] = [item["text"]]
            yield from (Text(piece) for piece in [rest] if piece)
        elif item["type"] == "reasoning" and item["id"] not in self._thoughts:
            self._thoughts.add(item["id"])
            if whole := "\n\n".join(item.get("summary") or item.get("content") or ()):
                yield from self._start(item["id"])
                yield Reasoning(whole)

    def _raw_item(self, params: Event) -> Iterator[ChatChunk]:
        """An item as the API gave it. The arguments of a call stand in it as the model wrote them, and nowhere else."""
        item = params["item"]
        if item["type"] == "function_call":
            yield from self._start(item["call_id"])
            yield from self._calls.whole(item["call_id"], self._names.own(item["name"]), item["arguments"])

    # How it ends

    def _call_end(self, params: Event) -> Iterator[ChatChunk]:
        """The end of a call of the model, and what it cost."""
        self._cost.update(params.get("usage") or {})
        if self._calls.made:
            self.is_clean = self._calls.are_all_ours
            if self.is_clean:
                self.awaits = self._calls.ids
            yield from self._end("tool_calls", "function_call")

    def _usage_told(self, params: Event) -> Iterator[ChatChunk]:
        """What the newest call cost, where `rawResponse/completed` is not told. It waits for the results of tools."""
        self._last_cost = Counter(params["tokenUsage"]["last"])
        yield from ()

    def _end(self, stop_reason: str, raw: str) -> Iterator[ChatChunk]:
        self.ended = True
        if cost := self._cost or self._last_cost:
            yield UsageReport(_usage(cost))
        yield Done(stop_reason, raw)

    def _turn_end(self, params: Event) -> Iterator[ChatChunk]:
        turn = params["turn"]
        if turn["status"] == "interrupted":
            if not self._started:
                raise RequestCancelledError("interrupted before the answer began")
            self.ended = True
            yield Done("cancelled", "interrupted")
        elif turn["status"] == "completed":
            yield from self._start(turn["id"])
            self.is_clean = True
            yield from self._end("end_turn", "completed")
        else:
            yield from self._failed(turn["error"])

    def _error(self, params: Event) -> Iterator[ChatChunk]:
        """A call of the model failed. What has begun would be said again from its beginning."""
        error = params["error"]
        if not params["willRetry"] or self._started or _INCOMPLETE.search(str(error.get("additionalDetails"))):
            yield from self._failed(error)
            return
        self.retried_error = self._failure(error)
        attempt, attempts = _numbers(error["message"])
        yield Retrying(attempt=attempt, max_attempts=attempts, delay_s=None, error=self.retried_error.kind)

    def _failed(self, error: Event) -> Iterator[ChatChunk]:
        cut = _INCOMPLETE.search(f"{error['message']} {error.get('additionalDetails')}")
        if cut is not None:
            yield from self._start("incomplete")
            yield from self._end(_CUTS.get(cut[1], cut[1]), cut[1])
        elif error.get("codexErrorInfo") in POLICIES:
            yield from self._start("refused")
            yield Warn(error["message"])
            yield from self._end("content_filter", error["codexErrorInfo"])
        else:
            raise self._failure(error)

    def _failure(self, error: Event) -> RunnerError:
        return failure(error, is_own_server=self._is_own_server)


def _numbers(message: str) -> tuple[int, int | None]:
    """Which try failed, of how many, from `Reconnecting... 1/5`."""
    found = _RETRIED.search(message)
    return (int(found[1]), int(found[2])) if found else (1, None)


def _usage(told: "Counter[str]") -> Usage:
    """The CLI counts as its API does: cached tokens are a part of `inputTokens`."""
    return Usage(
        input_tokens=told["inputTokens"],
        cached_input_tokens=told["cachedInputTokens"],
        cache_creation_input_tokens=told["cacheWriteInputTokens"],
        output_tokens=told["outputTokens"],
        reasoning_tokens=told["reasoningOutputTokens"],
    )
