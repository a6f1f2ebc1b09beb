"""Nothing that a client sends kills the daemon, or stops the chat that follows."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import END_S, Daemon, Wire, user

FUZZ = settings(max_examples=40, deadline=None, database=None)


async def answers_a_chat(daemon: Daemon, before: bytes) -> None:
    """A client sends some lines and then a chat, which must be answered."""
    chat = {
        "jsonrpc": "2.0",
        "id": "after all",
        "method": "chat",
        "params": {"model": "echo", "messages": user("Hi"), "stream": False},
    }
    async with asyncio.timeout(END_S), await Wire.connect(daemon.world.socket) as client:
        await client.send(before + b"\n" + json.dumps(chat).encode() + b"\n")
        while (answer := await client.read()).get("id") != "after all":
            assert set(answer) in (
                {"jsonrpc", "id", "error"},
                {"jsonrpc", "id", "result"},
                {"jsonrpc", "method", "params"},
            )
        assert answer["result"]["content"] == "Hi"


@FUZZ
@given(st.binary(max_size=2000))
def test_a_chat_is_answered_after_whatever_bytes(daemon: Daemon, data: bytes) -> None:
    asyncio.run(answers_a_chat(daemon, data))


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)
METHODS = ["chat", "health", "models", "runners", "status", "version", "$/cancelRequest"]
FIELDS = ["model", "messages", "role", "content", "tool_calls", "tools", "stop", "strict", "stream", "runner", "id"]
ANY_PARAMS = st.dictionaries(st.sampled_from(FIELDS) | ANY_TEXT, ANY_JSON | st.lists(ANY_JSON), max_size=6)
ANY_MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | ANY_JSON,
        "id": st.integers(0, 3) | ANY_JSON,
        "method": st.sampled_from(METHODS) | ANY_JSON,
        "params": ANY_PARAMS | ANY_JSON,
    },
)


@FUZZ
@given(st.lists(ANY_MESSAGE | ANY_JSON, min_size=1, max_size=4))
def test_a_chat_is_answered_after_whatever_json(daemon: Daemon, values: list[Any]) -> None:
    asyncio.run(answers_a_chat(daemon, "\n".join(map(json.dumps, values)).encode()))
