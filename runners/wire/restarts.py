"""When a server of ours that has died is started again: at once, unless it died soon after its start."""

import time
from collections.abc import Callable

STABLE_S = 10.0
"""So long a server must have lived for its start to count as good."""

_FIRST_S = 0.5
_LONGEST_S = 10.0


class Restarts:
    """The starts of one server. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_s = -STABLE_S
        self._bad_starts = 0

    def wait_s(self, *, has_died: bool) -> float:
        """How long to wait for the start that is due now. `has_died`: the last one ended by itself, or did not succeed.

        Each bad start in a row doubles the wait, from 0.5 s up to 10 s.
        """
        is_bad = has_died and self._clock() - self._started_s < STABLE_S
        self._bad_starts = self._bad_starts + 1 if is_bad else 0
        wait_s = min(_FIRST_S * 2 ** min(self._bad_starts - 1, 10), _LONGEST_S) if is_bad else 0.0
        self._started_s = self._clock() + wait_s
        return wait_s
