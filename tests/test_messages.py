"""Messages and requests: what is accepted, what is refused, what the model is to read."""

from dataclasses import asdict
from typing import Any

import pytest
from pydantic import ValidationError

from runners.capabilities import Capabilities
from runners.errors import InvalidRequestError, ProtocolError, RateLimitedError, UnsupportedError
from runners.messages import ChatRequest, ChatResponse, Usage, unknown_fields
from runners.stream import Warn
from runners.testing import ScriptedProvider, request
from runners.tools import ToolDefinition


def conversation(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": list(messages), **fields})


USER = {"role": "user", "content": "hi"}


def test_system_messages_are_one_prompt_and_no_part_of_the_conversation() -> None:
    made = conversation({"role": "system", "content": "a"}, USER, {"role": "system", "content": "b"})
    assert made.system == "a\n\nb"
    assert [message.role for message in made.conversation] == ["user"]


def test_a_summary_is_a_note_of_the_users_and_an_error_is_not_sent() -> None:
    made = conversation({"role": "summary", "content": "it was long"}, {"role": "error", "content": "oops"}, USER)
    first, last = made.conversation
    assert (first.role, last.text) == ("user", "hi")
    assert "it was long" in first.text


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"role": "robot", "content": "x"}, "role"),
        ({"role": "user", "content": 5}, "content"),
        ({"role": "user", "content": [{"type": "image", "media_type": "image/png", "data": "%%%"}]}, "data"),
        ({"role": "user", "content": [{"type": "image", "media_type": "image/bmp", "data": ""}]}, "media_type"),
        ({"role": "user", "content": [{"type": "image", "media_type": "image/gif", "data": "iVBORw0KGgo="}]}, "data"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "user", "content": "x", "tool_call_id": "c1"}, "tool_call_id"),
        ({"role": "user", "content": "x", "tool_calls": [{"id": "1", "name": "f"}]}, "tool_calls"),
    ],
)
def test_a_message_that_makes_no_sense_is_refused(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        conversation(wrong)


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"max_tokens": "5"}, {"temperature": 3}, {"top_p": 0}, {"reasoning_effort": "huge"}]
)
def test_a_knob_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request("hi", **wrong)


def test_unknown_fields_are_found_at_any_depth() -> None:
    content = [{"type": "text", "text": "x", "bold": True}]
    made = conversation({"role": "user", "content": content, "name": "me"}, colour="blue")
    assert list(unknown_fields(made)) == ["colour", "messages[0].name", "messages[0].content[0].bold"]


def test_a_whole_response_is_accepted_back_as_a_message() -> None:
    answer = ChatResponse("m", "r", "model", "yes", None, [], "end_turn", Usage())
    made = conversation(USER, {"role": "assistant", **asdict(answer)}, USER)
    assert list(unknown_fields(made)) == []


def test_a_single_stop_word_is_a_list_of_one() -> None:
    assert request("hi", stop="END").stop == ["END"]


async def test_a_scripted_provider_answers_in_order_and_keeps_its_calls() -> None:
    provider = ScriptedProvider("one", RateLimitedError("slow"))
    assert (await provider.complete(conversation({"role": "system", "content": "s"}, USER))).content == "one"
    with pytest.raises(RateLimitedError):
        await provider.complete(request("two"))
    with pytest.raises(ProtocolError, match="past the end"):
        await provider.complete(request("three"))
    assert [call.messages[0].text for call in provider.calls] == ["hi", "two", "three"]
    assert provider.calls[0].options.system == "s"


async def test_a_conversation_that_ends_with_the_assistant_cannot_be_continued() -> None:
    with pytest.raises(InvalidRequestError):
        await ScriptedProvider("x").complete(conversation(USER, {"role": "assistant", "content": "yes"}))


@pytest.mark.parametrize("role", ["system", "summary"])
async def test_an_image_where_no_cli_takes_one_is_refused_and_not_dropped(role: str) -> None:
    image = {"type": "image", "media_type": "image/png", "data": "iVBORw0KGgo="}
    provider = ScriptedProvider("x", capabilities=Capabilities(images=True))
    with pytest.raises(UnsupportedError, match=role):
        await provider.complete(conversation({"role": role, "content": [image]}, USER))


async def test_a_tool_result_without_its_call_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="'c9'"):
        await ScriptedProvider("x").complete(conversation({"role": "tool", "content": "18", "tool_call_id": "c9"}))


async def test_what_a_runner_cannot_do_is_warned_of_or_refused_when_strict() -> None:
    tools = [ToolDefinition(name="f")]
    asked = request("hi", temperature=0.5, tools=tools, prompt_cache_key="k", tool_choice="required")
    provider = ScriptedProvider("x", "y")
    warnings = [chunk.message async for chunk in provider.complete_stream(asked) if isinstance(chunk, Warn)]
    assert [warning.split()[0] for warning in warnings] == ["tools", "tool_choice", "temperature", "prompt_cache_key"]
    assert provider.calls[0].sampling.temperature is None
    with pytest.raises(UnsupportedError, match="temperature"):
        await provider.complete(asked.model_copy(update={"strict": True}))


async def test_a_request_names_the_model_and_the_knobs_that_are_claimed_reach_the_turn() -> None:
    provider = ScriptedProvider("x", capabilities=Capabilities(temperature=True, max_tokens=True, stop=True))
    response = await provider.complete(request("hi", model="other", temperature=0, max_tokens=5, stop=["a"]))
    (call,) = provider.calls
    assert (response.model, call.model) == ("other", "other")
    assert (call.sampling.temperature, call.sampling.max_tokens, call.sampling.stop) == (0, 5, ("a",))
