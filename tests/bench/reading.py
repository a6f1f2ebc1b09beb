"""Reading from a pipe or a socket with next to no cost: blocking reads, cut into lines or frames.

Every wait is bounded by `WAIT_S`.
"""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

Json = dict[str, Any]

WAIT_S = 30.0
_READ_BYTES = 256 * 1024


class Timing(NamedTuple):
    """Seconds from the question to the first piece of text, and to the end of the answer."""

    first_s: float
    total_s: float


def blocks(descriptor: int) -> Iterator[bytes]:
    """What comes, as it comes, to the end."""
    while True:
        if not select.select([descriptor], [], [], WAIT_S)[0]:
            raise TimeoutError(f"nothing came for {WAIT_S:g} s")
        data = os.read(descriptor, _READ_BYTES)
        if not data:
            return
        yield data


def lines(descriptor: int) -> Iterator[bytes]:
    """Lines without their line feed."""
    rest = b""
    for data in blocks(descriptor):
        *whole, rest = (rest + data).split(b"\n")
        yield from whole


def frames(descriptor: int) -> Iterator[bytes]:
    """Bodies of `Content-Length` frames."""
    rest = b""
    for data in blocks(descriptor):
        rest += data
        while b"\r\n\r\n" in rest:
            head, _, behind = rest.partition(b"\r\n\r\n")
            size = int(head.rpartition(b":")[2])
            if len(behind) < size:
                break
            yield behind[:size]
            rest = behind[size:]


class Child:
    """A program with pipes, started and ended by hand. What it started itself ends with it."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bytes | None = None) -> None:
        self.process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin = self.process.stdin
        self._stdout = self.process.stdout
        self.output = self._stdout.fileno()
        if stdin is not None:
            self.write(stdin)
            self._stdin.close()

    def write(self, data: bytes) -> None:
        self._stdin.write(data)
        self._stdin.flush()

    def say(self, message: Json) -> None:
        """Writes an object as a line."""
        self.write(json.dumps(message).encode() + b"\n")

    def end(self) -> None:
        """Kills it with all its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()
