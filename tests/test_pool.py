"""The pool over runners whose sessions keep what they are told: who serves whom."""

import asyncio
from typing import Any

import pytest

from runners.errors import NotInstalledError, RunnerError, VendorError
from runners.stream import Done, Failed, Start, Text
from tests.theatre import FIRST, SECOND, THIRD, Open
from tests.world import assistant, system, user

# Who serves whom


async def test_a_follow_up_goes_to_the_session_that_holds_its_conversation_and_sends_what_is_new_alone(
    theatre: Open,
) -> None:
    t = theatre()
    assert [await t.served(messages) for messages in (FIRST, SECOND, THIRD)] == ["cold", "continued", "continued"]
    assert t.stage.told == [[["one"], ["two"], ["three"]]]


async def test_a_blank_that_is_ready_is_told_the_whole_history(theatre: Open) -> None:
    t = theatre(warm=1)
    t.pool.keep_warm([""])
    await t.settled("idle")
    assert t.stage.actors[0].options is None
    assert await t.served(THIRD, reasoning_effort="low") == "warm"
    assert t.stage.told[0] == [["one", "re: one", "two", "re: two", "three"]]
    options = t.stage.actors[0].options
    assert options is not None
    assert (options.system, options.reasoning_effort) == ("", "low")


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ([*user("One"), *SECOND[1:]], {}),
        ([*FIRST, assistant("re: One"), *user("two")], {}),
        ([*user("zero"), assistant("re: zero"), *SECOND], {}),
        (FIRST, {}),
        (THIRD, {}),
        ([*system("Be brief."), *SECOND], {}),
        (SECOND, {"tools": [{"name": "weather"}]}),
        (SECOND, {"reasoning_effort": "high"}),
        (SECOND, {"model": "n"}),
    ],
    ids=["edited", "answer edited", "more before", "again", "fork", "system", "tools", "effort", "model"],
)
async def test_any_other_conversation_gets_another_session_and_is_told_whole(
    theatre: Open, messages: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    t = theatre()
    await t.chat(FIRST)
    assert await t.served(messages, **fields) == "cold"
    whole = [message["content"] for message in messages if message["role"] != "system"]
    assert t.stage.told == [[["one"]], [whole]]
    # And the first one is still there.
    assert await t.served(SECOND) == "continued"


async def test_a_conversation_that_forks_goes_on_in_both_ways(theatre: Open) -> None:
    t = theatre()
    await t.chat(FIRST)
    fork = [*SECOND[:2], *user("2")]
    assert [await t.served(messages) for messages in (SECOND, fork)] == ["continued", "cold"]
    assert await t.served([*fork, assistant("re: 2"), *user("3")]) == "continued"
    assert await t.served(THIRD) == "continued"
    assert t.stage.told == [[["one"], ["two"], ["three"]], [["one", "re: one", "2"], ["3"]]]


async def test_two_that_ask_the_same_at_once_never_share_a_session(theatre: Open) -> None:
    t = theatre()
    await t.chat(FIRST)
    t.stage.may_end.set()
    held = [*SECOND[:2], *user("hold")]
    assert sorted(await asyncio.gather(t.served(held), t.served(held))) == ["cold", "continued"]
    assert t.stage.told == [[["one"], ["hold"]], [["one", "re: one", "hold"]]]


async def test_as_soon_as_done_arrives_the_session_is_free_for_the_follow_up(theatre: Open) -> None:
    t = theatre()
    async with t.stream(FIRST) as stream:
        async for chunk in stream:
            if isinstance(chunk, Done):
                assert t.states == ["idle"]
                assert await t.served(SECOND) == "continued"


async def test_a_request_s_deadlines_are_no_other_s(theatre: Open) -> None:
    t = theatre()
    for messages, timeouts, silence_s in ((FIRST, {"silence_s": 7.0}, 7), (SECOND, {}, 180)):
        await t.chat(messages, timeouts=timeouts)
        assert t.stage.actors[0].timeouts.silence_s == silence_s


async def test_the_start_says_how_it_was_served_and_the_pool_counts_it(theatre: Open) -> None:
    t = theatre()
    async with t.stream(FIRST) as stream:
        start = await anext(stream)
        assert isinstance(start, Start)
        assert start.served == "cold"
        assert start.session_s is not None
    response = await t.chat(FIRST)
    await t.chat(SECOND)
    tallies = t.pool.tallies()
    assert {served: tally["chats"] for served, tally in tallies.items()} == {"cold": 2, "continued": 1}
    assert all(tally["session_s"] >= 0 for tally in tallies.values())
    assert (response.served, response.session_s is not None) == ("cold", True)


# What does not end well


@pytest.mark.parametrize("ending", ["left", "fail", "break", "stop"])
@pytest.mark.parametrize("outlives", [True, False])
async def test_a_turn_that_did_not_end_well_is_no_part_of_the_conversation(
    theatre: Open, ending: str, *, outlives: bool
) -> None:
    t = theatre()
    await t.chat(FIRST)
    t.stage.outlives = outlives
    messages = [*SECOND[:2], *user("hold" if ending == "left" else ending)]
    if ending == "left":
        await (await t.begun(messages)).aclose()
    elif ending == "stop":
        assert (await t.chat(messages)).stop_reason == "cancelled"
    else:
        with pytest.raises(VendorError):
            await t.chat(messages)
    # After `done{cancelled}` the session says itself that it may be used again.
    is_kept = outlives or ending == "stop"
    await t.settled(*["idle"] * is_kept)
    assert await t.served(SECOND) == ("continued" if is_kept else "cold")
    assert t.stage.told[-1][-1] == (["two"] if is_kept else ["one", "re: one", "two"])


async def test_an_answer_that_breaks_off_is_told_as_it_came_and_then_the_failure(theatre: Open) -> None:
    t = theatre()
    async with t.stream(user("break")) as stream:
        chunks = [chunk async for chunk in stream]
    assert [type(chunk) for chunk in chunks] == [Start, Text, Failed]
    await t.settled()


@pytest.mark.parametrize("step", ["fails_to_open", "fails_to_prepare"])
async def test_a_session_that_cannot_be_had_is_told_and_not_kept(theatre: Open, step: str) -> None:
    t = theatre()
    failures: list[RunnerError] = getattr(t.stage, step)
    failures.append(NotInstalledError("there is none"))
    with pytest.raises(NotInstalledError):
        await t.chat(FIRST)
    await t.settled()
    assert await t.served(FIRST) == "cold"
    assert t.pool.tallies()["cold"]["chats"] == 1


async def test_who_leaves_while_its_session_is_opened_leaves_none(theatre: Open) -> None:
    t = theatre()
    t.stage.may_open.clear()
    chat = asyncio.create_task(t.chat(FIRST))
    await t.stage.opening.wait()
    assert t.states == ["busy"]
    chat.cancel()
    await asyncio.wait([chat])
    assert chat.cancelled()
    await t.settled()
    assert t.stage.actors == []


async def test_a_request_s_own_time_for_a_start_ends_that_start(theatre: Open) -> None:
    t = theatre()
    t.stage.may_open.clear()
    with pytest.raises(RunnerError, match="spawn_s"):
        await t.chat(FIRST, timeouts={"spawn_s": 0.01})
    await t.settled()
