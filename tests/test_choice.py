"""Which worker serves a request, as a table and in a second way to say it; which conversations are too many."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.choice import Wanted, abandoned, decide, surplus
from daemon.conversation import NOTHING_SAID, Conversation, told
from daemon.worker import Worker, WorkerState
from runners.messages import ChatMessage
from runners.provider import Session, SessionOptions

HISTORY = told([ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content="Hello")])
OTHER = told([ChatMessage(role="user", content="Bye"), ChatMessage(role="assistant", content="Bye")])
BRIEF = SessionOptions(system="Be brief.")
PLAIN = SessionOptions()


@dataclass(frozen=True)
class Kept:
    """A worker in a few words. A session that was never prepared has no options."""

    state: WorkerState = "idle"
    conversation: Conversation = NOTHING_SAID
    options: SessionOptions | None = PLAIN
    model: str = "m"
    awaits: frozenset[str] = frozenset()
    used_s: float = 0.0
    root: Conversation = NOTHING_SAID


READY = Kept(options=None)
STARTING = Kept("starting", options=None)
SAME = Kept(conversation=HISTORY)
PARKED = Kept("parked", HISTORY, awaits=frozenset({"c1", "c2"}))
FIRST = Wanted("m", PLAIN)
NEXT = Wanted("m", PLAIN, HISTORY)
ROOT = told([ChatMessage(role="user", content="Hi")])
WAITS = replace(PARKED, root=ROOT)
GOES_ON = replace(NEXT, root=ROOT, calls=PARKED.awaits)
RESULT = Wanted("m", PLAIN, HISTORY, frozenset({"c1", "c2"}))


async def _opened() -> Session:
    raise NotImplementedError


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def workers(loop: asyncio.AbstractEventLoop, *kept: Kept) -> list[Worker]:
    """Real workers, whose sessions nobody will look at."""

    async def make() -> list[Worker]:
        made = [Worker(one.model, _opened()) for one in kept]
        for worker in made:
            worker.opening.cancel()
        return made

    made = loop.run_until_complete(make())
    for worker, one in zip(made, kept, strict=True):
        worker.state, worker.conversation, worker.options = one.state, one.conversation, one.options
        worker.awaits, worker.used_s, worker.root = one.awaits, one.used_s, one.root
    return made


def chosen(loop: asyncio.AbstractEventLoop, wanted: Wanted, *kept: Kept) -> Kept | None:
    made = workers(loop, *kept)
    worker = decide(wanted, made)
    return None if worker is None else kept[made.index(worker)]


@pytest.mark.parametrize(
    ("wanted", "best", "others"),
    [
        # Each of `others` loses against `best`, and all of them together.
        (RESULT, PARKED, [SAME, READY, STARTING, Kept("parked", OTHER, awaits=frozenset({"c3"}))]),
        # It takes all of its results and no others.
        (RESULT, READY, [Kept("parked", HISTORY, awaits=frozenset({"c1"}))]),
        (RESULT, READY, [Kept("parked", HISTORY, awaits=frozenset({"c1", "c2", "c3"}))]),
        (NEXT, SAME, [READY, STARTING, PARKED, Kept(conversation=OTHER, used_s=9), Kept(used_s=9)]),
        (NEXT, Kept(conversation=HISTORY, used_s=2), [SAME, Kept(conversation=HISTORY, used_s=1)]),
        (NEXT, READY, [STARTING, Kept(conversation=HISTORY, options=BRIEF), Kept(conversation=HISTORY, model="n")]),
        (FIRST, READY, [SAME, STARTING, PARKED, Kept(options=BRIEF), Kept(options=None, model="n")]),
        # One whose first turn was given up has its options already.
        (FIRST, Kept(), [STARTING, Kept(options=BRIEF)]),
        (FIRST, STARTING, [SAME, Kept("busy", options=None), Kept("draining", options=None)]),
        # Nobody waits for these results any more: the conversation is told anew.
        (RESULT, READY, [Kept("parked", HISTORY, awaits=frozenset({"c3"})), Kept("parked", HISTORY)]),
        # Another conversation's call may have the same id.
        (RESULT, PARKED, [Kept("parked", OTHER, awaits=PARKED.awaits)]),
        (RESULT, READY, [Kept("parked", OTHER, awaits=PARKED.awaits)]),
    ],
)
def test_the_best_worker_serves(
    loop: asyncio.AbstractEventLoop, wanted: Wanted, best: Kept, others: list[Kept]
) -> None:
    for other in others:
        assert chosen(loop, wanted, best, other) == chosen(loop, wanted, other, best) == best
    assert chosen(loop, wanted, *others, best) == chosen(loop, wanted, best, *others) == best


@pytest.mark.parametrize(
    "unfit",
    [
        Kept("busy", HISTORY),
        Kept("draining", HISTORY),
        Kept("dead", HISTORY),
        Kept("parked", HISTORY),
        Kept(conversation=OTHER),
        Kept(conversation=HISTORY, options=BRIEF),
        Kept(conversation=HISTORY, model="n"),
        Kept(options=BRIEF),
        Kept(options=None, model="n"),
        Kept("busy", options=None),
        Kept("starting", options=None, model="n"),
    ],
)
def test_for_whom_none_is_fit_a_new_one_is_started(loop: asyncio.AbstractEventLoop, unfit: Kept) -> None:
    assert chosen(loop, NEXT, unfit) is None
    assert chosen(loop, NEXT) is None


_KEPT = st.builds(
    Kept,
    st.sampled_from(["idle", "idle", "parked", "busy", "draining", "dead"]),
    st.sampled_from([NOTHING_SAID, HISTORY, OTHER]),
    st.sampled_from([PLAIN, BRIEF]),
    st.sampled_from(["m", "n"]),
    st.frozensets(st.sampled_from(["c1", "c2"])),
    st.floats(0, 3),
)
_FRESH = st.builds(Kept, st.sampled_from(["idle", "starting", "busy"]), options=st.none(), model=st.sampled_from("mn"))
_WORKERS = st.lists(st.one_of(_KEPT, _FRESH), max_size=6)
_WANTED = st.builds(
    Wanted,
    st.sampled_from(["m", "n"]),
    st.sampled_from([PLAIN, BRIEF]),
    st.sampled_from([NOTHING_SAID, HISTORY, OTHER]),
    st.frozensets(st.sampled_from(["c1", "c2"])),
)


def merit(wanted: Wanted, one: Kept) -> tuple[int, float] | None:
    """How good it is for a request, None where it is unfit."""
    if one.model != wanted.model:
        return None
    is_alike = one.options == wanted.options
    if one.state == "parked":
        is_meant = one.awaits == wanted.results and one.conversation == wanted.history != NOTHING_SAID
        return (4, 0.0) if is_alike and is_meant and wanted.results else None
    if one.state == "idle" and one.conversation != NOTHING_SAID:
        return (3, one.used_s) if is_alike and one.conversation == wanted.history else None
    if one.state in ("idle", "starting") and (is_alike or one.options is None):
        return (2 if one.state == "idle" else 1, one.used_s)
    return None


@given(_WANTED, _WORKERS)
def test_the_choice_is_the_one_of_the_highest_merit_whatever_there_is(
    loop: asyncio.AbstractEventLoop, wanted: Wanted, kept: list[Kept]
) -> None:
    merits = [seen for one in kept if (seen := merit(wanted, one)) is not None]
    best = chosen(loop, wanted, *kept)
    assert (None if best is None else merit(wanted, best)) == max(merits, default=None)


@pytest.mark.parametrize(
    ("going_on", "kept", "left"),
    [
        (GOES_ON, [WAITS], WAITS),
        (GOES_ON, [SAME, WAITS, replace(WAITS, root=told([ChatMessage(role="user", content="Bye")]))], WAITS),
        # Its client may ask for another system prompt, or another model, or have changed an answer.
        (GOES_ON, [replace(WAITS, options=BRIEF, model="n")], replace(WAITS, options=BRIEF, model="n")),
        (GOES_ON, [replace(WAITS, conversation=OTHER)], replace(WAITS, conversation=OTHER)),
        # Two clients may have the same conversation: one of them goes on.
        (GOES_ON, [replace(WAITS, used_s=2), replace(WAITS, used_s=1)], replace(WAITS, used_s=1)),
        (GOES_ON, [SAME, READY, replace(WAITS, state="busy"), replace(WAITS, state="draining")], None),
        (GOES_ON, [replace(WAITS, awaits=frozenset({"c1", "c3"}))], None),
        (FIRST, [PARKED, WAITS, Kept("parked", NOTHING_SAID)], None),
    ],
)
def test_a_conversation_that_goes_on_without_its_results_leaves_a_session_that_nobody_needs(
    loop: asyncio.AbstractEventLoop, going_on: Wanted, kept: list[Kept], left: Kept | None
) -> None:
    made = workers(loop, *kept)
    worker = abandoned(going_on, made)
    assert (None if worker is None else kept[made.index(worker)]) == left


@given(_WORKERS, st.integers(0, 4))
def test_of_too_many_conversations_those_go_that_rest_the_longest(
    loop: asyncio.AbstractEventLoop, kept: list[Kept], most: int
) -> None:
    made = workers(loop, *kept)
    going = surplus(made, most)
    resting = [worker for worker in made if worker.state == "idle" and not worker.is_fresh]
    staying = [worker for worker in resting if worker not in going]
    assert set(going) <= set(resting)
    assert len(staying) == min(len(resting), most)
    assert max([worker.used_s for worker in going], default=0) <= min((w.used_s for w in staying), default=9)
