"""Sessions that wait for the results of tools: who gets them back, and how they end when nobody brings results."""

import asyncio
import random
from typing import Any

import pytest

from runners.errors import InvalidRequestError, NotAuthenticatedError, VendorError
from runners.messages import NO_RESULT
from tests.theatre import Open, Theatre
from tests.world import assistant, user

CALL = user("call")
CALLED = assistant("re: call", tool_calls=[{"id": "c1", "name": "weather", "arguments": {"city": "Paris"}}])


def result(text: str, call_id: str = "c1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


RESULT = [*CALL, CALLED, result("18 degrees")]


async def parked(theatre: Open, **settings: Any) -> Theatre:
    t = theatre(**settings)
    assert (await t.chat(CALL)).stop_reason == "tool_calls"
    return t


async def test_it_gets_its_results_and_goes_on(theatre: Open) -> None:
    t = await parked(theatre)
    assert t.states == ["parked"]
    assert await t.served(RESULT) == "resumed"
    assert t.states == ["idle"]
    assert await t.served([*RESULT, assistant("re: 18 degrees"), *user("thanks")]) == "continued"
    assert t.stage.told == [[["call"], ["18 degrees"], ["thanks"]]]


async def test_it_may_wait_again(theatre: Open) -> None:
    t = await parked(theatre)
    again = [*CALL, CALLED, result("call")]
    assert await t.served(again) == "resumed"
    assert t.states == ["parked"]
    assert await t.served([*again, CALLED, result("18 degrees")]) == "resumed"
    assert t.stage.told == [[["call"], ["call"], ["18 degrees"]]]


async def test_results_that_come_when_nobody_waits_for_them_any_more_are_told_with_the_whole_history(
    theatre: Open,
) -> None:
    t = await parked(theatre, parked_ttl_s=0)
    await t.settled()
    assert await t.served(RESULT) == "cold"
    assert t.stage.told[1] == [["call", "re: call", "18 degrees"]]


async def test_a_conversation_that_goes_on_without_them_ends_it(theatre: Open) -> None:
    t = await parked(theatre)
    answer = await t.chat([*CALL, CALLED, *user("never mind")])
    assert answer.served == "cold"
    assert "c1" in answer.warnings[0]
    await t.settled("idle")
    assert t.stage.told == [[["call"]], [["call", "re: call", NO_RESULT, "never mind"]]]


async def test_a_conversation_that_brings_them_and_more_is_told_anew(theatre: Open) -> None:
    t = await parked(theatre)
    assert await t.served([*RESULT, *user("quick!")]) == "cold"
    await t.settled("idle")
    assert t.stage.told[1] == [["call", "re: call", "18 degrees", "quick!"]]


async def test_a_conversation_whose_tools_are_others_is_told_anew(theatre: Open) -> None:
    t = await parked(theatre)
    assert await t.served(RESULT, tools=[{"name": "other"}]) == "cold"
    await t.settled("idle")
    assert t.stage.told[1] == [["call", "re: call", "18 degrees"]]


async def test_an_answer_that_its_client_has_changed_leaves_nobody_waiting(theatre: Open) -> None:
    t = await parked(theatre)
    changed = {**CALLED, "content": "another answer"}
    assert await t.served([*CALL, changed, result("18 degrees")]) == "cold"
    await t.settled("idle")


async def test_results_that_it_would_not_be_told_as_they_are_go_to_another(theatre: Open) -> None:
    t = await parked(theatre)
    t.stage.takes_results = False
    assert await t.served(RESULT) == "cold"
    await t.settled("idle")


LATER = [{"role": "error", "content": "it crashed"}, {"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize("unfit", [[], LATER, [result("18 degrees"), result("19")], [result("18 degrees", "c2")]])
async def test_results_out_of_place_are_refused_and_it_waits_on(theatre: Open, unfit: list[dict[str, Any]]) -> None:
    t = await parked(theatre)
    with pytest.raises(InvalidRequestError, match="messages"):
        await t.chat([*CALL, CALLED, *unfit])
    assert t.states == ["parked"]
    assert await t.served(RESULT) == "resumed"


@pytest.mark.parametrize("ending", ["fail", "break", "left"])
async def test_when_the_turn_fails_behind_them_another_try_tells_the_whole_history(theatre: Open, ending: str) -> None:
    t = await parked(theatre)
    told = [*CALL, CALLED, result(ending if ending != "left" else "hold")]
    if ending == "left":
        stream = await t.begun(told)
        await stream.aclose()
    else:
        with pytest.raises(VendorError):
            await t.chat(told)
    await t.settled()
    assert await t.served(RESULT) == "cold"
    assert t.stage.told[1] == [["call", "re: call", "18 degrees"]]


async def test_a_session_that_outlives_a_turn_that_was_cancelled_behind_them_is_told_them_again(theatre: Open) -> None:
    t = await parked(theatre)
    t.stage.outlives = True
    stream = await t.begun([*CALL, CALLED, result("hold")])
    await stream.aclose()
    assert t.states == ["idle"]
    assert await t.served(RESULT) == "continued"
    assert t.stage.told == [[["call"], ["hold"], ["18 degrees"]]]


@pytest.mark.parametrize("behind", [[], LATER])
async def test_a_result_that_is_missing_is_missed_whatever_stands_behind_the_others(
    theatre: Open, behind: list[dict[str, Any]]
) -> None:
    t = theatre()
    called = assistant("", tool_calls=[{"id": "c1", "name": "weather"}, {"id": "c2", "name": "weather"}])
    with pytest.raises(InvalidRequestError, match="no result for tool call 'c2'"):
        await t.chat([*CALL, called, result("18"), *behind])
    assert (await t.chat([*CALL, called, result("18"), result("19", "c2"), *behind])).content == "re: 19"


async def test_of_two_requests_that_bring_its_results_at_once_one_is_told_anew(theatre: Open) -> None:
    t = await parked(theatre)
    answers = await asyncio.gather(t.chat(RESULT), t.chat(RESULT))
    assert sorted(answer.served for answer in answers) == ["cold", "resumed"]
    assert t.stage.told == [[["call"], ["18 degrees"]], [["call", "re: call", "18 degrees"]]]


async def test_it_ends_where_another_chat_finds_no_login(theatre: Open) -> None:
    t = await parked(theatre)
    with pytest.raises(NotAuthenticatedError):
        await t.chat(user("login"))
    await t.settled()
    assert await t.served(RESULT) == "cold"


async def test_numbers_come_back_as_its_client_writes_them(theatre: Open) -> None:
    t = await parked(theatre)
    t.stage.arguments = {"days": 1.0, "of": [{"n": 2.0}, 0.5]}
    await t.chat(user("call"))
    calls = [{"id": "c1", "name": "weather", "arguments": {"days": 1, "of": [{"n": 2}, 0.5]}}]
    assert await t.served([*CALL, assistant("re: call", tool_calls=calls), result("18")]) == "resumed"


async def test_it_ends_with_its_runner(theatre: Open) -> None:
    t = await parked(theatre)
    t.pool.drain()
    await t.settled()


async def test_it_does_not_count_as_a_conversation_that_is_kept(theatre: Open) -> None:
    t = await parked(theatre, max_running=1)
    for number in range(3):
        await t.chat(user(f"another {number}"))
    await t.settled("parked", "idle")
    assert await t.served(RESULT) == "resumed"


async def test_twenty_of_them_get_each_its_own_results_in_any_order(theatre: Open) -> None:
    t = theatre()
    asked = [[*user(f"{number}"), assistant("ok"), *CALL] for number in range(20)]
    await asyncio.gather(*map(t.chat, asked))
    assert t.states == ["parked"] * 20
    order = list(range(20))
    random.shuffle(order)
    answers = await asyncio.gather(*(t.chat([*asked[n], CALLED, result(f"result {n}")]) for n in order))
    assert [answer.served for answer in answers] == ["resumed"] * 20
    assert [answer.content for answer in answers] == [f"re: result {n}" for n in order]
    assert sorted(t.stage.told) == sorted([[f"{n}", "ok", "call"], [f"result {n}"]] for n in range(20))
