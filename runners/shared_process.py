"""A CLI process that many sessions share: the sessions in it, when it starts, and when it ends."""

import asyncio
import copy
import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from runners.errors import DeadlineExceededError, ProcessExitedError, ProtocolError, RunnerError
from runners.inbox import Inbox
from runners.provider import ProcessRef
from runners.wire.framing import Framer, LineFramer
from runners.wire.jsonrpc import RequestId, RpcProcess
from runners.wire.restarts import Restarts

_log = logging.getLogger(__name__)

_CLEAN_UP_S = 2.0


class Hosted(Protocol):
    """A session of the CLI's own: a conversation as its process has it."""

    is_spent: bool
    """It was asked to stop, or is no longer ours: no other turn may follow."""

    @property
    def inbox(self) -> Inbox:
        """What the CLI tells of it."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether the CLI is in a turn, or on its way into one."""
        ...

    def rest(self, *, awaits_results: bool) -> None:
        """Its turn has ended well, or waits for results."""
        ...

    async def interrupt(self) -> None:
        """Asks the CLI to stop; its events then end with one that says so."""
        ...

    async def end(self) -> None:
        """Stops what the CLI still does in it, and takes it out of the process."""
        ...


H = TypeVar("H", bound=Hosted)


class HostProcess(ABC, Generic[H]):
    """A CLI that speaks JSON-RPC, and its `sessions` by their ids.

    `when_retired` holds who wants to know when it takes no more. `users` is how many hold it, see SharedProcess.
    """

    name: ClassVar[str]
    """What it is called in errors and in the log."""
    framer: ClassVar[type[Framer]] = LineFramer
    needs_version: ClassVar[bool] = True
    """See Peer."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.is_retired = False
        """No new conversation and no new turn may begin here: it ends, has ended, or is deaf."""
        self.has_died = False
        """It has ended by itself."""
        self.users = 0
        self.sessions: dict[str, H] = {}
        self.when_retired: set[Callable[[], None]] = set()
        self._broken: RunnerError | None = None
        self._rpc: RpcProcess

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        temporary: "tempfile.TemporaryDirectory[str]",
        limit_s: float,
    ) -> Self:
        """Starts the process and waits until it answers; DeadlineExceededError when it does not within `limit_s`."""
        self._rpc = await RpcProcess.spawn(
            argv,
            env=env,
            cwd=self.cwd,
            temporary=temporary,
            framer=self.framer(),
            answer=self.answer,
            heard=self.heard,
            gone=self.ended,
            needs_version=self.needs_version,
        )
        try:
            await self.greet(limit_s)
        except BaseException:
            await self.close(ask=False)
            raise
        return self

    @abstractmethod
    async def greet(self, limit_s: float) -> None:
        """Has it answer for the first time."""

    @abstractmethod
    async def answer(self, request_id: RequestId, method: str, params: dict[str, Any]) -> Any:
        """The result of a request of its own; RpcError for one that is not granted."""

    @abstractmethod
    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Takes a notification, for the session that it is about."""

    def ended(self, error: RunnerError) -> None:
        """The process has ended, which is told to all that is in it."""
        self.has_died = not self.is_retired
        self._broken = error
        for session in self.sessions.values():
            session.inbox.fail(copy.copy(error))
        self.retire()

    @property
    def process(self) -> ProcessRef:
        """The CLI process."""
        return ProcessRef(self._rpc.cli.pid, self._rpc.cli.start_time)

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return self._broken is not None

    def reason(self) -> RunnerError:
        """Why it takes no more turns."""
        return copy.copy(self._broken) or ProtocolError(f"{self.name} no longer does what it is told")

    async def farewell(self, session: H) -> None:
        """Ends a session, with what it still does.

        A process that does not do that in time is left to the turns that it still serves, and is else killed.
        """
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await session.end()
        except TimeoutError:
            _log.warning("%s, process %d, does not end a session", self.name, self._rpc.cli.pid)
            self.retire()
            if not any(other.is_busy for other in self.sessions.values() if other is not session):
                await self.kill()
        except RunnerError as error:
            if not self.is_gone:
                _log.warning("%s, process %d: %s", self.name, self._rpc.cli.pid, error)

    def retire(self) -> None:
        """Takes no more: it ends, or does not do what it is told. Those that it still serves it may."""
        self.is_retired = True
        for told in list(self.when_retired):
            told()

    async def kill(self) -> None:
        """Kills the process and waits for that; `close` is still due."""
        self.retire()
        self._rpc.cli.kill()
        await self._rpc.cli.wait()

    def close(self, *, ask: bool = True) -> "asyncio.Future[None]":
        """Begins to end the process; idempotent."""
        self.retire()
        return self._rpc.close(ask=ask)

    async def release(self) -> None:
        """Gives back what `SharedProcess.acquire` gave: it ends with the last who holds it."""
        self.users -= 1
        if self.users == 0:
            await self.close()


P = TypeVar("P", bound=HostProcess[Any])


class SharedProcess(Generic[P]):
    """One process for all sessions of a provider: started by `start` for the first that needs one, ended with the last.

    One that has died soon after its start, or did not start, is started again after a wait, see Restarts.
    """

    def __init__(self, start: Callable[[], Awaitable[P]]) -> None:
        self._start = start
        self._starting = asyncio.Lock()
        self._process: P | None = None
        self._restarts = Restarts()
        self._has_failed = False

    async def acquire(self) -> P:
        """The process, a new one when there is none that lives; its `release` is due."""
        async with self._starting:
            if self._process is None or self._process.is_retired:
                has_died = self._has_failed or (self._process is not None and self._process.has_died)
                await asyncio.sleep(self._restarts.wait_s(has_died=has_died))
                try:
                    self._process = await self._start()
                except (ProcessExitedError, DeadlineExceededError, ProtocolError):
                    self._has_failed = True
                    raise
                self._has_failed = False
            self._process.users += 1
            return self._process
