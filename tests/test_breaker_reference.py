"""The breaker and a plain second writing of its rules say the same, whatever happens in whatever order."""

from itertools import count

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon.breaker import Admission, Breaker
from runners.errors import RunnerError
from runners.settings import BreakerSettings
from tests.test_breaker import COUNTED, KINDS, PROOF, STATED, Clock, failure


class Reference:
    """The rules once more, as what is known after each event, with nothing derived."""

    def __init__(self) -> None:
        self.row: list[str] = []
        self.opened: list[tuple[float, float]] = []  # (from, until) of every period in which the doubling went on
        self.is_closed = True
        self.closed_at = 0.0
        self.half_opens_at = 0.0
        self.trial: int | None = None
        self.stated = ("", 0.0)

    def state(self, now: float) -> str:
        return "closed" if self.is_closed else "half_open" if now >= self.half_opens_at else "open"

    def refusal(self, now: float, open_s: float) -> tuple[str, float] | None:
        found = []
        if self.state(now) == "open":
            found.append((self.row[-1], self.half_opens_at - now))
        elif self.trial is not None:
            found.append((self.row[-1], min(1.0, open_s)))
        if now < self.stated[1]:
            found.append((self.stated[0], self.stated[1] - now))
        return max(found, key=lambda reason: reason[1]) if found else None

    def works(self, now: float) -> None:
        if not self.is_closed:
            self.closed_at = now
        self.is_closed, self.trial, self.row = True, None, []

    def breaks(self, now: float, open_s: float) -> None:
        if self.is_closed and self.opened:
            began, until = self.opened[-1]
            if now - self.closed_at >= until - began:
                self.opened = []
        length = open_s * [1, 2, 4, 8, 10][min(len(self.opened), 4)]
        self.opened.append((now, now + length))
        self.is_closed, self.half_opens_at = False, now + length


class BreakerAgainstReference(RuleBasedStateMachine):
    @initialize(failures=st.integers(1, 3), open_s=st.sampled_from([0.25, 8, 20]))
    def begin(self, failures: int, open_s: float) -> None:
        self.clock = Clock()
        self.settings = BreakerSettings(failures=failures, open_s=open_s)
        self.breaker = Breaker(self.settings, self.clock)
        self.reference = Reference()
        self.admitted: dict[int, Admission] = {}
        self.numbers = count()

    @rule(seconds=st.sampled_from([0.5, 1, 7, 8, 16, 30, 64, 500]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def until_just_before_or_at_the_end_of_a_refusal(self) -> None:
        refusal = self.breaker.refusal()
        if refusal is not None and refusal.retry_after_s is not None:
            self.clock.now += refusal.retry_after_s

    @rule()
    def admit(self) -> None:
        expected = self.reference.refusal(self.clock.now, self.settings.open_s)
        if expected is not None:
            with pytest.raises(RunnerError) as caught:
                self.breaker.admit()
            assert (caught.value.kind, caught.value.retry_after_s) == expected
            return
        admission = self.breaker.admit()
        number = next(self.numbers)
        self.admitted[number] = admission
        if self.reference.state(self.clock.now) == "half_open":
            assert self.reference.trial is None
            self.reference.trial = number

    def ended(self, data: st.DataObject) -> tuple[int, Admission]:
        # The last one is often the trial.
        number = data.draw(st.sampled_from(sorted(self.admitted, reverse=True)))
        return number, self.admitted.pop(number)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        _, admission = self.ended(data)
        admission.succeeded()
        self.reference.works(self.clock.now)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def begins_to_answer(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.admitted, reverse=True)))
        self.admitted[number].begun()
        if number == self.reference.trial:
            self.reference.works(self.clock.now)
            self.reference.row = ["on probation"] * (self.settings.failures - 1)

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        number, admission = self.ended(data)
        admission.abandoned()
        if number == self.reference.trial:
            self.reference.trial = None

    @precondition(lambda self: self.admitted)
    @rule(
        data=st.data(),
        kind=st.one_of(st.sampled_from(COUNTED), st.sampled_from(sorted(KINDS))),
        after_s=st.sampled_from([None, 0.0, 3.0, 40.0, 900.0]),
    )
    def fail(self, data: st.DataObject, kind: str, after_s: float | None) -> None:
        number, admission = self.ended(data)
        admission.failed(failure(kind, retry_after_s=after_s))
        now, reference = self.clock.now, self.reference
        was_trial = number == reference.trial
        if was_trial:
            reference.trial = None
        if kind in STATED and after_s is not None:
            reference.stated = (kind, now + after_s)
        if kind in COUNTED:
            reference.row.append(kind)
            if was_trial or (reference.is_closed and len(reference.row) >= self.settings.failures):
                reference.breaks(now, self.settings.open_s)
        elif was_trial and kind in PROOF:
            reference.works(now)

    @rule()
    def try_now(self) -> None:
        self.breaker.try_now()
        self.reference.half_opens_at = min(self.reference.half_opens_at, self.clock.now)

    @invariant()
    def both_say_the_same(self) -> None:
        assert self.breaker.state == self.reference.state(self.clock.now)
        refusal = self.breaker.refusal()
        expected = self.reference.refusal(self.clock.now, self.settings.open_s)
        assert (refusal and (refusal.kind, refusal.retry_after_s)) == expected
        if refusal is not None:
            assert refusal.retry_after_s is not None
            assert refusal.retry_after_s > 0

    @invariant()
    def whoever_waits_long_enough_is_admitted_or_meets_the_trial(self) -> None:
        now = self.clock.now
        refusal = self.breaker.refusal()
        if refusal is not None and self.reference.trial is None:
            self.clock.now += refusal.retry_after_s or 0.0
            assert self.breaker.refusal() is None
            self.clock.now = now


TestBreakerAgainstReference = BreakerAgainstReference.TestCase
TestBreakerAgainstReference.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
