"""What a client of the library sees when a CLI misbehaves, and that nothing is left behind. Real child processes."""

import signal
from typing import Any

import psutil
import pytest

from runners.errors import DeadlineExceededError, ProcessExitedError, RunnerError
from runners.providers.claude.session import ClaudeSession
from runners.stream import ChatChunk, Failed, Start, Text
from runners.testing import request
from tests.subjects.claude import ReplayedClaude
from tests.world import World

pytestmark = pytest.mark.usefixtures("no_leaks")


async def chunks_of(world: World, fault: str, **settings: Any) -> list[ChatChunk]:
    """The chunks of a chat with a CLI that has this fault; raises what the chat raises."""
    subject = ReplayedClaude(world, fault=fault)
    provider = subject.made(str(subject.fake), **settings)
    async with provider.complete_stream(request("hello world")) as stream:
        return [chunk async for chunk in stream]


async def error_behind_start(world: World, fault: str, **settings: Any) -> RunnerError:
    """The error of a chat that breaks off behind its first delta, which must have been delivered once."""
    chunks = await chunks_of(world, fault, **settings)
    assert isinstance(chunks[0], Start)
    assert [chunk.chunk for chunk in chunks if isinstance(chunk, Text)] == ["hello w"]
    last = chunks[-1]
    assert isinstance(last, Failed)
    return last.error


async def test_a_cli_that_exits_before_its_answer_gives_its_exit_code_and_last_words(world: World) -> None:
    with pytest.raises(ProcessExitedError, match="exited with code 3") as caught:
        await chunks_of(world, "exit_before")
    assert caught.value.exit_code == 3
    assert caught.value.stderr_tail == "fatal: the fake is broken"


@pytest.mark.parametrize(("fault", "code"), [("exit_mid", 3), ("exit_zero", 0), ("half_line", 0)])
async def test_a_cli_that_exits_in_its_answer_breaks_the_stream_off(world: World, fault: str, code: int) -> None:
    error = await error_behind_start(world, fault)
    assert (error.kind, error.exit_code) == ("process_exited", code)


async def test_a_cli_that_exits_badly_behind_a_whole_answer_has_answered(world: World) -> None:
    chunks = await chunks_of(world, "exit_after")
    assert chunks[-1].type == "done"


@pytest.mark.parametrize(("fault", "deadline"), [("deaf", "spawn_s"), ("hang", "first_chunk_s")])
async def test_a_cli_that_hangs_before_its_answer_meets_a_named_deadline(
    world: World, fault: str, deadline: str
) -> None:
    with pytest.raises(DeadlineExceededError, match=deadline) as caught:
        await chunks_of(world, fault, timeouts={deadline: 1})
    assert (caught.value.deadline, caught.value.limit_s) == (deadline, 1)


@pytest.mark.parametrize("fault", ["silent", "ignore_term"])
@pytest.mark.parametrize("deadline", ["silence_s", "turn_s"])
async def test_a_cli_that_falls_silent_in_its_answer_meets_a_named_deadline(
    world: World, fault: str, deadline: str
) -> None:
    error = await error_behind_start(world, fault, timeouts={deadline: 1})
    assert isinstance(error, DeadlineExceededError)
    assert error.deadline == deadline


async def test_a_prompt_that_nobody_reads_meets_a_deadline(world: World) -> None:
    subject = ReplayedClaude(world, fault="deaf_to_turns")
    provider = subject.made(str(subject.fake), timeouts={"first_chunk_s": 1})
    # More than a pipe holds.
    with pytest.raises(DeadlineExceededError, match="first_chunk_s"):
        await provider.complete(request("x" * 5_000_000))


async def test_a_turn_whose_client_does_not_read_ends_in_time_too(world: World) -> None:
    subject = ReplayedClaude(world)
    provider = subject.made(str(subject.fake), timeouts={"turn_s": 3})
    # In its events more than every buffer on the way holds.
    stream = provider.complete_stream(request("hello world " * 5_000))
    assert isinstance(await anext(stream), Start)
    (session,) = provider.sessions
    assert isinstance(session, ClaudeSession)
    # Nobody reads on: the CLI is killed by the clock alone.
    assert await session.cli.wait() == -signal.SIGKILL
    *_, last = [chunk async for chunk in stream]
    assert isinstance(last, Failed)
    assert isinstance(last.error, DeadlineExceededError)
    assert last.error.deadline == "turn_s"


async def test_lines_that_are_no_events_are_passed_over(world: World) -> None:
    chunks = await chunks_of(world, "garbage")
    assert "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text)) == "hello world"
    assert chunks[-1].type == "done"


async def test_a_line_over_the_cap_is_an_error_and_no_memory(world: World) -> None:
    before = psutil.Process().memory_info().rss
    with pytest.raises(RunnerError) as caught:
        await chunks_of(world, "huge_line")
    assert caught.value.kind == "line_too_long"
    assert psutil.Process().memory_info().rss - before < 200 * 1024 * 1024


async def test_a_flood_on_stderr_is_drained_and_only_its_tail_is_kept(world: World) -> None:
    before = psutil.Process().memory_info().rss
    chunks = await chunks_of(world, "stderr_flood")
    assert chunks[-1].type == "done"
    assert psutil.Process().memory_info().rss - before < 20 * 1024 * 1024


async def test_what_the_cli_started_in_its_group_dies_with_it(world: World) -> None:
    chunks = await chunks_of(world, "grandchild")
    assert chunks[-1].type == "done"
    # Killed, it is gone as soon as its new parent has taken note of it.
    _, left = psutil.wait_procs(world.processes(), timeout=10)
    assert not left


async def test_a_logged_out_cli_is_unavailable_with_what_mends_it(world: World) -> None:
    health = await ReplayedClaude(world, logged_in=False).provider.health_check()
    assert (health.ok, health.reason, health.authenticated) == (False, "not_authenticated", False)
    assert health.hint == "claude auth login"
    assert health.version == "2.1.329"


async def test_another_program_of_that_name_is_not_claude(world: World) -> None:
    health = await ReplayedClaude(world, version="clod 1.0").provider.health_check()
    assert (health.ok, health.reason) == (False, "not_installed")


async def test_a_cli_older_than_any_tested_one_is_degraded_and_says_how_to_update(world: World) -> None:
    health = await ReplayedClaude(world, version="2.0.76 (Claude Code)").provider.health_check()
    assert (health.state, health.ok, health.version) == ("degraded", True, "2.0.76")
    assert "2.1.197" in str(health.detail)
    assert health.hint


async def test_a_broken_turn_leaves_a_session_that_takes_no_other(world: World) -> None:
    subject = ReplayedClaude(world, fault="silent")
    provider = subject.made(str(subject.fake), timeouts={"silence_s": 1})
    session = await provider.open()
    asked = request("hello world")
    await session.prepare(provider.session_options(asked))
    async with session.turn(asked.conversation, provider.sampling(asked)) as stream:
        assert [chunk async for chunk in stream][-1].type == "error"
    assert session.state == "dead"
    with pytest.raises(RunnerError, match="dead"):
        await anext(session.turn(asked.conversation, provider.sampling(asked)))
    await session.aclose()
