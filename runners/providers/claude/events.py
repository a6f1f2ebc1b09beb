"""Claude Code's events as chunks: pure, one translator for each turn, no I/O.

The events are those of 2.1.197 ("old") and 2.1.329 ("new"). Their tests are the recorded transcripts.
"""

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from runners.errors import (
    ContextOverflowError,
    NetworkError,
    ProtocolError,
    QuotaExhaustedError,
    RequestCancelledError,
    RunnerError,
    UnsupportedError,
)
from runners.messages import Usage
from runners.providers.claude.failures import failure
from runners.providers.claude.sent import WHITE_SPACE, names_of
from runners.providers.claude.usage import usage_of, usage_of_all
from runners.stream import ChatChunk, Done, Reasoning, Retrying, Start, SurrogateJoiner, Text, UsageReport, Warn
from runners.tool_calls import ToolCalls
from runners.tools import ToolDefinition, ToolNames
from runners.translator import Event, Translator

_STOP_REASONS = {
    "end_turn": "end_turn",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_OURS_TO_RETRY = ("rate_limited", "overloaded", "vendor_error", "network")
_SYNTHETIC = "<synthetic>"
_FORGOTTEN = ("", "(no content)")
"""What of an answer is missing in the CLI's history; the words are its own for nothing."""
_TOKENS = re.compile(r"the request is ~(\d+) tokens \(limit (\d+)\)")


class ClaudeTranslator(Translator):
    """Claude Code's events.

    `result` ends a turn, and for its client so does a message that calls tools: the CLI then waits for their results,
    and goes on in the same turn, which `resumes` those calls. After two other ends the process is of no further use
    (`is_clean` stays False): at `max_tokens` the CLI would ask its model to go on, with words of its own; and before it
    waits for a retry, which is ours to make, it says for how long. Nor is a turn clean behind which the CLI's history
    is not what was said: where it asked again with words of its own, because it saw no answer or a call that it cannot
    hand on, and where it forgets a part of the answer.

    `tools` are those that were offered, by their `names`; `seen` are the ids of earlier calls. `cost_before_usd` is
    what the process had spent before, for the CLI's total is cumulative, and not told where it stops for tools; `now`
    is Unix time in seconds.
    """

    def __init__(
        self,
        runner: str,
        *,
        tools: Sequence[ToolDefinition] = (),
        names: ToolNames | None = None,
        resumes: frozenset[str] = frozenset(),
        seen: Collection[str] = (),
        cost_before_usd: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(runner)
        self.total_cost_usd = cost_before_usd
        self._cost_before_usd = cost_before_usd
        self._names = names or names_of(tools)
        self._offered = {self._names.theirs(tool.name) for tool in tools}
        self._calls = ToolCalls(tools)
        self._resumes = resumes
        self._seen = seen
        self._now = now
        self._model = ""
        self._started = False
        self._message_id = ""
        self._message_open = False
        self._message_shown = False
        self._usages: list[Event] = [{}]
        self._block_type = ""
        self._block_id = ""
        self._block_shown: list[str] = []
        self._joiner = SurrogateJoiner()
        self._is_exact = True
        self._has_forgotten = False
        self._failure: Event = {}
        self._quota_resets_at: float | None = None
        self._handlers: dict[str, Callable[[Event], Iterable[ChatChunk]]] = {
            "stream_event": self._stream_event,
            "assistant": self._assistant,
            "user": self._user,
            "system": self._system,
            "rate_limit_event": self._rate_limit,
            "tool_progress": lambda _: (),  # every 30 s of a call that it waits for
            "result": self._result,
        }

    def _chunks(self, event: Event) -> Iterable[ChatChunk] | None:
        handler = self._handlers.get(str(event.get("type")))
        return None if handler is None else handler(event)

    def name_of(self, event: Event) -> str:
        """With its subtype or, of the API's stream, with the type of the event that it holds."""
        name, inner = super().name_of(event), event.get("event")
        if name == "stream_event" and isinstance(inner, dict):
            return f"{name}/{inner.get('type')}"
        return f"{name}/{event['subtype']}" if "subtype" in event else name

    # The answer as it streams

    def _stream_event(self, event: Event) -> Iterable[ChatChunk]:
        inner = event["event"]
        match inner["type"]:
            case "content_block_delta":
                return self._delta(inner["delta"])
            case "message_start":
                message = inner["message"]
                self._usages.append(message.get("usage") or {})
                return self._begin_message(message["id"], message.get("model"))
            case "content_block_start":
                return self._begin_block(inner["content_block"])
            case "content_block_stop":
                rest = self._shown(self._joiner.flush())
                text = "".join(self._block_shown)
                if self._block_type == "text" and text and text.strip(WHITE_SPACE) in _FORGOTTEN:
                    self._has_forgotten = True
                return rest
            case "message_delta":
                self._usages[-1] |= {k: v for k, v in inner.get("usage", {}).items() if v is not None}
                return self._stop(inner["delta"].get("stop_reason"))
            case "message_stop":
                # An abandoned message is not over: what the CLI does next would begin it anew.
                self._message_open = "abandoned_blocks" in event
            case _:
                self.unknown[self.name_of(event)] += 1
        return []

    def _begin_message(self, message_id: str, model: str | None) -> Iterator[ChatChunk]:
        if self._message_open and message_id != self._message_id and self._message_shown:
            # What was shown cannot be taken back, and what follows is no continuation of it.
            self.ended = True
            raise NetworkError("the connection broke in the middle of the answer, and claude began it anew")
        self._message_id = message_id
        self._message_open = True
        self._message_shown = False
        self._block_shown.clear()
        if not self._started:
            self._started = True
            yield Start(message_id, self._runner, model or self._model)

    def _begin_block(self, block: Event) -> Iterator[ChatChunk]:
        # A call that was cut is the last block: only the next one, or the reason why it stopped, says that it is whole.
        yield from self._calls.end_all()
        self._block_type = block["type"]
        self._block_shown.clear()
        if self._block_type == "tool_use":
            self._message_shown = True
            self._block_id = block["id"]
            yield from self._calls.begin(block["id"], self._names.own(block["name"]))

    def _stop(self, reason: str | None) -> Iterator[ChatChunk]:
        """The end of a message, whose reason is none where the connection broke."""
        is_cut = _STOP_REASONS.get(reason or "") == "length"
        if reason is not None:
            yield from self._calls.end_all(is_cut=is_cut)
        if is_cut:
            self.ended = True
            yield UsageReport(usage_of_all(self._usages))
            yield Done("length", reason)
        elif self._calls.made and reason not in (None, "refusal"):
            self.ended = True
            # Others the CLI answers itself, at once, and asks its model again; one whose id it has seen it drops.
            self.is_clean = self._is_exact and self._calls.are_all_ours and not self.call_ids.intersection(self._seen)
            if self.is_clean:
                self.awaits = self.call_ids
            yield UsageReport(usage_of_all(self._usages))
            yield Done("tool_calls", reason)

    @property
    def call_ids(self) -> frozenset[str]:
        """The ids of the calls that the model has made."""
        return self._calls.ids

    def _delta(self, delta: Event) -> Iterable[ChatChunk]:
        match delta["type"]:
            case "text_delta":
                return self._shown(self._joiner.feed(delta["text"]))
            case "thinking_delta":
                return self._shown(self._joiner.feed(delta["thinking"]))
            case "input_json_delta":
                return self._calls.add(self._block_id, delta["partial_json"])
            case "signature_delta":
                pass
            case other:
                self.unknown[f"delta/{other}"] += 1
        return []

    def _shown(self, piece: str) -> Iterable[ChatChunk]:
        if not piece:
            return []
        self._message_shown = True
        self._block_shown.append(piece)
        return [Reasoning(piece) if self._block_type == "thinking" else Text(piece)]

    def _assistant(self, event: Event) -> Iterator[ChatChunk]:
        """A whole content block, before its content_block_stop; or a message that the CLI made up itself."""
        message = event["message"]
        blocks = message.get("content") or []
        if event.get("error") is not None:
            self._failure = event | {"text": _text(blocks)}
        elif message.get("model") != _SYNTHETIC:
            if message["id"] != self._message_id:
                yield from self._begin_message(message["id"], message.get("model"))
            for block in blocks:
                if block.get("type") in ("text", "thinking"):
                    self._block_type = block["type"]
                    yield from self._rest_of(block[block["type"]])
                elif block.get("type") == "tool_use" and not self._calls.is_known(block["id"]):
                    yield from self._begin_block(block)
                    yield from self._calls.add(block["id"], json.dumps(block["input"]))

    def _rest_of(self, whole: str) -> Iterator[ChatChunk]:
        """What of a whole block the deltas have not shown yet."""
        self._joiner.flush()  # a half that waits is in `whole` too
        joiner = SurrogateJoiner()
        whole = joiner.feed(whole) + joiner.flush()
        shown = "".join(self._block_shown)
        if whole.startswith(shown):
            yield from self._shown(whole[len(shown) :])
        else:
            self._is_exact = False
            yield Warn("claude's final message differs from what it streamed")

    def _user(self, event: Event) -> Iterator[ChatChunk]:
        """What the CLI told its model: the results that it was given, and words of its own. It repeats no user text."""
        content = event["message"]["content"]
        blocks = content if isinstance(content, list) else [{}]
        self._is_exact = self._is_exact and all(block.get("tool_use_id") in self._resumes for block in blocks)
        yield from ()

    # What goes on around it

    def _system(self, event: Event) -> Iterator[ChatChunk]:
        match event.get("subtype"):
            case "init":
                self._model = event.get("model", "")
                self._check_tools(event.get("tools"))
            case "api_retry":
                yield from self._retry(event)
            case "status" | "thinking_tokens" | "model_refusal_no_fallback":
                pass
            case _:
                self.unknown[self.name_of(event)] += 1

    def _check_tools(self, taken: list[str] | None) -> None:
        """Fails where the CLI has left tools out: it does so in silence, and often with all of them for one."""
        # In this list alone `Agent` has its older name.
        missing = self._offered.difference(taken or (), ["Agent"] if "Task" in (taken or ()) else ())
        if missing:
            names = ", ".join(sorted(repr(self._names.own(name)) for name in missing))
            raise UnsupportedError(f"claude takes none of these tools, for the parameters of one of them: {names}")

    def _retry(self, event: Event) -> Iterator[ChatChunk]:
        delay_s = event["retry_delay_ms"] / 1000
        error = failure(event.get("error"), event.get("error_status"), "")
        if event["attempt"] > 0 and error.kind in _OURS_TO_RETRY:
            self.ended = True
            # What is shorter is the CLI's own back-off, and no word of its vendor's.
            if error.kind == "rate_limited" and delay_s >= 1:
                error.retry_after_s = delay_s
            raise error
        if not self._started:
            # It may renew its login, and what comes of that has the vendor's own words.
            yield Retrying(attempt=max(event["attempt"], 1), max_attempts=None, delay_s=delay_s, error=error.kind)

    def _rate_limit(self, event: Event) -> Iterator[ChatChunk]:
        info = event.get("rate_limit_info") or {}
        resets_at = info.get("resetsAt")
        window = str(info.get("rateLimitType", "usage")).replace("_", " ")
        if info.get("status") == "rejected" and isinstance(resets_at, int | float):
            self._quota_resets_at = resets_at
        elif info.get("status") == "allowed_warning":
            yield Warn(f"claude: the {window} limit is nearly used up")

    # How it ends

    def _result(self, event: Event) -> Iterator[ChatChunk]:
        self.ended = True
        cost = event.get("total_cost_usd")
        self.total_cost_usd = self._cost_before_usd if cost is None else cost
        yield from self._calls.end_all(is_cut=True)  # of an answer that was broken off, if any
        text = event.get("result") or self._failure.get("text") or "; ".join(event.get("errors") or [])
        raw = event.get("stop_reason")
        if str(event.get("terminal_reason")).startswith("aborted"):
            yield from self._cancelled(event)
        elif event.get("is_error") and raw == "refusal" and self._started:
            yield Warn(text)
            yield UsageReport(self._turn_usage(event))
            yield Done("content_filter", raw)
        elif event.get("subtype") == "error_max_turns" and self._started:
            yield UsageReport(self._turn_usage(event))
            yield Done("max_turns", "error_max_turns")
        elif event.get("is_error") or self._failure:
            raise self._error(event, text)
        elif event.get("num_turns") == 0:
            raise ProtocolError("claude took the message for a command of its own and asked no model")
        else:
            if not self._started:
                # No delta and no message came: all there is stands in the result.
                yield Start(str(event.get("session_id", "")), self._runner, self._model)
                yield from (Text(piece) for piece in [text] if piece)
            yield UsageReport(self._turn_usage(event))
            self.is_clean = self._is_exact and not self._has_forgotten
            yield Done(_STOP_REASONS.get(raw or "end_turn", raw or "end_turn"), raw)

    def _cancelled(self, event: Event) -> Iterator[ChatChunk]:
        if not self._started:
            raise RequestCancelledError("interrupted before the answer began")
        yield UsageReport(usage_of_all(self._usages, None if self._resumes else self._cost(event)))
        yield Done("cancelled", event["terminal_reason"])

    def _turn_usage(self, event: Event) -> Usage:
        if self._resumes:
            # The CLI's counts and its sum are of the whole turn, also of what came before it stopped for its tools.
            return usage_of_all(self._usages)
        return usage_of(event.get("usage") or {}, self._cost(event))

    def _cost(self, event: Event) -> float | None:
        if event.get("total_cost_usd") is None:
            return None
        # A cleared conversation starts the CLI's sum again.
        return max(self.total_cost_usd - self._cost_before_usd, 0.0)

    def _error(self, result: Event, text: str) -> RunnerError:
        told = self._failure
        status = result.get("api_error_status") or told.get("api_error_status")
        if result.get("terminal_reason") in ("prompt_too_long", "blocking_limit"):
            tokens = _TOKENS.search(text)
            requested, limit = (int(tokens[1]), int(tokens[2])) if tokens else (None, None)
            return ContextOverflowError(text, requested_tokens=requested, max_tokens=limit)
        if self._quota_resets_at is not None or told.get("api_error") == "usage_limit_reached":
            wait_s = None if self._quota_resets_at is None else max(self._quota_resets_at - self._now(), 0.0)
            return QuotaExhaustedError(text, retry_after_s=wait_s)
        return failure(told.get("error"), status, text)


def _text(blocks: list[Event]) -> str:
    return "".join(block.get("text", "") for block in blocks)
