"""What keeps one chat, one client or one runner from harming the others: the gate and the supervisor."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon import gate
from runners.errors import DeadlineExceededError, OverloadedError, ProcessExitedError, ProtocolError, RateLimitedError
from runners.settings import BreakerSettings
from runners.stream import Done, Start, Text, Warn
from tests.routing import Routed, Scripted, asked, breaks_after, settings, told
from tests.world import until

House = Callable[..., Routed]


@pytest.fixture
async def house(tmp_path: Path, no_leaks: None) -> AsyncIterator[House]:
    made: list[Routed] = []

    def make(a: Scripted, **others: Scripted) -> Routed:
        made.append(Routed(tmp_path, a=a, **others))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for routed in made:
        await routed.supervisor.aclose()


def one(*replies: object, **fields: object) -> Scripted:
    return Scripted("a", *replies, **fields)  # type: ignore[arg-type]


async def test_a_trial_whose_client_does_not_read_leaves_its_place_to_another(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_STALLED_S", 0.05)
    answer = [Warn("first"), Start("1", "a", "script"), Text("late"), Done("end_turn")]
    runner = one(ProcessExitedError("x"), answer, "fine", settings=breaks_after(1))
    routed = house(a=runner)
    with pytest.raises(ProcessExitedError):
        await routed.chat("a")
    routed.now_s += 31
    breaker = routed.supervisor.gate(runner).breaker
    async with await routed.service.chat(asked(model="a")) as trial:
        assert (await anext(trial)).type == "warning"
        assert breaker.refusal() is not None

        async def another_may() -> bool:
            return breaker.refusal() is None

        await until(another_may)
        assert told(await routed.chat("a")) == ["fine"]
        assert [chunk.type async for chunk in trial] == ["start", "text", "done"]


async def test_a_deep_health_is_the_trial_that_a_resting_runner_waits_for(house: House) -> None:
    routed = house(a=one(ProtocolError("x"), "OK.", "fine", settings=breaks_after(1)))
    with pytest.raises(ProtocolError):
        await routed.chat("a")
    assert not (await routed.service.health("a"))["ok"]
    [row] = (await routed.service.health("a", deep=True))["runners"]
    assert (row["ok"], row["state"], row["reason"]) == (True, "ready", None)
    assert told(await routed.chat("a")) == ["fine"]


async def test_a_runner_that_cannot_be_closed_keeps_no_other_from_its_end(house: House) -> None:
    class Broken(Scripted):
        async def aclose(self) -> None:
            raise OSError("no")

    broken, well = Broken("a", settings=settings()), Scripted("b", "so far", settings=settings())
    routed = house(a=broken, b=well)
    session = await well.open()
    with capture_logs() as told_in_log:
        await routed.supervisor.aclose()
    assert session.state == "dead"
    assert [event["runner"] for event in told_in_log if event["event"] == "runner.not_closed"] == ["a"]


async def test_chats_that_a_vendor_sends_away_together_all_have_their_tries(house: House) -> None:
    class Together(Scripted):
        barrier = asyncio.Barrier(4)

        async def discover(self) -> None:
            if len(self.calls) < 4:
                await self.barrier.wait()

    failures = [RateLimitedError("slow down", retry_after_s=0.05)] * 7
    routed = house(a=Together("a", *failures, *["fine"] * 4, settings=settings(attempts=20)))
    began_s = time.monotonic()

    async def time_passes() -> None:
        while True:
            routed.now_s = 1000 + time.monotonic() - began_s
            await asyncio.sleep(0.005)

    passing = asyncio.create_task(time_passes())
    answers = await asyncio.gather(*(routed.chat("a") for _ in range(4)))
    passing.cancel()
    assert [told(answer)[-1] for answer in answers] == ["fine"] * 4


async def test_the_time_of_a_request_ends_also_before_its_cli_is_there(house: House) -> None:
    class Slow(Scripted):
        async def discover(self) -> None:
            await asyncio.Event().wait()

    routed = house(a=Slow("a", settings=settings()))
    with pytest.raises(DeadlineExceededError) as caught:
        await routed.chat("a", timeouts={"turn_s": 0.1})
    assert caught.value.deadline == "turn_s"
    assert routed.supervisor.gate(routed.registry.runners["a"]).is_empty


async def test_who_asks_about_a_runner_that_was_replaced_makes_no_record_of_it(house: House) -> None:
    runner = one("fine", settings=settings(breaker=BreakerSettings(failures=1)))
    routed = house(a=runner)
    other = house(a=one(settings=settings())).registry
    routed.service.replace(other)
    assert routed.supervisor.known(runner) is None
    assert await routed.supervisor.health(runner) == (None, None)
    assert runner not in routed.supervisor.in_use()


async def test_a_chat_whose_runner_is_replaced_between_two_tries_ends_as_it_began(house: House) -> None:
    runner = one(OverloadedError("x", retry_after_s=0.1), "fine", settings=settings())
    routed = house(a=runner)
    async with await routed.service.chat(asked(model="a")) as stream:
        assert (await anext(stream)).type == "retrying"
        routed.service.replace(house(a=one(settings=settings())).registry)
        assert told([chunk async for chunk in stream]) == ["fine"]
    assert runner not in routed.supervisor.in_use()
