"""A CLI on a terminal of ours: the same face as a CLI on pipes, with keys for its input and a screen for its output.

Owns the pseudo-terminal. Started, marked, reaped and ended as every other by `CliProcess`; pexpect reads the terminal's
other end, for the ways in which systems say that there is nobody any more differ.
"""

import asyncio
import os
import signal
import sys
import tempfile
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pexpect import EOF, TIMEOUT
from pexpect.fdpexpect import fdspawn

from runners.errors import LineTooLongError
from runners.wire import on_terminal
from runners.wire.pipes import Pipes, Streams
from runners.wire.process import CliProcess

_READ_BYTES = 64 * 1024
_PIECE_BYTES = 4 * 1024
_UNSENT_REPLIES_BYTES = 1024


class TerminalProcess(CliProcess):
    """A running CLI whose terminal we are. It leads a session that this terminal controls.

    `read_line` gives what it has written in pieces of at most 4 KiB, escape sequences and all. There is no stderr
    beside them.
    """

    _farewell: bytes
    end_signals = (signal.SIGHUP, signal.SIGTERM)

    @classmethod
    async def on_terminal(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        size: tuple[int, int],
        farewell: bytes,
        temporary: "tempfile.TemporaryDirectory[str] | None" = None,
    ) -> Self:
        """Starts `argv` on a new terminal of `size` (columns, rows). As `CliProcess.spawn` else.

        `farewell` is what is typed to make it leave.
        """
        launcher = [sys.executable, "-I", "-S", on_terminal.__file__]
        process = await cls.spawn(
            [*launcher, *argv], env=env, cwd=cwd, temporary=temporary, framer=_Pieces(), streams=lambda: _Terminal(size)
        )
        process._farewell = farewell
        return process

    @property
    def reads_keys(self) -> bool:
        """Whether it has its terminal hand on every key at once (raw mode) and no whole lines, as line editors have."""
        return not self._local_modes() & termios.ICANON

    @property
    def has_more(self) -> bool:
        """Whether it has written what nobody has read."""
        return self._pipes.has_unread

    async def stirs(self) -> None:
        """Waits until there is something to read, or the end."""
        while not (self._pipes.has_unread or self._pipes.stdout_ended):
            self._pipes.stdout_changed.clear()
            await self._pipes.stdout_changed.wait()

    def reply(self, text: str) -> None:
        """Answers a question that it asked its terminal, unless it does not read its answers."""
        keys = self._pipe(0)
        if isinstance(keys, asyncio.WriteTransport) and keys.get_write_buffer_size() < _UNSENT_REPLIES_BYTES:
            keys.write(text.encode())

    def close_stdin(self) -> None:
        """Types what makes it leave."""
        keys = self._pipe(0)
        if isinstance(keys, asyncio.WriteTransport) and not keys.is_closing():
            keys.write(self._farewell)

    def drop_unread(self) -> None:
        """Nothing is dropped: where a text stands depends on all that came before it."""

    def _local_modes(self) -> int:
        assert isinstance(self._streams, _Terminal)
        return self._streams.local_modes()


class _Pieces:
    """A stream of no frames: it is only cut, so that no piece takes long to understand."""

    overflow: LineTooLongError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        return [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]

    def rest(self) -> list[bytes]:
        return []

    def framed(self, message: bytes) -> bytes:
        return message


class _Terminal(Streams):
    """Both ends of a new pseudo-terminal: the CLI's is its stdin, stdout and stderr, ours reads and writes."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._ours, self._theirs = os.openpty()
        self.stdin = self.stdout = self.stderr = self._theirs
        self._transports: list[asyncio.BaseTransport] = []
        columns, rows = size
        try:
            termios.tcsetwinsize(self._ours, (rows, columns))
        except BaseException:
            self.abandon()
            raise

    async def connect(self, pipes: Pipes) -> None:
        """The CLI has its end now."""
        self._close_theirs()
        keys = os.fdopen(os.dup(self._ours), "wb", buffering=0)
        try:
            writes, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: _Keys(pipes), keys)
        except BaseException:
            keys.close()
            raise
        self._transports.append(writes)
        reads = _Output(self._ours, pipes)
        self._transports.append(reads)
        pipes.reads_from(reads)
        pipes.stderr_ended.set()

    def pipe(self, _: asyncio.SubprocessTransport, descriptor: int) -> asyncio.BaseTransport | None:
        """Keys are 0, what it writes is 1."""
        return self._transports[descriptor] if descriptor < len(self._transports) else None

    def local_modes(self) -> int:
        """The terminal's modes as the CLI has set them; none when it is closed."""
        if self._transports[1].is_closing():
            return 0
        try:
            modes: int = termios.tcgetattr(self._ours)[3]
        except termios.error:  # no OSError: the CLI's end has gone, which some systems tell so
            return 0
        return modes

    def abandon(self) -> None:
        """Closes what is left open of a CLI that did not start."""
        self._close_theirs()
        for transport in self._transports:
            transport.close()
        if len(self._transports) < 2:  # it is the second that closes it
            os.close(self._ours)

    def _close_theirs(self) -> None:
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1


class _Keys(asyncio.BaseProtocol):
    """Tells how writing goes."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes

    def pause_writing(self) -> None:
        self._pipes.pause_writing()

    def resume_writing(self) -> None:
        self._pipes.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipes.pipe_connection_lost(0, exc)


class _Output(asyncio.ReadTransport):
    """What the CLI writes, as long as somebody wants it."""

    def __init__(self, descriptor: int, pipes: Pipes) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._pipes = pipes
        self._loop = asyncio.get_running_loop()
        self._spawn: fdspawn[bytes] = fdspawn(descriptor, use_poll=True)
        self._is_closed = self._has_ended = False
        self.resume_reading()

    def resume_reading(self) -> None:
        if not self._has_ended:
            self._loop.add_reader(self._descriptor, self._read)

    def pause_reading(self) -> None:
        if not self._has_ended:
            self._loop.remove_reader(self._descriptor)

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        if not self._is_closed:
            self._end()
            self._is_closed = True
            os.close(self._descriptor)

    def _read(self) -> None:
        try:
            data = self._spawn.read_nonblocking(_READ_BYTES, timeout=0)
        except TIMEOUT:
            return
        except (EOF, OSError):
            self._end()
        else:
            self._pipes.pipe_data_received(1, data)

    def _end(self) -> None:
        if not self._has_ended:
            self.pause_reading()
            self._has_ended = True
            self._pipes.pipe_connection_lost(1, None)
