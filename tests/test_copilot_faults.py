"""What a client of the library sees when copilot misbehaves, and that nothing is left behind. Real child processes."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from runners import shared_process
from runners.errors import (
    ContextOverflowError,
    DeadlineExceededError,
    NetworkError,
    NotAuthenticatedError,
    ProcessExitedError,
    ProtocolError,
    RequestCancelledError,
    RunnerError,
    UnsupportedError,
)
from runners.messages import ChatRequest
from runners.provider import LlmProvider, Session
from runners.providers.copilot.inbox import CopilotInbox
from runners.providers.copilot.provider import CopilotProvider
from runners.providers.copilot.session import CopilotSession
from runners.stream import ChatChunk, ChatStream, Done, Failed, Start, Text, fold
from runners.testing import request
from tests.subjects.copilot import ONE_SHOT_VERSION, TRANSCRIPTS, ReplayedCopilot
from tests.subjects.on_api import HOLD
from tests.world import World, until

pytestmark = pytest.mark.usefixtures("no_leaks")

CLOSE_S = 10.0
TEXT = "hello world"
FIRST = "hello w"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CLI has half a second, and not ten, to end a session before it is killed."""
    monkeypatch.setattr(shared_process, "_CLEAN_UP_S", 0.5)


def well(text: str = TEXT) -> ChatRequest:
    """A request that the fake serves without its fault."""
    messages = [{"role": "system", "content": "[well]"}, {"role": "user", "content": text}]
    return ChatRequest.model_validate({"messages": messages})


def headless(world: World, fault: str, **settings: Any) -> CopilotProvider:
    subject = ReplayedCopilot(world, fault=fault)
    return subject.made(str(subject.fake), **settings)


async def begun(
    provider: LlmProvider, asked: ChatRequest, session: Session | None = None
) -> tuple[Session, ChatStream]:
    """A session, a new one unless one is given, and the stream of a turn on it."""
    session = session or await provider.open()
    await session.prepare(provider.session_options(asked))
    return session, session.turn(asked.conversation, provider.sampling(asked))


async def chunks_of(stream: ChatStream) -> list[ChatChunk]:
    async with stream:
        return [chunk async for chunk in stream]


async def read_until_text(stream: ChatStream) -> None:
    while not isinstance(await anext(stream), Text):
        pass


def shown(chunks: list[ChatChunk]) -> str:
    return "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text))


async def broken_off(provider: LlmProvider, text: str = TEXT) -> RunnerError:
    """The error of a chat that breaks off behind its first delta, which must have been delivered once."""
    chunks = await chunks_of(provider.complete_stream(request(text)))
    assert isinstance(chunks[0], Start)
    assert shown(chunks) == FIRST
    last = chunks[-1]
    assert isinstance(last, Failed)
    return last.error


async def answers(session: Session, provider: LlmProvider, text: str = "still here") -> bool:
    """Whether a session, a prepared one or a blank one, answers."""
    asked = well(text)
    if not session.turns:
        await session.prepare(provider.session_options(asked))
    return (await fold(session.turn(asked.conversation, provider.sampling(asked)))).content == text


@contextlib.asynccontextmanager
async def neighbour(provider: LlmProvider) -> AsyncIterator[Session]:
    """Another session in the same process, which must live on when its body has ended."""
    session = await provider.open()
    try:
        pid = session.process and session.process.pid
        yield session
        assert await answers(session, provider)
        assert session.state == "idle"
        assert await answers(session, provider, "and again")
        assert {process.pid for process in provider.processes()} == {pid}
    finally:
        async with asyncio.timeout(CLOSE_S):
            await session.aclose()


def left_on_disk(provider: LlmProvider) -> list[str]:
    return [path.name for name in ("conversations", "tmp") for path in provider.directory(name).iterdir()]


def received(subject: ReplayedCopilot, method: str) -> list[dict[str, Any]]:
    return [message["params"] for message in subject.logged("received") if message.get("method") == method]


# Before the answer


@pytest.mark.parametrize("fault", ["hang", "exit_at_once"])
async def test_a_server_that_does_not_connect_is_said_in_time_and_gone(world: World, fault: str) -> None:
    provider = headless(world, fault, timeouts={"spawn_s": 1})
    with pytest.raises(RunnerError) as caught:
        await provider.complete(request(TEXT))
    if fault == "hang":
        assert isinstance(caught.value, DeadlineExceededError)
        assert caught.value.deadline == "spawn_s"
    else:
        assert isinstance(caught.value, ProcessExitedError)
        assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "fatal: the fake is broken")
    assert not world.processes()
    assert not left_on_disk(provider)


async def test_a_cli_that_exits_before_its_answer_gives_its_exit_code_and_last_words(world: World) -> None:
    provider = headless(world, "exit_before")
    with pytest.raises(ProcessExitedError, match="exited with code 3") as caught:
        await provider.complete(request(TEXT))
    assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "fatal: the fake is broken")
    assert (await provider.complete(well())).content == TEXT
    assert not left_on_disk(provider)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("fault", "system"), [("deaf_to_begin", ""), ("deaf", "x" * 5_000_000)])
async def test_a_server_that_does_not_take_a_turn_meets_a_deadline_and_is_replaced(
    world: World, fault: str, system: str
) -> None:
    provider = headless(world, fault, timeouts={"first_chunk_s": 1})
    messages = [{"role": "system", "content": system}, {"role": "user", "content": TEXT}]
    async with asyncio.timeout(CLOSE_S):
        # What is more than a pipe holds stays in it.
        with pytest.raises(DeadlineExceededError, match="first_chunk_s"):
            await provider.complete(ChatRequest.model_validate({"messages": messages}))
    assert not world.processes()
    assert not left_on_disk(provider)
    if fault != "deaf":
        assert (await provider.complete(well())).content == TEXT


# In the answer


@pytest.mark.parametrize(("fault", "code"), [("exit_mid", 3), ("half_frame", 0)])
async def test_a_server_that_exits_in_an_answer_breaks_it_off_and_a_new_one_is_started(
    world: World, fault: str, code: int
) -> None:
    provider = headless(world, fault)
    other = await provider.open()
    error = await broken_off(provider)
    assert (error.kind, error.exit_code) == ("process_exited", code)
    assert error.stderr_tail == ("fatal: the fake is broken" if code else None)
    # Who shares the process is told the same, and the next conversation has another.
    with pytest.raises(ProcessExitedError):
        await answers(other, provider)
    assert other.state == "dead"
    assert (await provider.complete(well())).content == TEXT
    await other.aclose()
    assert not left_on_disk(provider)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("deadline", ["silence_s", "turn_s"])
async def test_a_server_that_falls_silent_in_an_answer_meets_a_named_deadline_and_is_killed(
    world: World, deadline: str
) -> None:
    provider = headless(world, "silent", timeouts={deadline: 1})
    async with asyncio.timeout(CLOSE_S):
        error = await broken_off(provider)
    assert isinstance(error, DeadlineExceededError)
    assert error.deadline == deadline
    assert not world.processes()
    assert (await provider.complete(well())).content == TEXT


@pytest.mark.parametrize("fault", ["garbage", "novelty", "stderr_flood", "asks"])
async def test_what_is_no_part_of_an_answer_is_passed_over(world: World, fault: str) -> None:
    before = psutil.Process().memory_info().rss
    provider = headless(world, fault)
    async with neighbour(provider):
        chunks = await chunks_of(provider.complete_stream(request(TEXT)))
        assert shown(chunks) == TEXT
        assert isinstance(chunks[-1], Done)
    assert psutil.Process().memory_info().rss - before < 20 * 1024 * 1024


async def test_a_request_of_the_cli_that_nobody_knows_is_refused(world: World) -> None:
    subject = ReplayedCopilot(world, fault="asks")
    assert (await subject.provider.complete(request(TEXT))).content == TEXT
    refused = [message["error"]["code"] for message in subject.logged("received") if "error" in message]
    assert refused == [-32601]


async def test_a_frame_over_the_cap_is_an_error_and_no_memory(world: World) -> None:
    before = psutil.Process().memory_info().rss
    provider = headless(world, "huge_frame")
    assert (await broken_off(provider)).kind == "line_too_long"
    assert psutil.Process().memory_info().rss - before < 200 * 1024 * 1024
    assert (await provider.complete(well())).content == TEXT


async def test_a_text_that_begins_anew_is_an_error_and_never_comes_twice(world: World) -> None:
    subject = ReplayedCopilot(world, fault="retried_text")
    provider = subject.provider
    async with neighbour(provider):
        assert isinstance(await broken_off(provider), NetworkError)
        # The CLI is told to stop: else it would go on calling the model.
        assert len(received(subject, "session.abort")) == 1


async def test_a_failed_turn_leaves_the_conversation_as_it_was(world: World) -> None:
    subject = ReplayedCopilot(world, fault="retried_text")
    session, stream = await begun(subject.provider, request("the first"))
    assert isinstance((await chunks_of(stream))[-1], Failed)
    assert session.state == "idle"
    _, stream = await begun(subject.provider, well("the second"), session)
    assert (await fold(stream)).content == "the second"
    assert [message["content"] for message in subject.logged("api")[-1]["messages"]] == ["[well]", "the second"]
    await session.aclose()


async def test_what_deltas_left_out_comes_with_the_whole_message(world: World) -> None:
    chunks = await chunks_of(headless(world, "tail_lost").complete_stream(request(TEXT)))
    assert [chunk.chunk for chunk in chunks if isinstance(chunk, Text)] == [FIRST, TEXT[len(FIRST) :]]
    assert isinstance(chunks[-1], Done)


async def test_a_text_whose_middle_was_lost_comes_with_the_whole_message(world: World) -> None:
    provider = headless(world, "delta_lost")
    async with neighbour(provider):
        answer = "hello world, hello all of you"
        assert shown(await chunks_of(provider.complete_stream(request(answer)))) == answer


async def test_a_server_that_exits_behind_a_whole_answer_has_answered(world: World) -> None:
    provider = headless(world, "exit_after")
    session, stream = await begun(provider, request(TEXT))
    assert (await fold(stream)).content == TEXT
    await session.aclose()
    assert (await provider.complete(well())).content == TEXT


async def test_a_server_that_ignores_sigterm_is_killed(world: World) -> None:
    provider = headless(world, "ignore_term")
    async with asyncio.timeout(CLOSE_S):
        assert (await provider.complete(request(TEXT))).content == TEXT
    assert not world.processes()


# What a client does


@pytest.mark.usefixtures("hasty")
async def test_a_server_that_is_deaf_to_a_cancel_is_killed_and_replaced(world: World) -> None:
    provider = headless(world, "deaf_to_abort")
    session, stream = await begun(provider, request(HOLD))
    await read_until_text(stream)
    async with asyncio.timeout(CLOSE_S):
        await stream.aclose()
        await session.aclose()
    assert not world.processes()
    assert not left_on_disk(provider)
    assert (await provider.complete(well())).content == TEXT


async def test_a_cancel_ends_its_own_turn_alone(world: World) -> None:
    subject = ReplayedCopilot(world)
    provider = subject.provider
    async with neighbour(provider):
        session, stream = await begun(provider, request(HOLD))
        await read_until_text(stream)
        async with asyncio.timeout(CLOSE_S):
            await stream.aclose()
            assert session.state == "idle"
            await session.aclose()
        assert [len(received(subject, method)) for method in ("session.abort", "session.destroy")] == [1, 1]
    assert not left_on_disk(provider)


async def test_a_send_that_is_refused_ends_no_other_conversation(world: World) -> None:
    provider = headless(world, "")
    shape = {"type": "json_schema", "json_schema": {"name": 5, "schema": {"type": "object"}}}
    async with neighbour(provider):
        with pytest.raises(ProtocolError, match="invalid type"):
            async with asyncio.timeout(CLOSE_S / 2):
                await provider.complete(request(TEXT, response_format=shape))


@pytest.mark.parametrize("fault", ["slow_begin", "slow_send"])
async def test_a_cancel_while_a_turn_begins_ends_no_other_conversation(world: World, fault: str) -> None:
    subject = ReplayedCopilot(world, fault=fault)
    provider = subject.provider
    method = "session.create" if fault == "slow_begin" else "session.sendMessages"
    async with neighbour(provider):
        session, stream = await begun(provider, request(TEXT))
        reader = asyncio.create_task(chunks_of(stream))
        await until(lambda: _true(received(subject, method)))
        async with asyncio.timeout(CLOSE_S / 2):
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            await session.aclose()
        assert reader.cancelled()
    # A call of the model would be paid for, and nobody reads it.
    if fault == "slow_begin":
        assert len(received(subject, "session.sendMessages")) == 2
    assert [body["messages"][-1]["content"] for body in subject.logged("api")] == ["still here", "and again"]
    assert not left_on_disk(provider)


@pytest.mark.parametrize("fault", ["slow_begin", "slow_send"])
async def test_an_interrupt_while_a_turn_begins_ends_it_as_cancelled(world: World, fault: str) -> None:
    subject = ReplayedCopilot(world, fault=fault)
    provider = subject.provider
    method = "session.create" if fault == "slow_begin" else "session.sendMessages"
    async with neighbour(provider):
        session, stream = await begun(provider, request(HOLD))
        reader = asyncio.create_task(chunks_of(stream))
        await until(lambda: _true(received(subject, method)))
        async with asyncio.timeout(CLOSE_S / 2):
            await session.interrupt()
            try:
                *_, last = await reader
                assert isinstance(last, Done)
                assert last.stop_reason == "cancelled"
            except RequestCancelledError:
                pass  # it had not begun
            assert session.state == "idle"
            await session.aclose()


async def _true(found: list[Any]) -> bool:
    return bool(found)


@pytest.mark.parametrize("order", [{}, {"version": ONE_SHOT_VERSION}], ids=["headless", "one-shot"])
async def test_a_session_can_be_closed_at_any_moment_of_its_turn(world: World, order: dict[str, str]) -> None:
    provider = ReplayedCopilot(world, **order).provider
    for steps in range(24):
        session, stream = await begun(provider, request(HOLD))
        reader = asyncio.create_task(chunks_of(stream))
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(CLOSE_S):
            await session.aclose()
            with contextlib.suppress(RunnerError):
                assert isinstance((await reader)[-1], Failed)
        assert session.state == "dead"
        assert not provider.sessions
        assert not world.processes(), f"closed after {steps} steps"
    assert not left_on_disk(provider)


async def test_a_turn_whose_client_does_not_read_ends_in_time_too(world: World) -> None:
    subject = ReplayedCopilot(world)
    provider = subject.made(str(subject.fake), timeouts={"turn_s": 1})
    session, stream = await begun(provider, request(HOLD))
    await read_until_text(stream)
    await until(lambda: _true(received(subject, "session.destroy")))
    assert session.state == "idle"
    *_, last = await chunks_of(stream)
    assert isinstance(last, Failed)
    assert isinstance(last.error, DeadlineExceededError)
    await session.aclose()


# Several conversations in one process


async def test_a_slow_reader_does_not_stop_another_conversation(world: World) -> None:
    provider = headless(world, "")
    long = "hello world " * 12_000
    slow, stream = await begun(provider, request(long))
    assert isinstance(await anext(stream), Start)
    async with neighbour(provider):
        pass
    assert shown(await chunks_of(stream)) == long
    await slow.aclose()


async def test_deltas_that_nobody_reads_are_held_as_one_text() -> None:
    inbox = CopilotInbox()
    inbox.begin()
    count = 10_000
    for number in range(1, count + 1):
        # As the CLI tells them: what it has received so far, and the delta.
        inbox.put({"type": "assistant.streaming_delta", "data": {"totalResponseSizeBytes": 5 * number}})
        inbox.put({"type": "assistant.message_delta", "data": {"messageId": "m", "deltaContent": "word "}})
    inbox.put({"type": "session.idle"})
    held = [await inbox.get()]
    while held[-1]["type"] != "session.idle":
        held.append(await inbox.get())
    pieces = [event["data"]["deltaContent"] for event in held if event["type"] == "assistant.message_delta"]
    assert "".join(pieces) == "word " * count
    assert len(held) < count / 100


async def test_a_sign_of_life_without_content_counts_against_silence() -> None:
    inbox = CopilotInbox()
    inbox.begin()
    inbox.put({"type": "assistant.streaming_delta", "data": {"totalResponseSizeBytes": 3}})
    async with asyncio.timeout(CLOSE_S):
        assert (await inbox.get())["type"] == "assistant.streaming_delta"


async def test_deltas_of_two_messages_are_not_joined() -> None:
    inbox = CopilotInbox()
    inbox.begin()
    for kind, name, owner in [
        ("assistant.reasoning_delta", "reasoningId", "r"),
        ("assistant.message_delta", "messageId", "m"),
        ("assistant.message_delta", "messageId", "n"),
    ]:
        for piece in ("a", "b"):
            inbox.put({"type": kind, "data": {name: owner, "deltaContent": piece}})
    held = [await inbox.get() for _ in range(3)]
    assert [event["data"]["deltaContent"] for event in held] == ["ab", "ab", "ab"]


async def test_sessions_that_open_at_once_share_one_process_which_ends_with_the_last(world: World) -> None:
    subject = ReplayedCopilot(world, fault="slow_connect")
    provider = subject.provider
    sessions = await asyncio.gather(*(provider.open() for _ in range(8)))
    (process,) = provider.processes()
    assert process.sessions == 8
    assert all(await asyncio.gather(*(answers(session, provider, str(n)) for n, session in enumerate(sessions))))
    last = sessions.pop()
    await asyncio.gather(*(session.aclose() for session in sessions))
    assert [found.pid for found in world.processes()] == [process.pid]
    assert await answers(last, provider)
    await last.aclose()
    assert not world.processes()
    assert len([argv for argv in subject.logged("argv") if "--headless" in argv]) == 1


async def test_a_start_that_is_cancelled_leaves_nothing_and_who_waits_for_it_is_served(world: World) -> None:
    subject = ReplayedCopilot(world, fault="slow_connect")
    provider = subject.provider
    await provider.discover()
    first = asyncio.create_task(provider.open())
    second = asyncio.create_task(provider.open())
    await until(lambda: _true([argv for argv in subject.logged("argv") if "--headless" in argv]))
    first.cancel()
    async with asyncio.timeout(CLOSE_S):
        session = await second
    assert first.cancelled()
    assert await answers(session, provider)
    assert len(world.processes()) == len(provider.processes()) == 1
    await session.aclose()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", ["", "deaf_to_abort", "silent", "ignore_term", "slow_begin", "slow_send"])
async def test_closing_the_provider_in_the_middle_of_everything_is_bounded(world: World, fault: str) -> None:
    provider = headless(world, fault)
    streams = [(await begun(provider, request(HOLD)))[1] for _ in range(3)]
    await provider.open()
    readers = [asyncio.create_task(chunks_of(stream)) for stream in streams]
    if not fault.startswith("slow"):
        await until(lambda: _true([s for s in provider.sessions if s.turns]))
    async with asyncio.timeout(CLOSE_S):
        await asyncio.gather(provider.aclose(), provider.aclose())
        ends = await asyncio.gather(*readers, return_exceptions=True)
    for end in ends:
        assert isinstance(end, RunnerError) or (isinstance(end, list) and isinstance(end[-1], Failed))
    assert not world.processes()
    assert not left_on_disk(provider)


# Health


async def test_a_login_is_told_with_its_models(world: World) -> None:
    subject = ReplayedCopilot(world)
    provider = subject.made(str(subject.fake), is_byok=False)
    health = await provider.health_check()
    assert (health.state, health.authenticated, health.version) == ("ready", True, "1.0.102")
    assert "octocat" in str(health.detail)
    assert [(m.model, m.context_window, m.images) for m in provider.available_models()] == [("gpt-x", 128_000, True)]


async def test_a_logged_out_cli_is_unavailable_with_what_mends_it(world: World) -> None:
    subject = ReplayedCopilot(world, logged_in=False, transcript=str(TRANSCRIPTS / "headless-byok-env.jsonl"))
    provider = subject.made(str(subject.fake), is_byok=False)
    health = await provider.health_check()
    assert (health.ok, health.reason, health.authenticated) == (False, "not_authenticated", False)
    assert health.hint == "copilot login"
    assert health.version == "1.0.102"
    with pytest.raises(NotAuthenticatedError) as caught:
        await provider.complete(request(TEXT))
    assert caught.value.hint == "copilot login"


async def test_another_program_of_that_name_is_not_copilot(world: World) -> None:
    health = await ReplayedCopilot(world, version="copilot: no number").provider.health_check()
    assert (health.ok, health.reason) == (False, "not_installed")


async def test_a_cli_older_than_any_tested_one_is_degraded_and_says_how_to_update(world: World) -> None:
    health = await ReplayedCopilot(world, version="GitHub Copilot CLI 0.0.400.").provider.health_check()
    assert (health.state, health.ok, health.version) == ("degraded", True, "0.0.400")
    assert "1.0.70" in str(health.detail)
    assert health.hint


@pytest.mark.parametrize("fault", ["hang", "deaf", "exit_at_once"])
async def test_a_health_check_of_an_ill_server_ends_in_time(
    world: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.provider.PROBE_S", 1.0)
    subject = ReplayedCopilot(world, fault=fault)
    provider = subject.made(str(subject.fake), is_byok=False, timeouts={"spawn_s": 1})
    async with asyncio.timeout(CLOSE_S):
        health = await provider.health_check()
    assert health.state != "ready"
    assert not world.processes()


# The one-shot mode


def one_shot(world: World, fault: str, **settings: Any) -> CopilotProvider:
    subject = ReplayedCopilot(world, fault=fault, version=ONE_SHOT_VERSION)
    return subject.made(str(subject.fake), **settings)


@pytest.mark.parametrize("fault", ["garbage", "stderr_flood", "delta_lost", "tail_lost", "exit_after"])
async def test_the_one_shot_mode_answers_with_the_whole_message_whatever_is_lost(world: World, fault: str) -> None:
    assert (await one_shot(world, fault).complete(request(TEXT))).content == TEXT


@pytest.mark.parametrize(("fault", "code"), [("exit_before", 3), ("exit_mid", 3), ("exit_zero", 0)])
async def test_a_one_shot_that_exits_without_an_answer_gives_its_exit_code(world: World, fault: str, code: int) -> None:
    with pytest.raises(ProcessExitedError) as caught:
        await one_shot(world, fault).complete(request(TEXT))
    assert caught.value.exit_code == code
    assert caught.value.stderr_tail == ("fatal: the fake is broken" if code else None)


@pytest.mark.parametrize("fault", ["silent", "ignore_term"])
async def test_a_one_shot_that_falls_silent_meets_a_deadline_and_is_killed(world: World, fault: str) -> None:
    with pytest.raises(DeadlineExceededError, match="silence_s"):
        await one_shot(world, fault, timeouts={"silence_s": 1}).complete(request(TEXT))
    assert not world.processes()


async def test_a_one_shot_session_goes_on_behind_a_turn_that_failed(world: World) -> None:
    provider = one_shot(world, "")
    session, stream = await begun(provider, request(HOLD))
    assert isinstance(await anext(stream), Start)
    await stream.aclose()
    assert session.state == "idle"
    assert await answers(session, provider)
    await session.aclose()


async def test_the_process_of_a_session_is_named_while_it_lives(world: World) -> None:
    provider = headless(world, "")
    session = await provider.open()
    assert isinstance(session, CopilotSession)
    (process,) = provider.processes()
    assert psutil.pid_exists(process.pid)
    psutil.Process(process.pid).send_signal(signal.SIGKILL)
    with pytest.raises(ProcessExitedError, match="SIGKILL"):
        await answers(session, provider)
    assert session.state == "dead"
    await session.aclose()
    assert not provider.processes()


async def test_half_a_character_is_no_reason_to_fall_silent(world: World) -> None:
    provider = headless(world, "")
    asked = ChatRequest.model_validate(
        {
            "messages": [
                {"role": "system", "content": "s\ud800"},
                {"role": "user", "content": "h\udfff"},
                {"role": "assistant", "content": "a\ud83d"},
                {"role": "user", "content": "n\ud800w"},
            ]
        }
    )
    assert (await provider.complete(asked)).content == "n\ufffdw"


async def test_a_conversation_of_more_than_the_cli_can_be_told_is_refused_before_it_is_told(world: World) -> None:
    provider = headless(world, "")
    async with neighbour(provider):
        with pytest.raises(ContextOverflowError, match="16 MiB"):
            await provider.complete(request("x" * (17 * 1024 * 1024)))


async def test_an_image_in_the_result_of_a_tool_is_refused_and_not_dropped(world: World) -> None:
    pixel = {"type": "image", "media_type": "image/png", "data": "iVBORw0KGgo="}
    asked = ChatRequest.model_validate(
        {
            "messages": [
                {"role": "user", "content": "look"},
                {"role": "assistant", "tool_calls": [{"id": "1", "name": "look"}]},
                {"role": "tool", "tool_call_id": "1", "content": [pixel]},
            ]
        }
    )
    with pytest.raises(UnsupportedError, match="tool"):
        await headless(world, "").complete(asked)


async def test_a_login_whose_models_cannot_be_listed_is_degraded_and_still_a_login(world: World) -> None:
    subject = ReplayedCopilot(world, fault="no_models")
    health = await subject.made(str(subject.fake), is_byok=False).health_check()
    assert (health.state, health.reason, health.authenticated) == ("degraded", "network", True)
    assert "fetch failed" in (health.detail or "")
