"""One CLI process: its start, its pipes, its lines and its end.

Owns the child from spawn to reaping. Knows no vendor: what the lines mean is the provider's business.
"""

import asyncio
import errno
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runners.errors import LineTooLongError, NotInstalledError, ProcessExitedError, SpawnFailedError
from runners.wire import ownership
from runners.wire.framing import Framer, LineFramer
from runners.wire.pipes import ORPHANED_PIPE_S, Pipes, Streams

_STEP_S = 2.0
_FAIR_AFTER_LINES = 64
_OUTPUT_CAP_BYTES = 1024 * 1024


class CliProcess:
    """A running CLI in a session (and process group) of its own, with pipes for stdin, stdout and stderr.

    Reading stops at about 1 MiB of unread lines, so that a slow client slows its own CLI and nothing else. stderr
    is always drained, into a tail of 16 KiB. `end_signals` ask it to end.
    """

    end_signals: tuple[signal.Signals, ...] = (signal.SIGTERM,)

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        pipes: Pipes,
        mark: str,
        temporary: "tempfile.TemporaryDirectory[str] | None",
        streams: Streams,
    ) -> None:
        self._transport = transport
        self._streams = streams
        self._pipes = pipes
        self._mark = mark
        self._temporary = temporary
        self._closing: asyncio.Task[None] | None = None
        self._burst = 0
        self.pid = transport.get_pid()
        self.start_time = time.monotonic()
        ownership.started(mark, self.pid)

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        temporary: "tempfile.TemporaryDirectory[str] | None" = None,
        framer: Framer | None = None,
        streams: Callable[[], Streams] = Streams,
    ) -> Self:
        """Starts `argv` with exactly `env` and our mark; NotInstalledError when that is no program we can run.

        `temporary` becomes its TMPDIR, and is removed when it is closed, or here when it does not start. What it writes
        is cut into frames by `framer`: lines, unless another is given. `streams` makes what it reads and writes.
        """
        loop = asyncio.get_running_loop()
        child_env = dict(env) if temporary is None else {**env, "TMPDIR": temporary.name}
        made: Streams | None = None
        try:
            made = streams()
            with ownership.starting() as mark:
                child_env[ownership.VARIABLE] = mark
                transport, pipes = await loop.subprocess_exec(
                    lambda: Pipes(framer or LineFramer()),
                    *argv,
                    stdin=made.stdin,
                    stdout=made.stdout,
                    stderr=made.stderr,
                    env=child_env,
                    cwd=cwd,
                    start_new_session=True,
                )
                try:
                    await made.connect(pipes)
                except BaseException:
                    transport.close()
                    raise
                process = cls(transport, pipes, mark, temporary, made)
        except BaseException as error:
            if made is not None:
                made.abandon()
            if temporary is not None:
                temporary.cleanup()
            if not isinstance(error, OSError | RuntimeError):  # the latter when there can be no thread to wait for it
                raise
            message = f"{argv[0]} cannot be started: {getattr(error, 'strerror', None) or error}"
            # Anything else, such as too many open files, says nothing about the program.
            missing = getattr(error, "errno", None) in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC)
            raise (NotInstalledError if missing else SpawnFailedError)(message) from error
        return process

    def _pipe(self, descriptor: int) -> asyncio.BaseTransport | None:
        return self._streams.pipe(self._transport, descriptor)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._transport.get_returncode()

    def when_exited(self, call: Callable[[], None]) -> None:
        """Has `call` called once it has exited: at once when it has by now."""
        if self._pipes.exited.is_set():
            call()
        else:
            self._pipes.when_exited = call

    @property
    def stderr_tail(self) -> str:
        """The last of what it wrote to stderr. Secret: for the owner of a request, never for a log."""
        return self._pipes.stderr_tail.decode(errors="replace")

    async def write(self, data: bytes) -> None:
        """Writes to stdin and waits until the pipe has room; ProcessExitedError when nobody reads it any more."""
        stdin = self._pipe(0)
        if not isinstance(stdin, asyncio.WriteTransport) or stdin.is_closing() or self._pipes.stdin_lost:
            raise await self.exited_early("it no longer reads its input")
        stdin.write(data)
        await self._pipes.stdin_writable.wait()
        if self._pipes.stdin_lost:
            raise await self.exited_early("it no longer reads its input")

    async def read_line(self) -> bytes | None:
        """The next line without its line feed; None at the end of stdout.

        A last line that was not ended is no line, see `unended`. LineTooLongError past the cap.
        """
        while True:
            line = self._pipes.pop_line()
            if line is not None:
                self._burst += 1
                if self._burst % _FAIR_AFTER_LINES == 0:
                    await asyncio.sleep(0)  # a flood of lines must leave the others their turn
                return line
            if self._pipes.overflow is not None:
                raise self._pipes.overflow
            if self._pipes.stdout_ended:
                return None
            self._pipes.stdout_changed.clear()
            await self._pipes.stdout_changed.wait()

    def drop_unread(self) -> None:
        """Forgets the lines that have come and were not read."""
        while self._pipes.pop_line() is not None:
            pass

    async def exited_early(self, what: str) -> ProcessExitedError:
        """The error for a CLI that ended, or is of no use, before it had answered. Waits briefly for its exit code."""
        # Its last words may still be on their way when it is gone.
        with suppress(TimeoutError):
            async with asyncio.timeout(ORPHANED_PIPE_S):
                await self._pipes.exited.wait()
                await self._pipes.stderr_ended.wait()
        code = self.returncode
        if code is None:
            how = "is still running"
        else:
            how = f"exited with code {code}" if code >= 0 else f"died of {_signal_name(code)}"
        tail = self.stderr_tail.strip()
        return ProcessExitedError(f"the CLI {how}: {what}", exit_code=code, stderr_tail=tail or None)

    def give_up_stdin(self) -> None:
        """Nobody reads its input any more: whoever writes, or waits for room, learns it."""
        self._pipes.pipe_connection_lost(0, None)

    def close_stdin(self) -> None:
        """Ends the CLI's input, after what was written."""
        stdin = self._pipe(0)
        if stdin is not None:
            stdin.close()

    async def read_to_end(self, cap_bytes: int = _OUTPUT_CAP_BYTES) -> list[bytes]:
        """Every line that is left, the last one even without its line feed; LineTooLongError past the cap."""
        lines: list[bytes] = []
        size = 0
        while (line := await self.read_line()) is not None:
            lines.append(line)
            size += len(line) + 1
            if size > cap_bytes:
                raise LineTooLongError(f"its output passes the cap of {cap_bytes} bytes")
        return [*lines, *self.unended()]

    def unended(self) -> list[bytes]:
        """Behind the end of stdout: what stands there without a line feed, when something does."""
        return self._pipes.rest()

    async def wait(self) -> int:
        """Waits for its end and returns the exit code."""
        await self._pipes.exited.wait()
        code = self.returncode
        assert code is not None
        return code

    def kill(self) -> None:
        """Kills the whole group at once; `aclose` is still due."""
        if self.returncode is None:
            self._signal_group(signal.SIGKILL)

    def close(self, *, ask: bool = True) -> asyncio.Task[None]:
        """Begins to end the process and its group: stdin EOF (when `ask`), SIGTERM, SIGKILL, each step at most 2 s.

        What it started in a session of its own is found by its mark and killed. Idempotent. The task goes on by itself
        when who waits for it is cancelled.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(ask), name=f"close-{self.pid}")
        return self._closing

    async def aclose(self, *, ask: bool = True) -> None:
        """Ends the process and waits for that; see `close`."""
        await asyncio.shield(self.close(ask=ask))

    async def _close(self, ask: bool) -> None:
        self._pipes.discard()
        if ask:
            self.close_stdin()
            await self._exits_within(_STEP_S)
        if self.returncode is None:
            for number in self.end_signals:
                self._signal_group(number)
            await self._exits_within(_STEP_S)
        # The group may outlive its leader: what the CLI started dies with it.
        self._signal_group(signal.SIGKILL)
        self._close_pipes()
        await self._exits_within(_STEP_S)
        # Without a descriptor or a thread to look with, the next sweep finds what nobody wants any more.
        with suppress(OSError, RuntimeError):
            await asyncio.to_thread(ownership.kill_marked, self._mark, besides=self.pid)
        ownership.forget(self._mark)
        # Only now: it polls a child that still runs, and would take its exit code from under asyncio's watcher.
        self._transport.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _close_pipes(self) -> None:
        """Closes our ends: a grandchild that left the group may hold the others open for ever."""
        for descriptor in range(3):
            pipe = self._pipe(descriptor)
            if isinstance(pipe, asyncio.WriteTransport) and pipe.get_write_buffer_size():
                pipe.abort()
            elif pipe is not None:
                pipe.close()

    def _signal_group(self, number: signal.Signals) -> None:
        if self.returncode is not None and _exists(self.pid):
            return  # ours is gone to the last, for its number could not be given to another else
        # macOS says that it is not permitted where only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _exits_within(self, limit_s: float) -> None:
        """Waits for its end, or for the time to be over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._pipes.exited.wait()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def _signal_name(returncode: int) -> str:
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a short-lived command did."""

    exit_code: int
    output: bytes
    stderr_tail: str


async def run(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, cap_bytes: int = _OUTPUT_CAP_BYTES
) -> Finished:
    """Runs a short-lived command of a CLI with an empty stdin; leaves no process, also when cancelled.

    LineTooLongError for output of more than `cap_bytes`.
    """
    process = await CliProcess.spawn(argv, env=env, cwd=cwd)
    try:
        process.close_stdin()
        lines = await process.read_to_end(cap_bytes)
        exit_code = await process.wait()
    finally:
        await process.aclose(ask=False)
    return Finished(exit_code, b"\n".join(lines), process.stderr_tail)
