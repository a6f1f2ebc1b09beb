"""A chat that fails before its answer begins: whether the same runner is asked again, or another one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runners.errors import (
    AuthExpiredError,
    ConfigError,
    ContextOverflowError,
    DeadlineExceededError,
    InvalidRequestError,
    LineTooLongError,
    ModelNotFoundError,
    NetworkError,
    NotAuthenticatedError,
    NotInstalledError,
    OverloadedError,
    PermissionDeniedError,
    ProcessExitedError,
    ProtocolError,
    QueueFullError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestCancelledError,
    RunnerError,
    UnsupportedError,
    VendorError,
)
from runners.settings import BreakerSettings
from runners.stream import Failed, Retrying, Start, Text, Warn
from tests.routing import Reply, Routed, Scripted, asked, breaks_after, in_time, settings, told

RETRIED = [NetworkError, OverloadedError, ProcessExitedError, RateLimitedError, VendorError]
FINAL = [
    AuthExpiredError,
    ConfigError,
    ContextOverflowError,
    InvalidRequestError,
    LineTooLongError,
    ModelNotFoundError,
    NotAuthenticatedError,
    NotInstalledError,
    PermissionDeniedError,
    QuotaExhaustedError,
    UnsupportedError,
]
NOBODY_MENDS = [InvalidRequestError, ModelNotFoundError, RequestCancelledError]
ONCE = settings(attempts=1)

House = Callable[..., Routed]


@pytest.fixture
async def house(tmp_path: Path, no_leaks: None) -> AsyncIterator[House]:
    made: list[Routed] = []

    def make(top: str = "", **runners: Scripted) -> Routed:
        made.append(Routed(tmp_path, top=top, **runners))
        return made[-1]

    yield make
    for routed in made:
        await routed.supervisor.aclose()


def a(*replies: Reply, **fields: Any) -> Scripted:
    return Scripted("a", *replies, settings=fields.pop("settings", None) or settings(**fields))


def b(*replies: Reply, **fields: Any) -> Scripted:
    return Scripted("b", *replies, settings=fields.pop("settings", None) or settings(**fields))


def kind(error: type[RunnerError]) -> str:
    return error.kind


async def failure(routed: Routed, *models: str, **fields: Any) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        await routed.answer(*models, **fields)
    return caught.value


@pytest.mark.parametrize("error", RETRIED, ids=kind)
async def test_what_may_pass_is_tried_again_and_the_client_is_told(house: House, error: type[RunnerError]) -> None:
    routed = house(a=a(error("first"), error("second"), "fine"))
    routed.chance = 1.0
    chunks = await routed.answer("a")
    assert told(chunks) == [f"retrying 1/3 {error.kind}", f"retrying 2/3 {error.kind}", "fine"]
    assert [chunk.delay_s for chunk in chunks if isinstance(chunk, Retrying)] == [0.001, 0.002]
    assert [chunk.type for chunk in chunks[:3]] == ["retrying", "retrying", "start"]


@pytest.mark.parametrize("error", FINAL, ids=kind)
async def test_what_will_not_pass_is_tried_once(house: House, error: type[RunnerError]) -> None:
    runner = a(error("no"), "never asked")
    assert (await failure(house(a=runner), "a")).kind == error.kind
    assert len(runner.calls) == 1


async def test_the_last_failure_is_the_answer_and_no_try_is_told_that_does_not_come(house: House) -> None:
    runner = a(OverloadedError("1"), VendorError("2"), NetworkError("3"), "never asked")
    assert (await failure(house(a=runner), "a")).message == "3"
    assert len(runner.calls) == 3


async def test_a_deadline_is_not_tried_again(house: House) -> None:
    error = DeadlineExceededError("late", deadline="silence_s", limit_s=1)
    assert error.retryable
    runner = a(error, "never asked")
    assert (await failure(house(a=runner), "a")).kind == error.kind
    assert len(runner.calls) == 1


async def test_an_answer_that_has_begun_is_never_tried_again(house: House) -> None:
    runner = a([Start("1", "a", "script"), Text("so far"), Failed(OverloadedError("broke"))], "never asked")
    chunks = await house(a=runner, b=b("never asked")).answer("a", "b")
    assert [chunk.type for chunk in chunks] == ["start", "text", "error"]
    assert len(runner.calls) == 1


async def test_the_wait_is_random_between_nothing_and_a_bound_that_doubles_up_to_the_cap(house: House) -> None:
    runner = a(*[OverloadedError("x")] * 5, "fine", settings=settings(attempts=6, breaker=BreakerSettings(failures=9)))
    routed = house(a=runner)
    await routed.answer("a")
    assert routed.jitters == [(0, 0.001), (0, 0.002), (0, 0.004), (0, 0.004), (0, 0.004)]


@pytest.mark.parametrize(("stated_s", "waited_s"), [(0.03, 0.031), (0, 0.001), (None, 0.001)])
async def test_the_wait_comes_on_top_of_a_vendor_s_own_word_on_when_to_come_back(
    house: House, stated_s: float | None, waited_s: float
) -> None:
    routed = house(a=a(OverloadedError("x", retry_after_s=stated_s), "fine"))
    routed.chance = 1.0
    began_s = time.monotonic()
    [retrying] = [chunk for chunk in await routed.answer("a") if isinstance(chunk, Retrying)]
    assert retrying.delay_s == waited_s
    assert time.monotonic() - began_s >= waited_s


async def test_who_is_the_last_to_ask_is_waited_for_as_long_as_the_vendor_says(house: House) -> None:
    routed = house(a=a(OverloadedError("x", retry_after_s=0.05), "fine", cap_s=0.004))
    assert told(await routed.answer("a")) == ["retrying 1/3 overloaded", "fine"]


async def test_who_has_another_to_ask_does_not_wait_longer_than_the_cap(house: House) -> None:
    first = a(OverloadedError("x", retry_after_s=0.05), "never asked", cap_s=0.004)
    routed = house(a=first, b=b("fine"))
    assert told(await routed.answer("a", "b"))[-1:] == ["fine"]
    assert list(first.script) == ["never asked"]
    short = house(a=a(OverloadedError("x", retry_after_s=0.003), "mended", cap_s=0.004), b=b("never asked"))
    assert told(await short.answer("a", "b")) == ["retrying 1/3 overloaded", "mended"]


async def test_nothing_is_waited_for_that_comes_after_the_request_s_time(house: House) -> None:
    runner = a(OverloadedError("x", retry_after_s=60), "never asked")
    began_s = time.monotonic()
    assert (await failure(house(a=runner), "a", timeouts={"turn_s": 30})).kind == "overloaded"
    assert time.monotonic() - began_s < 20


async def test_every_try_has_what_is_left_of_the_request_s_time(house: House) -> None:
    first = a(OverloadedError("x", retry_after_s=0.2), NetworkError("y"), settings=in_time(100, attempts=2, cap_s=1))
    second = b(NetworkError("z", retry_after_s=0.2), "fine", settings=in_time(1000, attempts=2))
    await house(a=first, b=second).answer("a", "b")
    assert 99 < first.turns_s[0] <= 100
    assert first.turns_s[1] < 100 - 0.2
    assert second.turns_s[0] < first.turns_s[1]
    assert 0 < second.turns_s[1] < second.turns_s[0] - 0.2


async def test_a_fallback_s_own_time_counts_where_it_is_shorter_than_what_is_left(house: House) -> None:
    second = b("fine", settings=in_time(5))
    await house(a=a(NetworkError("y"), settings=in_time(100, attempts=1)), b=second).answer("a", "b")
    assert second.turns_s == [5]


async def test_a_request_s_own_time_is_what_is_shared(house: House) -> None:
    runner = a(OverloadedError("x"), "fine")
    await house(a=runner).answer("a", timeouts={"turn_s": 50})
    assert 49 < runner.turns_s[0] <= 50
    assert runner.turns_s[1] < runner.turns_s[0]


async def test_a_runner_that_rests_is_not_tried_again(house: House) -> None:
    runner = a(*[OverloadedError("x")] * 9, settings=settings(attempts=9, breaker=BreakerSettings(failures=2)))
    routed = house(a=runner)
    assert (await failure(routed, "a")).message == "x"
    assert len(runner.calls) == 2
    refused = await failure(routed, "a")
    assert (refused.kind, refused.retry_after_s, refused.runner) == ("overloaded", 30, "a")
    assert len(runner.calls) == 2


async def test_a_warning_is_given_once_however_often_it_is_tried(house: House) -> None:
    runner = a(OverloadedError("x"), OverloadedError("y"), [Warn("new"), Start("1", "a", "script"), Text("fine")])
    chunks = await house(a=runner, b=b("never asked")).answer("a", temperature=1, seed=5)
    warnings = [chunk.message for chunk in chunks if isinstance(chunk, Warn)]
    assert len(warnings) == len(set(warnings)) == 3
    assert warnings[-1] == "new"


async def test_who_waits_for_its_next_try_has_no_place_and_another_runs(house: House) -> None:
    runner = a(OverloadedError("x", retry_after_s=0.2), "quick", "late", settings=settings(max_running=1, max_queued=0))
    routed = house(a=runner)
    late = asyncio.create_task(routed.answer("a"))
    await runner.asked.wait()
    assert told(await routed.answer("a")) == ["quick"]
    assert told(await late) == ["retrying 1/3 overloaded", "late"]
    assert routed.supervisor.gate(runner).is_empty


async def test_who_leaves_while_it_waits_for_its_next_try_leaves_nothing(house: House) -> None:
    runner = a(OverloadedError("x", retry_after_s=60), "never asked")
    routed = house(a=runner)
    async with await routed.service.chat(asked(model="a")) as stream:
        assert (await anext(stream)).type == "retrying"
        cancelled = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
    assert routed.supervisor.gate(runner).is_empty
    assert len(runner.calls) == 1


async def test_fallbacks_are_asked_in_their_order_and_each_is_told(house: House) -> None:
    c = Scripted("c", "fine", settings=ONCE)
    routed = house("fallback: [c, b]", a=a(OverloadedError("full", runner="a"), settings=ONCE), b=b("no"), c=c)
    assert told(await routed.chat("a")) == ["warning a cannot answer (full): c is asked", "fine"]
    routed = house(
        "fallback: [b, c]",
        a=a(NotInstalledError("gone"), settings=ONCE),
        b=b(NotAuthenticatedError("out"), settings=ONCE),
        c=Scripted("c", "fine", settings=ONCE),
    )
    chunks = await routed.chat("a")
    assert told(chunks)[0] == "warning a cannot answer (gone): b is asked"
    assert told(chunks)[1:] == ["warning b cannot answer (out): c is asked", "fine"]
    [start] = [chunk for chunk in chunks if isinstance(chunk, Start)]
    assert start.runner == "c"


async def test_when_none_can_answer_the_last_one_s_failure_is_raised_with_its_name(house: House) -> None:
    routed = house(
        "fallback: [b]", a=a(OverloadedError("a is full"), settings=ONCE), b=b(NetworkError("b"), attempts=1)
    )
    with pytest.raises(NetworkError) as caught:
        await routed.chat("a")
    assert caught.value.runner == "b"


async def test_who_was_asked_first_is_no_fallback_of_its_own_with_any_model(house: House) -> None:
    routed = house('fallback: ["a:other", b]', a=a(OverloadedError("x"), "never asked", settings=ONCE), b=b("fine"))
    assert told(await routed.chat("a"))[-1] == "fine"
    assert [route.runner.name for route in routed.registry.fallbacks(routed.registry.resolve("b"))] == ["a"]


async def test_a_fallback_may_name_a_model_and_an_alias(house: House) -> None:
    fallback = b("fine")
    routed = house('aliases: {mine: "b:special"}\nfallback: [mine]', a=a(VendorError("x"), attempts=1), b=fallback)
    await routed.chat("a")
    assert fallback.calls[0].model == "special"


async def test_who_is_strict_wants_nobody_else_s_answer(house: House) -> None:
    other = b("never asked")
    routed = house("fallback: [b]", a=a(OverloadedError("x"), settings=ONCE), b=other)
    with pytest.raises(OverloadedError):
        await routed.chat("a", strict=True)
    assert not other.calls


@pytest.mark.parametrize("error", NOBODY_MENDS, ids=kind)
async def test_what_no_other_mends_is_no_reason_to_ask_one(house: House, error: type[RunnerError]) -> None:
    other = b("never asked")
    routed = house("fallback: [b]", a=a(error("x"), settings=ONCE), b=other)
    with pytest.raises(error):
        await routed.chat("a")
    assert not other.calls


MENDED = [error for error in [*RETRIED, *FINAL, ProtocolError, QueueFullError] if error not in NOBODY_MENDS]


@pytest.mark.parametrize("error", MENDED, ids=kind)
async def test_anything_else_another_runner_may_do(house: House, error: type[RunnerError]) -> None:
    routed = house("fallback: [b]", a=a(error("x"), settings=ONCE), b=b("fine"))
    assert told(await routed.chat("a"))[-1] == "fine"


async def test_a_runner_that_rests_is_passed_over_without_being_asked(house: House) -> None:
    resting = a(ProcessExitedError("x"), settings=breaks_after(1))
    routed = house("fallback: [b]", a=resting, b=b("one", "two"))
    assert [told(await routed.chat("a"))[-1] for _ in range(2)] == ["one", "two"]
    assert len(resting.calls) == 1


async def test_a_default_request_passes_over_a_runner_that_rests_and_comes_back(house: House) -> None:
    resting = a(ProcessExitedError("x"), "back", settings=breaks_after(1))
    routed = house(a=resting, b=b("for a"))
    with pytest.raises(ProcessExitedError):
        await routed.chat()
    assert told(await routed.chat()) == ["for a"]
    routed.now_s += 31
    assert told(await routed.chat()) == ["back"]
