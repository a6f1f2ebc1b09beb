"""What the HTTP dialects make of requests and of chunks, without a server: both are pure."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from daemon.conversation import told as conversation
from daemon.frontends.chat_completions import ChatCompletions
from daemon.frontends.exchange import Dialect
from daemon.frontends.incoming import WrongFieldsError
from daemon.frontends.messages import Messages, counted
from daemon.frontends.responses import Responses
from runners.errors import ContextOverflowError, RateLimitedError
from runners.messages import ChatMessage, Usage
from runners.stream import (
    ChatChunk,
    Done,
    Failed,
    OrderChecker,
    Reasoning,
    ResponseBuilder,
    Start,
    Text,
    ToolRequestArg,
    ToolRequestComplete,
    ToolRequestStart,
    UsageReport,
    Warn,
)
from runners.tools import ToolCall

Json = dict[str, Any]
START = Start("m1", "claude", "sonnet")
COST = UsageReport(Usage(input_tokens=130, cached_input_tokens=20, output_tokens=42))
ASKED: dict[type[Dialect], Json] = {
    ChatCompletions: {"messages": [{"role": "user", "content": "hi"}], "stream": True},
    Responses: {"input": "hi", "stream": True},
    Messages: {"messages": [{"role": "user", "content": "hi"}], "stream": True},
}
EVERY = pytest.mark.parametrize("dialect", [ChatCompletions, Responses, Messages])


def made(call_id: str, name: str, **arguments: Any) -> ToolRequestComplete:
    return ToolRequestComplete(ToolCall(id=call_id, name=name, arguments=arguments))


IN_TURNS: list[ChatChunk] = [
    START,
    Reasoning("Hm"),
    Reasoning("."),
    Text("I "),
    Text("look."),
    ToolRequestStart("a", "f"),
    ToolRequestStart("b", "g"),
    ToolRequestArg("a", '{"x":'),
    ToolRequestArg("b", '{"y": 2}'),
    made("b", "g", y=2),
    ToolRequestArg("a", " 1}"),
    made("a", "f", x=1),
    Text("So."),
    COST,
    Done("tool_calls"),
]
"""Text, and two calls at once, as some vendors stream them; then more text."""


def told(dialect: type[Dialect], chunks: Iterable[ChatChunk], **asked: Any) -> list[Json]:
    """The data of the events that chunks make; chunks that no runner may tell are no test."""
    order, answer = OrderChecker(), dialect().read(ASKED[dialect] | asked)
    events = []
    for chunk in chunks:
        order.feed(chunk)
        for frame in answer.frames(chunk):
            head, _, data = frame.decode().removesuffix("\n\n").rpartition("data: ")
            if data == "[DONE]":
                events.append({"type": "[DONE]"})
                continue
            event = json.loads(data)
            assert head in ("", f"event: {event.get('type')}\n")
            events.append(event)
    return events


def test_chat_completions_tell_calls_by_their_index() -> None:
    *chunks, done = told(ChatCompletions, IN_TURNS)
    assert done == {"type": "[DONE]"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "I look.So."
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
    calls: dict[int, Json] = {}
    for piece in [call for delta in deltas for call in delta.get("tool_calls", [])]:
        call = calls.setdefault(
            piece["index"], {"id": piece.get("id"), "name": piece["function"].get("name"), "text": ""}
        )
        call["text"] += piece["function"]["arguments"]
    assert calls == {0: {"id": "a", "name": "f", "text": '{"x": 1}'}, 1: {"id": "b", "name": "g", "text": '{"y": 2}'}}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_usage_is_told_where_it_is_asked_for_alone() -> None:
    assert all("usage" not in chunk for chunk in told(ChatCompletions, IN_TURNS))
    *others, usage, _done = told(ChatCompletions, IN_TURNS, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in others)
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 20}


def test_messages_tell_blocks_one_after_the_other_by_their_index() -> None:
    events = told(Messages, IN_TURNS)
    assert [event["type"] for event in events[:1] + events[-2:]] == ["message_start", "message_delta", "message_stop"]
    blocks: list[Json] = []
    open_blocks = set()
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"] | {"told": ""})
            open_blocks.add(event["index"])
        elif event["type"] == "content_block_stop":
            open_blocks.remove(event["index"])
        else:
            assert event["index"] in open_blocks
            [piece] = [value for name, value in event["delta"].items() if name != "type"]
            blocks[event["index"]]["told"] += piece
    assert open_blocks == set()
    assert [(block["type"], block["told"]) for block in blocks] == [
        ("thinking", "Hm."),
        ("text", "I look."),
        ("tool_use", '{"x": 1}'),
        ("tool_use", '{"y": 2}'),
        ("text", "So."),
    ]
    assert events[-2]["usage"] == {
        "input_tokens": 110,
        "cache_read_input_tokens": 20,
        "cache_creation_input_tokens": None,
        "output_tokens": 42,
    }


def test_responses_tell_every_item_whole_behind_its_pieces() -> None:
    events = told(Responses, IN_TURNS)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items: dict[int, Json] = {}
    for event in events:
        if event["type"] == "response.output_item.done":
            items[event["output_index"]] = event["item"]
    assert events[-1]["type"] == "response.completed"
    output = events[-1]["response"]["output"]
    assert output == [items[index] for index in range(5)]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call", "message"]
    assert [item["arguments"] for item in output[2:4]] == ['{"x": 1}', '{"y": 2}']
    for index, item in items.items():
        told_of = [event for event in events if event.get("output_index") == index]
        assert told_of[0]["type"] == "response.output_item.added"
        assert {event.get("item_id", item["id"]) for event in told_of} == {item["id"]}
        pieces = "".join(event["delta"] for event in told_of if event["type"].endswith(".delta"))
        assert pieces in json.dumps(item, ensure_ascii=False).replace('\\"', '"')
    assert events[-1]["response"]["usage"]["output_tokens_details"] is None


@EVERY
def test_an_answer_without_a_word_is_one(dialect: type[Dialect]) -> None:
    types = [event["type"] for event in told(dialect, [START, Done("end_turn")]) if "type" in event]
    ends = {
        ChatCompletions: ["[DONE]"],
        Responses: ["response.created", "response.in_progress", "response.completed"],
        Messages: ["message_start", "message_delta", "message_stop"],
    }
    assert types == ends[dialect]


@EVERY
def test_a_failure_is_the_last_event(dialect: type[Dialect]) -> None:
    error = RateLimitedError("slow down", hint="wait", retry_after_s=3)
    *_, last = told(dialect, [START, Text("so "), Failed(error)])
    whole = json.dumps(last)
    assert "slow down (wait)" in whole
    assert '"retry_after_s": 3' in whole
    assert last.get("type", "error") in ("error", "response.failed")


@EVERY
def test_warnings_stand_in_what_is_told_last(dialect: type[Dialect]) -> None:
    events = told(dialect, [Warn("early"), START, Warn("late"), Text("x"), Done("end_turn")])
    found = [event.get("response", event)["warnings"] for event in events if "warnings" in event.get("response", event)]
    assert found == [["early", "late"]]


# Requests


def ours(dialect: Dialect, body: Json) -> list[ChatMessage]:
    return dialect.read(body).request.messages


def test_items_of_one_answer_are_one_message() -> None:
    body = {
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
            {"role": "user", "content": "hi"},
            {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm."}], "content": None},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "b", "name": "tool", "namespace": "mcp__x", "arguments": '{"y": 1}'},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
            {"type": "message", "role": "assistant", "content": "So."},
            {"role": "user", "content": "and?"},
        ]
    }
    messages = ours(Responses(), body)
    roles = [message.role for message in messages]
    assert roles == ["system", "user", "assistant", "tool", "tool", "assistant", "user"]
    answer = messages[2]
    assert (answer.text, answer.reasoning) == ("I look.", "Hm.")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("a", "f", {}),
        ("b", "mcp__x__tool", {"y": 1}),
    ]


@pytest.mark.parametrize(
    "said", [[Text("a"), Reasoning("b"), Text("c")], [Text("a"), *IN_TURNS[5:12], Text("c")]], ids=["thought", "calls"]
)
@pytest.mark.parametrize("streams", [True, False])
def test_the_items_of_an_answer_come_back_as_the_message_that_it_was(said: list[ChatChunk], streams: bool) -> None:
    chunks = [START, *said, Done("end_turn")]
    builder = ResponseBuilder()
    for chunk in chunks:
        builder.add(chunk)
    response = builder.response()
    if streams:
        output = told(Responses, chunks)[-1]["response"]["output"]
    else:
        output = Responses().read(ASKED[Responses]).whole(response)["output"]
    results = [
        {"type": "function_call_output", "call_id": call.id, "output": "r"} for call in reversed(response.tool_calls)
    ]
    asked = {"input": [{"role": "user", "content": "hi"}, *output, *results, {"role": "user", "content": "and?"}]}
    _, answer, *_ = ours(Responses(), asked)
    assert conversation([answer]) == conversation([response.as_message()])


def test_what_broke_off_is_asked_for_anew() -> None:
    broken = told(Responses, [START, Reasoning("Hm."), Text("so "), Failed(RateLimitedError("slow down"))])
    done = [event["item"] for event in broken if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning"]  # Codex keeps what is done, and asks again
    answer = Responses().read({"input": [{"role": "user", "content": "hi"}, *done]})
    assert [message.role for message in answer.request.messages] == ["user"]
    assert len(answer.warnings) == 1


@EVERY
def test_a_system_message_between_others_is_the_users(dialect: type[Dialect]) -> None:
    said = [("system", "S"), ("user", "U"), ("assistant", "A"), ("system", "now"), ("user", "V")]
    messages = [{"role": role, "content": text} for role, text in said[1 if dialect is Messages else 0 :]]
    body = {"input" if dialect is Responses else "messages": messages} | (
        {"system": "S"} if dialect is Messages else {}
    )
    answer = dialect().read(body)
    roles = [(message.role, message.text) for message in answer.request.messages]
    assert roles == [*said[:3], ("user", "now"), said[4]]
    assert len(answer.warnings) == 1


@EVERY
def test_an_end_that_no_api_has_a_word_for_is_one_with_a_warning(dialect: type[Dialect]) -> None:
    *_, last = [event for event in told(dialect, [START, Done("max_turns")]) if "warnings" in json.dumps(event)]
    assert "max_turns" in last.get("response", last)["warnings"][0]
    assert last.get("delta", {}).get("stop_reason", "end_turn") == "end_turn"


def test_a_conversation_that_is_too_long_is_said_in_words_that_claude_code_knows() -> None:
    error = ContextOverflowError("it does not fit", requested_tokens=9, max_tokens=5)
    assert Messages().error(400, "x", error)["error"]["message"] == "prompt is too long: 9 tokens > 5 maximum"


def test_a_tool_of_a_namespace_is_called_by_both_names_and_a_custom_one_with_a_text() -> None:
    tools = [
        {"type": "namespace", "name": "mcp__x", "tools": [{"type": "function", "name": "find", "parameters": {}}]},
        {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "web_search", "external_web_access": True},
    ]
    answer = Responses().read({"input": "hi", "tools": tools})
    assert [tool.name for tool in answer.request.tools] == ["mcp__x__find", "patch"]
    assert [warning.partition(" ")[0] for warning in answer.warnings] == ["web_search"]
    calls: list[ChatChunk] = [
        START,
        *(ToolRequestStart("a", "mcp__x__find"), ToolRequestArg("a", "{}"), made("a", "mcp__x__find")),
        *(ToolRequestStart("b", "patch"), ToolRequestArg("b", '{"input":"*** x"}'), made("b", "patch", input="*** x")),
        Done("tool_calls"),
    ]
    found, patch = told(Responses, calls, tools=tools)[-1]["response"]["output"]
    assert (found["type"], found["name"], found["namespace"]) == ("function_call", "find", "mcp__x")
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", "*** x")
    item = {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "*** x"}
    [message] = ours(Responses(), {"input": [item]})
    assert message.tool_calls == [ToolCall(id="b", name="patch", arguments={"input": "*** x"})]


def test_results_stand_before_what_the_user_says_beside_them() -> None:
    blocks = [
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "tool_reference", "tool_name": "Grep"}]},
        {"type": "tool_result", "tool_use_id": "b", "is_error": True},
        {"type": "text", "text": "And now?"},
    ]
    uses = [{"type": "tool_use", "id": one, "name": "f", "input": {}} for one in "ab"]
    deferred = [{"name": name, "input_schema": {"type": "object"}, "defer_loading": True} for name in ("Grep", "Glob")]
    body = {
        "messages": [{"role": "assistant", "content": uses}, {"role": "user", "content": blocks}],
        "tools": deferred,
    }
    answer = Messages().read(body)
    told_of = [(message.role, message.text, message.is_error) for message in answer.request.messages[1:]]
    assert told_of == [
        ("tool", "The tool Grep can be called now.", False),
        ("tool", "", True),
        ("user", "And now?", False),
    ]
    assert [tool.name for tool in answer.request.tools] == ["Grep"]


def test_what_was_no_object_comes_back_as_it_was() -> None:
    broken = ToolCall(id="a", name="f", arguments_raw='{"x', parse_error="no JSON")
    completion = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x'}}
    [message] = ours(
        ChatCompletions(), {"messages": [{"role": "assistant", "content": None, "tool_calls": [completion]}]}
    )
    assert message.tool_calls[0].arguments_raw == broken.arguments_raw
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {"__unparsedToolInput": {"raw": '{"x', "len": 3}}}
    [message] = ours(Messages(), {"messages": [{"role": "assistant", "content": [block]}]})
    assert message.tool_calls[0].arguments_raw == broken.arguments_raw


@pytest.mark.parametrize(
    ("thinking", "output_config", "effort"),
    [
        ({"type": "disabled"}, {"effort": "high"}, "none"),
        ({"type": "enabled", "budget_tokens": 2000}, None, "low"),
        ({"type": "enabled", "budget_tokens": 10_000}, None, "medium"),
        ({"type": "enabled", "budget_tokens": 32_000}, None, "high"),
        ({"type": "adaptive", "display": "updates"}, None, None),
        ({"type": "adaptive"}, {"effort": "max"}, "xhigh"),
        (None, {"effort": "medium"}, "medium"),
    ],
)
def test_thinking_is_an_effort(thinking: Json | None, output_config: Json | None, effort: str | None) -> None:
    body = ASKED[Messages] | {"thinking": thinking, "output_config": output_config}
    assert Messages().read(body).request.reasoning_effort == effort


def test_a_choice_of_a_tool_that_is_not_offered_is_refused_by_its_name() -> None:
    choice = {"type": "function", "function": {"name": "g"}}
    with pytest.raises(WrongFieldsError, match="tool_choice: there is no tool 'g'"):
        ChatCompletions().read(ASKED[ChatCompletions] | {"tool_choice": choice})


def test_tokens_are_estimated_from_all_that_is_sent() -> None:
    few = counted(ASKED[Messages])["input_tokens"]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lGODlhAQABAAAAACw="}}
    more = {"system": "x" * 400, "messages": [{"role": "user", "content": [image]}]}
    assert few == 1
    assert counted(ASKED[Messages] | more)["input_tokens"] == 1700
