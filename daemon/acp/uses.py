"""The daemon as an event loop sees it: each use of the blocking client in a thread and on a connection of its own."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Generic, TypeVar

from daemon.autostart import Warn, answered
from daemon.client import Client
from daemon.errors import CallError, ConnectionLostError, DaemonError

_ANSWERS_WITHIN_S = 30.0
_AHEAD = 1000
"""How many pieces a thread may be ahead of the editor: then it reads no more, and the daemon waits."""

T = TypeVar("T")
Ask = Callable[[Client], Iterator[T]]


class Daemon:
    """The daemon at `path`; `start` allows to start one where none runs. See `autostart.answered`."""

    def __init__(self, path: Path, *, start: bool, warn: Warn) -> None:
        self._path = path
        self._start = start
        self._warn = warn

    async def call(self, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
        """The results of some methods with their params, in order; CallError when the daemon says no to one."""

        def ask(client: Client) -> Iterator[Any]:
            return iter([client.call_within(_ANSWERS_WITHIN_S, method, **params) for method, params in calls])

        async with aclosing(self._used(ask)) as results:
            return [result async for result in results]

    def chat(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of an answer as they come. Closing it, and a cancellation, end the chat in the daemon at once."""
        return self._used(lambda client: client.chat(request))

    async def _used(self, ask: Ask[T]) -> AsyncGenerator[T, None]:
        use = _Use(ask, asyncio.get_running_loop())
        pieces = answered(self._path, use.asked, start=self._start, warn=self._warn)
        # A daemon thread: one that waits for a daemon to come up is not waited for in turn. It will ask it nothing.
        thread = threading.Thread(target=use.run, args=(pieces,), daemon=True, name="runnerd acp: daemon")
        thread.start()
        try:
            while not isinstance(piece := await use.arrived.get(), _End):
                use.room.release()
                yield piece
            if piece.error is not None:
                raise piece.error
        finally:
            if use.hang_up():
                thread.join()


class _End:
    """Stands behind the last piece."""

    def __init__(self, error: DaemonError | OSError | None) -> None:
        self.error = error


class _Use(Generic[T]):
    """What a thread asks the daemon, and what has arrived of it."""

    def __init__(self, ask: Ask[T], loop: asyncio.AbstractEventLoop) -> None:
        self.arrived: asyncio.Queue[T | _End] = asyncio.Queue()
        self.room = threading.Semaphore(_AHEAD)
        self._ask = ask
        self._loop = loop
        self._client: Client | None = None
        self._is_over = False

    def asked(self, client: Client) -> Iterator[T]:
        """Asks, and ends without a word when we hang up: to `answered` that must not look like a daemon that died."""
        self._client = client
        if self._is_over:
            return
        try:
            yield from self._ask(client)
        except (CallError, ConnectionLostError):
            if not self._is_over:
                raise
        finally:
            self._client = None

    def run(self, pieces: Iterator[T]) -> None:
        """The thread's work: hands every piece to the event loop."""
        error: DaemonError | OSError | None = DaemonError("a connection to the daemon failed: see stderr")
        try:
            for piece in pieces:
                self.room.acquire()
                if self._is_over:
                    break
                self._loop.call_soon_threadsafe(self.arrived.put_nowait, piece)
            error = None
        except (DaemonError, OSError) as failure:
            error = failure
        finally:
            if not self._is_over:
                self._loop.call_soon_threadsafe(self.arrived.put_nowait, _End(error))

    def hang_up(self) -> bool:
        """Ends the use in the middle; whether the thread ends by that, now."""
        self._is_over = True
        self.room.release()
        client = self._client
        if client is not None:
            client.hang_up()
        return client is not None
