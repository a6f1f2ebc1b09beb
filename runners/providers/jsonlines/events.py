"""The lines of a declared CLI as chunks, by the rules of its entry: pure, one translator for each turn, no I/O."""

import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from runners.errors import ProcessExitedError, RunnerError
from runners.messages import Usage
from runners.providers.jsonlines.expressions import Rule
from runners.providers.jsonlines.failures import failure, kind_by_exit_code, kind_by_status, kind_by_words
from runners.providers.jsonlines.settings import ErrorRules, JsonLinesSettings, UsageRules
from runners.stream import ChatChunk, Done, Reasoning, Start, SurrogateJoiner, Text, UsageReport, Warn
from runners.translator import Event, Translator

_COUNTS = (
    *("input_tokens", "cached_input_tokens", "cache_creation_input_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
_PLAIN = ("model", "text", "whole_text", "reasoning", "stop_reason", "end")


class Exited(Event):
    """What stands behind the last line: the CLI told no more, and `error` says how it ended."""

    def __init__(self, error: ProcessExitedError) -> None:
        super().__init__()
        self.error = error


class JsonLinesTranslator(Translator):
    """A declared CLI's lines. `model` is the one that was asked for, until a line names the one that answers.

    Where the failure that a line tells is of no kind yet, and exit codes may tell it, the exit is waited for.
    """

    def __init__(self, runner: str, settings: JsonLinesSettings, model: str) -> None:
        super().__init__(runner)
        self._settings = settings
        self._model = model
        where, lines = f"runners.{runner}.lines", settings.lines
        given = {name: getattr(lines, name) for name in _PLAIN}
        self._rules = {name: Rule(f"{where}.{name}", rule) for name, rule in given.items() if rule is not None}
        self._usage_rules = None if lines.usage is None else _UsageRules(f"{where}.usage", lines.usage)
        self._error_rules = None if lines.error is None else _ErrorRules(f"{where}.error", lines.error)
        self._started = False
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._shown: list[str] = []  # since the last whole text
        self._usage: dict[str, float] = {}
        self._stop_reason: str | None = None
        self._failure: str | None = None

    def _chunks(self, event: Event) -> Iterable[ChatChunk] | None:
        if isinstance(event, Exited):
            return self._exited(event.error)
        if self._failure is not None:
            return []
        if self._error_rules is not None:
            self._fail_by(self._error_rules, event)
            if self._failure is not None:
                return []
        found = {name: self._found(name, event) for name in self._rules}
        usage = {} if self._usage_rules is None else self._usage_rules.counts(event)
        if not usage and all(value is None for value in found.values()):
            return None
        return self._told(found, usage)

    def _found(self, name: str, event: Event) -> Any:
        rule = self._rules[name]
        return rule.holds(event) or None if name == "end" else rule.text(event)

    def _told(self, found: dict[str, Any], usage: dict[str, float]) -> Iterator[ChatChunk]:
        self._model = found.get("model") or self._model
        self._stop_reason = found.get("stop_reason") or self._stop_reason
        self._usage |= {name: self._usage.get(name, 0) + count for name, count in usage.items()}
        if piece := found.get("reasoning"):
            yield from self._start()
            yield from _pieces(Reasoning, self._reasoning.feed(piece))
        if piece := found.get("text"):
            yield from self._start()
            yield from self._show(self._text.feed(piece))
        if found.get("whole_text") is not None:
            yield from self._start()
            yield from self._rest_of(found["whole_text"])
        if found.get("end"):
            yield from self._end()

    def _start(self) -> Iterator[ChatChunk]:
        if not self._started:
            self._started = True
            yield Start(f"msg_{uuid.uuid4().hex}", self._runner, self._model)

    def _show(self, piece: str) -> Iterator[ChatChunk]:
        if "whole_text" in self._rules:
            self._shown.append(piece)
        yield from _pieces(Text, piece)

    def _rest_of(self, whole: str) -> Iterator[ChatChunk]:
        """What of a whole text the pieces have not shown yet."""
        self._text.flush()  # a half that waits is in `whole` too
        whole = self._text.feed(whole) + self._text.flush()
        shown = "".join(self._shown)
        if whole.startswith(shown):
            yield from self._show(whole[len(shown) :])
        else:
            yield Warn(f"{self._runner}'s whole text differs from what it streamed")
        self._shown.clear()

    def _end(self) -> Iterator[ChatChunk]:
        self.ended = self.is_clean = True
        yield from self._start()
        yield from _pieces(Reasoning, self._reasoning.flush())
        yield from _pieces(Text, self._text.flush())
        if self._usage_rules is not None:
            told: dict[str, Any] = self._usage
            yield UsageReport(Usage(**told))
        raw = self._stop_reason
        yield Done(self._settings.stop_reasons.get(raw, raw) if raw else "end_turn", raw)

    # How it fails

    def _fail_by(self, rules: "_ErrorRules", event: Event) -> None:
        """Raises the failure that a line tells, or keeps it until the CLI exits."""
        message = rules.message.text(event)
        if message is None:
            return
        message = message or f"{self._runner} says that it failed, and not why"
        kind = rules.kind(message, event)
        if kind is None and any(codes for _, codes in self._settings.exit_codes.items()):
            self._failure = message
            # For a CLI that does not exit.
            self.retried_error = self._error("vendor_error", message)
            return
        raise self._error(kind or "vendor_error", message)

    def _exited(self, exited: ProcessExitedError) -> Iterable[ChatChunk]:
        code = exited.exit_code
        kind = kind_by_exit_code(code, self._settings)
        if self._failure is None and kind is None:
            if "end" in self._rules or code not in self._settings.exit_codes.success:
                raise exited
            return self._end()
        error = self._error(kind or "vendor_error", self._failure or exited.message)
        error.exit_code, error.stderr_tail = code, exited.stderr_tail
        raise error

    def _error(self, kind: str, message: str) -> RunnerError:
        return failure(kind, message, self._settings)


class _UsageRules:
    def __init__(self, key: str, rules: UsageRules) -> None:
        self._at = Rule(f"{key}.at", rules.at)
        given = {name: getattr(rules, name) for name in (*_COUNTS, "cost_usd")}
        self._rules = {name: Rule(f"{key}.{name}", rule) for name, rule in given.items() if rule is not None}

    def counts(self, event: Event) -> dict[str, float]:
        """What a line tells of what it cost."""
        place = self._at.find(event)
        if place is None:
            return {}
        if not isinstance(place, dict):
            raise self._at.wrong(place, "an object")
        told = {
            name: rule.count(place) if name in _COUNTS else rule.number(place) for name, rule in self._rules.items()
        }
        return {name: count for name, count in told.items() if count is not None}


class _ErrorRules:
    def __init__(self, key: str, rules: ErrorRules) -> None:
        self.message = Rule(f"{key}.message", rules.message)
        self._status = None if rules.status is None else Rule(f"{key}.status", rules.status)
        self._words = rules.words

    def kind(self, message: str, event: Event) -> str | None:
        """The kind of the failure that a line tells, as far as the line tells it."""
        status = None if self._status is None else self._status.count(event)
        return kind_by_words(message, self._words) or kind_by_status(status)


def _pieces(of: type[Text] | type[Reasoning], piece: str) -> Iterator[ChatChunk]:
    if piece:
        yield of(piece)
