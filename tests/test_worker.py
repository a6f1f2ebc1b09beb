"""The states of a worker, and its end in each of them."""

import asyncio
import itertools
from typing import get_args

import pytest

from daemon.conversation import told
from daemon.worker import Worker, WorkerState
from runners.errors import NotInstalledError
from runners.messages import ChatMessage
from tests.stage import Actor, Stage

pytestmark = pytest.mark.usefixtures("no_leaks")

_STATES: tuple[WorkerState, ...] = get_args(WorkerState)
_MOVES = {
    ("starting", "idle"),
    ("starting", "busy"),
    ("starting", "draining"),
    ("idle", "busy"),
    ("idle", "draining"),
    ("busy", "idle"),
    ("busy", "parked"),
    ("busy", "draining"),
    ("parked", "busy"),
    ("parked", "draining"),
    ("draining", "dead"),
}


async def opened(stage: Stage) -> tuple[Worker, Actor]:
    worker = Worker("m", stage.open())
    await worker.opening
    return worker, stage.actors[-1]


async def test_the_states_follow_each_other_as_the_table_says_and_in_no_other_way() -> None:
    worker, _ = await opened(Stage())
    for before, after in itertools.product(_STATES, _STATES):
        worker.state = before
        if (before, after) in _MOVES:
            used_s = worker.used_s
            worker.move(after)
            assert worker.state == after
            assert worker.used_s >= used_s
        else:
            with pytest.raises(AssertionError, match=f"{before} does not become {after}"):
                worker.move(after)
            assert worker.state == before


async def test_it_has_a_session_as_soon_as_that_is_open_and_is_blank_until_something_is_said() -> None:
    stage = Stage()
    stage.may_open.clear()
    worker = Worker("m", stage.open())
    assert (worker.state, worker.session, worker.is_blank) == ("starting", None, True)
    assert repr(worker) == "<Worker m starting blank>"
    stage.may_open.set()
    assert await worker.opening is worker.session is stage.actors[0]
    worker.conversation = told([ChatMessage(role="user", content="Hi")])
    assert not worker.is_blank
    await worker.aclose()


async def test_its_end_is_that_of_its_session_and_may_come_twice() -> None:
    worker, actor = await opened(Stage())
    await worker.aclose()
    await worker.aclose()
    assert actor.is_closed


@pytest.mark.parametrize("has_begun", [True, False])
async def test_one_that_is_only_just_opened_is_not_opened_any_more(*, has_begun: bool) -> None:
    stage = Stage()
    stage.may_open.clear()
    worker = Worker("m", stage.open())
    if has_begun:
        await stage.opening.wait()
    await worker.aclose()
    assert worker.opening.cancelled()
    assert (worker.session, stage.actors) == (None, [])


async def test_a_session_that_opens_in_spite_of_that_is_closed() -> None:
    stage = Stage()
    stage.may_open.clear()

    async def stubborn() -> Actor:
        opening = asyncio.create_task(stage.open())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            stage.may_open.set()
            return await opening

    worker = Worker("m", stubborn())
    await stage.opening.wait()
    await worker.aclose()
    assert [actor.is_closed for actor in stage.actors] == [True]


async def test_one_that_failed_to_open_has_no_session_and_ends_without_a_word() -> None:
    stage = Stage()
    stage.fails_to_open.append(NotInstalledError("there is none"))
    worker = Worker("m", stage.open())
    await asyncio.wait([worker.opening])
    assert worker.session is None
    await worker.aclose()
