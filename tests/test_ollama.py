"""The ollama runner on the stand-in, as a server of the user's own and as a child of ours: what is its own."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Self

import psutil
import pytest

from runners.errors import (
    ConfigError,
    DeadlineExceededError,
    ModelNotFoundError,
    NetworkError,
    ProcessExitedError,
    RequestCancelledError,
    RunnerError,
    UnsupportedError,
)
from runners.messages import ChatRequest, ModelInfo
from runners.providers.ollama.provider import OllamaProvider
from runners.providers.ollama.settings import ollama_url
from runners.stream import ChatChunk, ChatStream, Done, Failed, Reasoning, Start, Text, UsageReport, fold
from runners.testing import request
from tests.subjects.ollama import HOLD, MODEL, MODELS, FakeOllama, free_port, server
from tests.world import END_S, World, until

pytestmark = pytest.mark.usefixtures("no_leaks")

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAYS = ["serving", "spawned"]
both_ways = pytest.mark.parametrize("way", WAYS)


@asynccontextmanager
async def ollama(
    world: World, way: str = "spawned", settings: dict[str, Any] | None = None, **order: Any
) -> AsyncIterator[tuple[FakeOllama, OllamaProvider]]:
    """A stand-in and a provider on it, closed at the end. `settings` are the provider's, `order` the stand-in's."""
    subject = FakeOllama(world, **order)
    provider = subject.made(**settings or {})
    try:
        if way == "serving":
            async with server(subject, world):
                yield subject, provider
        else:
            yield subject, provider
    finally:
        await provider.aclose()


def requests(subject: FakeOllama, path: str | None = None) -> list[dict[str, Any]]:
    """What the stand-in noted, at a path."""
    if not subject.log.exists():
        return []
    noted = [json.loads(line) for line in subject.log.read_text(encoding="utf-8").split("\n")[:-1]]
    return [entry for entry in noted if path in (None, entry["path"])]


def ports(subject: FakeOllama) -> list[str]:
    """At which port each chat arrived, in their order."""
    chats = [entry for entry in requests(subject, "/api/chat") if entry["method"] == "POST"]
    return [entry["headers"]["Host"].rpartition(":")[2] for entry in chats]


def own_port(subject: FakeOllama) -> str:
    """The port of the user's own server."""
    return subject.host.rpartition(":")[2]


async def chunks_of(stream: ChatStream) -> list[ChatChunk]:
    async with asyncio.timeout(END_S), stream:
        return [chunk async for chunk in stream]


async def begun(stream: ChatStream) -> None:
    async with asyncio.timeout(END_S):
        while not isinstance(await anext(stream), Text):
            pass


async def failure_of(awaitable: Awaitable[Any]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        async with asyncio.timeout(END_S):
            await awaitable
    return caught.value


async def disconnected(subject: FakeOllama) -> bool:
    return any(entry["method"] == "DISCONNECT" for entry in requests(subject, "/api/chat"))


def begins_with(subject: FakeOllama, source: str) -> None:
    """Lets the stand-in do something before anything else."""
    first, rest = subject.binary.read_text(encoding="utf-8").split("\n", 1)
    subject.binary.write_text(f"{first}\n{source}\n{rest}", encoding="utf-8")


def serve_process(provider: OllamaProvider) -> psutil.Process:
    [process] = provider.processes()
    return psutil.Process(process.pid)


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # reaped while we looked
        return True


async def gone(*processes: psutil.Process) -> None:
    async def look() -> bool:
        return all(map(is_gone, processes))

    await until(look)


# Where the server is


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("example.com:", "http://example.com:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("http://0.0.0.0:5000", "http://127.0.0.1:5000"),
        ("::", "http://[::1]:11434"),
        ("[::]:5000", "http://[::1]:5000"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("http://[::1]:5000/base", "http://[::1]:5000/base"),
        ("fe80::1", "http://[fe80::1]:11434"),
        ("http://h", "http://h:80"),
        ("https://h", "https://h:443"),
        ("https://h:1", "https://h:1"),
        ("http://", "http://127.0.0.1:80"),
        ("h/base", "http://h:11434/base"),
        ("https://h/base/", "https://h:443/base"),
        ("http://h:1/a:b", "http://h:1/a:b"),
        ("/base", "http://127.0.0.1:11434/base"),
        ("::1/base", "http://[::1]:11434/base"),
        ('"h:1"', "http://h:1"),
        (" 'h' ", "http://h:11434"),
        ("ollama.com", "https://ollama.com:443"),
    ],
)
def test_a_host_means_what_it_means_to_ollama_itself(host: str, url: str) -> None:
    assert ollama_url(host) == url


@pytest.mark.parametrize("host", ["h:abc", "h:65536", "h:-1", "[::1", "http://h:1x", "[::1]:x", "[h]:1"])
def test_a_host_that_is_none_is_an_error_of_the_configuration(host: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(host))):
        ollama_url(host)


async def test_a_wrong_host_in_the_environment_is_told_by_health_and_by_the_chat(world: World) -> None:
    wrong = {"HOME": str(world.home), "OLLAMA_HOST": "localhost:ollama"}
    async with ollama(world, settings={"host": None, "env": wrong}) as (_, provider):
        assert (await provider.health_check()).reason == "config"
        assert (await failure_of(provider.complete(request("Hi")))).kind == "config"
        assert provider.processes() == []


@pytest.mark.parametrize("form", ["localhost:{port}", "http://127.0.0.1:{port}", ":{port}", "0.0.0.0:{port}/"])
async def test_the_user_s_own_server_is_found_at_every_form_of_its_address(world: World, form: str) -> None:
    subject = FakeOllama(world)
    async with server(subject, world):
        provider = subject.made(host=form.format(port=own_port(subject)))
        assert (await provider.complete(request("Hi"))).content == "Hi"
        assert provider.processes() == []
        await provider.aclose()


async def test_a_server_on_the_other_loopback_is_found(world: World) -> None:
    subject = FakeOllama(world, host=f"[::1]:{free_port()}")
    async with server(subject, world):
        assert (await subject.provider.complete(request("Hi"))).content == "Hi"
        assert subject.provider.processes() == []
        await subject.provider.aclose()


async def test_a_host_in_the_entry_s_env_counts_where_none_is_configured(world: World) -> None:
    subject = FakeOllama(world)
    async with server(subject, world):
        env = {"HOME": str(world.home), "OLLAMA_HOST": subject.host}
        provider = subject.made(host=None, env=env)
        assert (await provider.complete(request("Hi"))).content == "Hi"
        assert provider.processes() == []
        await provider.aclose()


# Which models there are


@both_ways
async def test_the_pulled_models_are_offered_with_what_the_server_says_of_them(world: World, way: str) -> None:
    async with ollama(world, way) as (_, provider):
        await provider.discover()
        # Not the one that only embeds.
        assert provider.available_models() == [
            ModelInfo(MODEL, context_window=8192, images=True, tools=True, reasoning=True),
            ModelInfo("llama3.2:latest", context_window=131072, images=False, tools=False, reasoning=False),
        ]


async def test_a_server_before_capabilities_leaves_them_unknown(world: World) -> None:
    # They came with 0.6.4.
    subject = FakeOllama(world)
    tags = {"models": [{"name": "old:1b", "model": "old:1b", "digest": "1"}]}
    async with Stranger({"/api/version": {"version": "0.5.1"}, "/api/tags": tags, "/api/show": {}}) as old:
        provider = subject.made(host=old.host, model=None)
        await provider.discover()
        assert provider.available_models() == [ModelInfo("old:1b")]
        able = provider.capabilities()
        assert (able.images, able.reasoning) == (True, True)
        await provider.aclose()


@both_ways
async def test_without_a_configured_model_the_newest_that_can_chat_answers(world: World, way: str) -> None:
    embeds = {"nomic-embed-text:latest": MODELS["nomic-embed-text:latest"]}
    models = {**embeds, "newest:1b": MODELS[MODEL], "older:1b": MODELS[MODEL]}
    async with ollama(world, way, {"model": None}, models=models) as (_, provider):
        assert provider.default_model == ""
        assert (await provider.complete(request("Hi"))).model == "newest:1b"
        assert provider.default_model == "newest:1b"


@pytest.mark.parametrize(("name", "sent"), [("llama3.2", "llama3.2"), ("llama3.2:latest", "llama3.2:latest")])
async def test_a_model_may_be_named_with_and_without_its_tag(world: World, name: str, sent: str) -> None:
    async with ollama(world, settings={"model": name}) as (subject, provider):
        answer = await provider.complete(request("Hi", reasoning_effort="low"))
        assert subject.chats()[0]["model"] == sent
        # What is known of llama3.2:latest holds for it: it cannot think.
        assert answer.warnings == ["reasoning_effort is not supported by ollama: ignored"]


async def test_the_models_of_the_settings_are_offered_in_their_place(world: World) -> None:
    async with ollama(world, settings={"models": ["llama3.2", "never-pulled"]}) as (_, provider):
        await provider.discover()
        [known, unknown] = provider.available_models()
        assert (known.context_window, known.reasoning) == (131072, False)
        assert unknown == ModelInfo("never-pulled")


@both_ways
async def test_a_model_that_is_not_pulled_is_not_found_and_the_hint_pulls_it(world: World, way: str) -> None:
    async with ollama(world, way) as (_, provider):
        error = await failure_of(provider.complete(request("Hi", model="nope:1b")))
        assert isinstance(error, ModelNotFoundError)
        assert (error.message, error.hint, error.runner) == (
            "model 'nope:1b' not found",
            "ollama pull nope:1b",
            "ollama",
        )


async def test_a_configured_model_that_is_not_pulled_is_degraded_health(world: World) -> None:
    async with ollama(world, settings={"model": "nope:1b"}) as (_, provider):
        health = await provider.health_check()
        assert (health.state, health.reason, health.hint) == ("degraded", "model_not_found", "ollama pull nope:1b")


async def test_without_any_model_a_chat_and_health_say_how_to_get_one(world: World) -> None:
    async with ollama(world, settings={"model": None}, models={}) as (_, provider):
        error = await failure_of(provider.complete(request("Hi")))
        assert (error.kind, error.hint) == ("model_not_found", "ollama pull llama3.2")
        health = await provider.health_check()
        assert (health.state, health.reason, health.hint) == ("degraded", "model_not_found", "ollama pull llama3.2")


async def test_a_model_that_is_pulled_later_is_offered_from_then_on(world: World) -> None:
    subject = FakeOllama(world, models={"old:1b": MODELS[MODEL]})
    provider = subject.made(model=None)
    async with server(subject, world):
        await provider.discover()
    subject.order["models"] = {"new:1b": MODELS["llama3.2:latest"], "old:1b": MODELS[MODEL]}
    async with server(subject, world):
        await provider.discover()
        assert [known.model for known in provider.available_models()] == ["new:1b", "old:1b"]
    await provider.aclose()


async def test_a_default_that_is_removed_gives_way_to_the_newest_that_is_left(world: World) -> None:
    subject = FakeOllama(world, models={"removed:1b": MODELS[MODEL], "left:1b": MODELS[MODEL]})
    provider = subject.made(model=None)
    async with server(subject, world):
        assert (await provider.complete(request("Hi"))).model == "removed:1b"
    subject.order["models"] = {"left:1b": MODELS[MODEL]}
    async with server(subject, world):
        assert (await provider.complete(request("Hi"))).model == "left:1b"
        assert (await provider.health_check()).state == "ready"
    await provider.aclose()


@both_ways
async def test_health_says_whose_server_it_is_and_its_version(world: World, way: str) -> None:
    async with ollama(world, way, version="0.31.2") as (subject, provider):
        health = await provider.health_check()
        assert (health.state, health.version, health.authenticated) == ("ready", "0.31.2", None)
        whose = f"the server at http://{subject.host}" if way == "serving" else "its own server at http://127.0.0.1:"
        assert str(health.detail).startswith(whose)
        assert str(health.detail).endswith("has 2 models")


# What a request says to the server


async def sent(world: World, asked: ChatRequest, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body of the chat that arrived."""
    async with ollama(world, settings=settings) as (subject, provider):
        await provider.complete(asked)
        [body] = subject.chats()
        return body


async def test_a_plain_request_carries_nothing_but_what_it_needs(world: World) -> None:
    assert await sent(world, request("Hi")) == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "truncate": False,
        "stream": True,
    }


async def test_every_role_arrives_as_itself_and_the_system_prompt_first(world: World) -> None:
    messages = [
        {"role": "user", "content": "one"},
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "two"},
        {"role": "error", "content": "never sent"},
        {"role": "summary", "content": "before"},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "th"}, {"type": "text", "text": "ree"}]},
    ]
    body = await sent(world, ChatRequest.model_validate({"messages": messages}))
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "Summary of our conversation so far:\n\nbefore"},
        {"role": "user", "content": "three"},
    ]


async def test_images_arrive_as_plain_base64_in_their_message(world: World) -> None:
    image = {"type": "image", "media_type": "image/png", "data": PIXEL}
    content = [image, {"type": "text", "text": "look"}, image]
    body = await sent(world, ChatRequest.model_validate({"messages": [{"role": "user", "content": content}]}))
    assert body["messages"] == [{"role": "user", "content": "look", "images": [PIXEL, PIXEL]}]


async def test_an_image_for_a_model_that_sees_none_is_refused_before_it_is_sent(world: World) -> None:
    image = {"type": "image", "media_type": "image/png", "data": PIXEL}
    asked = ChatRequest.model_validate({"model": "llama3.2", "messages": [{"role": "user", "content": [image]}]})
    async with ollama(world) as (subject, provider):
        assert isinstance(await failure_of(provider.complete(asked)), UnsupportedError)
        assert subject.chats() == []


async def test_tool_calls_and_their_results_arrive_in_the_server_s_own_form(world: World) -> None:
    calls = [
        {"id": "c1", "name": "weather", "arguments": {"city": "Paris", "days": 2}},
        {"id": "c2", "name": "time", "arguments": {}},
    ]
    messages = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": "Asking.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
    ]
    async with ollama(world) as (subject, provider):
        answer = await provider.complete(ChatRequest.model_validate({"messages": messages}))
        [body] = subject.chats()
    assert answer.content == "18 degrees"
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Asking.",
            "tool_calls": [
                {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Paris", "days": 2}}},
                {"id": "c2", "function": {"name": "time", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "noon", "tool_call_id": "c2", "tool_name": "time"},
        {"role": "tool", "content": "18 degrees", "tool_call_id": "c1", "tool_name": "weather"},
    ]


SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}


@pytest.mark.parametrize(
    ("asked", "arrives"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}, SCHEMA),
    ],
    ids=["text", "object", "schema", "wrapped schema"],
)
async def test_a_response_format_arrives_as_format(world: World, asked: dict[str, Any], arrives: Any) -> None:
    body = await sent(world, request("Hi", response_format=asked))
    assert body.get("format") == arrives
    assert ("format" in body) == (arrives is not None)


async def test_the_knobs_arrive_as_options_of_their_type(world: World) -> None:
    body = await sent(world, request("Hi", temperature=0.5, top_p=0.9, max_tokens=7, stop=["END", "\n"]))
    assert body["options"] == {"temperature": 0.5, "top_p": 0.9, "num_predict": 7, "stop": ["END", "\n"]}


async def test_a_temperature_of_zero_is_one(world: World) -> None:
    assert (await sent(world, request("Hi", temperature=0.0)))["options"] == {"temperature": 0.0}


async def test_what_the_settings_say_of_the_model_goes_with_every_request(world: World) -> None:
    settings = {"num_ctx": 16384, "keep_alive": "30m", "max_tokens": 9, "temperature": 1.5}
    body = await sent(world, request("Hi"), settings)
    assert body["options"] == {"num_ctx": 16384, "num_predict": 9, "temperature": 1.5}
    assert body["keep_alive"] == "30m"


@pytest.mark.parametrize("keep_alive", [0, -1, 300, "5m", "-1s"])
async def test_keep_alive_arrives_as_it_was_written(world: World, keep_alive: int | str) -> None:
    assert (await sent(world, request("Hi"), {"keep_alive": keep_alive}))["keep_alive"] == keep_alive


@pytest.mark.parametrize(
    ("effort", "think"),
    [(None, None), ("none", False), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "max")],
)
async def test_each_effort_is_a_level_of_thinking(world: World, effort: str | None, think: Any) -> None:
    async with ollama(world) as (subject, provider):
        chunks = await chunks_of(provider.complete_stream(request("Hi", reasoning_effort=effort)))
        [body] = subject.chats()
    assert ("think" in body, body.get("think")) == (effort is not None, think)
    thoughts = "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Reasoning))
    assert thoughts == ("" if effort == "none" else "The user wants an echo.")


async def test_no_request_carries_credentials_an_origin_or_a_cookie(world: World) -> None:
    async with ollama(world) as (subject, provider):
        await provider.complete(request("Hi"))
        headers = {name.lower() for entry in requests(subject) for name in entry["headers"]}
    assert not headers & {"authorization", "origin", "cookie", "referer"}


@both_ways
async def test_a_session_sends_the_whole_conversation_and_leaves_out_what_failed(world: World, way: str) -> None:
    async with ollama(world, way) as (subject, provider):
        session = await provider.open()
        asked = request("one", messages=[{"role": "system", "content": "S"}, {"role": "user", "content": "one"}])
        await session.prepare(provider.session_options(asked))

        async def turn(text: str) -> list[ChatChunk]:
            turned = request(text)
            return await chunks_of(session.turn(turned.conversation, provider.sampling(turned)))

        await turn("one")
        assert (await turn("[break]"))[-1].type == "error"
        assert session.state == "idle"
        assert (await turn("two"))[-1].type == "done"
        await session.aclose()
        assert [(message["role"], message["content"]) for message in subject.chats()[-1]["messages"]] == [
            ("system", "S"),
            ("user", "one"),
            ("assistant", "one"),
            ("user", "two"),
        ]


# What the server answers


@both_ways
async def test_usage_and_durations_are_the_server_s_own(world: World, way: str) -> None:
    async with ollama(world, way) as (_, provider):
        answer = await provider.complete(request("twelve chars", reasoning_effort="none"))
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (12, 2)
    assert (usage.duration_s, usage.load_s) == (0.911183209, 0.054370917)
    assert (usage.cached_input_tokens, usage.cost_usd) == (None, None)


OVERFLOW = (
    '{"error":{"code":400,"message":"request (5013 tokens) exceeds the available context size (4096 tokens), '
    'try increasing it","type":"exceed_context_size_error","n_prompt_tokens":5013,"n_ctx":4096}}'
)


@pytest.mark.parametrize(
    ("status", "message", "kind", "hint"),
    [
        (400, '"m" does not support thinking', "unsupported", None),
        (400, "invalid model name", "invalid_request", None),
        (401, "unauthorized", "not_authenticated", "ollama signin"),
        (403, "ollama cloud is disabled: remote inference is unavailable", "permission", None),
        (403, "", "permission", None),
        (404, f"model '{MODEL}' not found", "model_not_found", f"ollama pull {MODEL}"),
        (429, "you have reached your hourly usage limit", "rate_limited", None),
        (500, "llama-server process has terminated: exit status 1", "vendor_error", None),
        (500, 'option "stop" must be of type array', "invalid_request", None),
        (502, "dial tcp: lookup ollama.com: no such host", "vendor_error", None),
        (503, "server busy, please try again.  maximum pending requests exceeded", "overloaded", None),
        (400, OVERFLOW, "context_overflow", None),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_refusal_is_raised_before_the_answer_and_the_next_chat_works(
    world: World, status: int, message: str, kind: str, hint: str | None
) -> None:
    async with ollama(world) as (_, provider):
        error = await failure_of(provider.complete(request(f"[error:{status}:{message}]")))
        assert (error.kind, error.hint, error.runner) == (kind, hint, "ollama")
        if kind == "context_overflow":
            assert (error.requested_tokens, error.max_tokens) == (5013, 4096)
            assert error.message.startswith("request (5013 tokens)")
        assert (await provider.complete(request("again"))).content == "again"


@both_ways
@pytest.mark.parametrize(("order", "kind"), [("[break]", "vendor_error"), ("[drop]", "network"), ("[cut]", "protocol")])
async def test_an_answer_that_breaks_off_keeps_what_came_and_says_why(
    world: World, way: str, order: str, kind: str
) -> None:
    async with ollama(world, way) as (_, provider):
        chunks = await chunks_of(provider.complete_stream(request(order)))
        assert isinstance(chunks[0], Start)
        assert order.startswith("".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text)) or "-")
        assert not [chunk for chunk in chunks if isinstance(chunk, UsageReport | Done)]
        last = chunks[-1]
        assert isinstance(last, Failed)
        assert last.error.kind == kind
        assert (await provider.complete(request("again"))).content == "again"


async def test_lines_that_are_no_json_are_passed_over(world: World) -> None:
    async with ollama(world) as (_, provider):
        assert (await provider.complete(request("[garbage]"))).content == "[garbage]"


@both_ways
async def test_a_burst_of_lines_arrives_whole_and_in_order(world: World, way: str) -> None:
    async with ollama(world, way) as (_, provider):
        answer = await provider.complete(request("[burst:5000]"))
        assert answer.content == "".join(f"{number} " for number in range(5000))
        assert answer.stop_reason == "end_turn"


async def test_a_burst_leaves_the_others_their_turn_and_waits_for_a_slow_reader(world: World) -> None:
    async with ollama(world) as (_, provider), provider.complete_stream(request("[burst:20000]")) as slow:
        await begun(slow)
        assert (await provider.complete(request("meanwhile"))).content == "meanwhile"
        rest = [chunk async for chunk in slow]
        assert "".join(chunk.chunk for chunk in rest if isinstance(chunk, Text)).endswith(" 19999 ")


async def test_an_answer_cut_by_its_length_says_so(world: World) -> None:
    async with ollama(world) as (_, provider):
        assert (await provider.complete(request("[length]"))).stop_reason == "length"


@both_ways
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("tool_ids", [True, False])
async def test_a_request_s_tools_are_the_model_s_own(world: World, way: str, native: bool, tool_ids: bool) -> None:
    tool = {"name": "f", "description": "It does.", "parameters": {"type": "object", "x": [1, "é"]}}
    async with ollama(world, way, native=native, tool_ids=tool_ids) as (subject, provider):
        answer = await provider.complete(request("[tools]", tools=[tool, {"name": "g"}]))
        assert subject.chats()[0]["tools"][0] == {"type": "function", "function": tool}
        assert answer.warnings == []
        assert answer.stop_reason == "tool_calls"
        assert [(call.name, call.arguments) for call in answer.tool_calls] == [
            ("f", {"city": "Paris", "days": 2}),
            ("g", {"city": "Paris", "days": 2}),
        ]
        assert len({call.id for call in answer.tool_calls}) == 2


async def test_a_model_that_knows_no_tools_is_offered_none_and_a_warning_says_so(world: World) -> None:
    async with ollama(world) as (subject, provider):
        answer = await provider.complete(request("Hi", model="llama3.2", tools=[{"name": "f"}]))
        assert "tools" not in subject.chats()[0]
        assert answer.warnings == ["tools is not supported by ollama: ignored"]


# Cancelling


@both_ways
@pytest.mark.parametrize("order", [HOLD, "[burst:200000]"], ids=["while it waits", "while it writes"])
async def test_closing_a_stream_closes_the_connection_at_which_the_server_stops(
    world: World, way: str, order: str
) -> None:
    async with ollama(world, way) as (subject, provider):
        stream = provider.complete_stream(request(order))
        await begun(stream)
        assert not await disconnected(subject)
        await stream.aclose()
        await until(lambda: disconnected(subject))
        assert (await provider.complete(request("again"))).content == "again"


@both_ways
async def test_cancelling_a_chat_whose_model_still_loads_closes_the_connection(world: World, way: str) -> None:
    async with ollama(world, way) as (subject, provider):
        chat = asyncio.create_task(provider.complete(request("[silent]")))
        await until(lambda: arrived(subject))
        chat.cancel()
        with pytest.raises(asyncio.CancelledError):
            await chat
        await until(lambda: disconnected(subject))
        assert not provider.sessions


async def arrived(subject: FakeOllama) -> bool:
    return bool(requests(subject, "/api/chat"))


async def test_an_interrupted_answer_ends_as_cancelled_and_the_conversation_goes_on_without_it(world: World) -> None:
    async with ollama(world) as (subject, provider):
        session = await provider.open()
        held, asked = request(HOLD), request("next")
        await session.prepare(provider.session_options(held))
        async with session.turn(held.conversation, provider.sampling(held)) as stream:
            await begun(stream)
            await session.interrupt()
            *_, last = await chunks_of(stream)
        assert last == Done("cancelled", "interrupted")
        await until(lambda: disconnected(subject))
        assert session.state == "idle"
        answer = await fold(session.turn(asked.conversation, provider.sampling(asked)))
        assert answer.content == "next"
        assert [message["content"] for message in subject.chats()[-1]["messages"]] == ["next"]
        await session.aclose()


@pytest.mark.parametrize("earlier", [[], ["one"]], ids=["in the first turn", "in a later turn"])
async def test_an_interrupt_while_the_model_loads_ends_the_turn(world: World, earlier: list[str]) -> None:
    async with ollama(world, settings={"timeouts": {"first_chunk_s": END_S}}) as (subject, provider):
        session = await provider.open()
        await session.prepare(provider.session_options(request("x")))
        for text in earlier:
            asked = request(text)
            await fold(session.turn(asked.conversation, provider.sampling(asked)))
        silent = request("[silent]")
        turn = asyncio.create_task(fold(session.turn(silent.conversation, provider.sampling(silent))))

        async def has_arrived() -> bool:
            return len(subject.chats()) == len(earlier) + 1 if subject.log.exists() else False

        await until(has_arrived)
        await session.interrupt()
        try:
            async with asyncio.timeout(5):
                await asyncio.wait([turn])
            assert isinstance(await failure_of(turn), RequestCancelledError)
            await until(lambda: disconnected(subject))
        finally:
            turn.cancel()
            await asyncio.wait([turn])
            await session.aclose()


@pytest.mark.parametrize("order", [HOLD, "[silent]"])
async def test_closing_a_session_in_its_turn_ends_the_stream_with_an_error(world: World, order: str) -> None:
    async with ollama(world) as (subject, provider):
        session = await provider.open()
        asked = request(order)
        await session.prepare(provider.session_options(asked))
        turn = asyncio.create_task(fold(session.turn(asked.conversation, provider.sampling(asked))))
        await until(lambda: arrived(subject))
        await session.aclose()
        error = await failure_of(turn)
        assert error.kind in ("network", "cancelled", "protocol")
        await until(lambda: disconnected(subject))


# Deadlines


@both_ways
async def test_a_model_that_never_speaks_meets_first_chunk_s(world: World, way: str) -> None:
    async with ollama(world, way, {"timeouts": {"first_chunk_s": 0.5}}) as (subject, provider):
        error = await failure_of(provider.complete(request("[silent]")))
        assert isinstance(error, DeadlineExceededError)
        assert (error.deadline, error.limit_s) == ("first_chunk_s", 0.5)
        await until(lambda: disconnected(subject))
        assert (await provider.complete(request("again"))).content == "again"


@pytest.mark.parametrize("deadline", ["silence_s", "turn_s"])
async def test_a_model_that_falls_silent_meets_a_named_deadline(world: World, deadline: str) -> None:
    async with ollama(world, settings={"timeouts": {deadline: 0.5}}) as (subject, provider):
        chunks = await chunks_of(provider.complete_stream(request(HOLD)))
        assert "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text)) == "first"
        last = chunks[-1]
        assert isinstance(last, Failed)
        assert isinstance(last.error, DeadlineExceededError)
        assert last.error.deadline == deadline
        await until(lambda: disconnected(subject))


async def test_a_turn_whose_client_does_not_read_is_ended_at_the_server_in_time(world: World) -> None:
    async with ollama(world, settings={"timeouts": {"turn_s": 1}}) as (subject, provider):
        # More than every buffer on the way holds.
        stream = provider.complete_stream(request("[burst:200000]"))
        assert isinstance(await anext(stream), Start)
        # Nobody reads on.
        await until(lambda: disconnected(subject))
        *_, last = await chunks_of(stream)
        assert isinstance(last, Failed)
        assert isinstance(last.error, DeadlineExceededError)
        assert last.error.deadline == "turn_s"


@pytest.mark.parametrize("order", [{"slow_start": 60}, {"fault": "deaf"}, {"fault": "no_listen"}], ids=str)
async def test_a_server_that_does_not_come_up_meets_spawn_s_and_is_ended(world: World, order: dict[str, Any]) -> None:
    async with ollama(world, settings={"timeouts": {"spawn_s": 1}}, **order) as (_, provider):
        error = await failure_of(provider.complete(request("Hi")))
        assert isinstance(error, DeadlineExceededError)
        assert (error.deadline, error.limit_s) == ("spawn_s", 1)
        assert "ollama serve" in error.message
        assert provider.processes() == []
        assert world.processes() == []


async def test_closing_the_provider_while_its_server_comes_up_is_bounded_and_leaves_nothing(world: World) -> None:
    async with ollama(world, settings={"timeouts": {"spawn_s": END_S}}, fault="deaf") as (_, provider):
        chat = asyncio.create_task(provider.complete(request("Hi")))

        async def is_starting() -> bool:
            return bool(world.processes())

        await until(is_starting)
        try:
            async with asyncio.timeout(8):
                await provider.aclose()
            assert world.processes() == []
        finally:
            chat.cancel()
            await asyncio.wait([chat])


async def test_a_server_that_looks_at_its_gpus_for_a_while_answers_then(world: World) -> None:
    async with ollama(world, slow_start=1) as (_, provider):
        assert (await provider.complete(request("Hi"))).content == "Hi"


async def test_a_probe_that_takes_too_long_does_not_end_the_server_that_it_waits_for(world: World) -> None:
    # 30 s are usual where there are GPUs to look at: longer than any probe may take.
    async with ollama(world, slow_start=11) as (_, provider):
        health = await provider.health_check()
        assert (health.state, health.reason) == ("degraded", "timeout")
        assert provider.processes() or world.processes(), "the server that was starting is gone"
        began = asyncio.get_running_loop().time()
        assert (await provider.complete(request("Hi"))).content == "Hi"
        assert asyncio.get_running_loop().time() - began < 8, "the chat waited for another server"


async def test_a_server_that_ends_at_its_start_tells_its_exit_code_and_last_words(world: World) -> None:
    async with ollama(world, fault="exit") as (_, provider):
        error = await failure_of(provider.complete(request("Hi")))
        assert isinstance(error, ProcessExitedError)
        assert (error.exit_code, error.stderr_tail) == (1, "Error: the fake is broken")
        health = await provider.health_check()
        assert (health.ok, health.reason) == (False, "process_exited")


# Whose server it is


class Stranger:
    """A server that is not ours: it answers each path with a fixed JSON value, or everything with the same bytes."""

    def __init__(self, answers: dict[str, Any] | bytes, address: str = "127.0.0.1", port: int = 0) -> None:
        self.paths: list[str] = []
        self.host = ""
        self._answers = answers
        self._place = (address, port)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, *self._place)
        self.host = f"{self._place[0]}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            self.paths.append(path)
            writer.write(await self.answered(path))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def answered(self, path: str) -> bytes:
        """What to answer."""
        if isinstance(self._answers, bytes):
            return self._answers
        status = "200 OK" if path in self._answers else "404 Not Found"
        body = json.dumps(self._answers.get(path, {"detail": "Not Found"})).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"Connection: close\r\n\r\n" + body


STRANGERS = {
    "a web page": b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>hi</html>",
    "a page not found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nnot found",
    "another JSON API's 404": {},
    "a JSON API that likes everything": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answers", STRANGERS.values(), ids=STRANGERS)
async def test_something_else_at_ollama_s_port_is_not_taken_for_it_and_ours_is_started(
    world: World, answers: dict[str, Any] | bytes
) -> None:
    async with Stranger(answers) as stranger, ollama(world, settings={"host": stranger.host}) as (subject, provider):
        assert (await provider.complete(request("Hi"))).content == "Hi"
        assert len(ports(subject)) == 1
        assert "/api/chat" not in stranger.paths
        assert (await provider.health_check()).state == "ready"


# Every address of 127.0.0.0/8 is this machine's, and none but 127.0.0.1 is taken for it: a remote machine's stand-in.
remote = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has 127.0.0.2")
REMOTE = "127.0.0.2"


@remote
@pytest.mark.parametrize("answers", STRANGERS.values(), ids=STRANGERS)
async def test_something_else_where_a_remote_ollama_should_be_is_an_error_of_the_network(
    world: World, answers: dict[str, Any] | bytes
) -> None:
    async with Stranger(answers, REMOTE) as stranger, ollama(world, settings={"host": stranger.host}) as (_, provider):
        error = await failure_of(provider.complete(request("Hi")))
        assert error.kind == "network"
        assert error.hint
        assert provider.processes() == []
        health = await provider.health_check()
        assert (health.ok, health.reason) == (False, "network")


@remote
async def test_a_remote_server_that_does_not_answer_is_told_and_none_is_started_here(world: World) -> None:
    async with ollama(world, settings={"host": f"{REMOTE}:{free_port()}"}) as (subject, provider):
        error = await failure_of(provider.complete(request("Hi")))
        assert isinstance(error, NetworkError)
        assert REMOTE in error.message
        assert error.hint == "start Ollama there, or change `host`"
        health = await provider.health_check()
        assert (health.ok, health.reason, health.hint) == (False, "network", error.hint)
        assert requests(subject) == []
        assert world.processes() == []


async def test_a_host_that_has_no_address_is_an_error_of_the_network(world: World) -> None:
    async with ollama(world, settings={"host": "a" * 64 + ".invalid"}) as (_, provider):
        assert (await failure_of(provider.complete(request("Hi")))).kind == "network"
        assert world.processes() == []


TAKEN = """
import os, pathlib, sys, time
here = pathlib.Path({root!r})
if sys.argv[1:] == ["serve"] and not (here / "asks").exists():
    (here / "asks.part").write_text(os.environ["OLLAMA_HOST"])
    (here / "asks.part").rename(here / "asks")
    while not (here / "taken").exists():
        time.sleep(0.01)
"""


async def test_a_port_that_somebody_else_takes_first_is_not_taken_for_ours(world: World) -> None:
    subject = FakeOllama(world)
    begins_with(subject, TAKEN.format(root=str(world.root)))
    tags = {"models": [{"name": MODEL, "model": MODEL, "digest": "1"}]}
    answers = {"/api/version": {"version": "6.6.6"}, "/api/tags": tags, "/api/show": {}}
    provider = subject.made()
    chat = asyncio.create_task(provider.complete(request("Hi")))

    async def asks() -> str | None:
        path = world.root / "asks"
        return path.read_text() if path.exists() else None

    try:
        port = int((await until(asks)).rpartition(":")[2])
        # With port 0, which the system chooses, there is nothing to take.
        async with Stranger(answers, port=port) as stranger:
            (world.root / "taken").touch()
            await asyncio.wait([chat])
            assert "/api/chat" not in stranger.paths, "the conversation went to somebody else"
            if error := chat.exception():
                assert isinstance(error, ProcessExitedError)
                assert "address already in use" in str(error.stderr_tail)
            else:
                assert chat.result().content == "Hi"
    finally:
        chat.cancel()
        await provider.aclose()


@both_ways
async def test_many_chats_at_once_have_one_server(world: World, way: str) -> None:
    async with ollama(world, way) as (_, provider):
        texts = [f"answer {number} " * 20 for number in range(12)]
        answers = await asyncio.gather(*(provider.complete(request(text)) for text in texts))
        assert [answer.content for answer in answers] == texts
        assert len(provider.processes()) == (way == "spawned")
        assert len(world.processes()) == 1


async def test_our_server_stays_for_the_next_chat_and_ends_with_the_provider(world: World) -> None:
    async with ollama(world, child=True) as (_, provider):
        await provider.complete(request("one"))
        serve = serve_process(provider)
        children = serve.children()
        assert len(children) == 1
        await provider.with_model("llama3.2").complete(request("two"))
        assert serve_process(provider) == serve
        async with provider.complete_stream(request(HOLD)) as stream:
            await begun(stream)
            assert [process.sessions for process in provider.processes()] == [1]
        assert [process.sessions for process in provider.processes()] == [0]
        await asyncio.gather(provider.aclose(), provider.aclose())
        await gone(serve, *children)
        assert provider.processes() == []


async def test_a_server_that_ignores_sigterm_is_killed_with_what_it_started(world: World) -> None:
    async with ollama(world, fault="ignore_term", child=True) as (_, provider):
        await provider.complete(request("one"))
        serve = serve_process(provider)
        children = serve.children()
        async with asyncio.timeout(10):
            await provider.aclose()
        await gone(serve, *children)


async def test_a_user_s_server_is_never_stopped(world: World) -> None:
    async with ollama(world, "serving", child=True) as (_, provider):
        await provider.complete(request("one"))
        async with provider.complete_stream(request(HOLD)) as stream:
            await begun(stream)
            await provider.aclose()
        # That it still runs is what the context asserts at its end.
        assert (await provider.complete(request("two"))).content == "two"


async def test_a_user_s_server_that_comes_later_is_preferred_and_ours_ends(world: World) -> None:
    async with ollama(world) as (subject, provider):
        await provider.complete(request("one"))
        ours = serve_process(provider)
        async with server(subject, world):
            assert (await provider.complete(request("two"))).content == "two"
            assert ports(subject)[1] == own_port(subject) != ports(subject)[0]
            assert provider.processes() == []
            await gone(ours)
        # And when the user's own is gone, ours is there again.
        assert (await provider.complete(request("three"))).content == "three"
        assert serve_process(provider) != ours


async def test_ours_stays_while_a_chat_runs_on_it_though_the_user_s_own_has_come(world: World) -> None:
    async with ollama(world) as (subject, provider), provider.complete_stream(request(HOLD)) as held:
        await begun(held)
        ours = serve_process(provider)
        async with server(subject, world):
            assert (await provider.complete(request("two"))).content == "two"
            assert ports(subject)[-1] == own_port(subject)
            assert serve_process(provider) == ours
            await held.aclose()
            await provider.complete(request("three"))
            assert provider.processes() == []
            await gone(ours)


class Gate(Stranger):
    """The user's server while it comes up: it refuses the first request, holds the next until `open` and answers."""

    def __init__(self, answers: dict[str, Any], port: int) -> None:
        super().__init__(answers, port=port)
        self.open = asyncio.Event()
        self.is_holding = asyncio.Event()

    async def answered(self, path: str) -> bytes:
        if self.paths == ["/api/version"]:
            self.is_holding.set()
            await self.open.wait()
        elif not self.open.is_set():
            return b""
        return await super().answered(path)


async def test_ours_is_not_ended_under_a_chat_that_began_while_the_user_s_own_was_still_asked(world: World) -> None:
    async with ollama(world) as (subject, provider):
        await provider.complete(request("first"))
        ours = serve_process(provider)
        tags = {"models": [{"name": MODEL, "model": MODEL, "digest": "1"}]}
        answers = {"/api/version": {"version": "0.32.15"}, "/api/tags": tags, "/api/show": {}}
        async with Gate(answers, int(own_port(subject))) as gate:
            # This one waits for the user's server, while no chat uses ours ...
            looking = asyncio.create_task(provider.discover())
            await gate.is_holding.wait()
            # ... this one is told no and uses ours ...
            async with provider.complete_stream(request(HOLD)) as held:
                await begun(held)
                # ... and only now the first one is answered.
                gate.open.set()
                await looking
                assert ours.is_running()
                assert not is_gone(ours)
                assert len(provider.sessions) == 1


# When our server goes


async def test_a_server_killed_in_a_turn_is_told_with_its_last_words_and_the_next_chat_has_a_new_one(
    world: World,
) -> None:
    async with ollama(world, child=True) as (_, provider), provider.complete_stream(request(HOLD)) as stream:
        await begun(stream)
        killed = serve_process(provider)
        killed.send_signal(signal.SIGKILL)
        *_, last = await chunks_of(stream)
        assert isinstance(last, Failed)
        assert isinstance(last.error, ProcessExitedError)
        assert last.error.exit_code == -signal.SIGKILL
        assert "Listening on 127.0.0.1:" in str(last.error.stderr_tail)
        assert (await provider.complete(request("again"))).content == "again"
        assert serve_process(provider) != killed


async def test_a_server_that_crashes_in_a_turn_is_told_with_its_exit_code_and_last_words(world: World) -> None:
    async with ollama(world, fault="die_mid_chat") as (_, provider):
        chunks = await chunks_of(provider.complete_stream(request("hello world")))
        last = chunks[-1]
        assert isinstance(last, Failed)
        assert (last.error.kind, last.error.exit_code) == ("process_exited", 3)
        assert str(last.error.stderr_tail).endswith("panic: the fake is broken")


async def test_a_user_s_server_that_crashes_in_a_turn_is_a_broken_connection(world: World) -> None:
    async with ollama(world, fault="die_mid_chat") as (subject, provider):
        env = world.env | {"OLLAMA_HOST": subject.host, "FAKE_OLLAMA": json.dumps(subject.order)}
        process = await asyncio.create_subprocess_exec(subject.binary, "serve", env=env, stderr=asyncio.subprocess.PIPE)
        assert process.stderr is not None
        assert b"Listening" in await process.stderr.readline()
        last = (await chunks_of(provider.complete_stream(request("hello world"))))[-1]
        assert isinstance(last, Failed)
        assert last.error.kind == "network"
        assert await process.wait() == 3
        await process.communicate()


async def test_what_a_killed_server_has_started_leaves_with_it(world: World) -> None:
    async with ollama(world, child=True) as (_, provider):
        stream = provider.complete_stream(request(HOLD))
        await begun(stream)
        killed = serve_process(provider)
        [runner] = killed.children()
        killed.send_signal(signal.SIGKILL)
        assert (await chunks_of(stream))[-1].type == "error"
        # It holds the memory of the GPU: nobody asks for a chat again first.
        _, left = await asyncio.to_thread(psutil.wait_procs, [runner], timeout=5)
        assert left == []


async def test_a_session_whose_server_goes_between_turns_is_dead_and_says_so(world: World) -> None:
    async with ollama(world) as (_, provider):
        used, blank = await provider.open(), await provider.open()
        gone_now: list[str] = []
        used.when_dead, blank.when_dead = (lambda: gone_now.append("used")), (lambda: gone_now.append("blank"))
        await used.prepare(provider.session_options(request("hi")))
        await fold(used.turn(request("hi").conversation, provider.sampling(request("hi"))))
        assert used.state == "idle"
        serve_process(provider).send_signal(signal.SIGKILL)

        async def both() -> bool:
            return len(gone_now) == 2

        await until(both)
        assert {used.state, blank.state} == {"dead"}
        with pytest.raises(ProcessExitedError, match="SIGKILL"):
            await blank.prepare(provider.session_options(request("hi")))
        await used.aclose()
        await blank.aclose()
        assert len(gone_now) == 2


async def test_a_server_killed_between_two_chats_costs_the_next_one_nothing(world: World) -> None:
    async with ollama(world, child=True) as (_, provider):
        await provider.complete(request("one"))
        killed = serve_process(provider)
        [runner] = killed.children()
        killed.send_signal(signal.SIGKILL)
        await gone(killed)
        assert (await provider.complete(request("two"))).content == "two"
        assert serve_process(provider) != killed
        await gone(runner)


async def test_a_session_whose_server_is_gone_says_so_and_is_dead(world: World) -> None:
    async with ollama(world) as (_, provider):
        session = await provider.open()
        asked = request("Hi")
        await session.prepare(provider.session_options(asked))
        await fold(session.turn(asked.conversation, provider.sampling(asked)))
        killed = serve_process(provider)
        killed.send_signal(signal.SIGKILL)
        error = await failure_of(fold(session.turn(asked.conversation, provider.sampling(asked))))
        assert (error.kind, error.exit_code) == ("process_exited", -signal.SIGKILL)
        assert session.state == "dead"
        await session.aclose()


# What our server is given


SEEN = """
import json, os, pathlib, sys
seen = {{"env": dict(os.environ), "argv": sys.argv[1:], "cwd": os.getcwd(), "leads": os.getsid(0) == os.getpid()}}
pathlib.Path({path!r}).write_text(json.dumps(seen))
"""


async def test_our_server_sees_what_is_about_models_and_the_machine_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = {
        "OLLAMA_MODELS": str(world.root / "models"),
        "OLLAMA_CONTEXT_LENGTH": "8192",
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_KEEP_ALIVE": "1h",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    refused = {
        "OLLAMA_HOST": "127.0.0.1:1",
        "OLLAMA_API_KEY": "secret",
        "OLLAMA_ORIGINS": "*",
        "OLLAMA_DEBUG": "1",
        "OLLAMA_DEBUG_LOG_REQUESTS": "1",
        "ANTHROPIC_API_KEY": "secret",
        "LD_PRELOAD": "/nowhere.so",
        "FOO": "1",
    }
    for name, value in {**passed, **refused}.items():
        if name != "LD_PRELOAD":
            monkeypatch.setenv(name, value)
    subject = FakeOllama(world)
    path = world.root / "seen.json"
    begins_with(subject, SEEN.format(path=str(path)))
    provider = subject.made()
    await provider.complete(request("Hi"))
    await provider.aclose()
    seen = json.loads(path.read_text())
    env = seen["env"]
    assert seen["argv"] == ["serve"]
    assert seen["leads"]
    assert seen["cwd"].startswith(str(world.state))
    assert {name: env.get(name) for name in passed} == passed
    assert env["OLLAMA_NOPRUNE"] == "1"
    assert env["OLLAMA_HOST"].startswith("127.0.0.1:")
    assert env["OLLAMA_HOST"] != "127.0.0.1:1"
    assert env["HOME"] == str(world.home)
    assert not set(env) & (set(refused) - {"OLLAMA_HOST"})


async def test_the_entry_s_env_wins_over_the_daemon_s_but_not_over_our_address(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", "/theirs")
    subject = FakeOllama(world)
    env = {
        "HOME": str(world.home),
        "FAKE_OLLAMA": json.dumps(subject.order),
        "OLLAMA_MODELS": "/mine",
        "OLLAMA_HOST": "127.0.0.1:1",
    }
    provider = subject.made(env=env)
    assert (await provider.complete(request("Hi"))).content == "Hi"
    seen = serve_process(provider).environ()
    assert seen["OLLAMA_MODELS"] == "/mine"
    assert seen["OLLAMA_HOST"] != "127.0.0.1:1"
    await provider.aclose()


async def test_a_port_that_is_free_and_loopback_alone_is_served(world: World) -> None:
    async with ollama(world) as (_, provider):
        await provider.complete(request("Hi"))
        found = serve_process(provider).net_connections("tcp")
        listening = [connection.laddr for connection in found if connection.status == psutil.CONN_LISTEN]
        assert [address.ip for address in listening] == ["127.0.0.1"]


async def test_a_server_of_ours_that_is_stuck_is_replaced(world: World) -> None:
    subject = FakeOllama(world)
    assert (await subject.provider.complete(request("first"))).content == "first"
    [stuck] = subject.provider.processes()
    os.kill(stuck.pid, signal.SIGSTOP)
    assert (await subject.provider.complete(request("second"))).content == "second"
    [other] = subject.provider.processes()
    assert other.pid != stuck.pid
    await subject.provider.aclose()
