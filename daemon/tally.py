"""What came of the chats so far, by runner: how they ended, how long they took, and what their CLIs said they cost.

Pure, and for as long as the daemon lives.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from runners.messages import Usage

_COUNTED = (
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
)


@dataclass
class RunnerTally:
    """`outcomes` are stop reasons and kinds of errors; what no CLI has told is not in `usage`."""

    outcomes: Counter[str] = field(default_factory=Counter)
    usage: dict[str, float] = field(default_factory=dict)
    duration_s: float = 0.0

    def ended(self, outcome: str, duration_s: float, usage: Usage) -> None:
        """A chat has ended, as it always does."""
        self.outcomes[outcome] += 1
        self.duration_s += duration_s
        for name in _COUNTED:
            if (told := getattr(usage, name)) is not None:
                self.usage[name] = self.usage.get(name, 0) + told

    def as_row(self) -> dict[str, Any]:
        """For people and programs."""
        return {"chats": dict(self.outcomes), "usage": dict(self.usage), "duration_s": round(self.duration_s, 3)}
