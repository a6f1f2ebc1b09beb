"""An agent's process: one for many conversations, over JSON-RPC, one message a line."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.errors import AuthExpiredError, NotAuthenticatedError, ProtocolError, RunnerError
from runners.providers.acp.conversation import AgentSession
from runners.providers.acp.dialect import AtStart, Dialect
from runners.providers.acp.tool_server import ToolServer, is_ours
from runners.shared_process import HostProcess
from runners.tools import ToolDefinition
from runners.wire.deadlines import within
from runners.wire.jsonrpc import METHOD_NOT_FOUND, RequestId, RpcError

if TYPE_CHECKING:
    from acp.schema import InitializeResponse

PROTOCOL = 1
_OPENING_S = 2.0
_CATCH_UP_S = 2.0
_PAST_S = 10.0
_MOST_SPENT = 64
"""So many sessions are left behind in an agent that cannot close one, before the next ones get another process."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How an agent is started.

    `login_hint` says what mends a login that its vendor does not accept, where more is known of it than the agent says.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: Path
    login_hint: str | None = None


class AcpAgent(HostProcess[AgentSession]):
    """An agent and the sessions in it.

    `info` is what it says of itself, `directory` is its TMPDIR. It is lent no hands: it gets no files and no terminal
    of ours, and no leave to use its own.
    """

    name = "the agent"

    def __init__(self, launch: Launch, directory: Path, at_start: AtStart, dialect: Dialect) -> None:
        super().__init__(launch.cwd)
        self.directory = directory
        self.at_start = at_start
        self.info: InitializeResponse
        self._dialect = dialect
        self._login_hint = launch.login_hint
        self._spent = 0

    @classmethod
    async def launched(
        cls,
        launch: Launch,
        at_start: AtStart,
        dialect: Dialect,
        *,
        temporary: "tempfile.TemporaryDirectory[str]",
        limit_s: float,
    ) -> "AcpAgent":
        """A new one, see `start`."""
        agent = cls(launch, Path(temporary.name), at_start, dialect)
        return await agent.start(launch.argv, env=launch.env, temporary=temporary, limit_s=limit_s)

    async def greet(self, limit_s: float) -> None:
        # The package takes 0.7 s of the processor to import, while the agent starts as well.
        await asyncio.to_thread(import_module, "acp.schema")
        doing = "waiting for the agent to answer `initialize`"
        self.info = await within(self._initialized(), limit_s, deadline="spawn_s", doing=doing)

    async def _initialized(self) -> "InitializeResponse":
        from acp import schema

        client = schema.Implementation(name="runnerd", title="runnerd", version="1")
        files = schema.FileSystemCapabilities(read_text_file=False, write_text_file=False)
        asked = schema.InitializeRequest(
            protocol_version=PROTOCOL,
            client_capabilities=schema.ClientCapabilities(fs=files, terminal=False),
            client_info=client,
        )
        told = await self.call("initialize", asked.model_dump(mode="json", by_alias=True, exclude_none=True))
        try:
            # A part of a wrong form the package mends to a plain object, which is of its own form only when read again.
            mended = schema.InitializeResponse.model_validate(told).model_dump(by_alias=True, warnings=False)
            info: InitializeResponse = schema.InitializeResponse.model_validate(mended)
        except ValueError as error:
            raise ProtocolError(f"the agent's answer to `initialize` is not of its known form: {error}") from error
        if info.protocol_version != PROTOCOL:
            raise ProtocolError(f"the agent speaks ACP {info.protocol_version}, and not {PROTOCOL}")
        return info

    @property
    def login_hint(self) -> str | None:
        """How to log in: what is known of it beforehand, else what the agent says."""
        if self._login_hint is not None:
            return self._login_hint
        ways = [str(way.description or way.name) for way in self.info.auth_methods or []]
        return f"log in with the agent's own program: {'; '.join(ways)}" if ways else None

    @property
    def closes_sessions(self) -> bool:
        """Whether it can let go of a single session."""
        able = self.info.agent_capabilities
        return bool(able and able.session_capabilities and able.session_capabilities.close is not None)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The agent's answer to a call; the RunnerError that its refusal means, ProcessExitedError when it has gone."""
        try:
            return await self._rpc.peer.call(method, params)
        except RpcError as refused:
            error = self._dialect.failure(refused.code, str(refused), refused.data)
            if isinstance(error, NotAuthenticatedError | AuthExpiredError) and method != "initialize":
                error.hint = error.hint or self.login_hint
            raise error from refused

    async def ask(self, session_id: str, blocks: list[dict[str, Any]]) -> Any:
        """The result of a prompt; RpcError when it fails."""
        return await self._rpc.peer.call("session/prompt", {"sessionId": session_id, "prompt": blocks})

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Tells the agent something that it does not answer."""
        await self._rpc.peer.notify(method, params)

    async def catch_up(self) -> None:
        """Waits until all that it has written by now is read: an answer to anything, an error too, comes behind it."""
        with suppress(RpcError, RunnerError, TimeoutError):
            async with asyncio.timeout(_CATCH_UP_S):
                await self._rpc.peer.call("_runnerd/catch_up", {})

    async def new_session(self, tools: Sequence[ToolDefinition] = ()) -> AgentSession:
        """A new session in it, in an empty directory. Its model may call these tools of the client's."""
        from acp.schema import NewSessionResponse

        server = ToolServer(tools) if tools else None
        if server is not None:
            await server.start()
        try:
            addresses = [server.address] if server is not None else []
            told = await self.call("session/new", {"cwd": str(self.cwd), "mcpServers": addresses})
            NewSessionResponse.model_validate(told)
            return self._adopted(told, server)
        except BaseException as error:
            if server is not None:
                await server.aclose()
            if not isinstance(error, ValueError | KeyError | TypeError | AttributeError):
                raise
            form = f"the agent's answer to `session/new` is not of its known form: {error}"
            raise ProtocolError(form) from error

    async def loaded_session(self, session_id: str, *, messages: int) -> AgentSession:
        """A session that the agent finds in its own files, once it has told us its `messages`, as it does by itself."""
        session = self._adopted({"sessionId": session_id})
        try:
            session.await_past(messages)
            told = await self.call("session/load", {"sessionId": session_id, "cwd": str(self.cwd), "mcpServers": []})
            session.read_models(told)
            async with asyncio.timeout(_PAST_S):
                await session.knows_past.wait()
        except BaseException as error:
            self.sessions.pop(session_id)
            if isinstance(error, TimeoutError):
                raise ProtocolError("the agent tells other messages of a session than it was given") from error
            if isinstance(error, KeyError | TypeError | AttributeError):
                form = f"the agent's answer to `session/load` is not of its known form: {error!r}"
                raise ProtocolError(form) from error
            raise
        return session

    def _adopted(self, told: dict[str, Any], tools: ToolServer | None = None) -> AgentSession:
        session = AgentSession(self, told, tools)
        if tools is not None:
            tools.called = session.called
        self.sessions[session.id] = session
        return session

    async def farewell(self, session: AgentSession) -> None:
        """See HostProcess.farewell. An agent that cannot close a session keeps it, and is left once it has many."""
        try:
            await super().farewell(session)
        finally:
            await session.aclose()
            self.sessions.pop(session.id, None)
            self._spent += 1
            if self._spent >= _MOST_SPENT and not self.closes_sessions:
                self.retire()

    async def farewell_to_new(self, opening: "asyncio.Task[AgentSession]") -> None:
        """Ends a session that nobody wants any more once it has begun, which is not waited for for long."""
        try:
            async with asyncio.timeout(_OPENING_S):
                session = await opening
        except (TimeoutError, RunnerError):
            return
        await self.farewell(session)

    def close(self, *, ask: bool = True) -> "asyncio.Future[None]":
        return super().close(ask=ask and self._dialect.hears_eof)

    async def answer(self, request_id: RequestId, method: str, params: dict[str, Any]) -> Any:  # noqa: ARG002 its form
        session = self.sessions.get(str(params.get("sessionId")))
        if method == "session/request_permission":
            return _decided(params, session)
        raise RpcError(METHOD_NOT_FOUND, f"this client grants nothing, {method} included")

    def heard(self, method: str, params: dict[str, Any]) -> None:
        session = self.sessions.get(str(params.get("sessionId"))) if method == "session/update" else None
        update = params.get("update")
        if session is not None and isinstance(update, dict):
            session.hear({**update, "type": update.get("sessionUpdate")})


def _decided(params: dict[str, Any], session: AgentSession | None) -> dict[str, Any]:
    """The answer to a request for leave: for the client's own tools, which it calls itself, yes; for all else no.

    Yes and no are for this once. Where that is no option, or the turn was cancelled, there is none.
    """
    call, options = params.get("toolCall"), params.get("options")
    call = call if isinstance(call, dict) else {}
    is_granted = session is not None and session.tools is not None and is_ours(call, session.tools.offered)
    if session is not None and not is_granted:
        session.inbox.put({**call, "type": "refused"})
    kind = "allow_once" if is_granted else "reject_once"
    options = [option for option in options if isinstance(option, dict)] if isinstance(options, list) else []
    chosen = [option.get("optionId") for option in options if option.get("kind") == kind]
    if not chosen or session is None or session.is_spent:
        return {"outcome": {"outcome": "cancelled"}}
    return {"outcome": {"outcome": "selected", "optionId": chosen[0]}}
