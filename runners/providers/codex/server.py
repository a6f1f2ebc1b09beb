"""Codex's process: one `codex app-server` for many conversations, over JSON-RPC a line at a time."""

import re
from collections.abc import Mapping
from typing import Any

from runners.errors import ProtocolError, RunnerError, UnsupportedError
from runners.providers.codex.thread import CodexThread
from runners.shared_process import HostProcess
from runners.wire.deadlines import within
from runners.wire.jsonrpc import METHOD_NOT_FOUND, RequestId, RpcError

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


class CodexServer(HostProcess[CodexThread]):
    """A running `codex` and the threads in it."""

    name = "codex"
    needs_version = False

    async def greet(self, limit_s: float) -> None:
        await within(self._initialize(), limit_s, deadline="spawn_s", doing="waiting for codex to start")

    async def _initialize(self) -> None:
        await self.call("initialize", _INITIALIZE)
        await self._rpc.peer.notify("initialized", {})

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The CLI's answer to a call; ProcessExitedError when it has gone, ProtocolError when it refuses."""
        try:
            return await self._rpc.peer.call(method, params)
        except RpcError as error:
            if found := _NOT_TAKEN.search(str(error)):
                raise UnsupportedError(f"codex does not take the parameters of {found[1]!r}: {found[2]}") from error
            raise ProtocolError(f"codex refused {method}: {error}") from error

    async def answer(self, request_id: RequestId, method: str, params: dict[str, Any]) -> Any:  # noqa: ARG002 its form
        thread = self.sessions.get(str(params.get("threadId")))
        if method == "item/tool/call" and thread is not None:
            return await thread.result_of(str(params.get("callId")))
        raise RpcError(METHOD_NOT_FOUND, f"this host grants nothing, {method} included")

    def heard(self, method: str, params: dict[str, Any]) -> None:
        thread = self.sessions.get(str(params.get("threadId")))
        if thread is not None:
            thread.inbox.put({"type": method, "params": params})

    def ended(self, error: RunnerError) -> None:
        for thread in self.sessions.values():
            thread.inbox.is_idle.set()
        super().ended(error)
