"""Finds the daemon that a command needs, and starts one where none runs.

Owns when a daemon is started or replaced, and what becomes of a request that reaches one as it ends. Light: a `chat`
that finds a daemon pays for the standard library alone.
"""

import fcntl
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from daemon import __version__, file_lock
from daemon.client import Client
from daemon.errors import (
    EXIT_CONFIG,
    CallError,
    ConnectionLostError,
    DaemonError,
    NoDaemonError,
    NotStartedError,
    WrongConfigError,
)
from daemon.paths import VARIABLES, log_path, private_directory
from daemon.unix_socket import lock_path

if TYPE_CHECKING:
    import subprocess

START_S = 30.0
END_S = 60.0  # more than a daemon drains by default
_LOOK_S = 0.02
_MAKES_ROOM_S = 2.0
_SAID_BYTES = 64 * 1024
_SAID_LINES = 20
_END_BY_ITSELF_S = 1.0
_END_BY_SIGTERM_S = 5.0

T = TypeVar("T")
Warn = Callable[[str], None]


class _Daemon:
    """A daemon that answers: a connection to it, and what it says of itself."""

    def __init__(self, path: Path, limit_s: float = START_S) -> None:
        self.client = Client(path)
        try:
            told = self.client.call_within(limit_s, "version")
        except BaseException:
            self.client.close()
            raise
        self.pid: int = told["pid"]
        self.version: str = told["version"]
        self.is_autostarted: bool = told.get("autostarted", False)

    def must_go(self, ending_pid: int | None) -> bool:
        """Whether it is to be replaced: it ends already, or another version has started it and it has nothing to do."""
        is_old = self.is_autostarted and self.version != __version__
        return self.pid == ending_pid or (is_old and not self._is_busy())

    def _is_busy(self) -> bool:
        rows = self.client.call_within(START_S, "status")["runners"]
        return any(row["running"] or row["queued"] for row in rows)

    def end(self) -> None:
        """Asks it to shut down. It may be gone before it has answered."""
        try:
            self.client.call_within(START_S, "shutdown")
        except (CallError, ConnectionLostError):
            return
        finally:
            self.client.close()


def answered(path: Path, ask: Callable[[Client], Iterator[T]], *, start: bool, warn: Warn) -> Iterator[T]:
    """What `ask` gets from the daemon at `path`. `start` allows to start one, and to replace an old one of our own.

    `warn` is told when the daemon has another version and stays. Raises NoDaemonError without `start`, and
    NotStartedError when a new one does not come up. Every wait has a limit.

    A daemon that ended just then has not taken the request: with `start` it is asked of a new one, once. One that
    was killed may have begun with it, so that is an error.
    """
    daemon = _connected(path, start=start, warn=warn)
    with daemon.client as client:
        begun = False
        try:
            for piece in ask(client):
                begun = True
                yield piece
        except (CallError, ConnectionLostError) as error:
            if begun or not start or not _is_not_taken(error):
                raise
            refusal = error
        else:
            return
    with _connected(path, start=True, warn=warn, ending_pid=daemon.pid, refusal=refusal).client as client:
        yield from ask(client)


def _is_not_taken(error: CallError | ConnectionLostError) -> bool:
    """Whether the daemon ended before it took the request. A chat that it cut is not worth a retry, and says so."""
    if isinstance(error, CallError):
        return error.data.get("kind") == "cancelled" and bool(error.data.get("retryable"))
    return True


def _connected(
    path: Path,
    *,
    start: bool,
    warn: Warn,
    ending_pid: int | None = None,
    refusal: CallError | ConnectionLostError | None = None,
) -> _Daemon:
    found = _found(path) if start else _Daemon(path)
    if start and (found is None or found.must_go(ending_pid)):
        if found is not None:
            found.client.close()
        with _nobody_else_starts_one(path):
            found = _remaining(path, ending_pid, refusal)
            if found is None:
                found = _started(path)
    assert found is not None
    if found.version != __version__:
        warn(f"the daemon has version {found.version} and this command {__version__}: restart it (runnerd stop)")
    return found


def make_room(path: Path) -> None:
    """Ends the daemon at `path` if a command has started it: one that is started on purpose takes its place."""
    try:
        found = _Daemon(path, _MAKES_ROOM_S)
    except DaemonError:
        return  # nobody, or nobody that we know
    found.client.close()
    if found.is_autostarted:
        with _nobody_else_starts_one(path):
            _remaining(path, found.pid, None)


def _started(path: Path) -> _Daemon:
    try:
        _start(path)
        return _Daemon(path)
    except WrongConfigError:
        raise
    except NotStartedError:
        # Another may have been started by hand, or by a service manager, in the same moment.
        found = _found(path)
        if found is None:
            raise
        return found


def _found(path: Path) -> _Daemon | None:
    """The daemon that answers. One that goes away meanwhile is none."""
    try:
        return _Daemon(path)
    except (NoDaemonError, ConnectionLostError, CallError):
        return None


def _remaining(path: Path, ending_pid: int | None, refusal: CallError | ConnectionLostError | None) -> _Daemon | None:
    """The daemon to use, which somebody else has started meanwhile; or None, once the last one has ended."""
    until_s = time.monotonic() + END_S
    while True:
        found = _found(path)
        if found is not None and not found.must_go(ending_pid):
            return found
        if found is not None:
            found.end()
        if not _is_held(lock_path(path)):
            # A daemon that ends takes its socket with it; one that was killed does not.
            if isinstance(refusal, ConnectionLostError) and path.exists():
                raise refusal
            return None
        if time.monotonic() > until_s:
            raise DaemonError(f"the daemon on {path} ends, and has not for {END_S:.0f} s: see `runnerd status`")
        time.sleep(_LOOK_S)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as looked_at:
            return not file_lock.is_taken(looked_at.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


@contextmanager
def _nobody_else_starts_one(path: Path) -> Iterator[None]:
    lock = private_directory(path.parent) / "autostart.lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock.held(lock, within_s=END_S + START_S))
        except TimeoutError as error:
            raise DaemonError(f"another command starts a daemon, and has not for {END_S + START_S:.0f} s") from error
        except OSError as error:
            raise DaemonError(f"{lock} cannot be used: {error.strerror}; remove it") from error
        yield


def _start(path: Path) -> None:
    """Starts a daemon and waits until it says that it is ready, by a line in a pipe that it inherits."""
    log = log_path()
    try:
        said = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise DaemonError(f"{log} cannot be written: {error.strerror}") from error
    ready, tells_ready = os.pipe()
    try:
        said_before = os.fstat(said).st_size
        try:
            process = _spawn(path.absolute(), said, tells_ready)
        finally:
            os.close(tells_ready)
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        is_in_time = bool(poll.poll(START_S * 1000))
        if is_in_time and os.read(ready, 1):
            return
        code = _end(process)
        last_words = _tail(said, said_before)
    finally:
        os.close(ready)
        os.close(said)
    if code == EXIT_CONFIG:
        raise WrongConfigError(last_words)
    end = f"ended with code {code}" if is_in_time else f"was not ready in {START_S:.0f} s"
    raise NotStartedError(f"the daemon that was started {end}; its log is {log}\n{last_words}".rstrip())


def _spawn(path: Path, log: int, tells_ready: int) -> "subprocess.Popen[bytes]":
    import subprocess

    serve = ["-P", "-m", "runnerd", "serve", "--autostarted", "--socket", str(path), "--ready-fd", str(tells_ready)]
    # A relative path means nothing at `/`.
    paths = {name: str(Path(value).absolute()) for name in VARIABLES if (value := os.environ.get(name))}
    return subprocess.Popen(
        [sys.executable, *serve],
        # Who starts it may be a CLI of another daemon's, and end before this one has cleaned its environment.
        env={name: value for name, value in os.environ.items() if name != "RUNNERD_OWNER"} | paths,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
        pass_fds=[tells_ready],
    )


def _end(process: "subprocess.Popen[bytes]") -> int:
    """Ends a daemon that does not come up, if it has not ended by itself; its exit code."""
    import subprocess

    try:
        # It has closed the pipe by its end, or it hangs.
        return process.wait(timeout=_END_BY_ITSELF_S)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        return process.wait(timeout=_END_BY_SIGTERM_S)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait()


def _tail(log: int, begin: int) -> str:
    begin = max(begin, os.fstat(log).st_size - _SAID_BYTES)
    return "\n".join(os.pread(log, _SAID_BYTES, begin).decode(errors="replace").splitlines()[-_SAID_LINES:])
