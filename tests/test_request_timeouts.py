"""Deadlines that a request brings for itself, at a CLI that misbehaves."""

import time
from typing import Any

import pytest

from runners.errors import DeadlineExceededError, RunnerError
from runners.provider import LlmProvider
from runners.stream import Failed
from runners.testing import request
from tests.subjects.claude import ReplayedClaude
from tests.world import Daemon, Wire, World, user

LONG_S = 60
LONG = dict.fromkeys(("spawn_s", "first_chunk_s", "silence_s", "turn_s"), LONG_S)

DEADLINES = [
    ("deaf", "spawn_s"),
    ("hang", "first_chunk_s"),
    ("hang", "silence_s"),
    ("hang", "turn_s"),
    ("silent", "silence_s"),
    ("silent", "turn_s"),
]


async def failure(provider: LlmProvider, text: str = "hello world", **fields: Any) -> RunnerError:
    """How a chat fails, before its answer or in it."""
    try:
        async with provider.complete_stream(request(text, **fields)) as stream:
            last = [chunk async for chunk in stream][-1]
    except RunnerError as error:
        return error
    assert isinstance(last, Failed)
    return last.error


@pytest.mark.parametrize(("fault", "deadline"), DEADLINES)
async def test_each_deadline_of_a_request_counts_in_place_of_the_runner_s_own(
    world: World, no_leaks: None, fault: str, deadline: str
) -> None:
    subject = ReplayedClaude(world, fault=fault)
    provider = subject.made(str(subject.fake), timeouts=LONG)
    began_s = time.monotonic()
    error = await failure(provider, timeouts={deadline: 0.5})
    assert isinstance(error, DeadlineExceededError)
    assert (error.deadline, error.limit_s) == (deadline, 0.5)
    assert f"within 0.5 s ({deadline})" in error.message
    assert time.monotonic() - began_s < LONG_S / 2


async def test_a_request_may_also_take_longer_than_the_runner_s_own_deadline(world: World, no_leaks: None) -> None:
    subject = ReplayedClaude(world)
    provider = subject.made(str(subject.fake), timeouts=dict.fromkeys(LONG, 0.001))
    assert isinstance(await failure(provider), DeadlineExceededError)
    assert (await provider.complete(request("hello world", timeouts=LONG))).content == "hello world"


async def test_what_a_request_leaves_out_stays_the_runner_s_own(world: World, no_leaks: None) -> None:
    subject = ReplayedClaude(world, fault="silent")
    provider = subject.made(str(subject.fake), timeouts={"silence_s": 0.5})
    error = await failure(provider, timeouts={"turn_s": LONG_S})
    assert isinstance(error, DeadlineExceededError)
    assert (error.deadline, error.limit_s) == ("silence_s", 0.5)
    timeouts = provider.timeouts(request("Hi", timeouts={"turn_s": 5}))
    assert (timeouts.turn_s, timeouts.silence_s, timeouts.spawn_s) == (5, 0.5, 30)


async def test_the_next_request_has_the_runner_s_own_deadlines_again(world: World, no_leaks: None) -> None:
    subject = ReplayedClaude(world)
    await failure(subject.provider, timeouts={"spawn_s": 0.001})
    assert (await subject.provider.complete(request("hello world"))).content == "hello world"


@pytest.mark.parametrize(
    ("timeouts", "path"),
    [
        ({"turn_s": 0}, "timeouts.turn_s"),
        ({"silence_s": -1}, "timeouts.silence_s"),
        ({"spawn_s": "soon"}, "timeouts.spawn_s"),
        (5, "timeouts"),
    ],
)
async def test_a_wrong_deadline_is_a_wrong_request(daemon: Daemon, wire: Wire, timeouts: object, path: str) -> None:
    error = (await wire.call("chat", model="echo", messages=user("Hi"), timeouts=timeouts))["error"]
    assert error["code"] == -32602
    assert f"params.{path}" in error["message"]


async def test_a_deadline_that_nobody_knows_is_a_warning(daemon: Daemon, wire: Wire) -> None:
    result = (await wire.call("chat", model="echo", messages=user("Hi"), timeouts={"queue_s": 5, "turn_s": 20}))[
        "result"
    ]
    assert result["content"] == "Hi"
    assert [warning for warning in result["warnings"] if "timeouts.queue_s" in warning]


async def test_a_client_is_told_which_deadline_it_was(daemon: Daemon, wire: Wire) -> None:
    chat = await wire.request("chat", model="held", messages=user("Hi"), timeouts={"silence_s": 0.3})
    chunks, response = await wire.read_until_response(chat)
    assert [chunk["type"] for chunk in chunks][:2] == ["start", "text"]
    assert chunks[-1]["type"] == "error"
    data = response["error"]["data"]
    assert (data["kind"], data["deadline"], data["limit_s"]) == ("timeout", "silence_s", 0.3)
