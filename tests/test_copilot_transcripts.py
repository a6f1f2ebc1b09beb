"""Every recorded transcript of copilot goes through the translator."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runners.errors import ContextOverflowError, RunnerError, VendorError
from runners.providers.copilot.events import CopilotTranslator
from runners.stream import ChatChunk, Reasoning, Retrying, Start, Text, ToolRequestComplete, UsageReport, Warn
from runners.tools import ToolDefinition
from runners.translator import Event
from runners.wire.framing import parse_json
from tests.transcripts import records, translate
from tests.transcripts.expected_copilot import ATTEMPTS, CONTEXT, EXPECTED, REASONING, RETRIES, TEXTS, USAGE

ROOT = Path(__file__).parent / "transcripts" / "copilot" / "1.0.102"
NAMES = sorted(path.stem for path in ROOT.glob("*.jsonl"))
TURNS = [(name, index) for name in sorted(EXPECTED) for index in range(len(EXPECTED[name].split()))]
SENDS = ("session.send", "session.sendMessages")


def recorded(name: str) -> Iterator[Event]:
    return records(ROOT / f"{name}.jsonl")


def is_headless(name: str) -> bool:
    return any("dir" in record for record in recorded(name))


def turns(name: str) -> list[list[Event]]:
    """The events of each turn; the one-shot mode has one."""
    return list(headless_turns(name)) if is_headless(name) else [list(recorded(name))]


def headless_turns(name: str) -> list[list[Event]]:
    """What each session told from a send that was accepted up to its idle."""
    told = list(recorded(name))
    accepted = {record["msg"]["id"] for record in told if record["dir"] == "<" and "result" in record["msg"]}
    found: list[list[Event]] = []
    running: dict[str, list[Event]] = {}
    for record in told:
        message = record["msg"]
        method, params = message.get("method"), message.get("params", {})
        if record["dir"] == ">" and method in SENDS and message["id"] in accepted:
            running[params["sessionId"]] = []
            found.append(running[params["sessionId"]])
        elif method == "session.event" and params["sessionId"] in running:
            running[params["sessionId"]].append(params["event"])
            if params["event"]["type"] == "session.idle":
                del running[params["sessionId"]]
    return found


def made(name: str) -> CopilotTranslator:
    return CopilotTranslator("copilot", "asked", is_one_shot=not is_headless(name))


def feed_all(turn: list[Event], translator: CopilotTranslator) -> None:
    for event in turn:
        translator.feed(event)


def shown(chunks: list[ChatChunk]) -> str:
    return "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text))


def all_of(name: str) -> list[tuple[list[ChatChunk], str]]:
    told = [translate(turn, made(name)) for turn in turns(name)]
    return [(chunks, end or "cut") for chunks, end in told]


def test_there_are_transcripts_of_both_modes() -> None:
    assert len(NAMES) > 50
    assert set(EXPECTED) <= set(NAMES)
    assert {is_headless(name) for name in EXPECTED} == {True, False}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_turn_ends_as_the_table_says_in_a_valid_order(name: str) -> None:
    assert [end for _, end in all_of(name)] == EXPECTED[name].split()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_texts_of_a_turn_are_exactly_those_of_the_table(name: str) -> None:
    assert [shown(chunks) for chunks, _ in all_of(name)] == TEXTS[name]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_start_names_the_model_that_was_called(name: str) -> None:
    for turn, (chunks, end) in zip(turns(name), all_of(name), strict=True):
        called = next((event["data"]["model"] for event in turn if event["type"] == "model.call_start"), None)
        starts = [chunk for chunk in chunks if isinstance(chunk, Start)]
        assert len(starts) == 1 or end.startswith("error:") or end == "cut"
        for start in starts:
            assert start.message_id
            assert (start.runner, start.model) == ("copilot", called)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_usage_is_that_of_the_first_call(name: str) -> None:
    found: list[tuple[int | None, ...] | None] = []
    for chunks, _ in all_of(name):
        reports = [chunk.usage for chunk in chunks if isinstance(chunk, UsageReport)]
        assert len(reports) <= 1
        told = [(u.input_tokens, u.output_tokens, u.cached_input_tokens, u.reasoning_tokens) for u in reports]
        assert not any(report.cost_usd for report in reports)
        found.append(told[0] if told else None)
    assert found == USAGE.get(name, [None])


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_reasoning_comes_once_and_with_its_white_space(name: str) -> None:
    told = ["".join(chunk.chunk for chunk in chunks if isinstance(chunk, Reasoning)) for chunks, _ in all_of(name)]
    assert {place: text for place, text in enumerate(told) if text} == REASONING.get(name, {})


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_call_that_fails_before_the_answer_is_told_as_a_retry(name: str) -> None:
    ((chunks, _), *others) = all_of(name)
    told = [chunk for chunk in chunks if isinstance(chunk, Retrying)]
    count, kind = RETRIES.get(name, (0, ""))
    assert [(retry.attempt, retry.error) for retry in told] == [(number, kind) for number in range(1, count + 1)]
    assert not any(isinstance(chunk, Retrying) for other, _ in others for chunk in other)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_only_what_needs_a_warning_has_one(name: str) -> None:
    warned = {end for chunks, end in all_of(name) if any(isinstance(chunk, Warn) for chunk in chunks)}
    assert warned <= {"tool_calls", "length"}


OFFERED = [ToolDefinition(name="get_weather"), ToolDefinition(name="get_time")]
CALLED = {
    "headless-tool": [("call_01", {"city": "Rome"})],
    "headless-three-tools": [
        ("call_a", {"city": "R\u00f6me"}),
        ("call_b", {"zone": "CET"}),
        ("call_c", {"city": "Oslo"}),
    ],
}


@pytest.mark.parametrize("name", sorted(CALLED))
def test_behind_its_calls_a_turn_waits_and_goes_on_as_another_answer(name: str) -> None:
    (turn,) = turns(name)
    calling = CopilotTranslator("copilot", "asked", tools=OFFERED)
    chunks, end = translate(turn, calling)
    made = [chunk.tool_call for chunk in chunks if isinstance(chunk, ToolRequestComplete)]
    assert [(call.id, call.arguments, call.parse_error) for call in made] == [(*call, None) for call in CALLED[name]]
    assert (end, calling.is_clean, calling.awaits) == ("tool_calls", True, frozenset(call.id for call in made))
    told = next(place for place, event in enumerate(turn) if event["type"] == "assistant.message")
    going_on = CopilotTranslator("copilot", "asked", tools=OFFERED, size_before_bytes=calling.size_bytes)
    rest, end = translate(sized(turn)[told + 1 :], going_on)
    assert (end, shown(rest), going_on.is_clean) == ("end_turn", "".join(texts_of(turn[told + 1 :])), True)
    # Each piece as it came, and not the whole at the end: their sizes follow on those of the calls.
    assert [chunk.chunk for chunk in rest if isinstance(chunk, Text)] == texts_of(turn[told + 1 :])
    reports = [chunk.usage for chunk in [*chunks, *rest] if isinstance(chunk, UsageReport)]
    assert [(usage.input_tokens, usage.output_tokens) for usage in reports] == [(11, 7), (11, 7)]


def sized(turn: list[Event]) -> list[Event]:
    """The events as the inbox hands them on, each delta with the size that was told before it."""
    size, found = None, []
    for event in turn:
        if event["type"] == "assistant.streaming_delta":
            size = event["data"]["totalResponseSizeBytes"]
        is_delta = event["type"] in ("assistant.message_delta", "assistant.reasoning_delta")
        found.append(event | {"data": event["data"] | {"size": size}} if is_delta else event)
    return found


def texts_of(turn: list[Event]) -> list[str]:
    return [event["data"]["deltaContent"] for event in turn if event["type"] == "assistant.message_delta"]


def test_calls_that_the_cli_answers_itself_end_the_turn_as_they_are_and_leave_it_to_be_aborted() -> None:
    (turn,) = turns("headless-tool-invalid")
    translator = CopilotTranslator("copilot", "asked", tools=OFFERED)
    chunks, end = translate(turn, translator)
    broken, unknown = [chunk.tool_call for chunk in chunks if isinstance(chunk, ToolRequestComplete)]
    assert (end, translator.is_clean, translator.awaits) == ("tool_calls", False, frozenset())
    assert (broken.arguments, broken.arguments_raw) == ({}, '{"city": "Ro')
    assert (unknown.name, unknown.arguments) == ("Bash", {"command": "ls"})
    asked_again = [event["type"] for event in turn].index("tool.execution_complete")
    fed = CopilotTranslator("copilot", "asked", tools=OFFERED)
    ended = next(place for place, event in enumerate(turn) if fed.feed(event) is not None and fed.ended)
    assert ended < asked_again


@pytest.mark.parametrize("name", sorted(CONTEXT))
def test_a_conversation_that_is_too_long_says_how_long_it_is(name: str) -> None:
    translator = made(name)
    with pytest.raises(ContextOverflowError) as caught:
        feed_all(turns(name)[0], translator)
    assert (caught.value.requested_tokens, caught.value.max_tokens) == CONTEXT[name]


@pytest.mark.parametrize("is_one_shot", [True, False])
@pytest.mark.parametrize("name", sorted(ATTEMPTS))
def test_an_answer_that_broke_off_does_not_come_a_second_time(name: str, is_one_shot: bool) -> None:
    (turn,) = turns(name)
    chunks, end = translate(turn, CopilotTranslator("copilot", "asked", is_one_shot=is_one_shot))
    message_id, text = ATTEMPTS[name][0]
    assert end == EXPECTED[name]
    assert shown(chunks) == ("" if is_one_shot else text)
    assert [chunk.message_id for chunk in chunks if isinstance(chunk, Start)] == [message_id]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(EXPECTED)))
def test_what_is_of_another_transport_brings_no_chunk(name: str) -> None:
    for is_one_shot in (True, False):
        translator = CopilotTranslator("copilot", "asked", is_one_shot=is_one_shot)
        for record in recorded(name):
            assert translator.feed(record.get("msg", record)) == []
        assert not translator.ended


def test_the_halves_of_an_emoji_in_two_deltas_are_one_character() -> None:
    translator = CopilotTranslator("copilot", "asked")
    chunks = []
    for piece in (rb"a\ud83d", rb"\ude00b"):
        delta = b'{"type":"assistant.message_delta","data":{"messageId":"m","deltaContent":"%b"}}' % piece
        chunks += translator.feed(parse_json(delta))
    assert shown(chunks) == "a\U0001f600b"


def test_what_the_deltas_left_out_comes_with_the_whole_message() -> None:
    turn = turns("headless-basic")[0]
    deltas = [event for event in turn if event["type"] == "assistant.message_delta"]
    for lost in range(len(deltas) + 1):
        without = [event for event in turn if event not in deltas[lost:]]
        chunks, end = translate(without, CopilotTranslator("copilot", "asked"))
        assert (shown(chunks), end) == (TEXTS["headless-basic"][0], "end_turn")


def test_a_text_whose_middle_was_lost_is_an_error_and_no_other_text() -> None:
    turn = turns("headless-basic")[0]
    lost = [event for event in turn if event["type"] == "assistant.message_delta"][1]
    chunks, end = translate([event for event in turn if event is not lost], CopilotTranslator("copilot", "asked"))
    assert (shown(chunks), end) == ("w0 w2 ", "error:protocol")


def test_a_word_before_a_tool_of_the_cli_is_no_answer_that_was_cut() -> None:
    (turn,) = turns("tool-view-json")
    translator = CopilotTranslator("copilot", "asked", is_one_shot=True)
    asks = next(place for place, event in enumerate(turn) if event["type"] == "assistant.message")
    message_id = turn[asks]["data"]["messageId"]
    said = {"type": "assistant.message_delta", "data": {"messageId": message_id, "deltaContent": "I look."}}
    asked = turn[asks] | {"data": turn[asks]["data"] | {"content": "I look."}}
    chunks, end = translate([*turn[:asks], said, asked, *turn[asks + 1 :]], translator)
    assert end == "end_turn"
    assert shown(chunks).endswith(TEXTS["tool-view-json"][0])
    assert not [chunk for chunk in chunks if isinstance(chunk, Warn)]


def test_an_error_that_names_no_cause_is_not_said_to_be_the_networks() -> None:
    translator = CopilotTranslator("copilot", "asked")
    with pytest.raises(VendorError, match="InvalidArg"):
        translator.feed({"type": "session.error", "data": {"errorType": "query", "message": "failed: InvalidArg"}})


@pytest.mark.parametrize("reason", [None, ""])
def test_a_call_without_a_finish_reason_has_ended_by_itself(reason: str | None) -> None:
    turn = [
        event | {"data": event["data"] | {"finishReason": reason}} if event["type"] == "assistant.usage" else event
        for event in turns("headless-basic")[0]
    ]
    chunks, end = translate(turn, CopilotTranslator("copilot", "asked"))
    assert (shown(chunks), end) == (TEXTS["headless-basic"][0], "end_turn")


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name, index in TURNS if EXPECTED[name].split()[index] == "end_turn"]
)
def test_a_turn_with_any_one_event_missing_ends_all_the_same(name: str, index: int) -> None:
    turn = turns(name)[index]
    # The last one is the end of all: without it the process ends, or a deadline.
    for missing in range(len(turn) - 1):
        translator = made(name)
        _, end = translate(turn[:missing] + turn[missing + 1 :], translator)
        assert translator.ended, f"without {turn[missing]['type']}"
        assert end is not None
        assert end in ("end_turn", "length") or end.startswith("error:")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)
_fields = st.sampled_from(
    [
        *("messageId", "reasoningId", "deltaContent", "content", "toolRequests", "reasoningText", "finishReason"),
        *("inputTokens", "outputTokens", "model", "statusCode", "errorMessage", "retryAttempt", "message", "aborted"),
        *("exitCode", "tokenLimit", "apiCallId"),
    ]
)
KNOWN = sorted({str(event["type"]) for name, index in TURNS for event in turns(name)[index]})


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12).filter(lambda word: word not in KNOWN), _json, st.booleans())
def test_an_event_of_an_unknown_type_brings_nothing_whatever_it_holds(
    type_: str, value: Any, is_one_shot: bool
) -> None:
    translator = CopilotTranslator("copilot", "asked", is_one_shot=is_one_shot)
    assert translator.feed({"type": type_, "data": value}) == []
    assert not translator.ended


@settings(max_examples=500, deadline=None)
@example([("model.call_failure", {"retryAttempt": "first"})], False)
@example([("model.call_failure", {"errorMessage": "[" * 100_000})], False)
@given(st.lists(st.tuples(st.sampled_from(KNOWN), st.dictionaries(_fields, _json) | _json), max_size=6), st.booleans())
def test_a_known_event_of_another_shape_is_a_protocol_error_and_no_crash(
    told: list[tuple[str, Any]], is_one_shot: bool
) -> None:
    translator = CopilotTranslator("copilot", "asked", is_one_shot=is_one_shot)
    with suppress(RunnerError):
        for type_, value in told:
            fields = value if isinstance(value, dict) and type_ == "result" else {}
            translator.feed({**fields, "type": type_, "data": value})


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_events_cut_shuffled_and_doubled_break_no_order_and_raise_nothing_else(data: st.DataObject) -> None:
    name, index = data.draw(st.sampled_from(TURNS))
    turn = turns(name)[index]
    places = data.draw(
        st.permutations(range(len(turn))) | st.lists(st.integers(0, len(turn) - 1), max_size=2 * len(turn))
    )
    is_one_shot = data.draw(st.booleans())
    translate([turn[place] for place in places], CopilotTranslator("copilot", "asked", is_one_shot=is_one_shot))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_few_events_lost_doubled_or_late_break_no_order_and_raise_nothing_else(data: st.DataObject) -> None:
    name, index = data.draw(st.sampled_from(TURNS))
    turn = turns(name)[index]
    for _ in range(data.draw(st.integers(1, 3))):
        place, other = (data.draw(st.integers(0, len(turn) - 1)) for _ in range(2))
        event = turn[place]
        match data.draw(st.sampled_from(["lost", "doubled", "late", "end"])):
            case "lost":
                turn = [*turn[:place], *turn[place + 1 :]] or turn
            case "doubled":
                turn = [*turn[:place], event, *turn[place:]]
            case "late":
                turn = [*turn[:place], *turn[place + 1 :]]
                turn.insert(other, event)
            case "end":
                turn = turn[: place + 1]
    translate(turn, made(name))
