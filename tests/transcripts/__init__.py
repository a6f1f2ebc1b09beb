"""Recordings of the vendors' CLIs, and how a turn of one goes through a translator."""

from collections.abc import Iterator
from pathlib import Path

from runners.errors import RunnerError
from runners.stream import ChatChunk, Done, OrderChecker
from runners.translator import Event, Translator
from runners.wire.framing import parse_json


def records(path: Path) -> Iterator[Event]:
    """The JSON objects of a recording; some recordings are plain text."""
    for line in path.read_bytes().split(b"\n"):
        try:
            record = parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def translate(turn: list[Event], translator: Translator) -> tuple[list[ChatChunk], str | None]:
    """The chunks, checked for their order, and how the turn ended: a stop reason, `error:kind`, or None."""
    order, chunks = OrderChecker(), []
    for event in turn:
        if translator.ended:
            break
        try:
            new = translator.feed(event)
        except RunnerError as error:
            assert translator.ended
            return chunks, f"error:{error.kind}"
        for chunk in new:
            order.feed(chunk)
            chunks.append(chunk)
    last = chunks[-1] if chunks else None
    assert order.ended == translator.ended == isinstance(last, Done)
    return chunks, last.stop_reason if isinstance(last, Done) else None
