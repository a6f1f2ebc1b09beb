"""Whose processes are these, and are they still wanted: leases, sweeps, and the children that a subreaper inherits.

A daemon's lease is a directory in the state directory, named as the mark of its processes is, with a lock that is held
as long as the daemon lives, however it dies. What a dead daemon left is found by its name, and by nothing else.
"""

import asyncio
import ctypes
import fcntl
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import structlog

from daemon import file_lock
from daemon.errors import UnsafeDirectoryError
from daemon.paths import private_directory
from runners.wire import ownership

_SWEEPS_EVERY_S = 60.0
_REAPS_EVERY_S = 1.0
_LOCKED_AT_MOST_S = 5.0
_LOCK = "lock"
_OWNER = re.compile(r"\d+-[0-9a-f]{8}")
_PR_SET_CHILD_SUBREAPER = 36

_log = structlog.get_logger()


class Lease:
    """The proof that this process lives, and a directory for what need not outlive it.

    Raises OSError or UnsafeDirectoryError when the state directory takes none.
    """

    def __init__(self, state_dir: Path) -> None:
        self._leases = private_directory(state_dir / "leases")
        self.directory = self._leases / ownership.owner
        with _locked(self._leases):
            self.directory.mkdir(mode=0o700)
            try:
                self._lock = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                # With a lock that nobody holds it would be a dead one's, and the next sweep would kill what is ours.
                (self.directory / _LOCK).unlink(missing_ok=True)
                self.directory.rmdir()
                raise

    def release(self) -> None:
        """Removes the directory. Everything that uses it must have ended; for what has not, it stays to be swept."""
        try:
            if left := ownership.marked(ownership.owner):
                _log.warning("lease.stays", directory=str(self.directory), left=[process.pid for process in left])
                return
            with _locked(self._leases):
                shutil.rmtree(self.directory)
        except FileNotFoundError:
            pass  # somebody has cleared the state directory
        except OSError as error:
            _log.warning("lease.stays", directory=str(self.directory), error=str(error))  # for the next sweep
        finally:
            os.close(self._lock)


def sweep(state_dir: Path) -> None:
    """Kills what dead daemons left and removes their directories. Blocks, for seconds where there is much to do."""
    leases = state_dir / "leases"
    try:
        with _locked(leases):
            for directory in sorted(leases.iterdir()):
                if _OWNER.fullmatch(directory.name) and directory.name != ownership.owner:
                    try:
                        _sweep(directory)
                    except OSError as error:
                        _log.warning("reaper.failed", lease=str(directory), error=str(error))
    except FileNotFoundError:
        pass  # no daemon has been here
    except OSError as error:
        # It must not keep a daemon from its start.
        _log.warning("reaper.failed", leases=str(leases), error=str(error))


def _sweep(directory: Path) -> None:
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # no proof that its daemon is dead: somebody may have cleared the state directory under it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        killed = ownership.kill_marked(directory.name)
        if left := ownership.marked(directory.name):
            _log.warning("reaper.failed", owner=directory.name, left=[process.pid for process in left])
            return  # the next sweep finds them by this directory
        shutil.rmtree(directory)
        _log.info("reaper.swept", owner=directory.name, killed=killed)
    except BlockingIOError:
        pass  # it lives
    finally:
        os.close(lock)


def _locked(leases: Path) -> AbstractContextManager[None]:
    """A lease that is being made is not locked yet, and must not be taken for a dead one's."""
    return file_lock.held(leases / _LOCK, within_s=_LOCKED_AT_MOST_S)


@contextmanager
def leased(state_dir: Path) -> Iterator[Path | None]:
    """A lease while it lasts: its directory, or None where the state directory takes none, which is told in the log."""
    lease = None
    try:
        lease = Lease(state_dir)
    except (OSError, UnsafeDirectoryError) as error:
        # Better a process that can be killed badly than none.
        _log.warning("lease.failed", error=str(error))
    try:
        yield lease.directory if lease else None
    finally:
        if lease is not None:
            lease.release()


class Reaper:
    """Sweeps now and then, and takes the exit codes of what this process inherits. SIGCHLD is its own.

    On Linux the orphans of our CLIs become our children, so that they are seen, and are not left to `init`.
    """

    def __init__(self, state_dir: Path, *, sweeps_every_s: float = _SWEEPS_EVERY_S) -> None:
        self._state_dir = state_dir
        self._sweeps_every_s = sweeps_every_s
        self._died = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins both."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._died.set)
        self._tasks = [
            asyncio.create_task(self._sweeping(), name="reaper-sweeps"),
            asyncio.create_task(self._reaping(), name="reaper-reaps"),
        ]

    async def aclose(self) -> None:
        """Ends both, and what our CLIs left; every session is closed by then."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        # By their parentage too: nobody of ours is wanted any more, and a process may hide its environment.
        left = await asyncio.to_thread(ownership.kill_descendants)
        left += await asyncio.to_thread(ownership.kill_marked, ownership.owner)
        if left:
            _log.warning("reaper.killed", processes=left)
        ownership.reap(await asyncio.to_thread(ownership.zombies))

    async def _sweeping(self) -> None:
        while True:
            await asyncio.sleep(self._sweeps_every_s)
            try:
                await asyncio.to_thread(sweep, self._state_dir)
                left = await asyncio.to_thread(ownership.unwanted)
                if left:
                    _log.warning("reaper.killed", processes=len(left))
                    ownership.kill(left)
            except OSError as error:
                _log.warning("reaper.failed", error=str(error))

    async def _reaping(self) -> None:
        while True:
            await self._died.wait()
            self._died.clear()
            try:
                is_time = ownership.reap(await asyncio.to_thread(ownership.zombies))
            except OSError as error:
                is_time = False
                _log.warning("reaper.failed", error=str(error))
            if not is_time:
                self._died.set()
            # Each look reads every process, and a dead one has time.
            await asyncio.sleep(_REAPS_EVERY_S)
