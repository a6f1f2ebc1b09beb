"""Which histories are one conversation, and which are not."""

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.conversation import NOTHING_SAID, Conversation, parted, told
from runners.messages import ChatMessage, ChatRequest


def image(size: int) -> dict[str, Any]:
    return {"type": "image", "media_type": "image/gif", "data": b64encode(b"GIF89a" + b"\0" * size).decode()}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def call(**fields: Any) -> dict[str, Any]:
    return {"id": "c1", "name": "weather", **fields}


def messages(*given: dict[str, Any]) -> list[ChatMessage]:
    return [ChatMessage.model_validate(message) for message in given]


def of(*given: dict[str, Any]) -> Conversation:
    return told(messages(*given))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any = "", **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def result(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": "c1", **fields}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user("Hi"), user([text("Hi")])),
        (user("Hi you"), user([text("Hi"), text(" you")])),
        (user(""), user([])),
        (user("Hi"), user([text(""), text("Hi")])),
        (user([text("a"), text(""), image(1)]), user([text("a"), image(1)])),
        (user("Hi"), user("Hi") | {"timestamp": 17, "colour": "red"}),
        (assistant("Hi"), assistant("Hi \n\t")),
        (assistant("Hi"), assistant([text("Hi"), text("\n"), text(" ")])),
        (assistant(""), assistant(" \n")),
        (assistant("Hi"), assistant("Hi", reasoning="I had better greet.")),
        (
            assistant(tool_calls=[call(arguments={"a": 1, "b": {"c": 2, "d": 3}})]),
            assistant("\n", tool_calls=[call(arguments={"b": {"d": 3, "c": 2}, "a": 1})]),
        ),
        (
            assistant(tool_calls=[call(arguments_raw="{", parse_error="it ends")]),
            assistant(tool_calls=[call(arguments_raw="{")]),
        ),
    ],
)
def test_what_a_model_reads_alike_is_the_same_conversation(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert of(one) == of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([user("Hi")], [user("Hi ")]),
        ([user("Hi")], [user("\nHi")]),
        ([user("Hi")], [user("hi")]),
        ([user("\u00e9")], [user("e\u0301")]),
        ([user("Hi")], [assistant("Hi")]),
        ([assistant("Hi")], [assistant("\nHi")]),
        ([assistant("a  b")], [assistant("a b")]),
        ([result("Hi")], [result("Hi ")]),
        ([result("18")], [result("18", tool_call_id="c2")]),
        ([result("18")], [result("18", is_error=True)]),
        ([user([text("a"), image(1)])], [user([image(1), text("a")])]),
        ([user([image(1)])], [user([image(2)])]),
        ([user([text("a"), image(1), text("b")])], [user([text("ab"), image(1)])]),
        ([user("ab"), user("c")], [user("a"), user("bc")]),
        ([user("a"), user("b")], [user("ab")]),
        ([user("a"), user("b")], [user("b"), user("a")]),
        ([user("a"), assistant("b")], [user("a"), assistant("b"), user("")]),
        ([user('a"],[]]["user",["b')], [user("a"), user("b")]),
        ([assistant(tool_calls=[call(arguments={"a": 1})])], [assistant(tool_calls=[call(arguments={"a": "1"})])]),
        (
            [assistant(tool_calls=[call(arguments={"a": [1, 2]})])],
            [assistant(tool_calls=[call(arguments={"a": [2, 1]})])],
        ),
        ([assistant(tool_calls=[call()])], [assistant(tool_calls=[call(id="c2")])]),
        ([assistant(tool_calls=[call()])], [assistant(tool_calls=[call(name="time")])]),
        ([assistant(tool_calls=[call()])], [assistant(tool_calls=[call(), call()])]),
        ([assistant(tool_calls=[call()])], [assistant(tool_calls=[call(arguments_raw="{")])]),
        ([assistant(json.dumps([call()]))], [assistant(tool_calls=[call()])]),
    ],
)
def test_what_a_model_reads_otherwise_is_another_conversation(
    one: list[dict[str, Any]], other: list[dict[str, Any]]
) -> None:
    assert of(*one) != of(*other)


def test_lone_surrogates_and_nothing_at_all_have_a_conversation_too() -> None:
    assert of(user("\ud83d")) != of(user("\ude00"))
    assert of() == NOTHING_SAID != of(user(""))


@pytest.mark.parametrize(
    ("roles", "new"),
    [
        (["user"], 1),
        (["user", "user"], 2),
        (["user", "assistant", "user"], 1),
        (["user", "assistant", "tool", "tool"], 2),
        (["user", "assistant", "tool", "assistant", "tool", "user"], 2),
        (["assistant", "user"], 1),
        (["user", "assistant", "assistant", "user", "user"], 2),
    ],
)
def test_what_is_new_stands_behind_the_last_answer(roles: list[str], new: int) -> None:
    answers = {"tool": {"tool_call_id": "c"}}
    given = messages(*({"role": role, "content": "x"} | answers.get(role, {}) for role in roles))
    history, rest = parted(given)
    assert [*history, *rest] == given
    assert len(rest) == new
    assert not history or history[-1].role == "assistant"


def test_a_system_prompt_and_errors_are_no_part_of_it_and_a_summary_is() -> None:
    bare = ChatRequest.model_validate({"messages": [user("Hi")]})
    with_system = {
        "messages": [{"role": "system", "content": "Be brief."}, user("Hi"), {"role": "error", "content": "x"}]
    }
    assert told(ChatRequest.model_validate(with_system).conversation) == told(bare.conversation)
    with_summary = {"messages": [{"role": "summary", "content": "We met."}, user("Hi")]}
    assert told(ChatRequest.model_validate(with_summary).conversation) != told(bare.conversation)


# Few different texts, so that what should not collide has every opportunity.
_TEXTS = st.text(st.sampled_from('ab "\n[],'), max_size=3)
_PARTS = st.lists(st.one_of(st.builds(text, _TEXTS), st.builds(image, st.integers(0, 1))), max_size=3)
_CONTENT = st.one_of(_TEXTS, _PARTS)
_CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from(["c1", "c2"]),
            "name": st.just("weather"),
            "arguments": st.dictionaries(_TEXTS, st.one_of(_TEXTS, st.integers(0, 1), st.none()), max_size=2),
        }
    ),
    max_size=2,
)
_MESSAGES = st.one_of(
    st.builds(user, _CONTENT),
    st.builds(lambda content, calls: assistant(content, tool_calls=calls), _CONTENT, _CALLS),
    st.builds(
        lambda content, call_id, is_error: result(content, tool_call_id=call_id, is_error=is_error),
        _CONTENT,
        st.sampled_from(["c1", "c2"]),
        st.booleans(),
    ),
)
_CHAINS = st.lists(_MESSAGES, max_size=4)


def read(message: dict[str, Any]) -> tuple[Any, ...]:
    """What a model reads of it, written down in another way than the one under test."""
    content = message["content"]
    parts = [text(content)] if isinstance(content, str) else content
    seen: list[tuple[str, str]] = []
    for part in parts:
        kind, value = part["type"], part.get("text", "") or part.get("data", "")
        joins = kind == "text" and seen and seen[-1][0] == "text"
        seen = [*seen[:-1], ("text", seen[-1][1] + value)] if joins else [*seen, (kind, value)]
    if message["role"] == "assistant" and seen and seen[-1][0] == "text":
        seen[-1] = ("text", seen[-1][1].rstrip())
    calls = [
        (c["id"], frozenset((k, type(v).__name__, v) for k, v in c["arguments"].items()))
        for c in message.get("tool_calls", [])
    ]
    whose = (message["role"], message.get("tool_call_id"), message.get("is_error", False))
    return (*whose, tuple(part for part in seen if part != ("text", "")), tuple(calls))


@given(_CHAINS, _CHAINS)
def test_a_conversation_that_is_gone_on_with_is_the_whole_one(
    before: list[dict[str, Any]], new: list[dict[str, Any]]
) -> None:
    assert told(messages(*new), of(*before)) == of(*before, *new)


@given(_CHAINS, _CHAINS)
def test_two_histories_are_one_conversation_exactly_when_a_model_reads_the_same(
    one: list[dict[str, Any]], other: list[dict[str, Any]]
) -> None:
    assert (of(*one) == of(*other)) == (list(map(read, one)) == list(map(read, other)))


@given(_CHAINS, st.data())
def test_no_change_of_one_message_goes_unseen(chain: list[dict[str, Any]], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(chain)))
    changed = [*chain[:at], data.draw(_MESSAGES), *chain[at + 1 :]]
    assert (of(*chain) == of(*changed)) == (list(map(read, chain)) == list(map(read, changed)))
