"""Codex's process: one `codex app-server` for many conversations, over JSON-RPC a line at a time."""

import asyncio
import copy
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.errors import ProtocolError, RunnerError, UnsupportedError
from runners.provider import ProcessRef
from runners.wire.deadlines import within
from runners.wire.jsonrpc import METHOD_NOT_FOUND, RequestId, RpcError, RpcProcess

if TYPE_CHECKING:
    from runners.providers.codex.thread import CodexThread

_log = logging.getLogger(__name__)

_CLEAN_UP_S = 2.0
_NOT_TAKEN = re.compile(r"dynamic tool input schema is not supported for (\S+): (.*)")
_INITIALIZE = {
    "clientInfo": {"name": "runnerd", "version": "1"},
    "capabilities": {
        "experimentalApi": True,
        "optOutNotificationMethods": [
            *("account/rateLimits/updated", "item/started", "thread/settings/updated", "thread/started"),
            "thread/status/changed",
        ],
    },
}


class CodexServer:
    """A running `codex` and the threads in it. `when_retired` holds who wants to know when it takes no more."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.is_retired = False
        """No new conversation and no new turn may begin here: it ends, has ended, or is deaf."""
        self.has_died = False
        """It has ended by itself."""
        self.users = 0
        self.threads: dict[str, CodexThread] = {}
        self.when_retired: set[Callable[[], None]] = set()
        self._broken: RunnerError | None = None
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
    ) -> "CodexServer":
        """Starts the process and waits until it answers; DeadlineExceededError when it does not within `limit_s`."""
        server = cls(cwd)
        server._rpc = await RpcProcess.spawn(
            argv,
            env=env,
            cwd=cwd,
            temporary=temporary,
            answer=server._answer,
            heard=server._heard,
            gone=server._ended,
            needs_version=False,
        )
        try:
            doing = "waiting for codex to start"
            await within(server._initialize(), limit_s, deadline="spawn_s", doing=doing)
        except BaseException:
            await server.close(ask=False)
            raise
        return server

    async def _initialize(self) -> None:
        await self.call("initialize", _INITIALIZE)
        await self._rpc.peer.notify("initialized", {})

    @property
    def process(self) -> ProcessRef:
        """The CLI process."""
        return ProcessRef(self._rpc.cli.pid, self._rpc.cli.start_time)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The CLI's answer to a call; ProcessExitedError when it has gone, ProtocolError when it refuses."""
        try:
            return await self._rpc.peer.call(method, params)
        except RpcError as error:
            if found := _NOT_TAKEN.search(str(error)):
                raise UnsupportedError(f"codex does not take the parameters of {found[1]!r}: {found[2]}") from error
            raise ProtocolError(f"codex refused {method}: {error}") from error

    def reason(self) -> RunnerError:
        """Why it takes no more turns."""
        return copy.copy(self._broken) or ProtocolError("codex no longer does what it is told")

    async def farewell(self, thread: "CodexThread") -> None:
        """Ends a thread, and what it still does.

        A process that does not answer that in time is left to the turns that it still serves, and is else killed.
        """
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await thread.end()
        except TimeoutError:
            _log.warning("codex %d does not end a thread", self._rpc.cli.pid)
            self._retire()
            if not any(other.is_busy for other in self.threads.values() if other is not thread):
                self._rpc.cli.kill()
        except RunnerError as error:
            if self._broken is None:
                _log.warning("codex %d: %s", self._rpc.cli.pid, error)

    def _retire(self) -> None:
        self.is_retired = True
        for told in list(self.when_retired):
            told()

    def close(self, *, ask: bool = True) -> "asyncio.Future[None]":
        """Begins to end the process; idempotent."""
        self._retire()
        return self._rpc.close(ask=ask)

    async def _answer(self, _request_id: RequestId, method: str, params: dict[str, Any]) -> Any:
        thread = self.threads.get(str(params.get("threadId")))
        if method == "item/tool/call" and thread is not None:
            return await thread.result_of(str(params.get("callId")))
        raise RpcError(METHOD_NOT_FOUND, f"this host grants nothing, {method} included")

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        thread = self.threads.get(str(params.get("threadId")))
        if thread is not None:
            thread.inbox.put({"type": method, "params": params})

    def _ended(self, error: RunnerError) -> None:
        self.has_died = not self.is_retired
        self._broken = error
        for thread in self.threads.values():
            thread.inbox.fail(copy.copy(error))
            thread.inbox.is_idle.set()
        self._retire()
