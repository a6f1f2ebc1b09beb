"""The client's tools: what may be offered, what vendors call them, and how a model's calls are read."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runners.messages import NO_RESULT, ChatRequest
from runners.stream import ChatChunk, OrderChecker, Start, ToolRequestArg, ToolRequestComplete, Warn
from runners.testing import request
from runners.tool_calls import ToolCalls
from runners.tools import ToolCall, ToolDefinition, ToolNames

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = ToolDefinition(name="weather", parameters=CITY)


def named(*names: str) -> list[ToolDefinition]:
    return [ToolDefinition(name=name) for name in names]


# What may be offered


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"tools": [{"name": ""}]}, r"tools\.0\.name"),
        ({"tools": [{"name": "f"}, {"name": "g"}, {"name": "f"}]}, r"tools\n.*two tools have the name 'f'"),
        ({"tools": [{"name": "f", "input_schema": {}}]}, r"tools\.0\n.*name, description and parameters"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, r"tools\.0\n.*name, description and parameters"),
        ({"tools": [{"name": "f", "parameters": {"type": "array"}}]}, r"tools\.0\.parameters\n.*object"),
        ({"tools": [{"name": "f", "parameters": {"type": ["object", "null"]}}]}, r"tools\.0\.parameters"),
        ({"tool_choice": "any"}, r"tool_choice"),
        ({"tool_choice": "required"}, r"tool_choice\n.*no tools"),
        ({"tools": [{"name": "f"}], "tool_choice": {"name": "g"}}, r"tool_choice\n.*no tool 'g'"),
        ({"tools": [{"name": "f"}], "tool_choice": {"type": "function"}}, r"tool_choice.*\n.*name"),
        ({"tools": [{"name": "f"}], "tool_choice": 5}, r"tool_choice.*\n.*name"),
    ],
)
def test_a_tool_or_a_choice_that_makes_no_sense_is_refused(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        request("hi", **wrong)


def test_a_schema_without_its_type_is_that_of_an_object() -> None:
    assert ToolDefinition(name="f", parameters={"properties": {}}).parameters == {"properties": {}, "type": "object"}
    assert ToolDefinition(name="f").parameters == {"type": "object"}


@pytest.mark.parametrize("choice", ["auto", "none", "required", {"name": "f"}, None])
def test_a_choice_is_a_word_or_the_name_of_a_tool(choice: Any) -> None:
    assert request("hi", tools=[{"name": "f"}], tool_choice=choice).model_dump()["tool_choice"] == choice


# Calls that a client did not answer

CALLS = {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "name": "f"}, {"id": "c2", "name": "f"}]}


def said(*messages: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    conversation = ChatRequest.model_validate({"messages": list(messages)}).conversation
    return [(message.role, message.text, message.tool_call_id) for message in conversation]


def test_calls_that_a_conversation_has_left_behind_have_a_result_that_says_so() -> None:
    user, result = {"role": "user", "content": "?"}, {"role": "tool", "tool_call_id": "c2", "content": "two"}
    told = [("user", "?", None), ("assistant", "", None)]
    assert said(user, CALLS, result, user) == [*told, ("tool", "two", "c2"), ("tool", NO_RESULT, "c1"), told[0]]
    assert said(user, CALLS, CALLS)[2:4] == [("tool", NO_RESULT, "c1"), ("tool", NO_RESULT, "c2")]
    # What may still come is not made up.
    assert said(user, CALLS) == told
    assert said(user, CALLS, result) == [*told, ("tool", "two", "c2")]


# Names


def test_names_that_a_vendor_takes_stay_as_they_are() -> None:
    names = ToolNames(named("Bash", "get_weather", "a-b", "9", "x" * 64), longest=64)
    assert names.changed == {}
    assert names.theirs("Bash") == names.own("Bash") == "Bash"
    assert list(names.caveats("claude")) == []


def test_other_names_become_such_that_the_vendor_takes_and_no_tool_has() -> None:
    tools = named("a.b", "a_b", "a b", "x" * 10, "x" * 9, "Own", "日本", "中国")
    names = ToolNames(tools, longest=8, reserved=["Own"])
    assert names.changed == {
        "a.b": "a_b_2",
        "a b": "a_b_3",
        "x" * 10: "xxxxxxxx",
        "x" * 9: "xxxxxx_2",
        "Own": "Own_",
        "日本": "__",
        "中国": "___2",
    }
    assert len(list(names.caveats("claude"))) == len(names.changed)


@given(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=8))
def test_every_name_has_one_of_the_vendors_own_and_comes_back(own: list[str]) -> None:
    names = ToolNames(named(*own), longest=8, reserved=["Own"])
    theirs = [names.theirs(name) for name in own]
    assert len(set(theirs)) == len(own)
    assert [names.own(name) for name in theirs] == own
    for name in theirs:
        assert name.isascii()
        assert 1 <= len(name) <= 8
        assert all(character.isalnum() or character in "_-" for character in name)


# Calls


def whole(*pieces: str, is_cut: bool = False, tool: ToolDefinition = WEATHER) -> tuple[ToolCall, list[ChatChunk]]:
    calls = ToolCalls([tool])
    chunks = [*calls.begin("c1", tool.name)]
    for piece in pieces:
        chunks += calls.add("c1", piece)
    chunks += calls.end("c1", is_cut=is_cut)
    order = OrderChecker()
    for chunk in [Start("m", "r", "m"), *chunks]:
        order.feed(chunk)
    [made] = calls.made
    assert [chunk.tool_call for chunk in chunks if isinstance(chunk, ToolRequestComplete)] == [made]
    return made, chunks


def test_arguments_come_in_pieces_and_are_whole_at_the_end() -> None:
    made, chunks = whole('{"ci', "", 'ty": "R', "\ud83d", '\ude00"}')
    assert made == ToolCall(id="c1", name="weather", arguments={"city": "R\U0001f600"})
    assert [c.chunk for c in chunks if isinstance(c, ToolRequestArg)] == ['{"ci', 'ty": "R', '\U0001f600"}']


def test_integers_of_any_length_and_escapes_are_read_exactly() -> None:
    made, _ = whole('{"city": "\\u00e9\\n", "n": 12345678901234567890123}')
    assert made.arguments == {"city": "é\n", "n": 12345678901234567890123}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"uniqueItems": True}, [{"a": n, "b": [n]} for n in range(3000)]),
        ({"pattern": "^(a+)+$"}, "a" * 40 + "!"),
        ({"items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}, list(range(100_000))),
        ({"items": {"type": "string"}}, list(range(100_000))),
        ({"multipleOf": 0.01}, 10**400),
        ({"$ref": "#"}, {"city": {}}),
    ],
)
def test_no_schema_takes_long(schema: dict[str, Any], value: Any) -> None:
    began_s = time.process_time()
    whole(json.dumps({"city": value}), tool=ToolDefinition(name="weather", parameters={"properties": {"city": schema}}))
    # Seconds to minutes where a library tries everything.
    assert time.process_time() - began_s < 2


@pytest.mark.parametrize("raw", ['{"city": "Par', "Paris", '["Paris"]', "null", '{"city": NaN}', '{"n": 1e999}', " "])
def test_what_is_no_json_object_stays_a_text_with_the_reason(raw: str) -> None:
    made, _ = whole(raw)
    assert (made.arguments, made.arguments_raw) == ({}, raw)
    assert made.parse_error


def test_nothing_is_no_argument_and_a_cut_is_not_nothing() -> None:
    assert whole()[0] == ToolCall(
        id="c1", name="weather", parse_error='does not fit the schema at $: "city" is a required property'
    )
    cut, _ = whole(is_cut=True)
    assert cut.arguments_raw == ""
    assert "cut" in (cut.parse_error or "")
    assert whole('{"city": "Paris"}', is_cut=True)[0].parse_error is None


def test_what_does_not_fit_the_schema_stays_as_it_is_with_the_reason() -> None:
    made, _ = whole('{"city": 5}')
    assert (made.arguments, made.arguments_raw) == ({"city": 5}, None)
    assert made.parse_error == 'does not fit the schema at $.city: 5 is not of type "string"'
    long, _ = whole('{"city": [' + "1," * 10_000 + "1]}")
    assert len(long.parse_error or "") < 500


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"city": {"type": "nope"}}},
        {"properties": {"city": {"$ref": "#/nowhere"}}},
        {"properties": {"city": {"$ref": "http://127.0.0.1:9/never-asked"}}},
        {"properties": {"city": {"pattern": "("}}},
        {"$schema": 5},
    ],
)
def test_a_schema_that_is_none_is_said_and_refuses_nothing(schema: dict[str, Any]) -> None:
    made, chunks = whole('{"city": "Paris"}', tool=ToolDefinition(name="weather", parameters=schema))
    assert made == ToolCall(id="c1", name="weather", arguments={"city": "Paris"})
    assert [chunk.message.partition(":")[0] for chunk in chunks if isinstance(chunk, Warn)] == [
        "the arguments of weather were not checked"
    ]


def test_a_tool_that_nobody_offered_is_called_all_the_same_with_a_warning() -> None:
    calls = ToolCalls([WEATHER])
    chunks = [*calls.whole("c1", "weather", '{"city": "Paris"}'), *calls.whole("c2", "Bash", "{}")]
    assert [chunk.message for chunk in chunks if isinstance(chunk, Warn)] == [
        "the model calls a tool 'Bash', which it was not offered"
    ]
    assert [call.name for call in calls.made] == ["weather", "Bash"]
    assert not calls.are_all_ours


@pytest.mark.parametrize("arguments", ['{"city": "\\ud83d"}', '{"\\udc00": 1}'])
def test_half_a_character_stays_as_it_is_and_is_no_call_for_a_cli(arguments: str) -> None:
    calls = ToolCalls(named("weather"))
    list(calls.whole("c1", "weather", arguments))
    assert calls.made[0].arguments == json.loads(arguments)
    assert not calls.are_all_ours


def test_two_calls_of_one_id_are_none_for_a_cli() -> None:
    calls = ToolCalls(named("weather"))
    for _ in range(2):
        assert calls.are_all_ours
        list(calls.whole("c1", "weather", "{}"))
    assert not calls.are_all_ours
    # Its client needs to tell them apart.
    assert [call.id for call in calls.made] == ["c1", "c1-2"]


def test_calls_may_overlap() -> None:
    calls = ToolCalls([WEATHER])
    chunks = [*calls.begin("c1", "weather"), *calls.begin("c2", "weather")]
    chunks += [*calls.add("c2", '{"city":'), *calls.add("c1", '{"city": "a"}'), *calls.add("c2", ' "b"}')]
    chunks += calls.end_all()
    assert [(call.id, call.arguments) for call in calls.made] == [("c1", {"city": "a"}), ("c2", {"city": "b"})]
    assert calls.are_all_ours
