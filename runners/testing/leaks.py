"""Whether a test left anything behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

_SETTLE_S = 10.0


@asynccontextmanager
async def leaves_nothing() -> AsyncIterator[None]:
    """Fails when its body leaves a task, a file descriptor or a child process behind."""
    tasks, descriptors = asyncio.all_tasks(), _descriptors()
    children = set(psutil.Process().children(recursive=True))
    yield
    # A peer's socket and a transport's pipe close in their own time, which is short.
    ends = time.monotonic() + _SETTLE_S
    left: list[str] = []
    while time.monotonic() < ends:
        new = asyncio.all_tasks() - tasks - {asyncio.current_task()}
        left = _described(task for task in new if not task.done())
        left += _described(_descriptors() - descriptors)
        left += _described(set(psutil.Process().children(recursive=True)) - children)
        if not left:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"left behind: {left}")


def _described(things: Iterable[Any]) -> list[str]:
    return [repr(thing) for thing in things]


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for entry in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the descriptor of this very listing
            found.add((entry.name, str(entry.readlink())))
    return found
