"""A session that is kept between turns: it holds its own conversation and no other, and tells when its CLI has gone."""

import asyncio
import signal
from typing import Any

import psutil
import pytest

from runners.errors import DeadlineExceededError, RunnerError
from runners.messages import ChatMessage
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.claude.session import ClaudeSession
from runners.stream import ChatChunk, Start, Text, UsageReport, fold
from tests.fakes.fake_claude import digest
from tests.subjects.claude import ReplayedClaude
from tests.world import World

pytestmark = pytest.mark.usefixtures("no_leaks")


class Kept:
    """A live session of the stand-in for claude, its conversation, and how often it has told that it is dead."""

    def __init__(self, session: ClaudeSession, system: str) -> None:
        self.session = session
        self.told = 0
        self._system = system
        self._conversation: list[tuple[str, str]] = []
        session.when_dead = self._is_dead

    def _is_dead(self) -> None:
        assert self.session.state == "dead"
        self.told += 1

    async def turn(self, *texts: str) -> str:
        messages = [ChatMessage(role="user", content=text) for text in texts]
        return (await fold(self.session.turn(messages, Sampling()))).content

    async def proved_turn(self, *texts: str) -> None:
        """A turn of a CLI that answers with a digest: it must be that of this conversation."""
        self._conversation += [("user", text) for text in texts]
        answer = await self.turn(*texts)
        assert answer == digest(self._system, self._conversation)
        self._conversation.append(("assistant", answer))

    async def gone(self) -> None:
        await asyncio.wait_for(self.session.cli.wait(), 20)


async def blank(provider: LlmProvider) -> Kept:
    session = await provider.open()
    assert isinstance(session, ClaudeSession)
    return Kept(session, "")


async def begun(world: World, system: str = "", **order: Any) -> Kept:
    """A session that has its system prompt and has said nothing."""
    session = await ReplayedClaude(world, **order).provider.open()
    assert isinstance(session, ClaudeSession)
    await session.prepare(SessionOptions(system=system))
    return Kept(session, system)


async def test_sessions_side_by_side_hold_each_its_own_conversation(world: World) -> None:
    kept = [await begun(world, f"You are {name}.", digests=True) for name in ("one", "two", "three")]
    for turn in range(4):
        await asyncio.gather(*(one.proved_turn(f"{turn}", "and?") for one in kept[turn % 2 :]))
    for one in kept:
        await one.session.aclose()


async def test_what_a_cli_tells_behind_its_answer_is_no_part_of_the_next(world: World) -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "stale"}}
    result = {"type": "result", "subtype": "success", "result": "stale", "num_turns": 1, "stop_reason": "end_turn"}
    limit = {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed_warning"}}
    stale = [{"type": "stream_event", "event": delta}, limit, result, {"type": "novelty"}]
    kept = await begun(world, digests=True, afterwards=stale)
    for turn in range(4):
        await kept.proved_turn(f"{turn}")
    await kept.session.aclose()


@pytest.mark.parametrize("last", [Start, Text, UsageReport])
async def test_a_turn_whose_end_was_not_read_leaves_no_session_that_knows_more_than_its_client(
    world: World, last: type[ChatChunk]
) -> None:
    kept = await begun(world)
    async with kept.session.turn([ChatMessage(role="user", content="hello")], Sampling()) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, last):
                break
    assert kept.session.state == "dead"
    await kept.session.aclose()


async def test_an_idle_session_whose_cli_dies_is_dead_and_tells_once(world: World) -> None:
    kept = await begun(world)
    await kept.turn("hello")
    psutil.Process(kept.session.cli.pid).kill()
    await kept.gone()
    assert (kept.session.state, kept.told) == ("dead", 1)
    with pytest.raises(RunnerError, match="dead"):
        await kept.turn("again")
    await kept.session.aclose()
    assert kept.told == 1


async def test_a_blank_session_whose_cli_dies_is_dead_and_tells_once(world: World) -> None:
    kept = await blank(ReplayedClaude(world).provider)
    psutil.Process(kept.session.cli.pid).kill()
    await kept.gone()
    assert (kept.session.state, kept.told) == ("dead", 1)
    await kept.session.aclose()
    assert kept.told == 1


@pytest.mark.parametrize("fault", ["exit_before", "exit_mid", "half_line"])
async def test_a_cli_that_dies_in_a_turn_is_told_by_the_turn_alone(world: World, fault: str) -> None:
    kept = await begun(world, fault=fault)
    with pytest.raises(RunnerError, match="exited with code"):
        await kept.turn("hello world")
    await kept.gone()
    assert (kept.session.state, kept.told) == ("dead", 0)
    await kept.session.aclose()


async def test_a_cli_that_has_gone_before_its_answer_was_read_leaves_a_dead_session(world: World) -> None:
    kept = await begun(world, fault="exit_after")
    async with kept.session.turn([ChatMessage(role="user", content="hello world")], Sampling()) as chunks:
        assert isinstance(await anext(chunks), Start)
        await kept.gone()
        assert [chunk.type async for chunk in chunks][-1] == "done"
    assert (kept.session.state, kept.told) == ("dead", 0)
    await kept.session.aclose()


async def test_a_session_that_is_closed_tells_nothing(world: World) -> None:
    unused, used = await blank(ReplayedClaude(world).provider), await begun(world)
    await used.turn("hello")
    for kept in (unused, used):
        await kept.session.aclose()
        assert (kept.session.state, kept.told) == ("dead", 0)


async def test_a_cli_that_was_stopped_while_idle_meets_a_deadline_at_its_next_turn_and_is_killed(world: World) -> None:
    kept = await begun(world)
    await kept.turn("hello")
    psutil.Process(kept.session.cli.pid).suspend()
    kept.session.timeouts = kept.session.timeouts.model_copy(update={"first_chunk_s": 1})
    with pytest.raises(DeadlineExceededError, match="first_chunk_s"):
        await kept.turn("again")
    assert kept.session.state == "dead"
    await kept.gone()
    assert (kept.session.cli.returncode, kept.told) == (-signal.SIGKILL, 0)
    await kept.session.aclose()
