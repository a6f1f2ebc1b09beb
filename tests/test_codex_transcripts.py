"""Every recorded transcript of codex goes through the translator."""

import copy
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import RunnerError
from runners.messages import Usage
from runners.providers.codex.events import CodexTranslator
from runners.providers.codex.inbox import CodexInbox
from runners.stream import ChatChunk, Reasoning, Retrying, Start, Text, ToolRequestComplete, UsageReport, Warn
from runners.tools import ToolDefinition
from runners.translator import Event
from tests.transcripts import records, translate
from tests.transcripts.expected_codex import CALLS, EXPECTED, REASONING, RETRIES

ROOT = Path(__file__).parent / "transcripts" / "codex"
NAMES = [(version, name) for version, expected in EXPECTED.items() for name in expected]
TOOL = ToolDefinition(name="get_weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
COST = Usage(input_tokens=11, cached_input_tokens=3, cache_creation_input_tokens=0, output_tokens=7, reasoning_tokens=2)


def turns(version: str, name: str) -> Iterator[list[Event]]:
    """What each thread told from the start of a turn, or from the results of tools, in the order of these."""
    running: dict[str, list[Event]] = {}
    found: list[list[Event]] = []
    asked: dict[Any, str] = {}
    is_giving = False
    for record in records(ROOT / version / f"{name}.jsonl"):
        message = record["msg"]
        method, params = message.get("method"), message.get("params") or {}
        thread = str(params.get("threadId"))
        is_result = record["dir"] == ">" and "result" in message and version != "0.169.0"
        if is_result:
            thread = asked[message["id"]]
        if (record["dir"] == ">" and method == "turn/start") or (is_result and not is_giving):
            running[thread] = []
            found.append(running[thread])
        elif record["dir"] == "<" and method == "item/tool/call":
            asked[message["id"]] = thread
        elif record["dir"] == "<" and method and thread in running:
            running[thread].append({"type": method, "params": params})
        is_giving = is_result
    yield from found


def made(tools: tuple[ToolDefinition, ...] = (TOOL,)) -> CodexTranslator:
    return CodexTranslator("codex", "asked", tools=tools)


def shown(chunks: list[ChatChunk], kind: type[Text | Reasoning] = Text) -> str:
    return "".join(chunk.chunk for chunk in chunks if isinstance(chunk, kind))


def test_every_transcript_has_its_expectation() -> None:
    assert sorted(NAMES) == sorted((path.parent.name, path.stem) for path in ROOT.glob("*/*.jsonl"))
    assert len(NAMES) > 30


@pytest.mark.parametrize(("version", "name"), NAMES)
def test_a_transcript_means_what_it_means(version: str, name: str) -> None:
    told = [translate(turn, made()) for turn in turns(version, name)]
    assert [(end or "cut", shown(chunks)) for chunks, end in told] == EXPECTED[version][name]
    for chunks, end in told:
        reports = [chunk.usage for chunk in chunks if isinstance(chunk, UsageReport)]
        starts = [chunk for chunk in chunks if isinstance(chunk, Start)]
        assert all((start.runner, start.model) == ("codex", "asked") for start in starts)
        if version == "0.171.0" and end in ("end_turn", "tool_calls"):
            assert reports == [COST]
        elif end == "end_turn":
            assert reports[0].input_tokens
    every = [chunk for chunks, _ in told for chunk in chunks]
    assert shown(every, Reasoning) == REASONING.get(name, "")
    retried = [(chunk.attempt, chunk.max_attempts, chunk.error) for chunk in every if isinstance(chunk, Retrying)]
    assert retried == RETRIES.get(name, [])
    calls = [chunk.tool_call for chunk in every if isinstance(chunk, ToolRequestComplete)]
    assert [(call.name, call.arguments, call.arguments_raw) for call in calls] == CALLS.get(name, [])


@pytest.mark.parametrize(
    ("name", "is_clean"),
    [("tools", True), ("tools-bad-arguments", False), ("tools-unknown", False), ("reasoning", True), ("length", False)],
)
def test_a_thread_goes_on_only_where_its_history_is_the_conversation(name: str, is_clean: bool) -> None:
    translator = made()
    chunks, _ = translate(next(turns("0.171.0", name)), translator)
    assert translator.is_clean == is_clean
    calls = {chunk.tool_call.id for chunk in chunks if isinstance(chunk, ToolRequestComplete)}
    assert translator.awaits == (calls if is_clean else set())


def test_a_refusal_says_what_its_vendor_says() -> None:
    chunks, _ = translate(next(turns("0.171.0", "stream-cyber-policy")), made())
    assert [chunk.message for chunk in chunks if isinstance(chunk, Warn)] == ["not this"]


def test_a_rate_limit_that_says_when_to_come_back_is_one_that_says_it() -> None:
    translator = made()
    for event in next(turns("0.171.0", "stream-rate-limit")):
        translator.feed(event)
        if translator.retried_error is not None:
            assert translator.retried_error.retry_after_s == 0.25
            return
    raise AssertionError("nothing was retried")


@pytest.mark.parametrize("info", [{}, {"new": None}, {"new": {}}, {"new": "word"}, [], "new"])
def test_a_cause_of_an_unknown_form_leaves_the_words(info: Any) -> None:
    error = {"message": "it broke", "codexErrorInfo": info}
    with pytest.raises(RunnerError, match="it broke"):
        made().feed({"type": "error", "params": {"error": error, "willRetry": False}})


@pytest.mark.parametrize("name", ["reasoning", "raw-reasoning", "several-messages", "tools"])
async def test_what_piles_up_unread_is_the_same_answer_in_fewer_events(name: str) -> None:
    turn = next(turns("0.171.0", name))
    inbox = CodexInbox()
    inbox.begin()
    turn_id = turn[-1]["params"].get("turnId") or turn[-1]["params"]["turn"]["id"]
    for event in copy.deepcopy([{"type": "turn/started", "params": {"turn": {"id": turn_id}}}, *turn]):
        inbox.put(event)
    # A call of the past, which it was told.
    past = {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"}
    inbox.put({"type": "rawResponseItem/completed", "params": {"turnId": "another", "item": past}})
    assert inbox.is_idle.is_set() == any(event["type"] == "turn/completed" for event in turn)
    kept = []
    translator = made()
    while not translator.ended:
        kept.append(await inbox.get())
        translator.feed(kept[-1])
    assert len(kept) < len(turn)
    # The message that the CLI was sent is not among them.
    assert not [event for event in kept if event["params"].get("item", {}).get("type") == "userMessage"]
    told, whole = (translate(events, made())[0] for events in (kept, turn))
    assert (shown(told), shown(told, Reasoning)) == (shown(whole), shown(whole, Reasoning))


@pytest.mark.parametrize("name", ["reasoning", "raw-reasoning"])
async def test_reasoning_that_comes_without_deltas_is_told_once(name: str) -> None:
    inbox = CodexInbox()
    inbox.begin()
    turn = [event for event in next(turns("0.171.0", name)) if not event["type"].startswith("item/reasoning/")]
    thought = next(event for event in turn if event["params"].get("item", {}).get("type") == "reasoning")
    inbox.put({"type": "turn/started", "params": {"turn": {"id": thought["params"]["turnId"]}}})
    translator = made()
    for event in [thought, *turn]:
        inbox.put(event)
    chunks: list[ChatChunk] = []
    while not translator.ended:
        chunks += translator.feed(await inbox.get())
    assert shown(chunks, Reasoning) == REASONING[name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([name for version, name in NAMES if version == "0.171.0"]), st.data())
def test_an_event_that_has_changed_breaks_nothing_but_its_turn(name: str, data: st.DataObject) -> None:
    turn = copy.deepcopy(next(turns("0.171.0", name)))
    event = data.draw(st.sampled_from(turn))
    params = event["params"]
    key = data.draw(st.sampled_from(sorted(params)))
    if data.draw(st.booleans()):
        del params[key]
    else:
        params[key] = data.draw(JSON)
    translator = made()
    with suppress(RunnerError):
        for one in turn:
            if not translator.ended:
                translator.feed(one)
