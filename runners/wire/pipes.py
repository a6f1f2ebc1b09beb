"""What a child process reads and writes: lines from stdout with backpressure, a bounded tail of stderr.

Owns the callbacks of asyncio's subprocess transport. What becomes of the child is `runners.wire.process`.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from runners.errors import LineTooLongError
from runners.wire.framing import Framer

ORPHANED_PIPE_S = 1.0
"""How long an exited child's pipe may stay open: then a grandchild holds it, and nothing more will come."""

_STDERR_TAIL_BYTES = 16 * 1024
_PAUSE_AT_BYTES = 1024 * 1024
_RESUME_AT_BYTES = _PAUSE_AT_BYTES // 2


class Pipes(asyncio.SubprocessProtocol):
    """Lines from stdout, a tail of stderr, and the state of the pipes of one child.

    The events are set, and the flags changed, from the loop's callbacks; CliProcess waits for them.
    """

    def __init__(self, framer: Framer) -> None:
        self._framer = framer
        self._lines: deque[bytes] = deque()
        self._unread_bytes = 0
        self._paused = False
        self._discarding = False
        self._stdout: asyncio.ReadTransport | None = None
        self.stdout_ended = False
        self.stdout_changed = asyncio.Event()
        self.stderr_tail = bytearray()
        self.stderr_ended = asyncio.Event()
        self.stdin_writable = asyncio.Event()
        self.stdin_writable.set()
        self.stdin_lost = False
        self.exited = asyncio.Event()
        self.when_exited: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        stdout = transport.get_pipe_transport(1)
        if isinstance(stdout, asyncio.ReadTransport):
            self.reads_from(stdout)

    def reads_from(self, stdout: asyncio.ReadTransport) -> None:
        """What is paused while nobody reads the lines."""
        self._stdout = stdout

    @property
    def has_unread(self) -> bool:
        """Whether a line has come that nobody has read."""
        return bool(self._lines)

    def pop_line(self) -> bytes | None:
        """The next unread line; lets the CLI write on once enough has been read."""
        if not self._lines:
            return None
        line = self._lines.popleft()
        self._unread_bytes -= len(line) + 1
        if self._paused and self._unread_bytes <= _RESUME_AT_BYTES:
            self._resume()
        return line

    @property
    def overflow(self) -> LineTooLongError | None:
        """Why no line comes behind those that are unread."""
        return self._framer.overflow

    def rest(self) -> list[bytes]:
        """The line that was begun and never ended."""
        return self._framer.rest()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.stderr_tail += data
            del self.stderr_tail[:-_STDERR_TAIL_BYTES]
            return
        if self._discarding:
            return
        lines = self._framer.feed(data)
        self._lines.extend(lines)
        self._unread_bytes += sum(map(len, lines)) + len(lines)
        if self._unread_bytes > _PAUSE_AT_BYTES:
            self._pause()
        self.stdout_changed.set()

    def pipe_connection_lost(self, fd: int, _exc: Exception | None) -> None:
        if fd == 0:
            self.stdin_lost = True
            self.stdin_writable.set()
        elif fd == 2:
            self.stderr_ended.set()
        elif fd == 1:
            self._paused = False
            self._end_stdout()

    def pause_writing(self) -> None:
        self.stdin_writable.clear()

    def resume_writing(self) -> None:
        self.stdin_writable.set()

    def process_exited(self) -> None:
        self.exited.set()
        self._expect_stdout_end()
        self.when_exited()

    def discard(self) -> None:
        """From now on stdout is read and thrown away, so that the CLI can write its last and go."""
        self._discarding = True
        self._lines.clear()
        self._unread_bytes = 0
        self._resume()

    def _pause(self) -> None:
        if self._stdout is not None and not self._paused:
            self._paused = True
            self._stdout.pause_reading()

    def _resume(self) -> None:
        if self._stdout is not None and self._paused:
            self._paused = False
            self._stdout.resume_reading()
            if self.exited.is_set():
                self._expect_stdout_end()

    def _expect_stdout_end(self) -> None:
        # A grandchild that inherited stdout holds it open for ever; what the CLI itself wrote is read in a moment.
        asyncio.get_running_loop().call_later(ORPHANED_PIPE_S, self._end_stdout)

    def _end_stdout(self) -> None:
        if not self._paused:
            self.stdout_ended = True
            self.stdout_changed.set()


class Streams:
    """What a CLI has for stdin, stdout and stderr: three pipes, unless a subclass has something else.

    The first three are as asyncio's `subprocess_exec` takes them.
    """

    stdin: int = asyncio.subprocess.PIPE
    stdout: int = asyncio.subprocess.PIPE
    stderr: int = asyncio.subprocess.PIPE

    async def connect(self, pipes: Pipes) -> None:
        """The CLI has been started with them: from now on what it writes goes to `pipes`."""

    def pipe(self, transport: asyncio.SubprocessTransport, descriptor: int) -> asyncio.BaseTransport | None:
        """Our end of one of them, when there is such a one."""
        return transport.get_pipe_transport(descriptor)

    def abandon(self) -> None:
        """The CLI was not started: closes what is open."""
