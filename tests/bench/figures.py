"""What was measured: rows of two series, ours and another's, and how they are summed up."""

import statistics
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.bench.targets import Target, target_of

Unit = Literal["ms", "us", "MB", "KB", "bytes", "deltas/s", "% CPU"]


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Row:
    """One thing measured for `subject`: `ours` against `theirs`, a value for each run; `against` says who they are.

    `served` is what the daemon said of each run.
    """

    group: str
    subject: str
    what: str
    against: str
    unit: Unit
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    served: list[str] = field(default_factory=list)

    def add(self, ours: float, theirs: float | None = None, served: str | None = None) -> None:
        """One run."""
        self.ours.append(ours)
        self.theirs += [] if theirs is None else [theirs]
        self.served += [] if served is None else [served]

    @property
    def ratio(self) -> Spread | None:
        """Ours by theirs, run by run: what a run had beside it was there for both."""
        pairs = zip(self.ours, self.theirs, strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if theirs]
        return Spread.of(ratios) if ratios else None

    @property
    def target(self) -> Target | None:
        return target_of(self.subject, self.what, self.against)

    @property
    def judged(self) -> float | None:
        """The figure that the target is about; None without a target."""
        target = self.target
        if target is None:
            return None
        match target.of:
            case "ours":
                return Spread.of(self.ours).median
            case "difference":
                return Spread.of(self.ours).median - Spread.of(self.theirs).median
            case "ratio":
                assert self.ratio is not None
                return self.ratio.median

    @property
    def holds(self) -> bool | None:
        """Whether the target is met; None without one."""
        target, judged = self.target, self.judged
        return None if target is None or judged is None else target.is_met(judged)

    def as_json(self) -> dict[str, Any]:
        """All of it, every single run too."""
        target = self.target
        return {
            "group": self.group,
            "subject": self.subject,
            "what": self.what,
            "against": self.against,
            "unit": self.unit,
            "runs": len(self.ours),
            "ours": vars(Spread.of(self.ours)),
            "theirs": vars(Spread.of(self.theirs)) if self.theirs else None,
            "ratio": vars(self.ratio) if self.ratio else None,
            "served": sorted(set(self.served)),
            "target": str(target) if target else None,
            "judged": self.judged,
            "holds": self.holds,
            "values": {"ours": self.ours, "theirs": self.theirs},
        }
