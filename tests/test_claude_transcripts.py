"""Every recorded transcript of claude goes through the translator."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import RunnerError
from runners.providers.claude.events import ClaudeTranslator
from runners.stream import Retrying, Start, Text, ToolRequestComplete, UsageReport, Warn
from runners.tools import ToolDefinition
from runners.translator import Event
from runners.wire.framing import parse_json
from tests.transcripts import records, translate
from tests.transcripts.expected_claude import (
    ANSWERED_BY_THE_CLI,
    CALLS_TOOLS,
    CALLS_TOOLS_AND_BREAKS_OFF,
    CUT_AT_A_RETRY,
    CUT_AT_MAX_TOKENS,
    CUT_WHERE_THE_ANSWER_BEGINS_ANEW,
    EXPECTED,
    GOES_ON_AS,
)

ROOT = Path(__file__).parent / "transcripts" / "claude"
NAMES = sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob("*/*.jsonl"))


def events(name: str) -> Iterator[Event]:
    return records(ROOT / f"{name}.jsonl")


def turns(name: str) -> Iterator[list[Event]]:
    """The events up to each result, and at last those that no result ends."""
    turn: list[Event] = []
    for event in events(name):
        turn.append(event)
        if event.get("type") == "result":
            yield turn
            turn = []
    yield turn


def translate_all(turn: list[Event], translator: ClaudeTranslator) -> None:
    for event in turn:
        translator.feed(event)


def expected(name: str) -> list[str]:
    words = ["error:protocol" if word in ("history", "local") else word for word in EXPECTED.get(name, "").split()]
    if name in CUT_AT_MAX_TOKENS:
        words[0] = "length"
    elif name in CALLS_TOOLS:
        words[CALLS_TOOLS[name]] = "tool_calls"
    elif name in CUT_AT_A_RETRY:
        words[0] = f"error:{CUT_AT_A_RETRY[name]}"
    elif name in CUT_WHERE_THE_ANSWER_BEGINS_ANEW:
        words[0] = "error:network"
    return words


def test_there_are_transcripts_of_both_versions() -> None:
    assert len(NAMES) > 200
    assert set(EXPECTED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_turn_ends_as_the_table_says_in_a_valid_order(name: str) -> None:
    ends = []
    for turn in turns(name):
        _, end = translate(turn, ClaudeTranslator("claude"))
        if turn and turn[-1].get("type") == "result":
            ends.append(end)
        else:
            assert end == ("tool_calls" if name in CALLS_TOOLS_AND_BREAKS_OFF else None)
    assert ends == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_texts_of_a_whole_turn_are_what_its_messages_said(name: str) -> None:
    for turn in turns(name):
        chunks, end = translate(turn, ClaudeTranslator("claude"))
        if end != "end_turn":
            continue
        # Each message comes again whole, one event for each of its blocks.
        whole = [
            block["text"]
            for event in turn
            if event["type"] == "assistant" and event["message"]["model"] != "<synthetic>"
            for block in event["message"]["content"]
            if block["type"] == "text"
        ]
        said = "".join(whole) or turn[-1]["result"]
        assert "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text)) == said
        assert not [chunk for chunk in chunks if isinstance(chunk, Warn)]
        start = next(chunk for chunk in chunks if isinstance(chunk, Start))
        assert start.runner == "claude"


def test_a_turn_in_which_the_cli_told_its_model_something_itself_is_not_clean() -> None:
    seen = set()
    for name in NAMES:
        for turn in turns(name):
            translator = ClaudeTranslator("claude")
            _, end = translate(turn, translator)
            if end == "end_turn":
                told_itself = any(event["type"] == "user" for event in turn)
                assert translator.is_clean != told_itself, name
                seen.add(told_itself)
    assert seen == {True, False}


OFFERED = [ToolDefinition(name=name) for name in ("get_weather", "mcp__host__get_weather")]


@pytest.mark.parametrize("name", CALLS_TOOLS)
def test_behind_its_calls_a_turn_waits_and_goes_on_as_another_answer(name: str) -> None:
    turn = list(turns(name))[CALLS_TOOLS[name]]
    init = next(event for event in turn if event.get("subtype") == "init")
    offered = [tool for tool in OFFERED if tool.name in init["tools"]]
    calling = ClaudeTranslator("claude", tools=offered, cost_before_usd=0.25)
    chunks, end = translate(turn, calling)
    made = [chunk.tool_call for chunk in chunks if isinstance(chunk, ToolRequestComplete)]
    assert (end, calling.awaits) == ("tool_calls", {call.id for call in made} if calling.is_clean else frozenset())
    assert calling.is_clean == (name not in ANSWERED_BY_THE_CLI)
    arguments = [block["input"] for event in turn for block in called(event)]
    if name.endswith("badjson"):
        assert [(call.arguments, call.arguments_raw) for call in made] == [({}, '{"city": ')]
        assert made[0].parse_error
    else:
        assert [call.arguments for call in made] == arguments
    if not calling.is_clean:
        return
    told = next(i for i, event in enumerate(turn) if event.get("event", {}).get("type") == "message_delta")
    going_on = ClaudeTranslator("claude", tools=offered, resumes=calling.awaits, cost_before_usd=0.25)
    rest, end = translate(turn[told + 1 :], going_on)
    assert end == GOES_ON_AS.get(name, EXPECTED[name].split()[CALLS_TOOLS[name]])
    reports = [chunk.usage for chunk in [*chunks, *rest] if isinstance(chunk, UsageReport)]
    if end == "end_turn":
        whole = turn[-1]["usage"]
        assert sum(usage.output_tokens or 0 for usage in reports) == whole["output_tokens"]
        assert going_on.is_clean
    # The CLI tells what a turn cost at its end alone, and what of that was whose nobody knows.
    assert [usage.cost_usd for usage in reports] == [None] * len(reports)
    assert going_on.total_cost_usd == turn[-1]["total_cost_usd"]


def called(event: Event) -> list[Event]:
    content = event["message"]["content"] if event.get("type") == "assistant" else []
    return [block for block in content if block["type"] == "tool_use"]


def test_usage_counts_cached_tokens_as_input_and_cost_by_the_turn() -> None:
    reports, spent_usd = [], 0.0
    for turn in turns("2.1.329/recommended_sonnet"):
        translator = ClaudeTranslator("claude", cost_before_usd=spent_usd)
        chunks, _ = translate(turn, translator)
        spent_usd = translator.total_cost_usd
        reports += [chunk.usage for chunk in chunks if isinstance(chunk, UsageReport)]
    first, refused, last = reports
    # The first call of its model; the CLI tells no cost before the turn is over.
    assert (first.input_tokens, first.cached_input_tokens, first.output_tokens) == (130, 7, 42)
    assert (last.input_tokens, last.cached_input_tokens, last.output_tokens) == (130, 7, 42)
    # The CLI's own sum is of the whole process: the third turn cost no less than the first.
    assert first.cost_usd is None
    assert [report.cost_usd for report in (refused, last)] == pytest.approx([0.0002467, 0.0006667], rel=1e-3)


def test_a_quota_says_when_it_is_there_again() -> None:
    turn = next(turn for turn in turns("2.1.197/06_oauth_429_unified") if turn)
    limit = next(event["rate_limit_info"] for event in turn if event["type"] == "rate_limit_event")
    translator = ClaudeTranslator("claude", now=lambda: limit["resetsAt"] - 90)
    with pytest.raises(RunnerError) as caught:
        translate_all(turn, translator)
    assert (caught.value.kind, caught.value.retry_after_s) == ("quota_exhausted", 90)


def test_a_retry_that_renews_the_login_is_shown_and_does_not_end_the_turn() -> None:
    translator = ClaudeTranslator("claude")
    retry = {"type": "system", "subtype": "api_retry", "attempt": 0, "max_retries": 0, "retry_delay_ms": 290}
    chunks = translator.feed(retry | {"error_status": 401, "error": "authentication_failed"})
    assert chunks == [Retrying(attempt=1, max_attempts=None, delay_s=0.29, error="auth_expired")]
    assert not translator.ended


def test_a_counted_retry_ends_the_turn_with_the_vendors_own_delay() -> None:
    translator = ClaudeTranslator("claude")
    retry = {"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 1, "retry_delay_ms": 7000}
    with pytest.raises(RunnerError) as caught:
        translator.feed(retry | {"error_status": 429, "error": "rate_limit"})
    assert (caught.value.kind, caught.value.retry_after_s) == ("rate_limited", 7.0)


def test_the_halves_of_an_emoji_in_two_deltas_are_one_character() -> None:
    deltas = [rb'{"type":"text_delta","text":"a\ud83d"}', rb'{"type":"text_delta","text":"\ude00b"}']
    translator = ClaudeTranslator("claude")
    shown = ""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    translator.feed({"type": "stream_event", "event": start})
    for delta in deltas:
        event = b'{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":%s}}' % delta
        shown += "".join(chunk.chunk for chunk in translator.feed(parse_json(event)) if isinstance(chunk, Text))
    assert shown == "a\U0001f600b"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12).filter(lambda word: word not in ("stream_event", "assistant", "system", "result")), _json)
def test_an_event_of_an_unknown_type_brings_nothing_whatever_it_holds(type_: str, value: Any) -> None:
    translator = ClaudeTranslator("claude")
    assert translator.feed({"type": type_, "event": value, "message": value, "rate_limit_info": {}}) == []
    assert not translator.ended


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["stream_event", "assistant", "system", "rate_limit_event", "result"]),
    st.dictionaries(st.sampled_from(["event", "message", "subtype", "rate_limit_info", "result", "usage"]), _json),
)
def test_a_known_event_of_another_shape_is_a_protocol_error_and_no_crash(type_: str, fields: Event) -> None:
    translator = ClaudeTranslator("claude")
    with suppress(RunnerError):
        translator.feed({**fields, "type": type_})


@pytest.mark.parametrize("name", ["2.1.329/ev_think", "2.1.197/06_unicode"])
def test_a_turn_of_one_message_with_any_event_missing_still_ends_with_its_result(name: str) -> None:
    turn = next(turn for turn in turns(name) if turn)
    for missing in range(len(turn) - 1):
        translator = ClaudeTranslator("claude")
        translate_all(turn[:missing] + turn[missing + 1 :], translator)
        assert translator.ended
