"""What agents say of the cost of a prompt, as Usage: pure."""

from runners.messages import Usage
from runners.translator import Event

_COUNTS = ("inputTokens", "cachedReadTokens", "cachedWriteTokens", "outputTokens", "thoughtTokens")


def usage(result: Event) -> Usage | None:
    """The `usage` of a prompt's result, where there is one.

    The protocol's own words are that it counts the whole session; claude-agent-acp 0.23.1 and opencode 1.18.33 count
    the turn, and so is it read.
    """
    told = result.get("usage")
    return counted(told) if isinstance(told, dict) else None


def counted(told: Event) -> Usage | None:
    """Counts under the protocol's names; None where the two that matter are missing or are both 0.

    By the protocol they stand beside each other and the total is their sum; where the total is that of input and output
    alone (qwen-code 0.15.10), the others are parts of these.
    """
    given, read, written, out, thought = (told.get(name) or 0 for name in _COUNTS)
    if told.get("inputTokens") is None or told.get("outputTokens") is None or not (given or out):
        return None
    if told.get("totalTokens") != given + out:
        given, out = given + read + written, out + thought
    return Usage(
        input_tokens=given,
        cached_input_tokens=told.get("cachedReadTokens"),
        cache_creation_input_tokens=told.get("cachedWriteTokens"),
        output_tokens=out,
        reasoning_tokens=told.get("thoughtTokens"),
    )


def added(one: Usage | None, other: Usage) -> Usage:
    """What two calls of a model cost together; None where neither said anything."""
    if one is None:
        return other
    names = ("input_tokens", "cached_input_tokens", "cache_creation_input_tokens", "output_tokens", "reasoning_tokens")
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return Usage(**{name: (a or 0) + (b or 0) for name, (a, b) in pairs.items() if (a, b) != (None, None)})
