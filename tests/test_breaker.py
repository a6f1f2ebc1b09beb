"""When a runner is refused, with which error, and when it is tried again."""

import copy
from typing import Any

import pytest

from daemon import breaker
from daemon.breaker import Breaker
from runners.errors import DeadlineExceededError, RunnerError
from runners.settings import BreakerSettings

KINDS = {error.kind: error for error in RunnerError.__subclasses__()}
COUNTED = ("not_installed", "process_exited", "protocol", "timeout", "overloaded", "vendor_error")
STATED = ("rate_limited", "quota_exhausted")
PROOF = (*STATED, "permission")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def failure(kind: str, message: str = "it broke", retry_after_s: float | None = None) -> RunnerError:
    fields: dict[str, Any] = {"deadline": "turn_s", "limit_s": 1} if kind == "timeout" else {}
    return KINDS[kind](message, retry_after_s=retry_after_s, hint="mend it", stderr_tail="secret", **fields)


class Bench:
    """A breaker of five failures and ten seconds."""

    def __init__(self, failures: int = 5, open_s: float = 10) -> None:
        self.clock = Clock()
        self.failures = failures
        self.breaker = Breaker(BreakerSettings(failures=failures, open_s=open_s), self.clock)

    def state(self) -> str:
        return self.breaker.state

    def fail(self, kind: str = "process_exited", retry_after_s: float | None = None) -> None:
        self.breaker.admit().failed(failure(kind, retry_after_s=retry_after_s))

    def open(self) -> None:
        for _ in range(self.failures):
            self.fail()

    def refused(self) -> RunnerError:
        with pytest.raises(RunnerError) as caught:
            self.breaker.admit()
        return caught.value

    def open_for_s(self) -> float:
        """How long it stays open from now on."""
        assert self.state() == "open"
        began = self.clock.now
        self.clock.now += self.refused().retry_after_s or 0.0
        assert self.state() == "half_open"
        return self.clock.now - began


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("kind", COUNTED)
def test_five_counted_failures_in_a_row_open_it(bench: Bench, kind: str) -> None:
    for _ in range(5):
        assert bench.state() == "closed"
        bench.fail(kind)
    assert bench.state() == "open"
    assert bench.refused().kind == kind


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - set(COUNTED)))
def test_any_other_failure_neither_counts_nor_interrupts_the_row(bench: Bench, kind: str) -> None:
    for _ in range(20):
        bench.fail(kind)
    for _ in range(4):
        bench.fail()
    bench.fail(kind)
    assert bench.state() == "closed"
    bench.fail()
    assert bench.state() == "open"


def test_what_the_kinds_mean_is_what_these_tests_are_about() -> None:
    assert (breaker.COUNTED, breaker.STATED, breaker.PROOF) == (COUNTED, STATED, PROOF)


def test_a_success_interrupts_the_row_and_an_abandoned_chat_does_not(bench: Bench) -> None:
    for _ in range(4):
        bench.fail()
    bench.breaker.admit().succeeded()
    for _ in range(4):
        bench.fail()
    bench.breaker.admit().abandoned()
    assert bench.state() == "closed"
    bench.fail()
    assert bench.state() == "open"


def test_a_refusal_is_the_last_failure_again_with_the_time_that_remains(bench: Bench) -> None:
    bench.open()
    bench.clock.now += 4
    refused = bench.refused()
    assert refused.message == str(refused)
    assert refused.message == "the runner failed 5 times in a row, last: it broke; it is tried again in 6 s"
    assert (refused.kind, refused.retry_after_s, refused.retryable) == ("process_exited", 6, True)
    assert refused.hint == "mend it"
    assert refused.stderr_tail is None
    assert "secret" not in str(refused.to_dict())


def test_what_is_not_worth_a_retry_by_itself_is_so_once_it_has_a_time(bench: Bench) -> None:
    for _ in range(5):
        bench.fail("not_installed")
    assert not failure("not_installed").retryable
    assert bench.refused().retryable


@pytest.mark.parametrize("kind", COUNTED)
def test_a_refusal_leaves_the_failure_as_it_was_and_every_one_is_another(kind: str) -> None:
    bench = Bench(failures=1)
    failed = failure(kind)
    before = copy.copy(failed).to_dict()
    bench.breaker.admit().failed(failed)
    first, second = bench.refused(), bench.refused()
    assert failed.to_dict() == before
    assert type(first) is type(failed)
    assert first is not second
    assert first.message == second.message == "the runner failed, last: it broke; it is tried again in 10 s"


def test_a_copied_error_keeps_every_field_and_not_its_traceback() -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        raise failure("timeout")
    twin = copy.copy(caught.value)
    assert (str(twin), twin.to_dict()) == (str(caught.value), caught.value.to_dict())
    assert twin.__traceback__ is None


def test_refusal_says_what_admit_would_raise_and_takes_no_place(bench: Bench) -> None:
    assert bench.breaker.refusal() is None
    bench.open()
    refusal = bench.breaker.refusal()
    assert refusal is not None
    assert refusal.to_dict() == bench.refused().to_dict()
    bench.clock.now += 10
    assert bench.breaker.refusal() is None
    bench.breaker.admit()


def test_half_open_lets_one_pass_and_tells_the_others_to_come_back_soon(bench: Bench) -> None:
    bench.open()
    bench.clock.now += 9.99
    assert bench.state() == "open"
    bench.clock.now += 0.01
    assert bench.state() == "half_open"
    trial = bench.breaker.admit()
    for _ in range(3):
        refused = bench.refused()
        assert (refused.kind, refused.retry_after_s) == ("process_exited", 1)
        assert refused.message.endswith("last: it broke; one request tries it again now")
    trial.succeeded()
    assert bench.state() == "closed"
    [bench.breaker.admit() for _ in range(3)]


def test_nobody_is_sent_away_for_longer_than_it_would_be_open() -> None:
    bench = Bench(failures=1, open_s=0.25)
    bench.fail()
    assert bench.open_for_s() == 0.25
    bench.breaker.admit()
    assert bench.refused().retry_after_s == 0.25


def test_each_failed_trial_doubles_the_time_up_to_ten_times(bench: Bench) -> None:
    bench.open()
    lengths = []
    for _ in range(7):
        lengths.append(bench.open_for_s())
        bench.fail("timeout")
    assert lengths == [10, 20, 40, 80, 100, 100, 100]
    assert bench.refused().message.startswith("the runner failed 12 times in a row")
    assert bench.refused().kind == "timeout"


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - set(COUNTED)))
def test_a_trial_that_fails_otherwise_closes_it_only_if_the_vendor_answered(bench: Bench, kind: str) -> None:
    bench.open()
    bench.open_for_s()
    bench.fail(kind)
    if kind in PROOF:
        assert bench.state() == "closed"
    else:
        assert bench.state() == "half_open"
        bench.fail()  # the next one is the trial
        assert bench.open_for_s() == 20


def test_after_an_abandoned_trial_the_next_one_is_the_trial(bench: Bench) -> None:
    bench.open()
    bench.open_for_s()
    bench.breaker.admit().abandoned()
    assert bench.state() == "half_open"
    trial = bench.breaker.admit()
    bench.refused()
    trial.succeeded()
    assert bench.state() == "closed"


@pytest.mark.parametrize(("closed_s", "expected_s"), [(0, 40), (19.5, 40), (20, 10), (1000, 10)])
def test_a_success_counts_as_good_after_as_long_as_it_was_open(
    bench: Bench, closed_s: float, expected_s: float
) -> None:
    bench.open()
    bench.open_for_s()
    bench.fail()
    assert bench.open_for_s() == 20
    bench.breaker.admit().succeeded()
    bench.clock.now += closed_s
    bench.open()
    assert bench.open_for_s() == expected_s


def test_a_success_that_was_admitted_before_it_opened_closes_it(bench: Bench) -> None:
    early, later = bench.breaker.admit(), bench.breaker.admit()
    bench.open()
    early.succeeded()
    assert bench.state() == "closed"
    bench.open()
    bench.open_for_s()
    trial = bench.breaker.admit()
    later.succeeded()
    assert bench.state() == "closed"
    trial.failed(failure("protocol"))  # one of five now
    assert bench.state() == "closed"


def test_a_failure_that_was_admitted_before_it_opened_does_not_lengthen_it(bench: Bench) -> None:
    early = [bench.breaker.admit() for _ in range(3)]
    bench.open()
    bench.clock.now += 4
    early[0].failed(failure("overloaded"))
    assert bench.refused().kind == "overloaded"
    assert bench.open_for_s() == 6
    early[1].failed(failure("protocol"))
    assert bench.state() == "half_open"
    trial = bench.breaker.admit()
    early[2].failed(failure("protocol"))
    assert bench.state() == "half_open"
    trial.succeeded()
    assert bench.state() == "closed"


def test_try_now_half_opens_at_once_and_does_nothing_else(bench: Bench) -> None:
    bench.breaker.try_now()
    assert bench.state() == "closed"
    bench.open()
    bench.breaker.try_now()
    assert bench.state() == "half_open"
    bench.breaker.admit()
    bench.breaker.try_now()
    bench.refused()


@pytest.mark.parametrize("kind", STATED)
def test_a_stated_time_is_kept_to_the_end_and_then_all_may_come(bench: Bench, kind: str) -> None:
    early = bench.breaker.admit()
    bench.fail(kind, retry_after_s=300)
    bench.clock.now += 100
    early.succeeded()
    refused = bench.refused()
    assert (refused.kind, refused.retry_after_s, refused.hint) == (kind, 200, "mend it")
    assert refused.message == "it broke; the runner is asked again in 200 s"
    assert refused.stderr_tail is None
    assert refused.retryable == failure(kind).retryable
    assert bench.state() == "closed"
    bench.clock.now += 199.5
    bench.refused()
    bench.clock.now += 0.5
    [bench.breaker.admit() for _ in range(3)]


@pytest.mark.parametrize("kind", STATED)
def test_without_a_stated_time_nobody_is_refused(bench: Bench, kind: str) -> None:
    for _ in range(20):
        bench.fail(kind)
    early = [bench.breaker.admit() for _ in range(2)]
    early[0].failed(failure(kind, retry_after_s=60))
    early[1].failed(failure(kind))
    assert bench.refused().retry_after_s == 60


def test_a_newer_statement_replaces_an_older_and_longer_one(bench: Bench) -> None:
    early = bench.breaker.admit()
    bench.fail("quota_exhausted", retry_after_s=3600)
    early.failed(failure("rate_limited", retry_after_s=5))
    assert (bench.refused().kind, bench.refused().retry_after_s) == ("rate_limited", 5)


def test_a_time_stated_by_something_else_than_a_limit_is_not_kept(bench: Bench) -> None:
    bench.fail("overloaded", retry_after_s=60)
    assert bench.breaker.refusal() is None


def test_of_two_reasons_the_one_that_lasts_longer_is_given(bench: Bench) -> None:
    early = [bench.breaker.admit() for _ in range(2)]
    bench.open()
    early[0].failed(failure("rate_limited", retry_after_s=5))
    assert (bench.refused().kind, bench.refused().retry_after_s) == ("process_exited", 10)
    early[1].failed(failure("rate_limited", retry_after_s=50))
    assert (bench.refused().kind, bench.refused().retry_after_s) == ("rate_limited", 50)
    bench.breaker.try_now()
    assert bench.refused().kind == "rate_limited"
    bench.clock.now += 50
    bench.breaker.admit().succeeded()  # nobody took the trial meanwhile


def test_a_trial_that_meets_a_limit_closes_it_for_the_stated_time_only(bench: Bench) -> None:
    bench.open()
    bench.open_for_s()
    bench.fail("rate_limited", retry_after_s=30)
    assert (bench.state(), bench.refused().kind) == ("closed", "rate_limited")
    bench.clock.now += 30
    [bench.breaker.admit() for _ in range(3)]


def test_only_the_first_end_of_an_admission_counts(bench: Bench) -> None:
    for end in ("succeeded", "abandoned"):
        admission = bench.breaker.admit()
        admission.failed(failure("protocol"))
        getattr(admission, end)()
    for _ in range(3):
        bench.fail()
    assert bench.state() == "open"


def test_a_trial_whose_answer_has_begun_keeps_nobody_out(bench: Bench) -> None:
    bench.open()
    bench.open_for_s()
    trial = bench.breaker.admit()
    bench.refused()
    trial.begun()
    assert bench.state() == "closed"
    bench.breaker.admit().abandoned()


@pytest.mark.parametrize("who", ["the trial", "another"])
def test_after_an_answer_that_only_began_the_first_failure_opens_it_again_for_twice_as_long(
    bench: Bench, who: str
) -> None:
    bench.open()
    bench.open_for_s()
    trial = bench.breaker.admit()
    trial.begun()
    (trial if who == "the trial" else bench.breaker.admit()).failed(failure("protocol"))
    assert bench.open_for_s() == 20


def test_after_an_answer_that_was_whole_it_takes_as_many_failures_as_ever(bench: Bench) -> None:
    bench.open()
    bench.open_for_s()
    trial = bench.breaker.admit()
    trial.begun()
    trial.succeeded()
    for _ in range(4):
        bench.fail()
    assert bench.state() == "closed"


def test_that_an_answer_begins_says_nothing_while_it_is_closed_or_of_one_that_is_no_trial(bench: Bench) -> None:
    early = bench.breaker.admit()
    for _ in range(4):
        bench.fail()
    early.begun()
    bench.fail()
    assert bench.state() == "open"
    early.begun()
    assert bench.state() == "open"
    early.abandoned()
    early.begun()
    assert bench.state() == "open"
