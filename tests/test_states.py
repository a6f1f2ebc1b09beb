"""A runner's health, whatever probes and chats show in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from daemon import states
from daemon.breaker import COUNTED
from daemon.states import Evidence
from runners import errors
from runners.errors import DeadlineExceededError, RunnerError
from runners.provider import Health
from runners.settings import Timeouts

LOGINS = ("not_authenticated", "auth_expired")
CLASSES = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, RunnerError)]
KINDS = sorted({found.kind for found in CLASSES} - {"timeout"})


def made(kind: str) -> RunnerError:
    return next(found for found in CLASSES if found.kind == kind)("x")


healths = st.one_of(
    st.just(Health("ready", version="1.2.3", authenticated=True)),
    st.builds(Health, st.just("degraded"), st.sampled_from(["timeout", "unsupported", "network"])),
    st.builds(Health, st.just("unavailable"), st.sampled_from(["not_installed", "not_authenticated", "protocol"])),
)
failures = st.one_of(
    st.sampled_from(KINDS).map(made),
    st.sampled_from(list(Timeouts.model_fields)).map(lambda name: DeadlineExceededError("x", deadline=name, limit_s=1)),
)
events = st.lists(st.tuples(st.sampled_from(["probed", "answered", "failed"]), healths, failures), max_size=20)


def after(history: list[tuple[str, Health, RunnerError]]) -> Evidence | None:
    known: Evidence | None = None
    for now_s, (what, health, error) in enumerate(history):
        match what:
            case "probed":
                known = states.probed(known, health, now_s)
            case "answered":
                known = states.answered(known, now_s)
            case "failed":
                known = states.failed(known, error, now_s)
    return known


@given(events)
def test_an_answered_chat_makes_every_runner_ready(history: list[tuple[str, Health, RunnerError]]) -> None:
    assert states.answered(after(history), 99).health.state == "ready"


@given(events, failures)
def test_a_failed_chat_makes_no_runner_better(
    history: list[tuple[str, Health, RunnerError]], failure: RunnerError
) -> None:
    before = after(history)
    now = states.failed(before, failure, 99)
    if before is not None:
        assert now is not None
        assert now.health.ok <= before.health.ok
        assert now.health.state != "ready" or before.health.state == "ready"


@given(events, failures)
def test_what_says_nothing_of_the_runner_changes_nothing(
    history: list[tuple[str, Health, RunnerError]], failure: RunnerError
) -> None:
    before = after(history)
    if failure.kind not in (*COUNTED, *LOGINS):
        assert states.failed(before, failure, 99) is before


@given(events, failures, healths)
def test_a_good_probe_refutes_no_chat_and_a_bad_one_always_counts(
    history: list[tuple[str, Health, RunnerError]], failure: RunnerError, health: Health
) -> None:
    shaken = states.failed(after(history), failure, 98)
    now = states.probed(shaken, health, 99)
    if not health.ok:
        assert now.health == health
    elif shaken is not None and shaken.by_chat and shaken.health.state == "degraded":
        assert now == shaken
    elif shaken is None or not shaken.by_chat:
        assert now.health == health


@given(healths)
def test_a_probe_sees_a_login_and_a_cli_that_came_back(health: Health) -> None:
    for kind in ("not_installed", "not_authenticated"):
        gone = states.failed(None, made(kind), 1)
        assert states.probed(gone, health, 2).health == health


@given(st.floats(0.001, 10_000), st.sampled_from(["spawn_s", "first_chunk_s", "silence_s"]))
def test_only_the_runner_s_own_deadlines_are_its_fault(limit_s: float, deadline: str) -> None:
    own = Timeouts()
    error = DeadlineExceededError("x", deadline=deadline, limit_s=limit_s)
    assert states.is_its_own_fault(error, own) == (limit_s >= getattr(own, deadline))
    assert not states.is_its_own_fault(DeadlineExceededError("x", deadline="turn_s", limit_s=limit_s), own)
