"""What is wanted, all of it in one table. A row without a target here is only told."""

from dataclasses import dataclass
from typing import Literal

from runners.providers.claude.provider import TESTED_VERSIONS

Of = Literal["ratio", "difference", "ours"]


@dataclass(frozen=True)
class Target:
    """`of` says what is bounded: ours by theirs, ours less theirs, or ours alone, each in its median over the runs."""

    subject: str
    what: str
    against: str
    of: Of
    limit: float
    is_floor: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.is_floor else value <= self.limit

    def __str__(self) -> str:
        of = "" if self.of == "ratio" else f"{self.of} "
        return f"{of}{'>=' if self.is_floor else '<='} {self.limit:g}{' x' if self.of == 'ratio' else ''}"


NEW_FIRST = "new chat, first token"
NEW_TOTAL = "new chat, whole answer"
SIXTH_FIRST = "6th turn, first token"
SIXTH_TOTAL = "6th turn, whole answer"
RATE = "rate of a flood of deltas"
BY_HAND, SDK, RAW = "by hand", "vendor's SDK", "raw process"
DIRECT = "read directly"
PYTHON, IMPORTS = "python -c pass", "python -c 'import click, json, socket'"
SMALL_FIRST, SMALL_TOTAL = "small chat, first token", "small chat, whole answer"
RPC = "daemon's own socket"
UNROUTED = "without a pool"

_OLDEST, _NEWEST = (f"claude {version}" for version in TESTED_VERSIONS)

TARGETS = (
    Target("claude", NEW_FIRST, RAW, "ratio", 1.2),
    Target(_OLDEST, NEW_FIRST, BY_HAND, "ratio", 0.10),
    Target(_NEWEST, NEW_FIRST, BY_HAND, "ratio", 0.25),
    Target("claude", SIXTH_FIRST, RAW, "ratio", 1.25),
    Target("copilot 1.0.102", NEW_FIRST, BY_HAND, "ratio", 0.10),
    Target("copilot 1.0.102", SIXTH_FIRST, RAW, "ratio", 1.25),
    Target("codex", NEW_FIRST, BY_HAND, "ratio", 0.35),
    Target("gemini", NEW_FIRST, BY_HAND, "ratio", 0.10),
    Target("opencode", NEW_FIRST, BY_HAND, "ratio", 0.10),
    Target("claude", RATE, DIRECT, "ratio", 0.9, is_floor=True),
    Target("completions", SMALL_FIRST, RPC, "difference", 3),
    Target("completions", SMALL_TOTAL, RPC, "difference", 3),
    Target("messages", SMALL_FIRST, RPC, "difference", 3),
    Target("messages", SMALL_TOTAL, RPC, "difference", 3),
    Target("100 streams", "delay of a chunk, median", DIRECT, "difference", 5),
    Target("100 streams", "delay of a chunk, p99", DIRECT, "difference", 25),
    Target("100 streams", "memory of the daemon (RSS)", "idle", "ours", 150),
    Target("daemon", "start to socket ready", PYTHON, "ours", 500),
    Target("daemon", "runnerd health", IMPORTS, "ours", 150),
    Target("daemon", "idle memory (RSS)", "an idle Python", "ours", 70),
    # One tick of the clock that counts it, in five seconds.
    Target("daemon", "idle CPU", "an idle Python", "ours", 0.2),
)


def target_of(subject: str, what: str, against: str) -> Target | None:
    """The target of a row; those for `claude` hold for every version of it."""
    found = (t for t in TARGETS if subject.startswith(t.subject) and (t.what, t.against) == (what, against))
    return next(found, None)
