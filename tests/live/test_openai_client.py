"""The official OpenAI client, over the socket and over TCP, with the real claude behind the daemon."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from runners.testing.apis.messages_api import error, text, tool_calls
from tests.conftest import NEWEST_CLAUDE
from tests.live.claude_body import our_messages, our_system, told
from tests.live.claude_lab import NO_LOGIN
from tests.live.http_clients import BOTH_DOORS, CITY, HI, PIXEL, USAGE, WRONG, Door, openai_client
from tests.live.lab import Entries, Lab
from tests.world import END_S

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module"), NEWEST_CLAUDE]

WEATHER: Any = {"name": "get_weather", "description": "The weather, now.", "parameters": CITY}
SHAPE: Any = {"name": "place", "schema": CITY, "strict": True}


@pytest.fixture(scope="module")
def entries() -> Entries:
    # Of one whom its vendor makes wait nobody else wants an answer; and one does not wait for what no test brings.
    return {"claude": {}, "no-login": {"env": NO_LOGIN}, "limited": {}, "impatient": {"parked_ttl_s": 0.2}}


@pytest.fixture
def door() -> Door:
    """The one that a client finds without help; BOTH_DOORS has the other one too."""
    return "tcp"


@pytest_asyncio.fixture(loop_scope="module")
async def client(lab: Lab, door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai_client(lab, door, max_retries=0) as made:
        yield made


@BOTH_DOORS
async def test_a_chat_is_what_the_model_said_and_what_it_cost(lab: Lab, client: openai.AsyncOpenAI) -> None:
    lab.api.script(text("Par", "is", thinking="France.", usage=USAGE))
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": [{"type": "text", "text": "The capital "}, {"type": "text", "text": "of France?"}]},
    ]
    answer = await client.chat.completions.create(
        model="claude", messages=messages, temperature=0.25, max_completion_tokens=321, stop=["END"], user="me"
    )
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("Paris", "stop")
    assert choice.message.model_extra == {"reasoning_content": "France."}
    assert answer.model.startswith("claude:")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (130, 42, 172)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 20
    [received] = lab.api.requests
    assert our_system(received.body) == ["Be brief."]
    said = [one for message in our_messages(received.body) for one in told(message)]
    assert said == [("user", "Hello"), ("assistant", "Hi!"), ("user", "The capital of France?")]
    knobs = {name: received.body.get(name) for name in ("temperature", "max_tokens", "stop_sequences")}
    assert knobs == {"temperature": 0.25, "max_tokens": 321, "stop_sequences": ["END"]}


@BOTH_DOORS
async def test_a_stream_comes_as_it_is_written(lab: Lab, client: openai.AsyncOpenAI) -> None:
    pause = asyncio.Event()
    lab.api.script(text("Hel", "lo", thinking="Hm.", usage=USAGE, pause=pause, pause_after=3))
    stream = await client.chat.completions.create(
        model="claude", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    said, reasoned, reasons, usage = "", "", [], None
    async for chunk in stream:
        usage = chunk.usage
        for choice in chunk.choices:
            said += choice.delta.content or ""
            reasoned += (choice.delta.model_extra or {}).get("reasoning_content", "")
            reasons.append(choice.finish_reason)
        if said == "Hel":
            pause.set()  # until then the rest has not been written
    assert (said, reasoned) == ("Hello", "Hm.")
    assert [reason for reason in reasons if reason] == ["stop"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (130, 42)


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [("max_tokens", "length"), ("stop_sequence", "stop"), ("refusal", "content_filter"), ("end_turn", "stop")],
)
async def test_every_end_has_its_reason(
    lab: Lab, client: openai.AsyncOpenAI, stop_reason: str, finish_reason: str
) -> None:
    lab.api.script(text("so far", stop_reason=stop_reason))
    answer = await client.chat.completions.create(model="claude", messages=HI)
    assert answer.choices[0].finish_reason == finish_reason


async def test_two_rounds_of_tools_go_on_in_the_session_that_waits(lab: Lab, client: openai.AsyncOpenAI) -> None:
    calls = [("get_weather", json.dumps({"city": city})) for city in ("Paris", "Oslo")]
    lab.api.script(tool_calls(*calls, text="I look."), tool_calls(calls[0]), text("Sunny."))
    messages: list[Any] = [{"role": "user", "content": "The weather?"}]
    served = []
    for cities in (["Paris", "Oslo"], ["Paris"], []):
        raw = await client.chat.completions.with_raw_response.create(
            model="claude", messages=messages, tools=[{"type": "function", "function": WEATHER}]
        )
        served.append(raw.headers["x-runnerd-served"])
        [choice] = raw.parse().choices
        made: list[Any] = [*(choice.message.tool_calls or [])]
        assert [json.loads(call.function.arguments)["city"] for call in made] == cities
        assert choice.finish_reason == ("tool_calls" if cities else "stop")
        messages.append(choice.message.model_dump(exclude_none=True))
        messages += [{"role": "tool", "tool_call_id": call.id, "content": f"18 in {call.id}"} for call in made]
    assert messages[-1]["content"] == "Sunny."
    assert served[1:] == ["resumed", "resumed"]
    [tool] = lab.api.requests[0].body["tools"]
    assert (tool["description"], tool["input_schema"]) == ("The weather, now.", CITY)
    whole = our_messages(lab.api.requests[2].body)
    assert [block["type"] for message in whole for block in message["content"]] == [
        *("text", "text", "tool_use", "tool_use", "tool_result", "tool_result"),
        *("tool_use", "tool_result"),
    ]


async def test_calls_of_tools_stream(lab: Lab, client: openai.AsyncOpenAI) -> None:
    lab.api.script(tool_calls(("get_weather", '{"city": "Paris"}'), ("get_weather", "{}"), ("get_weather", "")))
    tools: Any = [{"type": "function", "function": WEATHER}]
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    async with client.chat.completions.stream(
        model="impatient", messages=HI, tools=tools, tool_choice=choice
    ) as stream:
        answer = await stream.get_final_completion()
    made = answer.choices[0].message.tool_calls or []
    assert [call.function.arguments for call in made] == ['{"city": "Paris"}', "{}", "{}"]
    assert len({call.id for call in made}) == 3
    assert answer.choices[0].finish_reason == "tool_calls"
    assert lab.api.requests[0].body["tool_choice"]["name"] == lab.api.requests[0].body["tools"][0]["name"]


async def test_images_arrive_as_such(lab: Lab, client: openai.AsyncOpenAI) -> None:
    url = f"data:image/png;base64,{PIXEL}"
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "Look:"}, part]}]
    await client.chat.completions.create(model="claude", messages=messages)
    asked: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": url, "detail": "low"}]}]
    await client.responses.create(model="claude", input=asked)
    for received in lab.api.requests:
        image = our_messages(received.body)[-1]["content"][-1]
        assert image["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL}


async def test_the_shape_of_an_answer_arrives_as_such(lab: Lab, client: openai.AsyncOpenAI) -> None:
    lab.api.answer = lambda _body: text('{"city": ', '"Paris"}')
    answer = await client.chat.completions.create(
        model="claude", messages=HI, response_format={"type": "json_schema", "json_schema": SHAPE}
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Paris"}
    response = await client.responses.create(
        model="claude", input="Where?", text={"format": {"type": "json_schema", "name": "place", "schema": CITY}}
    )
    assert json.loads(response.output_text) == {"city": "Paris"}
    for received in lab.api.requests:
        assert received.body["output_config"]["format"] == {"type": "json_schema", "schema": CITY}


async def test_what_a_runner_cannot_do_is_said(lab: Lab, client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="claude", messages=HI, response_format={"type": "json_object"}, seed=7, parallel_tool_calls=False
    )
    warnings = (answer.model_extra or {})["warnings"]
    assert any("seed" in warning for warning in warnings)
    assert any("json_object" in warning for warning in warnings)


async def test_responses_tell_reasoning_text_and_calls_as_items(lab: Lab, client: openai.AsyncOpenAI) -> None:
    lab.api.script(
        tool_calls(("get_weather", '{"city": "Oslo"}'), text="I look."), text("Cold.", thinking="Snow.", usage=USAGE)
    )
    tool: Any = {"type": "function", "strict": True} | WEATHER
    asked: list[Any] = [{"role": "user", "content": "The weather?"}]
    async with client.responses.stream(model="claude", input=asked, instructions="Be brief.", tools=[tool]) as stream:
        types = [event.type async for event in stream]
        first = await stream.get_final_response()
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[-1] == "response.completed"
    assert "response.function_call_arguments.delta" in types
    message, call = first.output
    assert (message.type, call.type) == ("message", "function_call")
    asked += [item.model_dump(exclude_none=True) for item in first.output]
    asked.append({"type": "function_call_output", "call_id": getattr(call, "call_id", ""), "output": "-3 degrees"})
    raw = await client.responses.with_raw_response.create(
        model="claude", input=asked, instructions="Be brief.", tools=[tool], reasoning={"effort": "high"}
    )
    second = raw.parse()
    assert second.output_text == "Cold."
    assert [item.type for item in second.output] == ["reasoning", "message"]
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens == 20
    assert our_system(lab.api.requests[1].body) == ["Be brief."]
    results = [block for message in our_messages(lab.api.requests[1].body) for block in message["content"]]
    assert [block["type"] for block in results] == ["text", "text", "tool_use", "tool_result"]


async def test_an_answer_that_is_cut_is_incomplete(lab: Lab, client: openai.AsyncOpenAI) -> None:
    lab.api.script(text("so far", stop_reason="max_tokens"))
    response = await client.responses.create(model="claude", input="hi", max_output_tokens=5)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


async def test_models_are_listed_and_found(client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    assert "claude:haiku" in listed
    assert (await client.models.retrieve("claude:haiku")).id == "claude:haiku"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("claude:nothing")


@BOTH_DOORS
async def test_failures_are_the_clients_own_exceptions(lab: Lab, client: openai.AsyncOpenAI) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="nobody serves"):
        await create(model="gpt-unknown", messages=HI)
    with pytest.raises(openai.AuthenticationError, match="log"):
        await create(model="no-login", messages=HI)
    with pytest.raises(openai.BadRequestError) as bad:
        await create(model="claude", messages=WRONG)
    assert bad.value.param == "messages[0].content"
    with pytest.raises(openai.BadRequestError) as bad:
        await create(model="claude", messages=HI, n=2)
    assert (bad.value.param, bad.value.code) == ("n", "unsupported_value")
    lab.api.script(error(429, "rate_limit_error", "slow down", {"retry-after": "30"}))
    with pytest.raises(openai.RateLimitError) as limited:
        await create(model="limited", messages=HI)
    assert limited.value.code == "rate_limit_exceeded"
    assert 0 < int(limited.value.response.headers["retry-after"]) < 60
    assert limited.value.response.headers["x-should-retry"] == "true"


@BOTH_DOORS
async def test_an_answer_that_breaks_off_raises_behind_what_came(lab: Lab, client: openai.AsyncOpenAI) -> None:
    pause = asyncio.Event()
    lab.api.script(text("Hello", "never", pause=pause, pause_after=1).broken("error", after=1))
    stream = await client.chat.completions.create(model="claude", messages=HI, stream=True)
    said = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
    assert said == ["", "Hello"]
    pause.set()
    with pytest.raises(openai.APIError):
        await anext(stream)


@BOTH_DOORS
@pytest.mark.parametrize("api", ["completions", "responses"])
async def test_who_closes_a_stream_ends_the_turn(lab: Lab, client: openai.AsyncOpenAI, api: str) -> None:
    lab.api.script(text("Hello", "never").broken("stall", after=1))
    stream: Any = (
        await client.chat.completions.create(model="claude", messages=HI, stream=True)
        if api == "completions"
        else await client.responses.create(model="claude", input="hi", stream=True)
    )
    async for chunk in stream:
        if "Hello" in chunk.model_dump_json():
            break
    await stream.close()
    await asyncio.wait_for((await lab.received()).gone.wait(), END_S)
    await lab.no_cli_is_left()


async def test_over_tcp_nobody_comes_in_without_the_token(lab: Lab) -> None:
    async with openai_client(lab, "tcp", max_retries=0, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="token"):
            await client.chat.completions.create(model="claude", messages=HI)
    assert lab.api.requests == []
