"""A conversation on one session of copilot's: what it is told at each turn, and when it gives place to another."""

import asyncio
import contextlib
import signal
from typing import Any

import psutil
import pytest

from runners import shared_process
from runners.errors import ProcessExitedError
from runners.messages import ChatMessage, ResponseFormat
from runners.provider import LlmProvider, Sampling, Session, SessionOptions
from runners.stream import Done, Failed, Start, Text, fold
from tests.subjects.copilot import ReplayedCopilot
from tests.subjects.on_api import HOLD
from tests.world import World, until

pytestmark = pytest.mark.usefixtures("no_leaks")

CLOSE_S = 10.0
SYSTEM = {"role": "system", "content": "s"}


async def opened(provider: LlmProvider, system: str = "s") -> Session:
    session = await provider.open()
    await session.prepare(SessionOptions(system=system))
    return session


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


async def say(session: Session, *texts: str, **knobs: Any) -> str:
    return (await fold(session.turn([user(text) for text in texts], Sampling(**knobs)))).content


async def cancelled(session: Session, text: str = HOLD) -> None:
    async with session.turn([user(text)], Sampling()) as stream:
        while not isinstance(await anext(stream), Text):
            pass


def told(*texts: str) -> list[dict[str, Any]]:
    """The conversation in which each of these was said and answered with itself, but for the last."""
    pairs = [[{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in texts]
    return [SYSTEM, *(message for pair in pairs for message in pair)][:-1]


def sent(subject: ReplayedCopilot) -> list[Any]:
    """What the model was sent last."""
    messages = subject.logged("api")[-1]["messages"]
    assert isinstance(messages, list)
    return messages


def calls(subject: ReplayedCopilot) -> list[str]:
    """What the server was asked to do with sessions."""
    methods = [message.get("method", "") for message in subject.logged("received")]
    return [method.removeprefix("session.") for method in methods if method.startswith("session.")]


def left_on_disk(provider: LlmProvider) -> int:
    return len(list(provider.directory("conversations").iterdir()))


async def _true(found: object) -> bool:
    return bool(found)


async def test_a_later_turn_sends_its_message_alone_to_the_same_session(world: World) -> None:
    subject = ReplayedCopilot(world)
    session = await opened(subject.provider)
    texts = [" one\n", "two", "", "four", "five", "six"]
    for number, text in enumerate(texts, 1):
        assert await say(session, text) == text
        assert sent(subject) == [
            message | {"content": message["content"] or None} if message["role"] == "assistant" else message
            for message in told(*texts[:number])
        ]
        assert left_on_disk(subject.provider) == 1
    await session.aclose()
    assert calls(subject) == ["create", *["sendMessages"] * 6, "destroy"]
    new = [
        message["params"]["messages"]
        for message in subject.logged("received")
        if "messages" in message.get("params", {})
    ]
    assert [[message["prompt"] for message in messages] for messages in new] == [[text] for text in texts]
    assert left_on_disk(subject.provider) == 0


async def test_a_history_is_resumed_once(world: World) -> None:
    subject = ReplayedCopilot(world)
    session = await opened(subject.provider)
    past = [user("one"), ChatMessage(role="assistant", content="one"), user("two")]
    assert (await fold(session.turn(past, Sampling()))).content == "two"
    await say(session, "three")
    assert sent(subject) == told("one", "two", "three")
    await session.aclose()
    assert calls(subject) == ["resume", "sendMessages", "sendMessages", "destroy"]


async def test_a_cancelled_turn_gives_place_to_a_session_without_it(world: World) -> None:
    subject = ReplayedCopilot(world)
    session = await opened(subject.provider)
    await say(session, "one")
    for _ in range(2):
        await cancelled(session)
        assert session.state == "idle"
    await say(session, "two")
    assert sent(subject) == told("one", "two")
    await say(session, "three")
    assert sent(subject) == told("one", "two", "three")
    await session.aclose()
    assert calls(subject).count("create") == 1
    assert calls(subject).count("resume") == 2
    assert calls(subject).count("destroy") == 3
    assert left_on_disk(subject.provider) == 0


async def test_an_interrupt_at_any_moment_of_a_turn_leaves_the_next_ones_as_they_should_be(world: World) -> None:
    subject = ReplayedCopilot(world)
    session = await opened(subject.provider)
    said = ["one"]
    await say(session, "one")
    for steps in range(0, 60, 3):
        stream = session.turn([user("hello")], Sampling())
        assert isinstance(await anext(stream), Start)
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(CLOSE_S):
            await session.interrupt()
            *_, last = [chunk async for chunk in stream]
        assert isinstance(last, Done)
        if last.stop_reason != "cancelled":
            said.append("hello")
        for text in ("two", "three"):
            assert await say(session, text) == text
            said.append(text)
            assert sent(subject) == told(*said)
    await session.aclose()


async def test_what_is_told_again_of_a_turn_is_no_part_of_the_next_one(world: World) -> None:
    subject = ReplayedCopilot(world, fault="told_again")
    session = await opened(subject.provider)
    for text in ("the first one", "two", "and the third one"):
        assert await say(session, text) == text
    await session.aclose()
    assert calls(subject).count("create") == 1


async def test_an_answer_that_the_server_did_not_tell_whole_is_told_anew_in_another_session(world: World) -> None:
    subject = ReplayedCopilot(world, fault="message_lost")
    session = await opened(subject.provider)
    for _ in range(2):
        await say(session, "one")
    assert sent(subject) == told("one", "one")
    await session.aclose()
    assert calls(subject).count("destroy") == 2


async def test_other_parameters_mean_another_session_but_those_of_one_answer_do_not(world: World) -> None:
    subject = ReplayedCopilot(world)
    session = await opened(subject.provider)
    shape = ResponseFormat.model_validate({"type": "json_object"})
    turns: list[dict[str, Any]] = [{}, {"response_format": shape}, {}, {"max_tokens": 5}, {"max_tokens": 5}, {}]
    for number, knobs in enumerate(turns, 1):
        await say(session, "go", **knobs)
        assert sent(subject) == told(*["go"] * number)
        body = subject.logged("api")[-1]
        assert body.get("max_tokens") == knobs.get("max_tokens")
        assert ("response_format" in body) == ("response_format" in knobs)
    await session.aclose()
    assert [call for call in calls(subject) if call in ("create", "resume")] == ["create", "resume", "resume"]


async def test_several_new_messages_mean_another_session(world: World) -> None:
    subject = ReplayedCopilot(world)
    session = await opened(subject.provider)
    await say(session, "one")
    await say(session, "two", "three")
    assert [message["content"] for message in sent(subject)] == ["s", "one", "one", "two", "three"]
    await session.aclose()
    assert left_on_disk(subject.provider) == 0


async def test_a_server_that_goes_between_turns_leaves_its_sessions_dead_and_they_say_so(world: World) -> None:
    subject = ReplayedCopilot(world)
    used, ready, blank = await opened(subject.provider), await opened(subject.provider), await subject.provider.open()
    await say(used, "one")
    gone: list[Session] = []
    for session in (used, ready, blank):
        session.when_dead = lambda session=session: gone.append(session)  # type: ignore[misc]
    assert used.process is not None
    psutil.Process(used.process.pid).send_signal(signal.SIGKILL)
    await until(lambda: _true(len(gone) == 3))
    assert {session.state for session in (used, ready, blank)} == {"dead"}
    with pytest.raises(ProcessExitedError, match="SIGKILL"):
        await blank.prepare(SessionOptions())
    for session in (used, ready, blank):
        await session.aclose()
    assert len(gone) == 3
    assert left_on_disk(subject.provider) == 0


@pytest.mark.parametrize("is_busy", [True, False])
async def test_a_server_that_is_given_up_ends_when_no_turn_is_left_and_its_sessions_are_dead(
    world: World, is_busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_process, "_CLEAN_UP_S", 0.5)
    subject = ReplayedCopilot(world, fault="deaf_to_abort")
    idle, other, bad = [await opened(subject.provider, system) for system in ("[well]", "[well]", "s")]
    gone: list[str] = []
    idle.when_dead, other.when_dead = (lambda: gone.append("idle")), (lambda: gone.append("other"))
    await say(idle, "one")
    await say(other, "one")
    stream = other.turn([user(HOLD)], Sampling())
    if is_busy:
        assert isinstance(await anext(stream), Start)
    await cancelled(bad)
    assert bad.state == "idle"
    await until(lambda: _true("idle" in gone))
    assert {idle.state, bad.state} == {"dead"}
    assert other.state == ("busy" if is_busy else "dead")
    if is_busy:
        await other.interrupt()
        *_, last = [chunk async for chunk in stream]
        assert isinstance(last, Done)
        assert other.state == "dead"
    await stream.aclose()
    async with asyncio.timeout(CLOSE_S):
        for session in (idle, other, bad):
            await session.aclose()
    assert sorted(gone) == ["idle"] if is_busy else ["idle", "other"]
    assert not world.processes()
    assert left_on_disk(subject.provider) == 0


async def test_a_conversation_can_be_closed_at_any_moment_of_a_later_turn(world: World) -> None:
    provider = ReplayedCopilot(world).provider
    keeper = await opened(provider)
    for steps in range(16):
        session = await opened(provider)
        await say(session, "one")
        stream = session.turn([user(HOLD)], Sampling())

        async def read(stream: Any = stream) -> list[Any]:
            return [chunk async for chunk in stream]

        reader = asyncio.create_task(read())
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(CLOSE_S):
            await asyncio.gather(session.aclose(), session.aclose())
            with contextlib.suppress(Exception):
                assert isinstance((await reader)[-1], Failed)
        assert session.state == "dead"
        assert provider.sessions == {keeper}
        assert left_on_disk(provider) == 0
    await keeper.aclose()
    assert not world.processes()
