"""Claude Code's counts of tokens as ours: pure."""

from dataclasses import asdict, replace

from runners.messages import Usage
from runners.translator import Event


def usage_of(told: Event, cost_usd: float | None = None) -> Usage:
    """The vendor counts cached tokens beside `input_tokens`; ours are parts of it."""
    parts = [told.get(name) for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")]
    details = told.get("output_tokens_details") or {}
    return Usage(
        input_tokens=None if parts[0] is None else sum(part or 0 for part in parts),
        cached_input_tokens=parts[1],
        cache_creation_input_tokens=parts[2],
        output_tokens=told.get("output_tokens"),
        reasoning_tokens=details.get("thinking_tokens"),
        cost_usd=cost_usd,
    )


def usage_of_all(messages: list[Event], cost_usd: float | None = None) -> Usage:
    """The usage of several messages together."""
    counts = [asdict(usage_of(message)) for message in messages]
    known = {name: [count[name] for count in counts if count[name] is not None] for name in asdict(Usage())}
    return replace(Usage(**{name: sum(found) for name, found in known.items() if found}), cost_usd=cost_usd)
