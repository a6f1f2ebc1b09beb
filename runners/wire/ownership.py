"""Whose processes are these: the mark that every CLI carries, and whatever it starts, and who waits for whom.

A process inherits its environment from whoever started it and keeps it when it leaves its group, its session and its
parent: the mark in it finds what a group kill misses. What clears or hides its environment and leaves its session
escapes. Knows no policy: who is to be killed, and when, its callers say.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psutil

VARIABLE = "RUNNERD_OWNER"
"""The variable with the mark: the owner's name, a slash, and a number for each process that the owner started."""

owner = f"{os.getpid()}-{secrets.token_hex(4)}"
"""The name of this very process. Random, so that no later process with its pid is ever taken for it."""

_VARIABLE_BYTES = f"{VARIABLE}=".encode()
_KILLED_WITHIN_S = 2.0
_LOOKS_EVERY_S = 0.01

_numbers = count(1)
_wanted: dict[str, int | None] = {}
"""The children in use by their marks, each with its pid once it has one."""


@contextmanager
def starting() -> Iterator[str]:
    """The mark for a child that is started inside. It is wanted until it is forgotten, or does not start."""
    mark = f"{owner}/{next(_numbers)}"
    _wanted[mark] = None
    try:
        yield mark
    except BaseException:
        forget(mark)
        raise


def started(mark: str, pid: int) -> None:
    """The child with this mark runs, and whoever started it waits for its end."""
    _wanted[mark] = pid


def forget(mark: str) -> None:
    """Nothing that carries this mark is wanted, or waited for, any more."""
    _wanted.pop(mark, None)


def marked(name: str) -> list[psutil.Process]:
    """The living processes with this mark; for an owner's name all that it started. Reads every process: slow."""
    return [process for process, mark in _marks() if mark == name or mark.startswith(name + "/")]


def unwanted() -> list[psutil.Process]:
    """What we started, or what that started, although nothing with its mark is wanted any more. Slow as well."""
    # A mark is wanted before the first process has it, so none is missed that is read before it is looked up.
    ours = [(process, mark) for process, mark in _marks() if mark.startswith(owner + "/")]
    return [process for process, mark in ours if mark not in _wanted]


def kill(processes: list[psutil.Process]) -> None:
    """Kills each, with the group that it leads. One whose pid is another's by now is left alone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if process.is_running() and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, 9)
            process.kill()


def kill_marked(name: str, *, besides: int | None = None) -> int:
    """Kills what carries the mark until nothing does, for at most 2 s; returns how many. Blocks: for a thread."""
    return _kill_until_none(lambda: [process for process in marked(name) if process.pid != besides])


def kill_descendants() -> int:
    """The same for our children and theirs, and where we are a subreaper for what was orphaned among them."""
    return _kill_until_none(
        lambda: [child for child in psutil.Process().children(recursive=True) if not _is_zombie(child)]
    )


def _kill_until_none(look: Callable[[], list[psutil.Process]]) -> int:
    ends = time.monotonic() + _KILLED_WITHIN_S
    killed: set[psutil.Process] = set()
    while found := look():
        kill(found)
        killed.update(found)
        if time.monotonic() > ends:
            break
        time.sleep(_LOOKS_EVERY_S)  # what is killed takes a moment to go, and may have started others before
    return len(killed)


def zombies() -> list[int]:
    """Our dead children, whoever waits for them. Slow."""
    return [child.pid for child in psutil.Process().children() if _is_zombie(child)]


def reap(pids: list[int]) -> bool:
    """Takes the exit codes of those `zombies` that nobody waits for. False when it is not the time for that.

    A subreaper inherits the children of those that it started. One that was started in any other way than CliProcess's
    is taken for such. Synchronous, in the thread that starts children: while one is being started nobody knows whether
    a dead one is it.
    """
    waited_for = set(_wanted.values())
    if None in waited_for:
        return False
    for pid in pids:
        if pid not in waited_for:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return True


def _is_zombie(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return False


def _marks() -> Iterator[tuple[psutil.Process, str]]:
    for pid in psutil.pids():
        # Another user's process cannot be read, and a zombie has no environment any more.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            # Most have none, and this look is several times cheaper.
            if sys.platform == "linux" and _VARIABLE_BYTES not in Path(f"/proc/{pid}/environ").read_bytes():
                continue
            process = psutil.Process(pid)
            if mark := process.environ().get(VARIABLE):
                yield process, mark
