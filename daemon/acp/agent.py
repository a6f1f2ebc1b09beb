"""What an editor may ask for: the methods of the protocol, over sessions.

Knows who may do what when; the work itself is done by `turn`, `store` and the daemon.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from acp import PROTOCOL_VERSION, Client, RequestError
from acp.schema import (
    AgentCapabilities,
    AuthenticateResponse,
    AuthMethodAgent,
    ClientCapabilities,
    Implementation,
    InitializeResponse,
    ListSessionsResponse,
    PromptCapabilities,
    PromptResponse,
    SessionCapabilities,
    SessionInfo,
    SessionInfoUpdate,
    SessionListCapabilities,
    SetSessionConfigOptionResponse,
)

from daemon import __version__
from daemon.acp.content import replayed, title, user_entry
from daemon.acp.editor import SET_MODEL
from daemon.acp.hands import Hands
from daemon.acp.models import DEFAULT, EFFORT, EFFORTS, MODEL, Choices, LoadedSession, NewSession, SetModel, chosen
from daemon.acp.store import Conversation, Store
from daemon.acp.turn import Turn
from daemon.acp.uses import Daemon
from daemon.errors import CallError, DaemonError
from daemon.output import warn

_AUTH_REQUIRED, _NOT_FOUND, _INVALID_REQUEST, _INVALID_PARAMS, _FAILED = -32000, -32002, -32600, -32602, -32603
_CODES = {
    "not_authenticated": _AUTH_REQUIRED,
    "auth_expired": _AUTH_REQUIRED,
    "model_not_found": _INVALID_PARAMS,
    "invalid_request": _INVALID_PARAMS,
    "unsupported": _INVALID_PARAMS,
}
_LOGIN = AuthMethodAgent(
    id="cli",
    name="Log in with the CLI itself",
    description="In a terminal: `runnerd doctor` says which CLI takes which command. runnerd has no login of its own.",
)


class _Session:
    """An open session: its conversation, what can be chosen in it, the hands it has, and the prompt that runs."""

    def __init__(self, conversation: Conversation, choices: Choices, hands: Hands) -> None:
        self.conversation = conversation
        self.choices = choices
        self.hands = hands
        self.turn: asyncio.Task[PromptResponse] | None = None


class Agent:
    """The agent of one editor. Its methods are called by the package, with the fields of their params by name."""

    def __init__(self, daemon: Daemon, store: Store, model: str | None) -> None:
        self._daemon = daemon
        self._store = store
        self._model = model
        self._capabilities: ClientCapabilities | None = None
        self._sessions: dict[str, _Session] = {}
        self._editor: Client

    def on_connect(self, conn: Client) -> None:
        """Is told the way back to the editor."""
        self._editor = conn

    async def initialize(self, client_capabilities: ClientCapabilities | None = None, **_: Any) -> InitializeResponse:
        """Says who we are and what we can do, whatever the editor's version: there is one of the protocol so far."""
        self._capabilities = client_capabilities
        return InitializeResponse(
            protocol_version=PROTOCOL_VERSION,
            agent_info=Implementation(name="runnerd", title="runnerd", version=__version__),
            agent_capabilities=AgentCapabilities(
                load_session=True,
                prompt_capabilities=PromptCapabilities(image=True, embedded_context=True),
                session_capabilities=SessionCapabilities(list=SessionListCapabilities()),
            ),
            auth_methods=[_LOGIN],
        )

    async def authenticate(self, method_id: str, **_: Any) -> AuthenticateResponse:
        """Whether a login is good, the next prompt finds out: the CLIs have logins, and not we."""
        if method_id != _LOGIN.id:
            raise RequestError(_INVALID_PARAMS, f"there is no way {method_id!r} to log in")
        return AuthenticateResponse()

    async def new_session(self, cwd: str, mcp_servers: list[Any] | None = None, **_: Any) -> NewSession:
        """Begins a conversation."""
        with _told():
            session = await self._opened(Conversation(_directory(cwd), self._model), mcp_servers)
            self._store.save(session.conversation)
        conversation = session.conversation
        return NewSession(
            session_id=conversation.id,
            config_options=session.choices.options(conversation.model, conversation.effort),
            models=session.choices.legacy(conversation.model),
        )

    async def load_session(
        self, cwd: str, session_id: str, mcp_servers: list[Any] | None = None, **_: Any
    ) -> LoadedSession:
        """Goes on with a conversation that was kept, and tells the editor what was said in it."""
        with _told():
            conversation = self._store.load(session_id)
            if conversation is None:
                raise RequestError(_NOT_FOUND, f"there is no session {session_id!r}: the newest hundred are kept")
            if session_id in self._sessions:
                self._at_rest(session_id)
            conversation.cwd = _directory(cwd)
            try:
                updates = list(replayed(conversation.entries, conversation.cwd))
            except (KeyError, TypeError, ValueError) as error:
                raise DaemonError(f"the conversation of session {session_id!r} is damaged: {error!r}") from error
            session = await self._opened(conversation, mcp_servers)
        for update in updates:
            await self._editor.session_update(session_id=session_id, update=update)
        return LoadedSession(
            config_options=session.choices.options(conversation.model, conversation.effort),
            models=session.choices.legacy(conversation.model),
        )

    async def list_sessions(self, cwd: str | None = None, cursor: str | None = None, **_: Any) -> ListSessionsResponse:
        """The conversations that are kept, newest first, on one page."""
        if cursor is not None:
            raise RequestError(_INVALID_PARAMS, f"there is no page {cursor!r}: the first has all")
        with _told():
            begun = self._store.begun()
        wanted = begun if cwd is None else [one for one in begun if one.cwd == _directory(cwd)]
        rows = [
            SessionInfo(session_id=one.id, cwd=one.cwd, title=one.title, updated_at=one.updated_at) for one in wanted
        ]
        return ListSessionsResponse(sessions=rows)

    async def prompt(self, prompt: list[Any], session_id: str, **_: Any) -> PromptResponse:
        """Answers a prompt. A cancelled one ends at once, and the conversation keeps what was said."""
        session = self._at_rest(session_id)
        session.turn = asyncio.create_task(self._turn(session, prompt))
        try:
            with _told():
                return await session.turn
        except asyncio.CancelledError:
            handler = asyncio.current_task()
            if handler is not None and handler.cancelling():
                raise  # not the prompt was cancelled: the editor has gone
            return PromptResponse(stop_reason="cancelled")
        finally:
            session.turn = None

    async def cancel(self, session_id: str, **_: Any) -> None:
        """Ends the prompt that runs in a session, if one does."""
        session = self._sessions.get(session_id)
        if session is not None and session.turn is not None:
            session.turn.cancel()

    async def set_config_option(
        self, config_id: str, session_id: str, value: str | bool, **_: Any
    ) -> SetSessionConfigOptionResponse:
        """Changes the model or the effort from the next prompt on."""
        session = self._session(session_id)
        conversation = session.conversation
        with _told():
            if config_id == MODEL and isinstance(value, str):
                await self._daemon.call(("resolve", {"model": chosen(value)}))
                conversation.model = chosen(value)
            elif config_id == EFFORT and value in (DEFAULT, *EFFORTS):
                conversation.effort = chosen(str(value))
            else:
                raise RequestError(_INVALID_PARAMS, f"{config_id!r} cannot be {value!r}")
            self._store.save(conversation)
        options = session.choices.options(conversation.model, conversation.effort)
        return SetSessionConfigOptionResponse(config_options=options)

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """What the protocol had, and the package does not know."""
        if method != SET_MODEL:
            raise RequestError.method_not_found(f"_{method}")
        wanted = SetModel.model_validate(params)
        await self.set_config_option(MODEL, wanted.session_id, wanted.model_id)
        return {}

    async def _turn(self, session: _Session, blocks: list[Any]) -> PromptResponse:
        conversation = session.conversation
        before = list(conversation.entries)
        conversation.entries.append(user_entry(blocks))
        try:
            ended = await Turn(self._editor, self._daemon, conversation, session.choices, session.hands).run()
            if ended.stop_reason == "refusal":
                # So says the protocol: what was refused, and all behind it, no later prompt is told.
                conversation.entries[:] = before
        except (DaemonError, OSError):
            if len(conversation.entries) == len(before) + 1:
                conversation.entries[:] = before  # nothing was answered: the user will ask again
            raise
        finally:
            is_first = conversation.title is None and len(conversation.entries) > len(before)
            if is_first:
                conversation.title = title(conversation.entries[0])
            self._keep(conversation)
        if is_first:
            named = SessionInfoUpdate(
                session_update="session_info_update", title=conversation.title, updated_at=conversation.updated_at
            )
            await self._editor.session_update(session_id=conversation.id, update=named)
        return ended

    def _keep(self, conversation: Conversation) -> None:
        """Behind an answer: that it cannot be kept takes nothing from the answer."""
        try:
            self._store.save(conversation)
        except DaemonError as error:
            warn(str(error))

    async def _opened(self, conversation: Conversation, mcp_servers: list[Any] | None) -> _Session:
        if mcp_servers:
            names = ", ".join(server.name for server in mcp_servers)
            warn(f"the editor's MCP servers are not connected to: {names}")
        if conversation.model is not None:
            await self._daemon.call(("resolve", {"model": conversation.model}))
        models, runners = await self._daemon.call(("models", {}), ("runners", {}))
        choices = Choices(models["models"], runners["runners"], await self._default())
        hands = Hands(self._editor, self._capabilities, conversation.id, conversation.cwd)
        session = self._sessions[conversation.id] = _Session(conversation, choices, hands)
        return session

    async def _default(self) -> str:
        """Who answers where no model is chosen. There may be nobody: then a prompt is told so."""
        try:
            who = (await self._daemon.call(("resolve", {"model": None})))[0]
        except CallError as error:
            if error.data.get("kind") == "model_not_found":
                return "nobody"
            raise
        return str(who["runner"] or who["model"])

    def _session(self, session_id: str) -> _Session:
        if session_id not in self._sessions:
            raise RequestError(_NOT_FOUND, f"there is no open session {session_id!r}: load it first")
        return self._sessions[session_id]

    def _at_rest(self, session_id: str) -> _Session:
        session = self._session(session_id)
        if session.turn is not None:
            raise RequestError(_INVALID_REQUEST, "a prompt runs in this session: cancel it, or wait")
        return session


def _directory(cwd: str) -> str:
    if not os.path.isabs(cwd):  # noqa: PTH117 it is the editor's, and need not be on our disk
        raise RequestError(_INVALID_PARAMS, f"the directory of a session is absolute, and {cwd!r} is not")
    return os.path.normpath(cwd)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with the daemon or the store, as the protocol's errors. The message says what mends it."""
    try:
        yield
    except CallError as error:
        hint = f" ({error.data['hint']})" if error.data.get("hint") else ""
        code = _CODES.get(error.data.get("kind", ""), _INVALID_PARAMS if error.code == _INVALID_PARAMS else _FAILED)
        raise RequestError(code, f"{error}{hint}", error.data) from error
    except (DaemonError, OSError) as error:
        raise RequestError(_FAILED, str(error)) from error
