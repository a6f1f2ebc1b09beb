"""Bytes to lines to JSON values, and back: bounded, and without any I/O.

Lines end at `\\n` alone, and are decoded after the split: U+2028 and a `\\r` inside a line are content.
"""

import json
from typing import Any

import orjson

from runners.errors import LineTooLongError

LINE_CAP_BYTES = 64 * 1024 * 1024


class LineFramer:
    """Cuts a byte stream into lines and bounds the memory that one line may take, complete or not."""

    def __init__(self, cap_bytes: int = LINE_CAP_BYTES) -> None:
        self.cap_bytes = cap_bytes
        self.overflow: LineTooLongError | None = None
        self._pieces: list[bytes] = []
        self._pending_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their line feeds.

        At a line that passes the cap `overflow` is set, and nothing more comes out; the lines before it do.
        """
        if self.overflow is not None:
            return []
        *complete, rest = data.split(b"\n")
        if complete:
            complete[0] = b"".join((*self._pieces, complete[0]))
            self._pieces.clear()
            self._pending_bytes = 0
        if rest:
            self._pieces.append(rest)
            self._pending_bytes += len(rest)
        for index, length in enumerate([*map(len, complete), self._pending_bytes]):
            if length > self.cap_bytes:
                self._pieces.clear()
                message = f"a line of {length} bytes or more passes the cap of {self.cap_bytes} bytes"
                self.overflow = LineTooLongError(message)
                return complete[:index]
        return complete

    def rest(self) -> list[bytes]:
        """The line that has begun and not ended, when there is one."""
        return [b"".join(self._pieces)] if self._pieces else []


def parse_json(line: bytes) -> Any:
    """The JSON value of a line; ValueError when it is none.

    orjson refuses the lone surrogates that Node writes when a delta splits an emoji; the standard parser keeps
    them, for SurrogateJoiner to mend.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return parse_json_exactly(line)


def parse_json_exactly(line: bytes) -> Any:
    """The same, slower, and without rounding: orjson makes a float of an integer of more than 64 bits."""
    try:
        return json.loads(line.decode(), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def dump_json(value: Any) -> bytes:
    """One line of JSON with its line feed. Objects with `to_dict` or `model_dump` are written as what these return."""
    try:
        return orjson.dumps(value, default=_plain, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # A lone surrogate in a client's text, or an integer of more than 64 bits: the standard library writes both.
        return json.dumps(value, default=_plain, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    for method in ("to_dict", "model_dump"):
        if hasattr(value, method):
            return getattr(value, method)()
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    raise TypeError(f"{type(value).__name__} has no JSON form")
