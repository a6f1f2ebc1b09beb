"""GitHub Copilot's events as chunks: pure, one translator for each turn, no I/O.

The headless server and the one-shot mode tell the same events, `{type, data}`; what differs stands in `is_one_shot`.
Facts are from 1.0.102 and, for the one-shot mode, from the older versions in `TESTED_VERSIONS`; the tests are the
recorded transcripts.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from runners.errors import ContextOverflowError, ProtocolError, RequestCancelledError
from runners.messages import Usage
from runners.providers.copilot.failures import failure
from runners.providers.copilot.inbox import size_of
from runners.providers.copilot.tools import names_of
from runners.stream import ChatChunk, Done, Reasoning, Retrying, Start, SurrogateJoiner, Text, UsageReport, Warn
from runners.tool_calls import ToolCalls
from runners.tools import ToolDefinition, ToolNames
from runners.translator import Event, Translator

_STOP_REASONS = {"stop": "end_turn", "length": "length", "content_filter": "content_filter", "tool_calls": "tool_calls"}
# What the CLI calls again by itself; a 401 after it has looked for a newer login.
_CLI_RETRIES = ("rate_limited", "overloaded", "vendor_error", "network", "auth_expired")
_TOO_LONG = "the conversation does not fit into the model's window"


class CopilotTranslator(Translator):
    """Copilot's events.

    A turn is one call of the model. The CLI makes more of it by itself: it goes on behind an answer that was cut at
    its length, and answers calls of tools that there are none of. What ends the first call ends the turn, and its
    session must abort the rest. Behind calls of the client's `tools`, by their `names`, it waits for the results.

    The one-shot mode loses deltas when they come fast, so there the text is taken from the whole message alone.
    """

    def __init__(
        self,
        runner: str,
        model: str,
        *,
        tools: Sequence[ToolDefinition] = (),
        names: ToolNames | None = None,
        size_before_bytes: int = 0,
        is_one_shot: bool = False,
        max_prompt_tokens: int | None = None,
    ) -> None:
        super().__init__(runner)
        self.size_bytes = size_before_bytes
        """How long the answer is by the CLI's count, with what it began with in the same turn."""
        self._model = model
        self._names = names or names_of(tools)
        self._calls = ToolCalls(tools)
        self._max_prompt_tokens = max_prompt_tokens
        self._is_one_shot = is_one_shot
        self._started = False
        self._told: list[str] = []  # the deltas in their place, whether shown or not
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._reasoned: list[str] = []
        self._is_torn = False
        self._has_message = False
        self._failures = 0
        self._is_interrupted = False
        self._usage: Event | None = None
        self._handlers: dict[str, Callable[[Event], Iterator[ChatChunk]]] = {
            "model.call_start": self._call_start,
            "assistant.message_start": self._message_start,
            "assistant.reasoning_delta": self._reasoning_delta,
            "assistant.message_delta": self._message_delta,
            "assistant.tool_call_delta": self._tool_call_delta,
            "assistant.usage": self._usage_told,
            "assistant.message": self._message,
            "assistant.turn_end": self._call_end,
            "agent.interrupted": self._interrupted,
            "user.message": self._user_message,
            "model.call_failure": self._call_failure,
            "session.error": self._session_error,
            "session.usage_info": self._prompt_counted,
            "session.truncation": self._overflow,
            "session.compaction_start": self._overflow,
            "assistant.idle": self._idle,
            "session.idle": self._session_idle,
            "result": self._result,
        }

    def _chunks(self, event: Event) -> Iterator[ChatChunk] | None:
        kind = str(event.get("type"))
        handler = self._handlers.get(kind)
        if handler is None:
            return None
        return handler(event if kind == "result" else event.get("data") or {})

    # What the answer is made of

    def _call_start(self, data: Event) -> Iterator[ChatChunk]:
        self._model = data.get("model") or self._model
        yield from ()

    def _start(self, message_id: str) -> Iterator[ChatChunk]:
        if not self._started:
            self._started = True
            self.retried_error = None
            yield Start(message_id, self._runner, self._model)

    def _message_start(self, data: Event) -> Iterator[ChatChunk]:
        yield from self._start(data["messageId"])

    def _reasoning_delta(self, data: Event) -> Iterator[ChatChunk]:
        yield from self._start(data["reasoningId"])
        if not self._is_in_place(data):
            return
        self._reasoned.append(data["deltaContent"])
        yield from (Reasoning(piece) for piece in [self._reasoning.feed(data["deltaContent"])] if piece)

    def _message_delta(self, data: Event) -> Iterator[ChatChunk]:
        yield from self._start(data["messageId"])
        if not self._is_in_place(data):
            return
        self._told.append(data["deltaContent"])
        if not self._is_one_shot:
            yield from (Text(piece) for piece in [self._text.feed(data["deltaContent"])] if piece)

    def _tool_call_delta(self, data: Event) -> Iterator[ChatChunk]:
        if self._is_one_shot:
            return  # of a tool of the CLI's own
        call_id = data["toolCallId"]
        yield from self._start(call_id)
        if not self._calls.is_known(call_id):
            self.size_bytes += size_of(data["toolName"])
            yield from self._calls.begin(call_id, self._names.own(data["toolName"]))
        self.size_bytes += size_of(data["inputDelta"])
        yield from self._calls.add(call_id, data["inputDelta"])

    def _is_in_place(self, data: Event) -> bool:
        """Whether a delta follows what was told. Fast ones may come out of order: then the whole message has the rest.

        `size`, from the inbox, is how long the answer is with this delta, its reasoning included.
        """
        self.size_bytes += size_of(data["deltaContent"])
        self._is_torn = self._is_torn or data.get("size", self.size_bytes) not in (None, self.size_bytes)
        return not self._is_torn

    def _message(self, data: Event) -> Iterator[ChatChunk]:
        """The whole message. Its text of an answer without any is the CLI's own and does not come so far."""
        if self._is_one_shot and data.get("toolRequests"):
            self._told.clear()
            return  # the CLI runs a tool of its own and asks the model again
        yield from self._start(data["messageId"])
        shown, whole = "" if self._is_one_shot else "".join(self._told), data["content"]
        if not whole.startswith(shown):
            raise ProtocolError("copilot lost a part of its answer on the way")
        reasoned, reasoning = "".join(self._reasoned), data.get("reasoningText") or ""
        if (self._is_torn or (self._is_one_shot and not reasoned)) and reasoning.startswith(reasoned):
            unsaid = self._reasoning.feed(reasoning[len(reasoned) :])
            yield from (Reasoning(piece) for piece in [unsaid] if piece)
        rest = self._text.feed(whole[len(shown) :]) + self._text.flush()
        yield from (Text(piece) for piece in [rest] if piece)
        self._has_message = True
        for call in data.get("toolRequests") or []:
            if not self._calls.is_known(call["toolCallId"]):
                # Without arguments there is no delta.
                self.size_bytes += size_of(call["name"])
                text = json.dumps(call["arguments"]) if call.get("arguments") else ""
                yield from self._calls.whole(call["toolCallId"], self._names.own(call["name"]), text)
        if self._usage is not None:
            yield from self._end(self._usage)

    # How it ends

    def _usage_told(self, data: Event) -> Iterator[ChatChunk]:
        """Comes behind the last delta of its call. After anything but `stop` the CLI would call the model again.

        Behind calls of tools it tells the whole message, which has those without arguments too, and asks for their
        results; but those that it cannot hand on it answers itself.
        """
        self._usage = data
        reason = data.get("finishReason") or "stop"
        yield from self._calls.end_all(is_cut=reason == "length")
        untold = Counter(data.get("toolCounts") or {})
        untold.subtract(self._names.theirs(call.name) for call in self._calls.made)
        if (self._calls.made or untold.total() > 0) and self._calls.are_all_ours and not self._has_message:
            return
        for name in untold.elements():
            # The message that would tell its id may not come: the CLI has another call that it cannot hand on.
            yield from self._start(str(data.get("apiCallId", "")))
            yield from self._calls.whole(f"call_{uuid.uuid4().hex}", self._names.own(name), "")
        if reason != "stop" or self._calls.made:
            if self._is_torn:
                raise ProtocolError("copilot told its answer out of order, and does not tell it whole")
            yield from self._start(str(data.get("apiCallId", "")))
            yield from (Text(piece) for piece in [self._text.flush()] if piece)
            yield from self._end(data)

    def _end(self, usage: Event | None, raw: str | None = None) -> Iterator[ChatChunk]:
        raw = raw or (usage or {}).get("finishReason") or "stop"
        self.ended = True
        yield from self._calls.end_all(is_cut=True)  # of an answer that was broken off, if any
        # What it told whole is what it holds.
        self.is_clean = self._has_message and (self._calls.are_all_ours if self._calls.made else raw == "stop")
        stop_reason = _STOP_REASONS.get(raw, raw)
        if self._calls.made and not (raw == "length" and self._calls.made[-1].arguments_raw is not None):
            # The CLI goes by the calls alone.
            stop_reason = "tool_calls"
        if self.is_clean:
            self.awaits = self._calls.ids
        yield from (Reasoning(piece) for piece in [self._reasoning.flush()] if piece)
        if usage is not None:
            yield UsageReport(_usage(usage))
        yield Done(stop_reason, raw)

    def _call_end(self, _data: Event) -> Iterator[ChatChunk]:
        """The end of a call. In the one-shot mode a text without its whole message was cut at its length."""
        if self._is_one_shot and self._told and not self._has_message and not self._is_interrupted:
            yield Warn("copilot may have lost pieces of an answer that was cut at its length")
            yield from (Text(piece) for piece in [self._text.feed("".join(self._told)) + self._text.flush()] if piece)
            yield from self._end(None, raw="length")

    def _user_message(self, data: Event) -> Iterator[ChatChunk]:
        """One of the CLI's own, behind an answer: the model is to go on. Before 1.0.102 the sign of a cut."""
        if self._is_one_shot and self._has_message and data.get("source"):
            yield from self._end(None, raw="length")

    def _interrupted(self, _data: Event) -> Iterator[ChatChunk]:
        self._is_interrupted = True
        yield from ()

    def _idle(self, data: Event) -> Iterator[ChatChunk]:
        if data.get("aborted"):
            if not self._started:
                raise RequestCancelledError("interrupted before the answer began")
            self.ended = True
            yield from self._calls.end_all(is_cut=True)
            yield Done("cancelled", "aborted")
        elif not self._is_one_shot and self._has_message:
            yield from self._end(self._usage)

    def _session_idle(self, data: Event) -> Iterator[ChatChunk]:
        """The CLI has no more to tell of the turn."""
        yield from self._idle(data)
        if self.ended:
            return
        if self._usage is None:
            raise ProtocolError("copilot ended its turn without an answer")
        if self._is_torn:
            raise ProtocolError("copilot told its answer out of order, and does not tell it whole")
        # The whole message did not come; the deltas before the usage are all of it.
        yield from self._start(str(self._usage.get("apiCallId", "")))
        yield from (Text(piece) for piece in [self._text.flush()] if piece)
        yield from self._end(self._usage)

    def _result(self, result: Event) -> Iterator[ChatChunk]:
        """The last line of the one-shot mode, which tells no usage."""
        if not self._has_message or result.get("exitCode") != 0:
            raise ProtocolError(f"copilot ended with code {result.get('exitCode')} and without an answer")
        yield from self._end(None)

    # How it fails

    def _call_failure(self, data: Event) -> Iterator[ChatChunk]:
        """A call failed. Before the answer the CLI may call again; a text that began would come a second time."""
        # Without a word on what kind it was (so 1.0.70) nobody answered the call.
        error = failure(data.get("statusCode"), data.get("errorMessage", ""), {"failureKind": "transport"} | data)
        if self._started or error.kind not in _CLI_RETRIES:
            raise error
        self.retried_error = error
        # It says neither how often it will try nor when: 0.5 to 60 s, and five times at most.
        self._failures += 1
        yield Retrying(attempt=self._failures, max_attempts=None, delay_s=None, error=error.kind)

    def _prompt_counted(self, data: Event) -> Iterator[ChatChunk]:
        """Comes before each call of the model, as near as the CLI can count."""
        yield from ()
        tokens, limit = data.get("currentTokens"), self._max_prompt_tokens
        if limit is not None and tokens is not None and tokens > limit:
            raise ContextOverflowError(_TOO_LONG, requested_tokens=tokens, max_tokens=limit)

    def _overflow(self, data: Event) -> Iterator[ChatChunk]:
        """The CLI is about to shorten the conversation: for the model it would be another one."""
        yield from ()
        limit, tokens = data.get("tokenLimit"), data.get("preTruncationTokensInMessages")
        raise ContextOverflowError(_TOO_LONG, requested_tokens=tokens, max_tokens=limit)

    def _session_error(self, data: Event) -> Iterator[ChatChunk]:
        if self._is_one_shot and self._has_message and "statusCode" not in data:
            yield from self._end(None)  # an answer without text is an answer
            return
        # What failed last has the finer class.
        raise self.retried_error or failure(data.get("statusCode"), data["message"], data)


def _usage(usage: Event) -> Usage:
    """The CLI counts as OpenAI does: cached tokens are a part of `inputTokens`. Its `cost` is no money."""
    return Usage(
        input_tokens=usage.get("inputTokens"),
        cached_input_tokens=usage.get("cacheReadTokens"),
        cache_creation_input_tokens=usage.get("cacheWriteTokens"),
        output_tokens=usage.get("outputTokens"),
        reasoning_tokens=usage.get("reasoningTokens"),
        duration_s=usage["duration"] / 1000 if usage.get("duration") else None,
    )
