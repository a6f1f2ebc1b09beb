"""How much is measured."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Size:
    """`runs` of each thing by turns, fewer when they take longer than `most_s`; floods of so many `deltas`.

    `streams` run at once for `stream_s`; `fakes_only` leaves the vendors' real CLIs out.
    """

    runs: int = 9
    most_s: float = 50.0
    deltas: int = 5_000
    streams: tuple[int, ...] = (1, 20, 100)
    stream_s: float = 3.0
    stream_runs: int = 3
    idle_s: float = 5.0
    fakes_only: bool = False
    only: str = ""

    def with_options(self, runs: int | None, only: str) -> "Size":
        """The same with another number of runs, and of the real CLIs those alone whose name holds `only`."""
        return replace(self, runs=runs or self.runs, only=only)

    def rounds(self, at_most: int | None = None) -> Iterator[int]:
        """Numbers the runs from 0. Three there are in any case, for a median."""
        began_s = time.monotonic()
        for run in range(min(at_most or self.runs, self.runs)):
            if run >= 3 and time.monotonic() - began_s > self.most_s:
                return
            yield run


LARGE = Size()
SMALL = Size(runs=3, stream_s=2.0, stream_runs=1, idle_s=2.0)
SMALLEST = Size(runs=1, deltas=50, streams=(1, 3), stream_s=0.5, stream_runs=1, idle_s=0.1, fakes_only=True)
"""Proves that the machinery works, and measures nothing."""
