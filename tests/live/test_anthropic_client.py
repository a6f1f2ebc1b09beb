"""The official Anthropic client, over the socket and over TCP, with the real claude behind the daemon."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio

from runners.testing.apis.messages_api import error, text, tool_calls
from tests.conftest import NEWEST_CLAUDE
from tests.live.claude_body import our_messages, our_system, told
from tests.live.claude_lab import NO_LOGIN
from tests.live.http_clients import BOTH_DOORS, CITY, HI, PIXEL, USAGE, WRONG, Door, anthropic_client
from tests.live.lab import Entries, Lab
from tests.world import END_S

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), NEWEST_CLAUDE]

IMAGE: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
WEATHER: Any = {"name": "get_weather", "description": "The weather, now.", "input_schema": CITY}


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {"claude": {}, "no-login": {"env": NO_LOGIN}, "limited": {}}


@pytest.fixture
def door() -> Door:
    """The one that a client finds without help; BOTH_DOORS has the other one too."""
    return "tcp"


@pytest_asyncio.fixture(loop_scope="module")
async def client(lab: Lab, door: Door) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic_client(lab, door, max_retries=0) as made:
        yield made


@BOTH_DOORS
async def test_a_message_is_what_the_model_said_and_what_it_cost(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    lab.api.script(text("Par", "is", thinking="France.", usage=USAGE))
    message = await client.messages.create(
        model="claude",
        max_tokens=2000,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "The capital?"}, IMAGE]}],
        stop_sequences=["END"],
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    thinking, said = message.content
    assert thinking.type == "thinking"
    assert (thinking.thinking, getattr(said, "text", "")) == ("France.", "Paris")
    assert (message.stop_reason, message.model.partition(":")[0]) == ("end_turn", "claude")
    cost = message.usage
    assert (cost.input_tokens, cost.output_tokens) == (100, 42)
    assert (cost.cache_read_input_tokens, cost.cache_creation_input_tokens) == (20, 10)
    [received] = lab.api.requests
    assert our_system(received.body) == ["Be brief."]
    [asked] = our_messages(received.body)
    assert [block["type"] for block in asked["content"]] == ["text", "image"]
    assert asked["content"][1]["source"]["data"] == PIXEL
    assert received.body["stop_sequences"] == ["END"]
    assert received.body["output_config"]["effort"] == "low"


@BOTH_DOORS
async def test_a_stream_comes_as_it_is_written(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    pause = asyncio.Event()
    lab.api.script(text("Hel", "lo", thinking="Hm.", usage=USAGE, pause=pause, pause_after=3))
    said = ""
    async with client.messages.stream(model="claude", max_tokens=2000, messages=HI) as stream:
        async for piece in stream.text_stream:
            said += piece
            if said == "Hel":
                pause.set()  # until then the rest has not been written
        message = await stream.get_final_message()
    assert said == "Hello"
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (100, 42)


@pytest.mark.parametrize("stop_reason", ["max_tokens", "stop_sequence", "refusal"])
async def test_every_end_has_its_reason(lab: Lab, client: anthropic.AsyncAnthropic, stop_reason: str) -> None:
    lab.api.script(text("so far", stop_reason=stop_reason))
    message = await client.messages.create(model="claude", max_tokens=2000, messages=HI, stop_sequences=["END"])
    assert message.stop_reason == stop_reason
    assert message.stop_sequence == ("END" if stop_reason == "stop_sequence" else None)


async def test_two_rounds_of_tools_go_on_in_the_session_that_waits(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    paris, oslo = ("get_weather", '{"city": "Paris"}'), ("get_weather", '{"city": "Oslo"}')
    lab.api.script(tool_calls(paris, oslo, text="I look."), tool_calls(oslo), text("Sunny."))
    messages: list[Any] = [{"role": "user", "content": "The weather?"}]
    for cities in (["Paris", "Oslo"], ["Oslo"], []):
        async with client.messages.stream(
            model="claude", max_tokens=2000, messages=messages, tools=[WEATHER]
        ) as stream:
            message = await stream.get_final_message()
            served = stream.response.headers["x-runnerd-served"]
        uses = [block for block in message.content if block.type == "tool_use"]
        assert [use.input["city"] for use in uses] == cities
        assert message.stop_reason == ("tool_use" if cities else "end_turn")
        assert (served == "resumed") == (len(messages) > 1)
        messages.append({"role": "assistant", "content": message.content})
        results = [
            {"type": "tool_result", "tool_use_id": use.id, "content": "18 degrees", "is_error": False} for use in uses
        ]
        messages.append({"role": "user", "content": results})
    assert len(lab.api.requests) == 3
    [tool] = lab.api.requests[0].body["tools"]
    assert (tool["description"], tool["input_schema"]) == ("The weather, now.", CITY)


async def test_the_shape_of_an_answer_arrives_as_such(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    lab.api.script(text('{"city": "Paris"}'))
    shape: Any = {"format": {"type": "json_schema", "schema": CITY}}
    message = await client.messages.create(model="claude", max_tokens=2000, messages=HI, output_config=shape)
    assert getattr(message.content[0], "text", "") == '{"city": "Paris"}'
    assert lab.api.requests[0].body["output_config"]["format"] == shape["format"]


async def test_a_system_message_between_others_is_told_where_it_stands(
    lab: Lab, client: anthropic.AsyncAnthropic
) -> None:
    messages: Any = [*HI, {"role": "system", "content": "It is night."}]
    answer = await client.messages.create(model="claude", max_tokens=2000, messages=messages)
    assert [one for message in our_messages(lab.api.requests[0].body) for one in told(message)] == [
        ("user", "hiIt is night.")
    ]
    assert any("system" in warning for warning in (answer.model_extra or {})["warnings"])


async def test_tokens_are_estimated_without_a_model(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    few = await client.messages.count_tokens(model="claude", messages=HI)
    many = await client.messages.count_tokens(
        model="claude", system="s" * 4000, messages=[{"role": "user", "content": "u" * 4000}], tools=[WEATHER]
    )
    assert (few.input_tokens, few.model_extra) == (1, {"is_estimate": True})
    assert 2000 < many.input_tokens < 2200
    assert lab.api.requests == []


async def test_models_are_listed(client: anthropic.AsyncAnthropic) -> None:
    listed = [model.id async for model in client.models.list()]
    assert "claude:haiku" in listed
    assert (await client.models.retrieve("claude:haiku")).id == "claude:haiku"


@BOTH_DOORS
async def test_failures_are_the_clients_own_exceptions(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    create = client.messages.create
    with pytest.raises(anthropic.NotFoundError, match="nobody serves"):
        await create(model="gpt-unknown", max_tokens=5, messages=HI)
    with pytest.raises(anthropic.AuthenticationError, match="log"):
        await create(model="no-login", max_tokens=5, messages=HI)
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content"):
        await create(model="claude", max_tokens=5, messages=WRONG)
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\].*Anthropic's own"):
        await create(model="claude", max_tokens=5, messages=HI, tools=[search])
    lab.api.script(error(429, "rate_limit_error", "slow down", {"retry-after": "30"}))
    with pytest.raises(anthropic.RateLimitError) as limited:
        await create(model="limited", max_tokens=5, messages=HI)
    assert 0 < int(limited.value.response.headers["retry-after"]) < 60


@BOTH_DOORS
async def test_an_answer_that_breaks_off_raises_behind_what_came(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    pause = asyncio.Event()
    lab.api.script(text("Hello", "never", pause=pause, pause_after=1).broken("error", after=1))
    said = []
    async with client.messages.stream(model="claude", max_tokens=2000, messages=HI) as stream:
        said.append(await anext(stream.text_stream))
        pause.set()
        with pytest.raises(anthropic.APIError):
            said.append(await anext(stream.text_stream))
    assert said == ["Hello"]


@BOTH_DOORS
async def test_who_closes_a_stream_ends_the_turn(lab: Lab, client: anthropic.AsyncAnthropic) -> None:
    lab.api.script(text("Hello", "never").broken("stall", after=1))
    async with client.messages.stream(model="claude", max_tokens=2000, messages=HI) as stream:
        async for piece in stream.text_stream:
            assert piece == "Hello"
            break
    await asyncio.wait_for((await lab.received()).gone.wait(), END_S)
    await lab.no_cli_is_left()


async def test_over_tcp_nobody_comes_in_without_the_token(lab: Lab) -> None:
    async with anthropic_client(lab, "tcp", max_retries=0, api_key="wrong") as client:
        with pytest.raises(anthropic.AuthenticationError, match="token"):
            await client.messages.create(model="claude", max_tokens=5, messages=HI)
    assert lab.api.requests == []
