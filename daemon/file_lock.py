"""A lock file that one process holds at a time; it goes when its holder dies, however it dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOKS_EVERY_S = 0.02


@contextmanager
def held(path: Path, *, within_s: float) -> Iterator[None]:
    """The lock at `path`, which is made when it is not there, is ours inside.

    TimeoutError when another process holds it for longer than `within_s`, OSError when it cannot be used.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        until_s = time.monotonic() + within_s
        # Looked at again and again: flock has no limit of its own, and who has the lock may have been stopped.
        while not is_taken(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > until_s:
                raise TimeoutError(f"{path} is held by another process")
            time.sleep(_LOOKS_EVERY_S)
        yield
    finally:
        os.close(descriptor)


def is_taken(descriptor: int, operation: int) -> bool:
    """Whether we have the lock now: for ourselves alone with LOCK_EX, with others of the kind with LOCK_SH."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
