"""An agent's process: one for many conversations, over JSON-RPC, one message a line."""

import asyncio
import copy
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.errors import AuthExpiredError, NotAuthenticatedError, ProtocolError, RunnerError
from runners.provider import ProcessRef
from runners.providers.acp.conversation import AgentSession
from runners.providers.acp.dialect import AtStart, Dialect
from runners.providers.acp.tool_server import ToolServer, is_ours
from runners.tools import ToolDefinition
from runners.wire.deadlines import within
from runners.wire.jsonrpc import METHOD_NOT_FOUND, RequestId, RpcError, RpcProcess

if TYPE_CHECKING:
    from acp.schema import InitializeResponse

_log = logging.getLogger(__name__)

PROTOCOL = 1
_CLEAN_UP_S = 2.0
_CATCH_UP_S = 2.0
_PAST_S = 10.0
_MOST_SPENT = 64
"""So many sessions are left behind in an agent that cannot close one, before the next ones get another process."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How an agent is started."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path


class AcpAgent:
    """An agent and the sessions in it. `when_retired` holds who wants to know when it takes no more.

    `info` is what it says of itself, `directory` is its TMPDIR. It is lent no hands: it gets no files and no terminal
    of ours, and no leave to use its own.
    """

    def __init__(self, cwd: Path, directory: Path, at_start: AtStart, dialect: Dialect) -> None:
        self.cwd = cwd
        self.directory = directory
        self.at_start = at_start
        self.users = 0
        self.is_retired = False
        self.has_died = False
        self.sessions: dict[str, AgentSession] = {}
        self.when_retired: set[Callable[[], None]] = set()
        self.info: InitializeResponse
        self._dialect = dialect
        self._broken: RunnerError | None = None
        self._spent = 0
        self._rpc: RpcProcess

    @classmethod
    async def start(
        cls,
        launch: Launch,
        at_start: AtStart,
        dialect: Dialect,
        *,
        temporary: "tempfile.TemporaryDirectory[str]",
        limit_s: float,
    ) -> "AcpAgent":
        """Starts the process and waits until it has introduced itself; DeadlineExceededError behind `limit_s`."""
        agent = cls(launch.cwd, Path(temporary.name), at_start, dialect)
        agent._rpc = await RpcProcess.spawn(
            launch.argv,
            env=launch.env,
            cwd=launch.cwd,
            temporary=temporary,
            answer=agent._answer,
            heard=agent._heard,
            gone=agent._ended,
        )
        try:
            # The package takes 0.7 s of the processor to import, while the agent starts as well.
            await asyncio.to_thread(import_module, "acp.schema")
            doing = "waiting for the agent to answer `initialize`"
            agent.info = await within(agent._initialized(), limit_s, deadline="spawn_s", doing=doing)
        except BaseException:
            agent.retire()
            await agent._rpc.close(ask=False)
            raise
        return agent

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
    def process(self) -> ProcessRef:
        """The agent's process."""
        return ProcessRef(self._rpc.cli.pid, self._rpc.cli.start_time)

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return self._broken is not None

    @property
    def login_hint(self) -> str | None:
        """What the agent says of how to log in."""
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

    def reason(self) -> RunnerError:
        """Why it takes no more turns."""
        return copy.copy(self._broken) or ProtocolError("the agent no longer does what it is told")

    async def farewell(self, session: AgentSession) -> None:
        """Ends a session, with what it still does.

        A process that does not do that in time is left to the turns that it still serves, and is else killed.
        """
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                await session.end()
        except TimeoutError:
            _log.warning("the agent %d does not end a session", self._rpc.cli.pid)
            self.retire()
            if not any(other.is_busy for other in self.sessions.values() if other is not session):
                self._rpc.cli.kill()
                await self._rpc.cli.wait()
        except RunnerError as error:
            if self._broken is None:
                _log.warning("the agent %d: %s", self._rpc.cli.pid, error)
        finally:
            await session.aclose()
            self.sessions.pop(session.id, None)
            self._spent += 1
            if self._spent >= _MOST_SPENT and not self.closes_sessions:
                self.retire()

    async def farewell_to_new(self, opening: "asyncio.Task[AgentSession]") -> None:
        """Ends a session that nobody wants any more once it has begun, which is not waited for for long."""
        try:
            async with asyncio.timeout(_CLEAN_UP_S):
                session = await opening
        except (TimeoutError, RunnerError):
            return
        await self.farewell(session)

    def retire(self) -> None:
        """Takes no more: it ends, or does not do what it is told. Those that it still serves it may."""
        self.is_retired = True
        for told in list(self.when_retired):
            told()

    def close(self) -> "asyncio.Future[None]":
        """Begins to end the process; idempotent."""
        self.retire()
        return self._rpc.close(ask=self._dialect.hears_eof)

    async def _answer(self, _request_id: RequestId, method: str, params: dict[str, Any]) -> Any:
        session = self.sessions.get(str(params.get("sessionId")))
        if method == "session/request_permission":
            return _decided(params, session)
        raise RpcError(METHOD_NOT_FOUND, f"this client grants nothing, {method} included")

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        session = self.sessions.get(str(params.get("sessionId"))) if method == "session/update" else None
        update = params.get("update")
        if session is not None and isinstance(update, dict):
            session.hear({**update, "type": update.get("sessionUpdate")})

    def _ended(self, error: RunnerError) -> None:
        self.has_died = not self.is_retired
        self._broken = error
        for session in self.sessions.values():
            session.inbox.fail(copy.copy(error))
        self.retire()


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
