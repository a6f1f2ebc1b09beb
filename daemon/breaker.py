"""Whether a runner is asked at all: one that keeps failing rests for a while, and so does one whose vendor said when.

Pure: it is told how admitted chats ended, and its clock is given to it. It knows neither runners nor chats.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import Literal

from runners.errors import RunnerError
from runners.settings import BreakerSettings

COUNTED = ("not_installed", "process_exited", "protocol", "timeout", "overloaded", "vendor_error")
"""The kinds of failure that open a breaker. All others neither count nor interrupt a row."""

STATED = ("rate_limited", "quota_exhausted")
"""The kinds that close a runner for the time that the vendor states, and for none when it states none."""

PROOF = ("rate_limited", "quota_exhausted", "permission")
"""The failures that only a CLI that works brings back. No login, no network, a request that we refuse ourselves: such a
trial proves nothing, and the next request is the trial."""

_LONGEST_FACTOR = 10
_TRIAL_PAUSE_S = 1.0
"""When to come back while a trial runs. Nobody knows how long it takes; most CLIs that are ill fail within a second."""

State = Literal["closed", "open", "half_open"]


class Breaker:
    """The breaker of one runner.

    So many counted failures in a row open it. It then refuses everything for `open_s`, half-opens with one trial, and
    closes when that begins to be answered; each failed trial doubles the time, up to ten times `open_s`. A closed one
    that opens again before it stayed closed for as long as it had been open goes on doubling, and the first failure
    opens it until a chat was answered whole.
    """

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._failures_in_row = 0
        self._last: RunnerError | None = None
        self._open_until_s: float | None = None  # None while it is closed
        self._open_for_s = 0.0
        self._factor = 1
        self._stable_from_s = -math.inf
        self._trial: Admission | None = None
        self._stated: RunnerError | None = None
        self._stated_until_s = -math.inf

    @property
    def state(self) -> State:
        """Whether it lets all pass, nobody, or one. A stated time is no state of it: see `refusal`."""
        if self._open_until_s is None:
            return "closed"
        return "open" if self._clock() < self._open_until_s else "half_open"

    def admit(self) -> "Admission":
        """A place for one chat, to be ended exactly once; raises what `refusal` returns."""
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        admission = Admission(self)
        if self.state == "half_open":
            self._trial = admission
        return admission

    def refusal(self) -> RunnerError | None:
        """What `admit` would raise now: of two reasons the one that lasts longer. Takes no place.

        It is the last failure again, with the time that remains in `retry_after_s`, without what its CLI wrote to
        stderr: that belongs to the owner of the chat that failed.
        """
        now = self._clock()
        refusals = [refusal for refusal in (self._rest(now), self._stated_rest(now)) if refusal is not None]
        return max(refusals, key=lambda refusal: refusal.retry_after_s or 0.0, default=None)

    def try_now(self) -> None:
        """Half-opens an open breaker: something outside of it, such as a probe, saw that a trial is worth it."""
        if self.state == "open":
            self._open_until_s = self._clock()

    def _rest(self, now: float) -> RunnerError | None:
        if self._open_until_s is None or (now >= self._open_until_s and self._trial is None):
            return None
        if self._trial is None:
            remaining_s = self._open_until_s - now
            when = f"it is tried again in {_duration(remaining_s)}"
        else:
            # Never longer than the whole time that it would be open.
            remaining_s = min(_TRIAL_PAUSE_S, self._settings.open_s)
            when = "one request tries it again now"
        assert self._last is not None
        times = "" if self._failures_in_row == 1 else f" {self._failures_in_row} times in a row"
        refusal = _repeated(self._last, f"the runner failed{times}, last: {self._last.message}; {when}", remaining_s)
        refusal.retryable = True
        return refusal

    def _stated_rest(self, now: float) -> RunnerError | None:
        if self._stated is None or not now < self._stated_until_s:
            return None
        remaining_s = self._stated_until_s - now
        message = f"{self._stated.message}; the runner is asked again in {_duration(remaining_s)}"
        return _repeated(self._stated, message, remaining_s)

    def _succeeded(self, admission: "Admission") -> None:
        self._end(admission)
        self._close()

    def _begun(self, admission: "Admission") -> None:
        if self._end(admission):
            self._close()
            # On probation: one more failure, and it rests again.
            self._failures_in_row = self._settings.failures - 1

    def _failed(self, admission: "Admission", error: RunnerError) -> None:
        was_trial = self._end(admission)
        now = self._clock()
        if error.kind in STATED and error.retry_after_s is not None:
            self._stated = _without_owner(error)
            self._stated_until_s = now + error.retry_after_s
        if error.kind in COUNTED:
            self._failures_in_row += 1
            self._last = _without_owner(error)
            # One that was admitted before it opened, and fails now, does not make it last longer.
            if was_trial or (self._open_until_s is None and self._failures_in_row >= self._settings.failures):
                self._open(now, again=was_trial or now < self._stable_from_s)
        elif was_trial and error.kind in PROOF:
            self._close()

    def _abandoned(self, admission: "Admission") -> None:
        self._end(admission)

    def _end(self, admission: "Admission") -> bool:
        """Whether it was the trial: one that began before somebody else's success closed the breaker no longer is."""
        was_trial = self._trial is admission
        if was_trial:
            self._trial = None
        return was_trial

    def _open(self, now: float, *, again: bool) -> None:
        self._factor = min(self._factor * 2, _LONGEST_FACTOR) if again else 1
        self._open_for_s = self._factor * self._settings.open_s
        self._open_until_s = now + self._open_for_s

    def _close(self) -> None:
        if self._open_until_s is not None:
            self._stable_from_s = self._clock() + self._open_for_s
            self._open_until_s = self._trial = None
        self._failures_in_row = 0
        self._last = None


class Admission:
    """One chat that the breaker let pass. The first call ends it: a trial that never ends keeps all others out."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker: Breaker | None = breaker

    def succeeded(self) -> None:
        """The runner answered."""
        if breaker := self._ended():
            breaker._succeeded(self)

    def begun(self) -> None:
        """The runner's answer has begun. That may take long to its end, and a trial keeps nobody out for it."""
        if self._breaker is not None:
            self._breaker._begun(self)

    def stalled(self) -> None:
        """Its client stops it: a trial leaves its place to another, and counts as any other chat from now on."""
        if self._breaker is not None:
            self._breaker._end(self)

    def failed(self, error: RunnerError) -> None:
        """The runner raised or sent this error."""
        if breaker := self._ended():
            breaker._failed(self, error)

    def abandoned(self) -> None:
        """The chat was cancelled, or never reached the runner: that says nothing about it."""
        if breaker := self._ended():
            breaker._abandoned(self)

    def _ended(self) -> Breaker | None:
        breaker, self._breaker = self._breaker, None
        return breaker


def _without_owner(error: RunnerError) -> RunnerError:
    """A copy to keep and to show to others: no stderr, and no traceback that holds the chat's objects alive."""
    kept = copy.copy(error)
    kept.stderr_tail = None
    return kept


def _repeated(error: RunnerError, message: str, retry_after_s: float) -> RunnerError:
    repeated = copy.copy(error)
    repeated.args = (message,)
    repeated.message = message
    repeated.retry_after_s = retry_after_s
    return repeated


def _duration(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s"
