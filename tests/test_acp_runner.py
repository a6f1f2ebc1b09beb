"""What an ACP agent is lent, told and asked, and what a client sees when it misbehaves. A real child process."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psutil
import pytest

from runners import shared_process
from runners.errors import (
    AuthExpiredError,
    ContextOverflowError,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    NetworkError,
    NotAuthenticatedError,
    OverloadedError,
    ProcessExitedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestCancelledError,
    RunnerError,
    UnsupportedError,
    VendorError,
)
from runners.messages import ChatMessage, ChatRequest, Usage
from runners.providers.acp import agent as acp_agent
from runners.providers.acp.agents import Agents
from runners.providers.acp.conversation import AgentSession
from runners.providers.acp.events import AcpInbox, AcpTranslator
from runners.providers.acp.failures import failure
from runners.providers.acp.provider import AcpProvider
from runners.providers.acp.session import AcpSession
from runners.providers.acp.settings import AcpSettings
from runners.providers.acp.usage import counted
from runners.stream import ChatChunk, ChatStream, Done, Failed, Reasoning, Text, UsageReport, Warn, fold
from runners.testing import request
from runners.tools import ToolDefinition
from tests.fakes.fake_acp import LAST_WORDS
from tests.subjects.acp import FakeAgent
from tests.world import World, until

pytestmark = pytest.mark.usefixtures("no_leaks")

CLOSE_S = 10.0
PIXEL = {
    "type": "image",
    "media_type": "image/png",
    "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
}


async def told(provider: AcpProvider, text: str, **fields: Any) -> list[ChatChunk]:
    """All chunks of a chat; its provider is closed behind it."""
    try:
        async with asyncio.timeout(CLOSE_S * 6), provider.complete_stream(request(text, **fields)) as stream:
            return [chunk async for chunk in stream]
    finally:
        await provider.aclose()


def shown(chunks: list[ChatChunk]) -> str:
    return "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text))


def warnings(chunks: list[ChatChunk]) -> list[str]:
    return [chunk.message for chunk in chunks if isinstance(chunk, Warn)]


async def opened(stack: AsyncExitStack, provider: AcpProvider, system: str = "") -> AcpSession:
    """A prepared session; both are closed with the stack."""
    stack.push_async_callback(provider.aclose)
    session = await provider.open()
    stack.push_async_callback(session.aclose)
    await session.prepare(provider.session_options(asked("", system)))
    return session


def asked(text: str, system: str = "") -> ChatRequest:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return ChatRequest.model_validate({"messages": messages})


def turn(session: AcpSession, text: str) -> ChatStream:
    return session.turn([ChatMessage(role="user", content=text)], session.provider.sampling(asked(text)))


async def said(session: AcpSession, text: str) -> str:
    return (await fold(turn(session, text))).content


async def test_an_agent_is_told_that_there_is_nothing_to_borrow(world: World) -> None:
    subject = FakeAgent(world)
    await told(subject.provider, "hello")
    [initialize] = subject.logged("initialize")
    assert initialize["protocolVersion"] == 1
    nothing = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
    assert {name: initialize["clientCapabilities"].get(name) for name in nothing} == nothing
    [new] = subject.logged("session/new")
    assert new == {"cwd": str(subject.provider.directory("cwd")), "mcpServers": []}
    assert not subject.logged("authenticate")
    [prompt] = subject.logged("session/prompt")
    assert prompt["prompt"] == [{"type": "text", "text": "hello"}]


@pytest.mark.parametrize(
    ("kinds", "outcome"),
    [
        ("allow_always allow_once reject_once reject_always", '{"outcome": "selected", "optionId": "id-reject_once"}'),
        ("allow_once reject_always", '{"outcome": "cancelled"}'),
        ("", '{"outcome": "cancelled"}'),
    ],
)
async def test_leave_is_refused_this_once(world: World, kinds: str, outcome: str) -> None:
    chunks = await told(FakeAgent(world).provider, f"[leave] {kinds}")
    assert shown(chunks) == outcome
    assert warnings(chunks) == ["the agent asked for leave, and was refused: rm -rf /"]


@pytest.mark.parametrize("method", ["fs/read_text_file", "fs/write_text_file", "terminal/create", "never/heard_of"])
async def test_files_and_terminals_are_refused(world: World, method: str) -> None:
    assert shown(await told(FakeAgent(world).provider, f"[grab] {method}")) == "-32601"


async def test_each_tool_of_the_agents_own_is_said_once_and_is_no_call_of_the_clients(world: World) -> None:
    chunks = await told(FakeAgent(world).provider, "[tools]")
    assert shown(chunks) == "I look. Done."
    assert warnings(chunks) == [
        "the agent uses a tool of its own: ls",
        "the agent uses a tool of its own: cat x",
    ]
    assert isinstance(chunks[-1], Done)
    assert chunks[-1].stop_reason == "end_turn"


def test_what_an_agent_says_of_one_tool_does_not_pile_up_before_a_slow_client() -> None:
    inbox = AcpInbox()
    first = {"type": "tool_call_update", "toolCallId": "t1", "title": "ls", "status": "pending"}
    assert not inbox.joined({"type": "tool_call", "toolCallId": "t1"}, first)
    last = dict(first)
    assert inbox.joined(last, {"type": "tool_call_update", "toolCallId": "t1", "status": "completed"})
    assert last == first | {"status": "completed"}
    assert inbox.joined(last, {"type": "tool_call_update", "toolCallId": "t1", "title": None})
    assert last["title"] == "ls"
    assert not inbox.joined(last, {"type": "tool_call_update", "toolCallId": "t2"})
    chunk = {"type": "agent_message_chunk", "content": {"type": "text", "text": "a"}}
    assert inbox.joined(chunk, {"type": "agent_message_chunk", "content": {"type": "text", "text": "b"}})
    assert chunk["content"] == {"type": "text", "text": "ab"}
    others: list[dict[str, Any]] = [{"_meta": {"usage": {}}}, {"messageId": "m2"}, {"content": {"type": "image"}}]
    for other in others:
        assert not inbox.joined(
            chunk, {"type": "agent_message_chunk", "content": {"type": "text", "text": "c"}, **other}
        )


async def test_what_an_agents_tool_prints_is_not_kept_for_a_slow_client() -> None:
    inbox = AcpInbox()
    inbox.begin()
    for tool in ("t1", "t2"):
        output = {"content": [{}], "rawOutput": "x" * 1000}
        inbox.put({"type": "tool_call_update", "toolCallId": tool, "title": "ls", **output})
        assert await inbox.get() == {"type": "tool_call_update", "toolCallId": tool, "title": "ls"}


async def test_thoughts_are_reasoning(world: World) -> None:
    chunks = await told(FakeAgent(world).provider, "[think] so")
    assert "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Reasoning)) == "well then"
    assert shown(chunks) == "so"


@pytest.mark.parametrize(
    ("raw", "stop_reason"),
    [
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("max_turn_requests", "max_turn_requests"),
        ("cancelled", "cancelled"),
    ],
)
async def test_a_turn_that_ends_otherwise_says_how_and_is_told_to_a_new_session(
    world: World, raw: str, stop_reason: str
) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        async with turn(session, f"[stop] {raw}") as stream:
            *_, last = [chunk async for chunk in stream]
        assert last == Done(stop_reason, raw)
        is_said = raw != "cancelled"
        assert ("cut" in await said(session, "more")) == is_said
    assert len(subject.logged("session/new")) == 2


async def test_a_text_without_an_answer_is_an_empty_answer(world: World) -> None:
    chunks = await told(FakeAgent(world).provider, "[mute]")
    assert [chunk.type for chunk in chunks] == ["start", "usage", "done"]


async def test_usage_is_counted_as_everywhere(world: World) -> None:
    subject = FakeAgent(world)
    assert not subject.provider.capabilities().usage
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        for _ in range(2):
            # The cost is told of the whole session, the counts of a turn.
            async with turn(session, "hello") as stream:
                [report] = [chunk.usage async for chunk in stream if isinstance(chunk, UsageReport)]
            assert report == Usage(
                input_tokens=16, cached_input_tokens=5, output_tokens=10, reasoning_tokens=3, cost_usd=0.5
            )
    assert subject.provider.capabilities().usage


def test_usage_that_comes_with_the_calls_of_a_model_is_added_up() -> None:
    told = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}
    piece = {"type": "agent_message_chunk", "content": {"type": "text", "text": ""}, "_meta": {"usage": told}}
    translator = AcpTranslator("agent", "m", tools=[ToolDefinition(name="f")])
    for _ in range(2):
        translator.feed(piece)
    chunks = translator.feed({"type": "called", "id": "c1", "name": "f", "arguments": {}})
    assert [chunk.usage for chunk in chunks if isinstance(chunk, UsageReport)] == [
        Usage(input_tokens=22, output_tokens=14)
    ]
    assert translator.awaits == {"c1"}


async def test_a_conversation_that_moves_to_another_session_is_told_of_that_one(world: World) -> None:
    subject = FakeAgent(world, models="options")
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        await said(session, "one")
        messages = [ChatMessage(role="user", content=text) for text in ("two", "three")]
        answer = await fold(session.turn(messages, subject.provider.sampling(asked(""))))
        assert session.resent
        assert (answer.usage.cost_usd, answer.model) == (0.5, "small")
        async with turn(session, "[stop] max_tokens") as stream:
            assert [chunk async for chunk in stream][-1] == Done("length", "max_tokens")
        assert session.held is None
        answer = await fold(turn(session, "four"))
        assert (answer.usage.cost_usd, answer.model) == (0.5, "small")


def test_counts_that_are_parts_of_others_are_not_added() -> None:
    told = {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18, "cachedReadTokens": 5, "thoughtTokens": 3}
    assert counted(told) == Usage(input_tokens=11, cached_input_tokens=5, output_tokens=7, reasoning_tokens=3)
    assert counted({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}) is None
    assert counted({"outputTokens": 3}) is None


@pytest.mark.parametrize("usage", [None, {}, {"inputTokens": 0, "outputTokens": 0}])
async def test_an_agent_that_tells_no_usage_claims_none(world: World, usage: Any) -> None:
    subject = FakeAgent(world, usage=usage)
    assert "usage" not in [chunk.type for chunk in await told(subject.provider, "hello")]
    assert not subject.provider.capabilities().usage


async def test_a_follow_up_goes_to_the_session_that_holds_the_conversation(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider, "Be brief.")
        assert await said(session, "one") == "<instructions>\nBe brief.\n</instructions>\n\none"
        assert await said(session, "two") == "two"
        assert not session.resent
    assert len(subject.logged("session/new")) == 1


async def test_a_conversation_that_is_known_only_to_us_is_told_as_one_text(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        past = [("user", "one"), ("assistant", "two"), ("user", "three")]
        messages = [ChatMessage(role=role, content=text) for role, text in past]  # type: ignore[arg-type]
        answer = await fold(session.turn(messages, subject.provider.sampling(asked(""))))
    assert answer.content == (
        "<conversation_so_far>\n<user>\none\n</user>\n<assistant>\ntwo\n</assistant>\n</conversation_so_far>\n\nthree"
    )


async def test_a_turn_that_was_left_is_no_part_of_the_conversation(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        await said(session, "one")
        async with turn(session, "[hold]") as stream:
            while not isinstance(await anext(stream), Text):
                pass
        assert session.state == "idle"
        answer = await said(session, "two")
        assert ("one" in answer, "hold" in answer) == (True, False)
        assert session.resent
    assert len(subject.logged("session/cancel")) == 1
    assert len(subject.logged("session/close")) == 2


async def test_conversations_share_one_process_and_do_not_meet(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        held = await opened(stack, subject.provider)
        other = await opened(stack, subject.provider)
        async with turn(held, "[hold]") as stream:
            while not isinstance(await anext(stream), Text):
                pass
            assert await said(other, "hello") == "hello"
            assert [process.sessions for process in subject.provider.processes()] == [2]
            await held.interrupt()
            *_, last = [chunk async for chunk in stream]
        assert last == Done("cancelled", "cancelled")
        assert await said(other, "again") == "again"
    assert len(subject.logged("initialize")) == 1


async def test_an_interrupt_before_any_sign_of_an_answer_raises(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        stream = turn(session, "[wait]")
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)  # its first step: the prompt is on its way, and not yet written
        assert session.state == "busy"
        await session.interrupt()
        with pytest.raises(RequestCancelledError):
            await waiting
        assert await said(session, "again") == "again"


# Models


@pytest.mark.parametrize("form", ["options", "legacy"])
async def test_the_agents_own_models_are_listed_and_chosen(world: World, form: str) -> None:
    subject = FakeAgent(world, models=form)
    await subject.provider.health_check()
    assert [info.model for info in subject.provider.available_models()] == ["small", "large"]
    answer = await subject.provider.complete(request("hello"))
    assert answer.model == "small"
    answer = await subject.provider.with_model("large").complete(request("hello"))
    assert answer.model == "large"
    [chosen] = subject.logged("session/set_model" if form == "legacy" else "session/set_config_option")
    assert (chosen.get("modelId") or chosen.get("value")) == "large"
    with pytest.raises(ModelNotFoundError, match="it lists small, large"):
        await subject.provider.with_model("huge").complete(request("hello"))


async def test_of_an_agent_that_lists_no_models_the_entrys_own_is_a_name(world: World) -> None:
    subject = FakeAgent(world)
    provider = subject.made(model="mine")
    assert (await provider.complete(request("hello"))).model == "mine"
    with pytest.raises(ModelNotFoundError, match="lets nobody choose"):
        await provider.with_model("other").complete(request("hello"))


# What it takes


async def test_images_follow_the_text(world: World) -> None:
    subject = FakeAgent(world)
    wanted = ChatRequest.model_validate(
        {"messages": [{"role": "user", "content": [PIXEL, {"type": "text", "text": "look"}]}]}
    )
    answer = await subject.provider.complete(wanted)
    assert answer.warnings == ["the agent is shown the images behind all text"]
    [prompt] = subject.logged("session/prompt")
    assert prompt["prompt"] == [
        {"type": "text", "text": "look"},
        {"type": "image", "data": PIXEL["data"], "mimeType": "image/png"},
    ]


async def test_an_agent_that_takes_no_images_is_sent_none(world: World) -> None:
    subject = FakeAgent(world, say={"agentCapabilities": {}})
    wanted = ChatRequest.model_validate({"messages": [{"role": "user", "content": [PIXEL]}]})
    with pytest.raises(UnsupportedError, match="takes no images"):
        await subject.provider.complete(wanted)
    await subject.provider.aclose()


async def test_what_may_be_a_command_of_the_agents_is_warned_of(world: World) -> None:
    chunks = await told(FakeAgent(world).provider, " /help")
    assert warnings(chunks) == ["the agent may take what begins with `/` for a command of its own"]
    assert shown(chunks) == " /help"


def test_an_entry_says_that_its_agent_may_act_and_which_it_is() -> None:
    for wrong in ({"binary": "x"}, {"agent": True}, {"binary": "x", "agent": True, "temperature": 1}):
        with pytest.raises(ValueError, match=r"agent|binary|temperature"):
            AcpSettings.model_validate(wrong)


# Health and login


async def test_a_probe_asks_no_model(world: World) -> None:
    subject = FakeAgent(world)
    health = await subject.provider.health_check()
    assert (health.state, health.version, health.detail) == ("ready", "1.2.3", "Fake Agent 1.2.3")
    assert health.authenticated is None
    assert subject.logged("session/new")
    assert not subject.logged("session/prompt")


async def test_an_agent_without_a_login_says_what_mends_it(world: World) -> None:
    subject = FakeAgent(world, session={"code": -32000, "message": "Authentication required"})
    health = await subject.provider.health_check()
    assert (health.state, health.reason, health.authenticated) == ("unavailable", "not_authenticated", False)
    assert health.hint == "log in with the agent's own program: Set FAKE_KEY"
    with pytest.raises(NotAuthenticatedError) as raised:
        await subject.provider.complete(request("hello"))
    assert raised.value.hint == health.hint


async def test_an_agent_that_finds_out_late_says_it_too(world: World) -> None:
    with pytest.raises(NotAuthenticatedError) as raised:
        await told(FakeAgent(world).provider, '[fail] {"code": -32000, "message": "Authentication required"}')
    assert raised.value.hint == "log in with the agent's own program: Set FAKE_KEY"


async def test_what_an_agent_says_of_itself_in_a_wrong_form_it_has_not_said(world: World) -> None:
    wrong = {"promptCapabilities": 7, "mcpCapabilities": [], "sessionCapabilities": "x", "novel": {}}
    provider = FakeAgent(world, say={"agentCapabilities": wrong, "agentInfo": {}, "authMethods": [{"id": 5}]}).provider
    assert (await provider.complete(request("hello"))).content == "hello"
    able = provider.capabilities()
    assert (able.images, able.tools) == (False, False)
    assert (await provider.health_check()).version


async def test_an_agent_of_another_protocol_is_not_used(world: World) -> None:
    with pytest.raises(ProtocolError, match="speaks ACP 7"):
        await FakeAgent(world, say={"protocolVersion": 7}).provider.complete(request("hello"))


# How it fails


@pytest.mark.parametrize(
    ("code", "message", "data", "kind"),
    [
        (-32000, "Authentication required", None, NotAuthenticatedError),
        (-32601, "Method not found", None, ProtocolError),
        (-32602, "no such thing", None, InvalidRequestError),
        (401, "API key not valid", None, AuthExpiredError),
        (429, "Resource exhausted", None, RateLimitedError),
        (503, "try later", None, OverloadedError),
        (500, "terminated", None, NetworkError),
        (-32603, "Internal error", {"details": "rate limit exceeded"}, RateLimitedError),
        (-32603, "Internal error: Incorrect API key provided: dummy.", {"service": "session"}, AuthExpiredError),
        (-32603, "Internal error: API Error: 529 overloaded", None, OverloadedError),
        (-32603, "Internal error: API Error: 400 prompt is too long", None, ContextOverflowError),
        (-32603, "You exceeded your current quota", {"statusCode": 429}, QuotaExhaustedError),
        (-32603, "Internal error", {"statusCode": 404}, ModelNotFoundError),
        (-32603, "Internal error", "something else", VendorError),
        (-32603, "", None, VendorError),
    ],
)
def test_an_agents_words_for_a_failure(code: int, message: str, data: Any, kind: type[RunnerError]) -> None:
    error = failure(code, message, data)
    assert type(error) is kind
    assert error.message


async def test_a_failure_before_the_answer_raises_and_behind_its_begin_ends_it(world: World) -> None:
    overloaded = '{"code": 529, "message": "overloaded"}'
    with pytest.raises(OverloadedError):
        await told(FakeAgent(world).provider, f"[fail] {overloaded}")
    chunks = await told(FakeAgent(world).provider, f"[fail-midway] {overloaded}")
    assert shown(chunks) == "first"
    assert isinstance(chunks[-1], Failed)
    assert isinstance(chunks[-1].error, OverloadedError)


async def test_an_agent_that_dies_in_its_answer_ends_it_and_another_serves_the_next(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        async with turn(session, "[die]") as stream:
            *_, last = [chunk async for chunk in stream]
        assert isinstance(last, Failed)
        assert isinstance(last.error, ProcessExitedError)
        assert (last.error.exit_code, last.error.stderr_tail) == (3, LAST_WORDS.strip())
        assert session.state == "dead"
        assert (await subject.provider.complete(request("hello"))).content == "hello"


async def test_a_session_that_rests_in_an_agent_that_dies_is_dead(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        gone = asyncio.Event()
        session.when_dead = gone.set
        assert session.process is not None
        psutil.Process(session.process.pid).kill()
        async with asyncio.timeout(CLOSE_S):
            await gone.wait()
        assert session.state == "dead"


@pytest.mark.parametrize("when", ["initialize", "session"])
async def test_an_agent_that_dies_at_its_start_says_its_last_words(world: World, when: str) -> None:
    subject = FakeAgent(world, **{when: "die"})
    with pytest.raises(ProcessExitedError) as raised:
        await subject.provider.complete(request("hello"))
    assert raised.value.stderr_tail == LAST_WORDS.strip()
    await subject.provider.aclose()


@pytest.mark.parametrize("when", ["initialize", "session"])
async def test_an_agent_that_hangs_at_its_start_is_given_up(world: World, when: str) -> None:
    subject = FakeAgent(world, **{when: "hang"})
    provider = subject.made(timeouts={"spawn_s": 0.5})
    with pytest.raises(DeadlineExceededError) as raised:
        await provider.complete(request("hello"))
    assert raised.value.deadline == "spawn_s"
    await provider.aclose()


async def test_an_agent_that_no_longer_opens_sessions_is_left_to_those_that_it_has(world: World) -> None:
    subject = FakeAgent(world, most_sessions=1)
    provider = subject.made(timeouts={"spawn_s": 4})
    async with AsyncExitStack() as stack:
        kept = await opened(stack, provider)
        with pytest.raises(DeadlineExceededError):
            await provider.open()
        assert kept.state == "dead"
        assert (await provider.complete(request("hello"))).content == "hello"
    assert len(subject.logged("initialize")) == 2


async def test_an_agent_that_says_nothing_meets_the_deadline(world: World) -> None:
    provider = FakeAgent(world).made(timeouts={"silence_s": 0.5})
    with pytest.raises(DeadlineExceededError) as raised:
        await told(provider, "[silence]")
    assert raised.value.deadline == "silence_s"


@pytest.mark.parametrize("ignores", [["eof", "term"], ["eof", "term", "cancel"]])
async def test_an_agent_that_ignores_all_is_ended_all_the_same(
    world: World, ignores: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_process, "_CLEAN_UP_S", 0.2)
    provider = FakeAgent(world, ignores=ignores).provider
    stream = provider.complete_stream(request("[hold]"))
    while not isinstance(await anext(stream), Text):
        pass
    async with asyncio.timeout(CLOSE_S):
        await stream.aclose()
        await provider.aclose()


async def test_a_deaf_agent_is_left_to_those_that_it_still_serves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_process, "_CLEAN_UP_S", 0.2)
    subject = FakeAgent(world, ignores=["cancel"])
    async with AsyncExitStack() as stack:
        deaf, other = await opened(stack, subject.provider), await opened(stack, subject.provider)
        left, kept = turn(deaf, "[hold]"), turn(other, "[hold]")
        for stream in (left, kept):
            while not isinstance(await anext(stream), Text):
                pass
        retired = asyncio.Event()
        deaf.host.when_retired.add(retired.set)
        await left.aclose()
        async with asyncio.timeout(CLOSE_S):
            await retired.wait()
        assert other.state == "busy"
        assert (await subject.provider.complete(request("elsewhere"))).content == "elsewhere"
    assert len(subject.logged("initialize")) == 2


async def test_an_opening_that_is_given_up_leaves_no_session(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = FakeAgent(world)
    await subject.provider.discover()
    waits = asyncio.Event()

    async def never(_agents: Agents) -> None:
        waits.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Agents, "let_go", never)  # an agent that was held for others takes its time to end
        opening = asyncio.create_task(subject.provider.open())
        async with asyncio.timeout(CLOSE_S):
            await waits.wait()
        opening.cancel()
        await asyncio.wait([opening])
    assert not subject.provider.sessions
    await subject.provider.aclose()


async def test_an_agent_that_closes_no_session_is_replaced_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acp_agent, "_MOST_SPENT", 3)
    subject = FakeAgent(world, say={"agentCapabilities": {}})
    async with AsyncExitStack() as stack:
        stack.push_async_callback(subject.provider.aclose)
        kept = await subject.provider.open()
        stack.push_async_callback(kept.aclose)
        for _ in range(4):
            await subject.provider.complete(request("hello"))
    assert len(subject.logged("initialize")) == 2
    assert not subject.logged("session/close")


async def test_what_is_no_message_or_nobodys_is_skipped(world: World) -> None:
    assert shown(await told(FakeAgent(world).provider, "[garble] well")) == "well"


async def test_a_bug_in_a_farewell_keeps_no_agent_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_session: AgentSession) -> None:
        raise AttributeError("a bug")

    monkeypatch.setattr(AgentSession, "end", broken)
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        assert await said(session, "hello") == "hello"
        await session.aclose()
        assert not world.processes()


async def test_a_loading_that_is_given_up_leaves_no_session(world: World) -> None:
    subject = FakeAgent(world, session_s=0.3)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject.provider)
        loading = asyncio.create_task(session.begun(session.host.loaded_session("past", messages=1)))

        async def is_asked() -> bool:
            return bool(subject.logged("session/load"))

        await until(is_asked)
        loading.cancel()
        await asyncio.wait([loading])
        await session.aclose()
        assert {"sessionId": "past"} in subject.logged("session/close")
