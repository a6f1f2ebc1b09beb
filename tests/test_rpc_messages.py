"""What messages carry through the socket: text of every kind, parts, former answers, fields that nobody knows."""

import json
from typing import Any

import pytest

from tests.world import Wire, user


async def received(wire: Wire, **params: Any) -> dict[str, Any]:
    """What reached the CLI for a request: its system prompt and its messages."""
    answer = await wire.call("chat", model="echo:request", **params)
    told = json.loads(answer["result"]["content"])
    assert isinstance(told, dict)
    return told


TEXTS = {
    "line separators": "a\u2028b\u2029c\x85d",
    "emoji": "👩‍👩‍👧‍👦 and 𝄞",
    "control characters": "a\x00b\x01c\x1bd\x7f",
    "line ends": "a\r\nb\rc\n\n",
    "white space alone": " \t\n ",
    "a byte order mark": "\ufeffa",
    "what looks like JSON": '{"jsonrpc": "2.0", "id": 1}\n',
    "half a megabyte": "0123456789abcdef" * 32 * 1024,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("escaped", [True, False], ids=["in escapes", "in UTF-8"])
async def test_text_comes_back_as_it_was_sent(wire: Wire, text: str, escaped: bool) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": {"model": "echo", "messages": user(text)}}
    await wire.send(json.dumps(request, ensure_ascii=escaped).encode() + b"\n")
    chunks, answer = await wire.read_until_response(1)
    assert answer["result"]["content"] == text
    assert "".join(chunk["chunk"] for chunk in chunks if chunk["type"] == "text") == text


@pytest.mark.parametrize("text", [r"\ud83d", r"\ude00", r"a\ud83db", r"\ude00\ud83d"])
async def test_half_a_character_becomes_the_replacement_character(wire: Wire, text: str) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": {"model": "echo", "messages": user("TEXT")}}
    await wire.send(json.dumps(request).replace("TEXT", text).encode() + b"\n")
    answer = (await wire.read_until_response(1))[1]
    assert answer["result"]["content"] == text.replace(r"\ud83d", "\ufffd").replace(r"\ude00", "\ufffd")


async def test_an_empty_text_gets_an_empty_answer(wire: Wire) -> None:
    chunks, answer = await wire.read_until_response(await wire.request("chat", model="echo", messages=user("")))
    assert answer["result"]["content"] == ""
    assert [chunk["type"] for chunk in chunks] == ["start", "usage", "done"]


async def test_content_may_be_parts_with_an_image_among_them(wire: Wire) -> None:
    parts = [
        {"type": "text", "text": "What is "},
        {"type": "image", "media_type": "image/png", "data": "iVBORw0KGgo="},
        {"type": "text", "text": "this?"},
    ]
    answer = await wire.call("chat", model="echo", messages=[{"role": "user", "content": parts}])
    assert (answer["result"]["content"], answer["result"]["warnings"]) == ("What is this?", [])
    told = await received(wire, messages=[{"role": "user", "content": parts}])
    assert told["messages"] == [{"role": "user", "content": parts}]


async def test_the_whole_conversation_reaches_the_model_and_system_messages_make_one_prompt(wire: Wire) -> None:
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "error", "content": "what a client shows its user"},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Three"},
    ]
    told = await received(wire, messages=conversation)
    assert told["system"] == "Be brief.\n\nBe kind."
    texts = [(message["role"], message["content"][0]["text"]) for message in told["messages"]]
    assert texts == [("user", "One"), ("assistant", "Two"), ("user", "Three")]


@pytest.mark.parametrize(
    "messages",
    [
        [*user("Hi"), {"role": "assistant", "content": "Hello"}],
        [{"role": "system", "content": "Be brief."}],
        [{"role": "error", "content": "It failed"}],
    ],
    ids=["ends with the assistant", "only a system prompt", "only an error"],
)
async def test_a_conversation_that_no_model_can_continue_is_an_invalid_request(
    wire: Wire, messages: list[dict[str, Any]]
) -> None:
    error = (await wire.call("chat", model="echo", messages=messages))["error"]
    assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (-32010, "invalid_request", False)
    assert error["data"]["runner"] == "echo"
    assert error["message"].startswith("messages: ")


async def test_a_whole_answer_is_accepted_back_as_an_assistant_message(wire: Wire) -> None:
    first = await wire.call("chat", model="echo", messages=user("Hi"), colour="blue")
    assert first["result"]["warnings"]
    conversation = [*user("Hi"), {"role": "assistant"} | first["result"], *user("Again")]
    second = await wire.call("chat", model="echo", messages=conversation)
    assert second["result"]["content"] == "Again"


async def test_what_an_answer_with_tool_calls_emits_is_accepted_back_without_a_warning(wire: Wire) -> None:
    calls = [
        {"id": "c1", "name": "f", "arguments": {"city": "Paris"}, "arguments_raw": None, "parse_error": None},
        {"id": "c2", "name": "f", "arguments": {}, "arguments_raw": "{oops", "parse_error": "not JSON"},
    ]
    conversation = [
        *user("Hi"),
        {"role": "assistant", "content": "", "reasoning": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
        {"role": "tool", "tool_call_id": "c2", "content": "no such city", "is_error": True},
    ]
    answer = await wire.call("chat", model="echo", messages=conversation)
    assert (answer["result"]["content"], answer["result"]["warnings"]) == ("no such city", [])


async def test_unknown_fields_are_warned_of_in_the_stream_and_in_the_answer(wire: Wire) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hi", "size": 1}], "colour": "blue"}]
    request_id = await wire.request("chat", model="echo", messages=messages, speed=None)
    chunks, answer = await wire.read_until_response(request_id)
    paths = ["speed", "messages[0].colour", "messages[0].content[0].size"]
    warnings = [f"{path} is not a field of a chat request: ignored" for path in paths]
    assert chunks[:3] == [{"type": "warning", "message": warning} for warning in warnings]
    assert chunks[3]["type"] == "start"
    assert (answer["result"]["content"], answer["result"]["warnings"]) == ("Hi", warnings)


async def test_what_the_runner_cannot_do_is_warned_of(wire: Wire) -> None:
    answer = await wire.call("chat", model="echo", messages=user("Hi"), temperature=0.5, tools=[{"name": "f"}])
    warnings = ["tools is not supported by echo: ignored", "temperature is not supported by echo: ignored"]
    assert (answer["result"]["content"], answer["result"]["warnings"]) == ("Hi", warnings)


@pytest.mark.parametrize("extra", [{"colour": "blue"}, {"temperature": 0.5}], ids=["unknown", "not supported"])
async def test_a_strict_request_gets_an_error_where_others_get_a_warning(wire: Wire, extra: dict[str, Any]) -> None:
    request_id = await wire.request("chat", model="echo", messages=user("Hi"), strict=True, **extra)
    chunks, answer = await wire.read_until_response(request_id)
    assert chunks == []
    assert (answer["error"]["code"], answer["error"]["data"]["kind"]) == (-32010, "unsupported")
    assert next(iter(extra)) in answer["error"]["message"]


async def test_a_strict_request_that_asks_for_nothing_special_is_answered(wire: Wire) -> None:
    answer = await wire.call("chat", model="echo", messages=user("Hi"), strict=True)
    assert answer["result"]["content"] == "Hi"


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**64), 10**100, 1.5e300])
async def test_numbers_of_any_size_stand_in_unknown_fields(wire: Wire, number: float) -> None:
    answer = await wire.call("chat", model="echo", messages=user("Hi"), number=number)
    assert answer["result"]["content"] == "Hi"
    assert answer["result"]["warnings"] == ["number is not a field of a chat request: ignored"]


async def test_a_long_integer_keeps_all_its_digits(wire: Wire) -> None:
    parts = [{"type": "text", "text": "Hi", "number": 2**70 + 1}]
    told = await received(wire, messages=[{"role": "user", "content": parts}])
    assert told["messages"][0]["content"] == parts


@pytest.mark.parametrize("depth", [200, 500, 900])
async def test_unknown_fields_may_be_deep(wire: Wire, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    parts = '[{"type": "text", "text": "Hi", "deep": ' + deep + "}]"
    params = '{"model": "echo", "messages": [{"role": "user", "content": ' + parts + "}]}"
    await wire.send(b'{"jsonrpc": "2.0", "id": 1, "method": "chat", "params": ' + params.encode() + b"}\n")
    answer = (await wire.read_until_response(1))[1]
    assert answer.get("result", answer)["content"] == "Hi"


async def test_an_unknown_model_is_not_found_and_the_nearest_are_named(wire: Wire) -> None:
    error = (await wire.call("chat", model="ecko:echo", messages=user("Hi")))["error"]
    assert (error["code"], error["data"]["kind"]) == (-32010, "model_not_found")
    assert "echo:echo" in error["data"]["hint"]


async def test_a_cli_that_exits_at_once_is_told_with_its_last_words(wire: Wire) -> None:
    # Whether that is seen when it is written to or when it is read from differs from one to the next.
    ids = [await wire.request("chat", model="broken", messages=user("Hi")) for _ in range(20)]
    for _ in ids:
        error = (await wire.read())["error"]
        assert error["code"] == -32010
        assert error["message"].startswith("the CLI exited with code 1: ")
        assert error["data"] == {
            "kind": "process_exited",
            "message": error["message"],
            "retryable": True,
            "runner": "broken",
            "exit_code": 1,
            "stderr_tail": "these are my last words",
        }
