"""The daemon's place on the file system: one instance, its socket, and who is at the other end."""

import fcntl
import os
import socket
import stat
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from daemon.errors import AlreadyRunningError, DaemonError
from daemon.paths import private_directory

_HOLDER_S = 1.0
_PATH_CAP_BYTES = 104 if sys.platform == "darwin" else 108


class Instance:
    """The right to serve a socket, and the socket itself, bound 0600 in a directory that is ours alone.

    A lock beside the socket makes sure that there is one daemon; it goes when its holder dies, however it dies. A
    socket file that nobody answers on is what a killed daemon left, and is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self.socket: socket.socket | None = None

    def __enter__(self) -> Self:
        if not fits(self.path):
            raise DaemonError(f"the socket's path is longer than the system allows: {self.path}; give a shorter one")
        private_directory(self.path.parent)
        lock = lock_path(self.path)
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise DaemonError(f"{lock} cannot be used: {error.strerror}; remove it") from error
        try:
            self._take_lock(self._lock)
            self._remove_stale_socket()
            self.socket = self._bind()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self.socket is not None
        assert self._lock is not None
        self.socket.close()
        self.path.unlink(missing_ok=True)
        os.close(self._lock)

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"a daemon (pid {_holder(lock)}) serves {self.path} already: stop it with `runnerd stop`"
            ) from None
        os.truncate(lock, 0)
        # On a full disk the daemon serves all the same: only the one that it refuses is not told who it is.
        with suppress(OSError):
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _remove_stale_socket(self) -> None:
        try:
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise DaemonError(f"{self.path} is in the way: it is no socket")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_HOLDER_S)
            try:
                probe.connect(os.fspath(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
                return
            except OSError as error:
                raise DaemonError(f"{self.path} is in the way: {error.strerror}; remove it") from error
        raise AlreadyRunningError(f"another program answers on {self.path}")

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            bound.bind(os.fspath(self.path))
            # Who comes before we are ready waits, and is not refused.
            bound.listen(socket.SOMAXCONN)
        except OSError as error:
            bound.close()
            raise DaemonError(f"cannot listen on {self.path}: {error.strerror}") from error
        finally:
            os.umask(before)
        return bound


def fits(path: Path) -> bool:
    """Whether the system allows a socket a path of that length."""
    return len(os.fsencode(path)) < _PATH_CAP_BYTES


def _holder(lock: int) -> str:
    """The pid of the daemon that holds a lock.

    A daemon that starts at this moment writes it just behind taking the lock: what stands there before is nothing, or
    the pid of one that was killed.
    """
    from psutil import pid_exists

    ends_s = time.monotonic() + _HOLDER_S
    while True:
        holder = os.pread(lock, 32, 0).decode().strip()
        if holder.isdecimal() and pid_exists(int(holder)):
            return holder
        if time.monotonic() > ends_s:
            return "unknown"
        time.sleep(0.01)


def lock_path(path: Path) -> Path:
    """The lock that the daemon of a socket holds as long as it lives."""
    return path.with_name(f"{path.name}.lock")


def peer_uid(connected: socket.socket) -> int:
    """The user id of the process at the other end of a Unix socket."""
    if sys.platform == "linux":
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])
    # macOS: LOCAL_PEERCRED at level SOL_LOCAL gives a struct xucred: its version, then the uid.
    credentials = connected.getsockopt(0, 1, struct.calcsize("2I"))
    return int(struct.unpack("2I", credentials)[1])
