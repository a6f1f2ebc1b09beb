"""Copilot's headless server: one process for many conversations, over JSON-RPC with `Content-Length` frames."""

import asyncio
import copy
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from runners.errors import ModelNotFoundError, ProtocolError, RunnerError
from runners.provider import ProcessRef
from runners.providers.copilot.inbox import CopilotInbox
from runners.wire.deadlines import within
from runners.wire.framing import HeaderFramer
from runners.wire.jsonrpc import METHOD_NOT_FOUND, RequestId, RpcError, RpcProcess

_log = logging.getLogger(__name__)

_CLEAN_UP_S = 2.0
_NO_SUCH_MODEL = re.compile(r"\bmodel\b.*\b(not found|not available|unknown)\b", re.IGNORECASE)


class Hosted(Protocol):
    """A session of the CLI's, as the server that it is in sees it."""

    id: str
    inbox: CopilotInbox

    @property
    def is_busy(self) -> bool:
        """Whether it is in a turn."""
        ...

    async def hook(self, kind: str) -> dict[str, Any]:
        """The answer to a question of the CLI's."""
        ...

    async def end(self, *, abort: bool) -> None:
        """Takes the CLI's session out of the server."""
        ...

    def remove(self) -> None:
        """Removes its files."""
        ...


class CopilotServer:
    """A headless `copilot` and the sessions in it. `when_retired` holds who wants to know when it takes no more."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.is_retired = False
        """No new conversation and no new turn may begin here: it ends, has ended, or is deaf."""
        self.has_died = False
        """It has ended by itself."""
        self._broken: RunnerError | None = None
        self.users = 0
        self.sessions: dict[str, Hosted] = {}
        self.when_retired: set[Callable[[], None]] = set()
        self._rpc: RpcProcess

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        temporary: "tempfile.TemporaryDirectory[str]",
        limit_s: float,
    ) -> "CopilotServer":
        """Starts the process and waits until it answers; DeadlineExceededError when it does not within `limit_s`."""
        server = cls(cwd)
        server._rpc = await RpcProcess.spawn(
            argv,
            env=env,
            cwd=cwd,
            temporary=temporary,
            framer=HeaderFramer(),
            answer=server._answer,
            heard=server._heard,
            gone=server._ended,
        )
        try:
            connect = server.call("connect", {"supportedTaskKinds": []})
            await within(connect, limit_s, deadline="spawn_s", doing="waiting for copilot to connect")
        except BaseException:
            await server.close(ask=False)
            raise
        return server

    @property
    def process(self) -> ProcessRef:
        """The CLI process."""
        return ProcessRef(self._rpc.cli.pid, self._rpc.cli.start_time)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The CLI's answer to a call; ProcessExitedError when it has gone, ProtocolError when it refuses."""
        try:
            return await self._rpc.peer.call(method, params)
        except RpcError as error:
            if _NO_SUCH_MODEL.search(str(error)):
                raise ModelNotFoundError(f"copilot refused: {error}") from error
            raise ProtocolError(f"copilot refused {method}: {error}") from error

    def reason(self) -> RunnerError:
        """Why it takes no more turns."""
        return copy.copy(self._broken) or ProtocolError("copilot's server no longer does what it is told")

    async def farewell(self, session: Hosted, *, abort: bool) -> None:
        """Ends a session, with `abort` also what it still does, and removes its files.

        A process that does not answer that in time is left to the turns that it still serves, and is else killed.
        """
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await session.end(abort=abort)
        except TimeoutError:
            _log.warning("copilot %d does not end a session", self._rpc.cli.pid)
            self._retire()
            if not any(other.is_busy for other in self.sessions.values() if other is not session):
                await self._kill()
        except RunnerError as error:
            if self._broken is None:
                _log.warning("copilot %d: %s", self._rpc.cli.pid, error)
        finally:
            if self._broken is not None:
                await self._kill()
            self.sessions.pop(session.id, None)
            session.remove()

    def _retire(self) -> None:
        self.is_retired = True
        for told in list(self.when_retired):
            told()

    async def _kill(self) -> None:
        """Kills the process and waits for that: while it lives it may write a session's files again."""
        self._retire()
        self._rpc.cli.kill()
        await self._rpc.cli.wait()

    def close(self, *, ask: bool = True) -> "asyncio.Future[None]":
        """Begins to end the process; idempotent."""
        self._retire()
        return self._rpc.close(ask=ask)

    async def _answer(self, _request_id: RequestId, method: str, params: dict[str, Any]) -> Any:
        session = self.sessions.get(str(params.get("sessionId")))
        if method == "hooks.invoke" and session is not None:
            return await session.hook(str(params.get("hookType")))
        raise RpcError(METHOD_NOT_FOUND, f"this host grants nothing, {method} included")

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        session = self.sessions.get(str(params.get("sessionId"))) if method == "session.event" else None
        if session is not None and isinstance(params.get("event"), dict):
            session.inbox.put(params["event"])

    def _ended(self, error: RunnerError) -> None:
        self.has_died = not self.is_retired
        self._broken = error
        for session in self.sessions.values():
            session.inbox.fail(copy.copy(error))
            session.inbox.is_idle.set()
        self._retire()
