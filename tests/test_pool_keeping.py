"""Which sessions the pool keeps and for how long, which are ready ahead, and its end."""

import asyncio

import pytest

from daemon import pool
from daemon.memory import Memory
from daemon.pool import Pool
from daemon.turn import answer
from runners.errors import NotAuthenticatedError, NotInstalledError, VendorError
from runners.stream import ChatStream, UsageReport, fold
from runners.testing import request
from tests.subjects.claude import ReplayedClaude
from tests.theatre import FIRST, SECOND, Open, Theatre
from tests.world import World, assistant, system, until, user


def blanks(t: Theatre) -> int:
    """How many are ready for anybody."""
    return sum(worker.state == "idle" and worker.options is None for worker in t.pool.workers)


async def has_blanks(t: Theatre, number: int) -> None:
    async def are_there() -> bool:
        return blanks(t) == number

    await until(are_there)


# What is kept


async def test_no_more_conversations_are_kept_than_chats_may_run_and_the_oldest_goes(theatre: Open) -> None:
    t = theatre(max_running=2)
    for name in ("a", "b", "c"):
        await t.chat(user(name))
    await t.settled("idle", "idle")
    again = [[*user(name), assistant(f"re: {name}"), *user("go on")] for name in ("a", "b", "c")]
    assert [await t.served(messages) for messages in (again[2], again[1], again[0])] == [
        "continued",
        "continued",
        "cold",
    ]


async def test_those_that_share_a_process_are_kept_as_many_as_that_takes(theatre: Open) -> None:
    t = theatre(max_running=1, sessions_per_process=3)
    for name in ("a", "b", "c", "d"):
        await t.chat(user(name))
    await t.settled("idle", "idle", "idle")


@pytest.mark.parametrize(("setting", "first"), [("idle_ttl_s", "one"), ("parked_ttl_s", "call")])
@pytest.mark.parametrize("ttl_s", [0, 0.05])
async def test_a_session_goes_when_it_has_rested_for_long_enough(
    theatre: Open, setting: str, first: str, ttl_s: float
) -> None:
    t = theatre(**{setting: ttl_s})
    await t.chat(user(first))
    await t.settled()
    assert t.stage.actors[0].is_closed


async def test_a_session_that_is_used_again_rests_anew(theatre: Open) -> None:
    t = theatre(idle_ttl_s=0.05)
    stream = t.stream(FIRST)
    await fold(stream)
    held = await t.begun([*SECOND[:2], *user("hold")])
    # Its time would be over by now, and a tidying came: one that is used does not rest.
    await t.chat(user("other"))
    await t.settled("busy")
    await held.aclose()


async def test_a_session_whose_cli_goes_between_turns_is_closed_and_not_used(theatre: Open) -> None:
    t = theatre(warm=1)
    await t.chat(FIRST)
    await t.settled("idle", "idle")
    for actor in t.stage.actors:
        actor.die()
    assert await t.served(SECOND) == "cold"
    assert t.stage.told[2] == [["one", "re: one", "two"]]
    assert [actor.is_closed for actor in t.stage.actors[:2]] == [True, True]


async def test_a_parked_session_whose_cli_goes_is_closed(theatre: Open) -> None:
    t = theatre()
    await t.chat(user("call"))
    t.stage.actors[0].die()
    await t.settled()


async def test_a_session_that_is_dead_before_anybody_could_hear_it_is_not_used(theatre: Open) -> None:
    t = theatre(warm=1)
    t.stage.dies_at_birth = 1
    t.pool.keep_warm([""])
    await t.settled()
    assert await t.served(FIRST) == "cold"


async def test_a_login_that_failed_leaves_no_session_that_has_read_it_nor_its_process(theatre: Open) -> None:
    t = theatre(sessions_per_process=3)
    t.stage.outlives = True
    await t.chat(FIRST)
    with pytest.raises(NotAuthenticatedError):
        await t.chat(user("login"))
    await t.settled()
    assert t.stage.processes() == []
    assert await t.served(SECOND) == "cold"


# What is ready ahead


async def test_a_blank_that_was_taken_is_replaced_and_goes_when_nobody_asks_any_more(theatre: Open) -> None:
    t = theatre(warm=2, idle_ttl_s=0.3)
    assert await t.served(FIRST) == "cold"
    await has_blanks(t, 2)
    assert await t.served(FIRST) == "warm"
    await has_blanks(t, 2)
    await t.settled()


async def test_a_blank_goes_when_nobody_asks_any_more_also_where_no_conversation_is_kept(theatre: Open) -> None:
    t = theatre(warm=1, idle_ttl_s=0.05)
    with pytest.raises(VendorError):
        await t.chat(user("break"))

    async def was_replaced() -> bool:
        return len(t.stage.actors) > 1

    await until(was_replaced)
    await t.settled()


async def test_a_model_that_has_not_answered_is_not_kept_ready(theatre: Open) -> None:
    t = theatre(warm=1)
    for _ in range(3):
        with pytest.raises(VendorError):
            await t.chat(user("fail"), model="mistyped")
    await t.settled()
    assert len(t.stage.actors) == 3


async def test_a_blank_that_nobody_takes_is_renewed(theatre: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_BLANK_AGE_S", 0.05)
    t = theatre(warm=1)
    t.pool.keep_warm([""])

    async def is_renewed() -> bool:
        return len(t.stage.actors) > 1 and t.stage.actors[0].is_closed

    await until(is_renewed)


async def test_each_model_that_is_asked_for_has_its_own(theatre: Open) -> None:
    t = theatre(warm=1)
    await t.chat(FIRST)
    await t.chat(FIRST, model="n")
    await has_blanks(t, 2)
    assert await t.served(FIRST, model="n") == "warm"
    assert await t.served(FIRST) == "warm"


@pytest.mark.parametrize("settings", [{"warm": 0}, {"warm": 1, "idle_ttl_s": 0}])
async def test_who_wants_nothing_ready_has_nothing_ready(theatre: Open, settings: dict[str, int]) -> None:
    t = theatre(**settings)
    await t.chat(FIRST)
    for _ in range(20):  # more than enough turns of the loop for a refill, whose delay is nothing here
        await asyncio.sleep(0)
    assert len(t.stage.actors) == 1


async def test_a_blank_that_is_on_its_way_serves_who_comes_now(theatre: Open) -> None:
    t = theatre(warm=1)
    t.stage.may_open.clear()
    t.pool.keep_warm([""])
    await t.stage.opening.wait()
    chat = asyncio.create_task(t.chat(FIRST))

    async def is_taken() -> bool:
        return "busy" in t.states

    await until(is_taken)
    t.stage.may_open.set()
    await chat
    assert t.stage.told[0] == [["one"]]


async def test_a_blank_that_cannot_be_opened_is_nobody_s_failure(theatre: Open) -> None:
    t = theatre(warm=1)
    t.stage.fails_to_open.append(NotInstalledError("there is none"))
    t.pool.keep_warm([""])
    await t.settled()
    assert await t.served(FIRST) == "cold"


async def test_a_default_stays_warm_when_nobody_asks_and_no_more_when_it_is_none(theatre: Open) -> None:
    t = theatre(warm=1, idle_ttl_s=0.05)
    t.pool.keep_warm(["", "n"])
    await has_blanks(t, 2)
    t.pool.keep_warm(["n"])
    await has_blanks(t, 1)
    assert [worker.model for worker in t.pool.workers] == ["n"]
    t.pool.keep_warm([])
    await t.settled()


async def test_a_default_stays_warm_behind_a_chat_too(theatre: Open) -> None:
    t = theatre(warm=1, idle_ttl_s=0.05)
    t.pool.keep_warm([""])
    assert await t.served(FIRST) == "cold"

    async def has_rested() -> bool:
        return t.stage.actors[0].is_closed

    await until(has_rested)
    assert blanks(t) == 1


async def test_a_blank_whose_first_turn_was_given_up_is_none_that_is_ready_for_anybody(theatre: Open) -> None:
    t = theatre(warm=1)
    t.stage.outlives = True
    await (await t.begun(user("hold"))).aclose()
    # It has a system prompt already, and serves those alone that have the same.
    await has_blanks(t, 1)
    assert await t.served([*system("Be brief."), *FIRST]) == "warm"
    await has_blanks(t, 1)
    assert await t.served([*system("Be long."), *FIRST]) == "warm"
    await has_blanks(t, 1)


@pytest.mark.parametrize("limit", [{"idle_ttl_s": 0.05}, {"max_running": 1}])
async def test_nor_does_it_stay_longer_than_any_other_conversation(theatre: Open, limit: dict[str, float]) -> None:
    t = theatre(**limit)
    t.stage.outlives = True
    await (await t.begun(user("hold"))).aclose()
    await t.chat([*system("Be brief."), *FIRST])
    await t.settled(*["idle"] * int(limit.get("max_running", 0)))
    assert t.stage.actors[0].is_closed


async def test_without_room_nothing_is_started_ahead_and_a_chat_takes_the_place_of_who_is_idle(theatre: Open) -> None:
    t = theatre(warm=1)
    t.memory.limit_bytes = -1  # what nothing fits into
    assert await t.served(FIRST) == "cold"
    for _ in range(20):
        await asyncio.sleep(0)
    assert t.states == ["idle"]
    assert await t.served(FIRST) == "cold"
    assert t.stage.actors[0].is_closed


async def test_who_joins_a_process_needs_no_room(theatre: Open) -> None:
    t = theatre(sessions_per_process=2)
    t.memory.limit_bytes = -1
    held = await t.begun(user("hold"))
    assert await t.served(FIRST) == "warm"
    await held.aclose()


async def test_who_leaves_while_it_waits_for_room_leaves_nothing(theatre: Open) -> None:
    t = theatre()
    t.memory.limit_bytes = -1
    held = await t.begun(user("hold"))
    waiting = asyncio.create_task(t.chat(FIRST))
    for _ in range(20):
        await asyncio.sleep(0)
    assert t.states == ["busy"]
    waiting.cancel()
    await asyncio.wait([waiting])
    await held.aclose()
    await t.settled()


# Its end


async def test_who_drains_keeps_nothing_and_who_is_answered_is_answered_whole(theatre: Open) -> None:
    t = theatre(warm=1)
    await t.chat(FIRST)
    await t.chat(user("call"))
    held = await t.begun(user("hold"))
    t.pool.drain()
    await t.settled("busy")
    t.stage.may_end.set()
    assert [chunk.type async for chunk in held] == ["text", "usage", "done"]
    await t.settled()
    # Who comes too late is answered all the same.
    assert await t.served(SECOND) == "cold"
    await t.settled()


@pytest.mark.parametrize("state", ["starting", "idle", "parked", "draining"])
async def test_a_pool_ends_with_all_its_workers_whatever_they_are_at(theatre: Open, state: str) -> None:
    t = theatre(warm=int(state == "starting"), idle_ttl_s=0 if state == "draining" else 600)
    if state == "starting":
        t.stage.may_open.clear()
        t.pool.keep_warm([""])
    elif state == "draining":
        t.stage.may_close.clear()
        await t.chat(FIRST)
    else:
        await t.chat(user("call") if state == "parked" else FIRST)
    assert t.states == [state]  # and the fixture ends it


async def test_a_session_that_cannot_be_closed_keeps_no_other_from_its_end(theatre: Open) -> None:
    t = theatre()
    await t.chat(FIRST)
    await t.chat(FIRST)

    async def broken() -> None:
        raise RuntimeError("a bug of a third party's")

    closes, t.stage.actors[0].aclose = t.stage.actors[0].aclose, broken  # type: ignore[method-assign]
    t.pool.drain()
    await t.settled()
    assert t.stage.actors[1].is_closed
    await closes()


async def test_those_that_leave_are_waited_for_before_more_are_started_than_may_run(theatre: Open) -> None:
    t = theatre(warm=1, max_running=1, idle_ttl_s=0)
    t.stage.may_close.clear()
    await t.chat(FIRST)
    await t.chat(FIRST)
    assert t.states == ["draining", "draining"]
    waiting = asyncio.create_task(t.chat(FIRST))
    for _ in range(20):
        await asyncio.sleep(0)
    assert t.states == ["draining", "draining"]
    # What became ready meanwhile is as good as a new one.
    t.pool.keep_warm([""])
    await t.settled("draining", "draining", "idle")
    t.stage.may_close.set()
    await waiting
    assert t.stage.told[2] == [["one"]]


# A real provider


async def test_who_leaves_before_its_answer_s_end_was_told_leaves_nothing_of_it_to_others(world: World) -> None:
    claude = ReplayedClaude(world)
    pool = Pool(claude.provider, Memory())
    chunks = answer(pool, request("my secret"))
    # The CLI's last event is `usage` and `done` in one.
    async for chunk in chunks:
        if isinstance(chunk, UsageReport):
            break
    await chunks.aclose()
    claude.log.write_text("")
    response = await fold(ChatStream(answer(pool, request("Hello")), runner="claude"))
    assert response.served != "continued"  # where the first took its time there is a blank by now
    assert claude.received().messages == [("user", "Hello")]
    await pool.aclose()
    await claude.provider.aclose()
