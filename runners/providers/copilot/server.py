"""Copilot's headless server: one process for many conversations, over JSON-RPC with `Content-Length` frames."""

import re
from collections.abc import Mapping
from typing import Any

from runners.errors import ModelNotFoundError, ProtocolError, RunnerError
from runners.providers.copilot.cli_session import CliSession
from runners.shared_process import HostProcess
from runners.wire.deadlines import within
from runners.wire.framing import HeaderFramer
from runners.wire.jsonrpc import METHOD_NOT_FOUND, RequestId, RpcError

_NO_SUCH_MODEL = re.compile(r"\bmodel\b.*\b(not found|not available|unknown)\b", re.IGNORECASE)


class CopilotServer(HostProcess[CliSession]):
    """A headless `copilot` and the sessions in it."""

    name = "copilot's server"
    framer = HeaderFramer

    async def greet(self, limit_s: float) -> None:
        connect = self.call("connect", {"supportedTaskKinds": []})
        await within(connect, limit_s, deadline="spawn_s", doing="waiting for copilot to connect")

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The CLI's answer to a call; ProcessExitedError when it has gone, ProtocolError when it refuses."""
        try:
            return await self._rpc.peer.call(method, params)
        except RpcError as error:
            if _NO_SUCH_MODEL.search(str(error)):
                raise ModelNotFoundError(f"copilot refused: {error}") from error
            raise ProtocolError(f"copilot refused {method}: {error}") from error

    async def farewell(self, session: CliSession) -> None:
        """See HostProcess.farewell; the session's files are removed, too."""
        try:
            await super().farewell(session)
        finally:
            if self.is_gone:
                await self.kill()  # while it lives it may write them again
            self.sessions.pop(session.id, None)
            session.remove()

    async def answer(self, request_id: RequestId, method: str, params: dict[str, Any]) -> Any:  # noqa: ARG002 its form
        session = self.sessions.get(str(params.get("sessionId")))
        if method == "hooks.invoke" and session is not None:
            return await session.hook(str(params.get("hookType")))
        raise RpcError(METHOD_NOT_FOUND, f"this host grants nothing, {method} included")

    def heard(self, method: str, params: dict[str, Any]) -> None:
        session = self.sessions.get(str(params.get("sessionId"))) if method == "session.event" else None
        if session is not None and isinstance(params.get("event"), dict):
            session.inbox.put(params["event"])

    def ended(self, error: RunnerError) -> None:
        for session in self.sessions.values():
            session.inbox.is_idle.set()
        super().ended(error)
