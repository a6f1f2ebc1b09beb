"""One live session of a runner in the daemon's hands: its state, and what it is good for.

Owns the states and the one table of how they follow each other. Which worker serves whom is `daemon.pool`'s business.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Literal

from daemon.conversation import NOTHING_SAID, Conversation
from runners.provider import Session, SessionOptions

WorkerState = Literal["starting", "idle", "busy", "parked", "draining", "dead"]

_NEXT: dict[WorkerState, tuple[WorkerState, ...]] = {
    "starting": ("idle", "busy", "draining"),
    "idle": ("busy", "draining"),
    "busy": ("idle", "parked", "draining"),
    "parked": ("busy", "draining"),
    "draining": ("dead",),
    "dead": (),
}
"""`starting`: its CLI is on its way, and no request has it. `idle`: it waits for one. `busy`: a request has it, and may
still wait for its start. `parked`: its turn waits for the results of tools. `draining`: it is being closed."""


class Worker:
    """A session of `model`, from the moment when it begins to be opened.

    `options` is what it was prepared with, None before that. `conversation` is what its CLI has been told and has
    answered, as long as it is not busy, and `root` what that began with. `awaits` are the tool calls whose results a
    parked one waits for. `used_s` is when it was last given back, on the monotonic clock.
    """

    def __init__(self, model: str, opening: Coroutine[Any, Any, Session]) -> None:
        self.model = model
        self.state: WorkerState = "starting"
        self.options: SessionOptions | None = None
        self.conversation: Conversation = NOTHING_SAID
        self.awaits: frozenset[str] = frozenset()
        self.root: Conversation = NOTHING_SAID
        self.used_s = time.monotonic()
        self.opening = asyncio.create_task(opening, name=f"open-{model}")

    def __repr__(self) -> str:
        return f"<Worker {self.model} {self.state}{' blank' if self.is_blank else ''}>"

    @property
    def is_blank(self) -> bool:
        """Whether nothing was said to it yet."""
        return self.conversation == NOTHING_SAID

    @property
    def is_fresh(self) -> bool:
        """Whether it is good for anybody. A blank whose first turn was given up is not: it has its options."""
        return self.is_blank and self.options is None

    @property
    def session(self) -> Session | None:
        """The session, once it is open."""
        is_open = self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None
        return self.opening.result() if is_open else None

    def move(self, state: WorkerState) -> None:
        """Changes its state; a move that the table does not have is a bug."""
        assert state in _NEXT[self.state], f"a worker that is {self.state} does not become {state}"
        self.state = state
        self.used_s = time.monotonic()

    async def aclose(self) -> None:
        """Ends the session, also one that is only just being opened."""
        if not self.opening.done():
            self.opening.cancel()
        await asyncio.wait([self.opening])
        if self.session is not None:
            await self.session.aclose()
