"""Bytes to frames to JSON values, and back: bounded, and without any I/O.

A frame is a line, or what a `Content-Length` header announces. Lines end at `\\n` alone, and are decoded after the
split: U+2028 and a `\\r` inside a line are content.
"""

import json
import math
import re
from typing import Any, Protocol

import orjson

from runners.errors import LineTooLongError

LINE_CAP_BYTES = 64 * 1024 * 1024
_CONTENT_LENGTH = re.compile(rb"content-length: *(\d{1,18})$", re.IGNORECASE)


class Framer(Protocol):
    """Cuts a byte stream into frames. At one that passes its cap `overflow` is set, and nothing more comes out."""

    overflow: LineTooLongError | None

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes."""
        ...

    def rest(self) -> list[bytes]:
        """The frame that has begun and not ended, when there is one."""
        ...

    def framed(self, message: bytes) -> bytes:
        """A message of `dump_json` as it is sent."""
        ...


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

    def framed(self, message: bytes) -> bytes:
        """The message itself: it ends with its line feed."""
        return message


class HeaderFramer:
    """The same for frames behind a `Content-Length` header, as the Language Server Protocol has them.

    A line where a header should stand comes out as a frame of its own, for its reader to see that it is no message.
    """

    def __init__(self, cap_bytes: int = LINE_CAP_BYTES) -> None:
        self.cap_bytes = cap_bytes
        self.overflow: LineTooLongError | None = None
        self._buffer = bytearray()
        self._length: int | None = None
        self._in_body = False

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, without their headers."""
        if self.overflow is not None:
            return []
        self._buffer += data
        frames: list[bytes] = []
        at = 0
        while (end := self._end_of_next(at)) is not None:
            if self._in_body:
                frames.append(bytes(self._buffer[at:end]))
                self._length, self._in_body = None, False
            elif self._fits(end - at - 1):
                frames += self._header(bytes(self._buffer[at:end]).strip())
            if not self._fits(self._length or 0):
                return frames
            at = end
        del self._buffer[:at]
        self._fits(len(self._buffer))
        return frames

    def _fits(self, size: int) -> bool:
        if size > self.cap_bytes and self.overflow is None:
            self.overflow = LineTooLongError(f"a message of {size} bytes passes the cap of {self.cap_bytes} bytes")
            self._buffer.clear()
        return self.overflow is None

    def _end_of_next(self, at: int) -> int | None:
        """Where the body or the header line that begins at `at` ends; None while it is not whole."""
        if self._in_body:
            assert self._length is not None
            return at + self._length if at + self._length <= len(self._buffer) else None
        return self._buffer.find(b"\n", at) + 1 or None

    def _header(self, line: bytes) -> list[bytes]:
        """Takes a header line; what stands before a header on its line is a frame of nobody's."""
        if not line:
            self._in_body = self._length is not None
            return []
        found = _CONTENT_LENGTH.search(line)
        # Behind the length `X-Content-Length` is another header, and no text before this one.
        if found is not None and (self._length is None or found.start() == 0):
            self._length = int(found[1])
            line = line[: found.start()]
        elif self._length is not None:
            return []  # another header
        return [line] if line else []

    def rest(self) -> list[bytes]:
        """What has begun and not ended, when there is something."""
        return [bytes(self._buffer)] if self._buffer else []

    def framed(self, message: bytes) -> bytes:
        """The message behind its header."""
        return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)


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
        return json.loads(line.decode(), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.40} is too large a number")
    return number


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
