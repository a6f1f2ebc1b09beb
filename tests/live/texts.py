"""Texts to send through a CLI."""

import random


def much_text(size: int, seed: int) -> str:
    """So many characters of every kind, and no pattern that a cut or a doubling would not show."""
    choice = random.Random(seed)
    words = ["word", "\U0001f600", "\u2028", "\r\n", "\u00fc", "  ", "\t", '"\\', "\u4e2d\u6587", "</x>"]
    parts: list[str] = []
    length = 0
    while length < size:
        parts.append(f"{choice.choice(words)}{choice.randrange(1_000_000)}")
        length += len(parts[-1])
    return "".join(parts)
