"""What the real copilot sends to its API for a chat: the conversation, what it was told of the parameters, no more."""

import base64
import random
import struct
import zlib
from typing import Any

import pytest

from tests.live.copilot_lab import MODEL
from tests.live.lab import Entries, Json, Lab
from tests.world import assistant, system, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

WINDOW_TOKENS = 2_000
CALL = {"id": "call_1", "name": "get_weather", "arguments": {"city": "Zürich", "days": 3}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {"copilot": {}, "small": {"provider": {"max_prompt_tokens": WINDOW_TOKENS}}}


@pytest.fixture
def lab(lab_of_copilot: Lab) -> Lab:
    return lab_of_copilot


async def test_a_conversation_with_a_system_prompt_arrives_as_it_is_and_nothing_else(lab: Lab) -> None:
    conversation = [
        *system("Be brief.\n\n- Use digits. "),
        *user("What is 1 + 1?"),
        assistant("2"),
        *user("And  twice that?\n"),
        assistant("  4, I think.\n\n"),
        *user("Sure?"),
        *user("Really?"),
        assistant("Yes."),
        *user("  Thanks \n"),
    ]
    answer = await lab.chat(conversation)
    body = (await lab.received()).body
    assert body["messages"] == conversation
    assert body["model"] == MODEL
    assert "tools" not in body
    assert answer.result["warnings"] == []
    assert len(lab.api.requests) == 1


async def test_a_chat_that_asks_for_nothing_special_sends_its_words_and_what_the_cli_has_by_default(
    lab: Lab,
) -> None:
    await lab.chat(user("hi"))
    assert (await lab.received()).body == {
        "model": MODEL,
        "messages": user("hi"),
        "stream": True,
        "stream_options": {"include_usage": True},
        # The CLI's own, for a model that it does not know.
        "reasoning_effort": "medium",
        "temperature": 1,
    }
    assert lab.api.others == []


async def test_a_chat_counts_as_its_users_and_brings_the_key(lab: Lab) -> None:
    for conversation in (user("first"), [*user("first"), assistant("ok"), *user("second")]):
        await lab.chat(conversation)
    for received in lab.api.requests:
        assert received.headers["x-initiator"] == "user"
        assert received.headers["authorization"] == "Bearer dummy"


async def test_tool_calls_and_their_results_in_the_history_arrive_as_messages_of_their_own(lab: Lab) -> None:
    second = {"id": "call_2", "name": "get_time", "arguments": {}}
    await lab.chat(
        [
            *user("The weather?"),
            assistant("Let me look.", tool_calls=[CALL, second]),
            {"role": "tool", "tool_call_id": "call_1", "content": " 18 degrees\n"},
            {"role": "tool", "tool_call_id": "call_2", "content": "no clock", "is_error": True},
            assistant("18 degrees."),
            *user("Thanks"),
        ]
    )
    body = (await lab.received()).body
    asked, called, *results, told, thanked = body["messages"]
    assert [asked, told, thanked] == [*user("The weather?"), assistant("18 degrees."), *user("Thanks")]
    assert called["content"] == "Let me look."
    assert [(call["id"], call["function"]) for call in called["tool_calls"]] == [
        ("call_1", {"name": "get_weather", "arguments": '{"city":"Zürich","days":3}'}),
        ("call_2", {"name": "get_time", "arguments": "{}"}),
    ]
    assert [(result["role"], result["tool_call_id"], result["content"]) for result in results] == [
        ("tool", "call_1", " 18 degrees\n"),
        ("tool", "call_2", "no clock"),
    ]
    assert "tools" not in body


async def test_a_tool_result_may_be_the_newest_message(lab: Lab) -> None:
    await lab.chat(
        [
            *user("The weather?"),
            assistant("", tool_calls=[CALL]),
            {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
        ]
    )
    asked, called, result = (await lab.received()).body["messages"]
    assert asked == user("The weather?")[0]
    assert [call["id"] for call in called["tool_calls"]] == ["call_1"]
    assert (result["role"], result["content"]) == ("tool", "18 degrees")
    assert len(lab.api.requests) == 1


LOOK = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {"at": {}}}}
WRAPPED = {"name": "count", "schema": SCHEMA, "strict": True}
KNOBS: dict[str, tuple[Any, Json]] = {
    "reasoning_effort": ("high", {"reasoning_effort": "high"}),
    "no reasoning_effort": ("none", {"reasoning_effort": None}),
    "max_tokens": (321, {"max_tokens": 321}),
    "temperature": (0.25, {"temperature": 0.25}),
    "top_p": (0.5, {"top_p": 0.5}),
    "stop": (["END"], {"stop": ["END"]}),
    "response_format": (
        {"type": "json_schema", "json_schema": WRAPPED},
        {"response_format": {"type": "json_schema", "json_schema": WRAPPED}},
    ),
    "bare response_format": (
        {"type": "json_schema", "json_schema": SCHEMA},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
    ),
    # The CLI takes no other than a schema: any object stands for it.
    "plain response_format": (
        {"type": "json_object"},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}},
            }
        },
    ),
    "tools": ([LOOK], {"tools": [{"type": "function", "function": LOOK}]}),
}
ARRIVE = {"reasoning_effort", "response_format", "max_tokens", "tools"}


@pytest.mark.parametrize("case", KNOBS)
async def test_a_parameter_arrives_or_the_client_is_warned_and_with_strict_refused(lab: Lab, case: str) -> None:
    name = case.rpartition(" ")[2]
    value, arrived = KNOBS[case]
    claimed = next(row for row in (await lab.wire.call("runners"))["result"]["runners"] if row["name"] == "copilot")
    assert claimed["capabilities"][name] == (name in ARRIVE)

    strict = await lab.chat(user("hi"), strict=True, **{name: value})
    if name in ARRIVE:
        body = (await lab.received()).body
        assert {key: body.get(key) for key in arrived} == arrived
        assert strict.result["warnings"] == []
    else:
        assert strict.error["kind"] == "unsupported"
        assert name in strict.error["message"]
        assert lab.api.requests == []
        answer = await lab.chat(user("hi"), **{name: value})
        [warning] = answer.result["warnings"]
        assert name in warning
        assert answer.chunks[0] == {"type": "warning", "message": warning}
        body = (await lab.received()).body
        assert {key: body.get(key) for key in arrived} != arrived
    assert body["messages"] == user("hi")


async def test_the_model_of_a_request_is_the_model_that_is_asked(lab: Lab) -> None:
    answer = await lab.chat(user("hi"), runner="copilot:gpt-4.1")
    assert (await lab.received()).body["model"] == "gpt-4.1"
    assert answer.result["model"] == "gpt-4.1"


def png(width: int, height: int) -> str:
    """A picture of noise, which no encoder makes smaller, in base64."""
    noise = random.Random(width)
    rows = b"".join(b"\0" + noise.randbytes(width * 3) for _ in range(height))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    framed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(framed)).decode()


def image(data: str, kind: str = "png") -> Json:
    return {"type": "image", "media_type": f"image/{kind}", "data": data}


async def test_images_arrive_byte_for_byte_behind_their_texts_and_the_client_is_told_so(lab: Lab) -> None:
    small, large = png(2, 2), png(1000, 1000)
    assert len(large) > 4_000_000
    past = [image(small), {"type": "text", "text": "what is it?\n"}]
    new = [{"type": "text", "text": " and this"}, image(large), {"type": "text", "text": "beside this"}, image(small)]
    asked: list[Json] = [{"role": "user", "content": past}, assistant("a dot"), {"role": "user", "content": new}]
    answer = await lab.chat(asked)
    first, _, last = (await lab.received()).body["messages"]
    assert first["content"] == arrived("what is it?\n", small)
    assert last["content"] == arrived(" and thisbeside this", large, small)
    [warning] = answer.result["warnings"]
    assert "images" in warning
    assert (await lab.chat(asked, strict=True)).error["kind"] == "unsupported"


def arrived(text: str, *images: str) -> list[Json]:
    parts: list[Json] = [{"type": "text", "text": text}]
    for data in images:
        parts.append({"type": "text", "text": "image"})
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    return parts


@pytest.mark.parametrize("size", [(1030, 1030), (2100, 10)], ids=["over 3 MiB", "over 2000 pixels"])
async def test_an_image_that_the_cli_would_scale_arrives_as_it_is_or_the_client_is_told(
    lab: Lab, size: tuple[int, int]
) -> None:
    data = png(*size)
    answer = await lab.chat([{"role": "user", "content": [image(data)]}])
    [message] = (await lab.received()).body["messages"]
    is_scaled = not message["content"][-1]["image_url"]["url"].endswith(data)
    assert is_scaled == any("scale" in warning for warning in answer.result["warnings"])


DOTS = {
    "gif": "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7",
    "webp": "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAgA0JaQAA3AA/vuUAAA=",
    "jpeg": f"/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP{'/' * 86}wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA=",
}
"""Pictures of one dot."""


async def test_images_of_other_kinds_keep_them(lab: Lab) -> None:
    await lab.chat([{"role": "user", "content": [image(data, kind) for kind, data in DOTS.items()]}])
    [message] = (await lab.received()).body["messages"]
    urls = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    assert urls == [f"data:image/{kind};base64,{data}" for kind, data in DOTS.items()]


def prose(words: int, seed: int) -> str:
    """Words of which each is a token or more."""
    choice = random.Random(seed)
    return " ".join(choice.choice(("river", "stone", "quiet", "seven", "green", "window")) for _ in range(words))


def long_conversation(turns: int, words: int) -> list[Json]:
    conversation: list[Json] = []
    for seed in range(turns):
        conversation += [*user(prose(words, seed)), assistant(f"{seed}")]
    return conversation + user("and now?")


async def test_a_conversation_of_160_000_tokens_is_neither_summarised_nor_shortened(lab: Lab) -> None:
    conversation = long_conversation(20, 8_000)
    answer = await lab.chat(conversation)
    assert (await lab.received()).body["messages"] == conversation
    assert answer.result["warnings"] == []
    assert len(lab.api.requests) == 1


async def test_a_conversation_longer_than_the_window_in_the_config_is_refused_and_never_shortened(
    lab: Lab,
) -> None:
    conversation = long_conversation(20, 200)
    failure = (await lab.chat(conversation, runner="small")).error
    assert failure["kind"] == "context_overflow"
    assert failure["max_tokens"] == WINDOW_TOKENS
    await lab.no_cli_is_left()
    for received in lab.api.requests:
        assert received.body["messages"] == conversation


async def test_a_prompt_longer_than_the_window_in_the_config_is_refused_and_never_shortened(lab: Lab) -> None:
    prompt = user(prose(4_000, 0))
    failure = (await lab.chat(prompt, runner="small")).error
    assert failure["kind"] == "context_overflow"
    await lab.no_cli_is_left()
    # The abort may come too late for the call.
    assert all(received.body["messages"] == prompt for received in lab.api.requests)


@pytest.mark.parametrize("share", [0.7, 0.95])
async def test_what_fits_the_window_in_the_config_is_sent_whole(lab: Lab, share: float) -> None:
    conversation = long_conversation(10, int(WINDOW_TOKENS * share / 10) - 10)
    await lab.chat(conversation, runner="small")
    assert (await lab.received()).body["messages"] == conversation
    await lab.no_cli_is_left()
    assert len(lab.api.requests) == 1  # none for a summary
