"""Nothing that a client sends over HTTP is a failure of the daemon's, or stops the chat that follows."""

import asyncio
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http_client import CHATS, COMPLETIONS, COUNT, MESSAGES, RESPONSES, Http, ask, chat, http_socket, text_of
from tests.http_client import request as request_bytes
from tests.test_rpc_fuzz import ANY_JSON
from tests.world import END_S, Daemon, World

PATHS = [*CHATS, COUNT]
Step = str | int
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}

WHOLE: dict[str, dict[str, Any]] = {
    COMPLETIONS: {
        "model": "echo",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "description": "It.", "parameters": SCHEMA}}],
        "tool_choice": "auto",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.5,
        "stop": ["END"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMA, "strict": True}},
        "reasoning_effort": "low",
        "parallel_tool_calls": True,
        "seed": 1,
        "n": 1,
        "user": "me",
        "metadata": {"a": "b"},
    },
    RESPONSES: {
        "model": "echo",
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Paris"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "18 degrees"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "a text"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Mild."}]},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [
            {"type": "function", "name": "weather", "description": "It.", "parameters": SCHEMA, "strict": False},
            {"type": "custom", "name": "patch", "description": "It."},
        ],
        "tool_choice": {"type": "function", "name": "weather"},
        "stream": True,
        "max_output_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.5,
        "text": {"format": {"type": "json_schema", "name": "it", "schema": SCHEMA}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "parallel_tool_calls": True,
        "store": False,
        "include": [],
        "metadata": {"a": "b"},
    },
    MESSAGES: {
        "model": "echo",
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "18 degrees"}]},
                    {"type": "text", "text": "And now?"},
                ],
            },
        ],
        "tools": [{"name": "weather", "description": "It.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.5,
        "stop_sequences": ["END"],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "metadata": {"user_id": "me"},
    },
}
"""A body for each API that has most of what it knows."""
WHOLE[COUNT] = WHOLE[MESSAGES]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One that keeps its CLIs, and takes no large bodies."""
    world = World()
    try:
        config = world.config("daemon: {parse_cap_bytes: 200000}\nrunners:\n  echo: {kind: echo}\n")
        with world.daemon(config) as served:
            yield served
    finally:
        world.close()


def places(value: Any, so_far: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The path of everything in a body."""
    if so_far:
        yield so_far
    if isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*so_far, step))


def changed(body: dict[str, Any], place: tuple[Step, ...], value: Any) -> dict[str, Any]:
    """The body with another value there."""
    made = copy.deepcopy(body)
    inner: Any = made
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return made


async def answers_a_chat(daemon: Daemon, path: str, body: Any) -> None:
    """What is sent is answered, and is not the daemon's failure; a chat behind it on the same connection is too."""
    async with asyncio.timeout(END_S), await Http.connect(http_socket(daemon)) as client:
        answer = await client.ask("POST", path, body)
        assert answer.status in (200, 400, 404), answer
        if answer.status != 200:
            error = answer.json["error"]
            assert error["message"]
            assert error["type"] == ("not_found_error" if answer.status == 404 else "invalid_request_error")
        elif answer.headers["content-type"].startswith("text/event-stream"):
            assert "error" not in [event.name for event in answer.events], answer
        answer = await client.ask("POST", COMPLETIONS, chat(COMPLETIONS))
        assert text_of(COMPLETIONS, answer.json) == "Hi"


@pytest.mark.parametrize("path", PATHS)
async def test_the_bodies_that_are_changed_are_good_ones(daemon: Daemon, path: str) -> None:
    answer = await ask(http_socket(daemon), "POST", path, WHOLE[path])
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("path", PATHS)
def test_a_chat_is_answered_after_whatever_json(daemon: Daemon, path: str) -> None:
    # Fields of its own API among others: what is none of them is answered without a look at it.
    fields = st.sampled_from(sorted(WHOLE[path]))
    bodies = st.dictionaries(fields, ANY_JSON | st.lists(ANY_JSON, max_size=3), max_size=6) | ANY_JSON

    @settings(max_examples=40, deadline=None, database=None)
    @given(bodies)
    def answers(body: Any) -> None:
        asyncio.run(answers_a_chat(daemon, path, body))

    answers()


@pytest.mark.parametrize("path", PATHS)
def test_a_chat_is_answered_after_a_body_that_is_nearly_right(daemon: Daemon, path: str) -> None:
    body = WHOLE[path]
    others = ANY_JSON | st.sampled_from([body["model"], 0, -1, "", [], {}, [[]], [{}], None, 2**63, 1e300, "text"])

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.sampled_from(list(places(body))), others)
    def answers(place: tuple[Step, ...], value: Any) -> None:
        asyncio.run(answers_a_chat(daemon, path, changed(body, place, value)))

    answers()


DEEP = b"[" * 100_000
CALLS = {
    COMPLETIONS: ("messages", 2, "tool_calls", 0, "function", "arguments"),
    RESPONSES: ("input", 2, "arguments"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nothing of the kind",
        b"'single'",
        b"\xff\xfe\x00",
        b'{"model": "\xff"}',
        b'{"model": "echo", "temperature": NaN}',
        b'{"model": "echo", "temperature": -Infinity}',
        b'{"model": "echo", "max_tokens": 1e999}',
        b'{"max_tokens": ' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"model": "echo"}',
        '{"model": "echo"}'.encode("utf-16"),
        DEEP,
        b'{"a":' * 30_000,
        DEEP + b"]" * 100_000,
        b'{"model": "echo"}\n{"model": "echo"}',
    ],
    ids=lambda body: ascii(body[:30]),
)
async def test_what_is_no_json_is_the_client_s_mistake(daemon: Daemon, path: str, body: bytes) -> None:
    for _ in range(3):
        await answers_a_chat(daemon, path, body)
        answer = await ask(http_socket(daemon), "POST", path, body)
        assert answer.status == 400
        assert "the body is no JSON" in answer.json["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\x00", "\u2028", "😀", " "], ids=ascii)
async def test_every_text_is_one(daemon: Daemon, path: str, text: str) -> None:
    # A half of a surrogate pair is no character: what a CLI answers of it is told with another in its place.
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for stream in (False, True):
        answer = await ask(http_socket(daemon), "POST", path, chat(path, text, stream=stream))
        assert answer.status == 200, answer
        if path != COUNT and not stream:
            assert text_of(path, answer.json) == expected


@pytest.mark.parametrize("path", PATHS)
async def test_what_is_left_alone_may_be_anything(daemon: Daemon, path: str) -> None:
    odd = {"a": 2**200, "b": "\ud800", "c": [None, {}, 1e308], "": ""}
    for body in (chat(path, metadata=odd), chat(path, metadata=json.loads("[" * 900 + "]" * 900))):
        assert (await ask(http_socket(daemon), "POST", path, body)).status == 200


async def test_of_two_fields_with_one_name_the_last_one_counts(daemon: Daemon) -> None:
    body = b'{"model": "nobody", ' + json.dumps(chat(COMPLETIONS)).encode()[1:]
    assert (await ask(http_socket(daemon), "POST", COMPLETIONS, body)).status == 200


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("arguments", ["", "no JSON", "[1]", "\ud800", "[" * 100_000, '{"a":' * 20_000], ids=len)
async def test_the_arguments_of_a_call_may_be_any_text(daemon: Daemon, path: str, arguments: str) -> None:
    await answers_a_chat(daemon, path, changed(WHOLE[path], CALLS[path], arguments))
    answer = await ask(http_socket(daemon), "POST", path, changed(WHOLE[path], CALLS[path], arguments))
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "nonsense;;charset=utf-77"])
async def test_the_content_type_is_of_no_matter(daemon: Daemon, kind: str) -> None:
    for path in PATHS:
        answer = await ask(http_socket(daemon), "POST", path, chat(path), {"Content-Type": kind})
        assert answer.status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "whatever"])
async def test_a_wrong_encoding_is_the_client_s_mistake(daemon: Daemon, encoding: str) -> None:
    for path in PATHS:
        answer = await ask(http_socket(daemon), "POST", path, b"nothing of the kind", {"Content-Encoding": encoding})
        assert answer.status == 400
    await answers_a_chat(daemon, COMPLETIONS, {})


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_over_the_cap_is_refused(daemon: Daemon, path: str) -> None:
    for size, status in ((150_000, 200), (200_001, 413), (30_000_000, 413)):
        async with await Http.connect(http_socket(daemon)) as client:
            answer = await client.ask("POST", path, chat(path, "x" * size))
        assert answer.status == status
        if status == 413:
            assert "200000 bytes (daemon.parse_cap_bytes)" in answer.json["error"]["message"]


def chunks(data: bytes, size: int) -> list[bytes]:
    """The pieces of a body whose length is not told."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)] + [b""]
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]


def chunked(path: str) -> bytes:
    """The head of a request with such a body."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode()


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_may_come_in_pieces(daemon: Daemon, path: str) -> None:
    async with await Http.connect(http_socket(daemon)) as client:
        for size in (1, 7, 1000):
            await client.write(chunked(path))
            for piece in chunks(json.dumps(chat(path)).encode(), size):
                await client.write(piece)
                await asyncio.sleep(0)
            assert (await client.answer()).status == 200
        await client.write(chunked(path) + b"".join(chunks(b"x" * 300_000, 50_000)))
        assert (await client.answer()).status == 413


async def test_a_body_that_is_slow_keeps_nobody_waiting(daemon: Daemon) -> None:
    whole = request_bytes("POST", COMPLETIONS, chat(COMPLETIONS))
    async with await Http.connect(http_socket(daemon)) as slow:
        for at in range(0, len(whole), 40):
            await slow.write(whole[at : at + 40])
            await answers_a_chat(daemon, MESSAGES, chat(MESSAGES))
        assert (await slow.answer()).status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(daemon: Daemon, path: str) -> None:
    for whole in (request_bytes("POST", path, chat(path)), chunked(path) + chunks(b"x" * 100, 100)[0]):
        for at in (len(whole) - 1, len(whole) // 2 + 60, 20):
            async with await Http.connect(http_socket(daemon)) as client:
                await client.write(whole[:at])
        await answers_a_chat(daemon, path, {})
    async with await Http.connect(http_socket(daemon)) as client:
        await client.write(chunked(path) + b"no number\r\n")
        assert (await client.head())[0] == 400
    assert not [entry for entry in daemon.log if entry.get("level") == "error"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"HELO\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b'{"jsonrpc": "2.0", "id": 1, "method": "version"}\n',
    ],
    ids=lambda data: ascii(data[:30]),
)
async def test_what_is_no_http_is_the_client_s_mistake(daemon: Daemon, data: bytes) -> None:
    async with await Http.connect(http_socket(daemon)) as client:
        await client.write(data)
        assert (await client.head())[0] == 400
    await answers_a_chat(daemon, COMPLETIONS, {})
    assert not [entry for entry in daemon.log if entry.get("level") == "error"]
