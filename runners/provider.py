"""The contract that every runner keeps: LlmProvider, Session, Health.

Owns the parts of the contract that are the same for all: `complete` is the fold of the stream, a stream is one
session's one turn, and what a runner cannot do is said before it starts.
"""

import asyncio
import copy
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from runners.capabilities import Capabilities, gaps, refuse_what_would_be_lost
from runners.errors import ConfigError, DeadlineExceededError, InvalidRequestError, RunnerError, UnsupportedError
from runners.installed import is_version, numbers
from runners.messages import (
    NO_RESULT,
    ChatMessage,
    ChatRequest,
    ChatResponse,
    ModelInfo,
    ReasoningEffort,
    ResponseFormat,
    unknown_fields,
)
from runners.settings import RunnerSettings, Timeouts
from runners.stream import ChatChunk, ChatStream, Warn, fold
from runners.tool_calls import schema_problem
from runners.tools import ToolChoice, ToolDefinition
from runners.wire.deadlines import within
from runners.wire.environment import child_environment, find_binary

PROBE_S = 10.0

T = TypeVar("T")

SessionState = Literal["starting", "idle", "busy", "parked", "dead"]


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe found, without asking a model.

    `ready`: a chat should work. `degraded`: it may. `unavailable`: it will not, for `reason` (an error kind).
    `authenticated` is None where the CLI cannot tell. `hint` is the command or act that mends it.
    """

    state: Literal["ready", "degraded", "unavailable"]
    reason: str | None = None
    version: str | None = None
    authenticated: bool | None = None
    detail: str | None = None
    hint: str | None = None
    latency_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether a chat is worth trying."""
        return self.state != "unavailable"

    def unless_older(self, oldest: str, *, hint: str) -> "Health":
        """The same; `degraded` for a CLI that is well but older than the oldest version that is known to work."""
        version = self.version or ""
        if not self.ok or not is_version(version) or numbers(version) >= numbers(oldest):
            return self
        old = f"{version} is older than {oldest}, the oldest version that is known to work"
        return replace(self, state="degraded", reason="unsupported", detail=old, hint=hint)

    @classmethod
    def unavailable(cls, error: RunnerError) -> "Health":
        """The health of a runner whose probe failed with `error`."""
        authenticated = False if error.kind in ("not_authenticated", "auth_expired") else None
        return cls("unavailable", error.kind, authenticated=authenticated, detail=error.message, hint=error.hint)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What stays the same for a whole conversation; a blank session takes it in `prepare`."""

    system: str = ""
    tools: tuple[ToolDefinition, ...] = ()
    reasoning_effort: ReasoningEffort | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """What may differ from turn to turn; None leaves it to the vendor."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    response_format: ResponseFormat | None = None
    tool_choice: ToolChoice | None = None


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A CLI process of a provider and the number of its live sessions. `start_time` is on the monotonic clock."""

    pid: int
    start_time: float
    sessions: int = 1


class Session(ABC):
    """One live conversation with a CLI. One task at a time uses it; `interrupt` and `aclose` may come from another.

    `timeouts` may be set before `prepare` and before each turn. `process` is the one that serves it, as far as there
    is one of ours at the moment. `when_dead` is called when a session that is not in a turn becomes `dead` by itself,
    because its CLI has gone; `aclose` is still due.
    """

    state: SessionState = "starting"
    turns: int = 0
    awaits: frozenset[str] = frozenset()
    """The ids of the tool calls that a parked session needs the results of."""
    resent: bool = False
    """Whether the last turn sent its CLI again what that had been told before."""
    timeouts: Timeouts = Timeouts()
    model: str
    process: ProcessRef | None = None
    when_dead: Callable[[], None] = staticmethod(lambda: None)

    @property
    def holds_conversation(self) -> bool:
        """Whether its CLI remembers what was said, so that a turn sends what is new. Else it is not worth keeping."""
        return True

    @abstractmethod
    async def prepare(self, options: SessionOptions) -> None:
        """Gives a blank session what its conversation needs; once, before the first turn."""

    @abstractmethod
    def turn(self, messages: list[ChatMessage], sampling: Sampling) -> ChatStream:
        """Sends what is new since the last turn (the first time the whole history) and streams the answer.

        Cancelling the stream ends the turn. Afterwards, and as soon as the stream has given `done`, `state` is `idle`
        when the session may take another turn, `parked` when its CLI waits for the results of the calls that it
        `awaits`, and `dead` when it may not. The next turn of a parked session takes these results and nothing else
        (InvalidRequestError), and the CLI goes on with its own. A turn that was cancelled or failed and leaves the
        session `idle` is no part of its conversation.
        """

    @abstractmethod
    async def interrupt(self) -> None:
        """Asks the CLI to stop the running turn, whose stream then ends with `done{cancelled}`."""

    @abstractmethod
    async def aclose(self) -> None:
        """Ends the conversation and, with its last one, the process. Idempotent, bounded, safe while cancelled."""


class LlmProvider(ABC):
    """A runner: one vendor's CLI under one entry of runners.yaml.

    `name` is the entry's, `settings` its content, `state_dir` a private directory of this runner that outlives
    the daemon; `run_dir` one for what need not outlive this process, the same when none is given. A provider made by
    `with_model` shares the processes of the one it came from. Every process of a runner is started by
    `runners.wire.process`: any other is neither found nor waited for, and a daemon may take its exit code.
    """

    kind: ClassVar[str]
    display_name: ClassVar[str]
    settings_type: ClassVar[type[RunnerSettings]]
    program: ClassVar[str]
    """The CLI's usual name on PATH."""
    install_hint: ClassVar[str]
    by_name_only: ClassVar[bool] = False
    """Never a default, never found by a bare model name, not counted in health: what answers is no model."""

    serves_models: ClassVar[bool] = False
    """Its process loads models itself: their memory is theirs, and not the CLI's."""

    surroundings: Mapping[str, str] = os.environ
    """The environment of which the CLI may see a part."""

    when_told: Callable[[str, dict[str, Any]], None] = staticmethod(lambda _name, _event: None)
    """Called with every event that a CLI tells of a turn and its name (see Translator), before it is understood."""

    image_roles: ClassVar[tuple[str, ...]] = ("user",)
    """Whose messages may hold images."""

    def __init__(self, name: str, settings: RunnerSettings, *, state_dir: Path, run_dir: Path | None = None) -> None:
        self.name = name
        self.settings = settings
        self.state_dir = state_dir
        self.run_dir = run_dir or state_dir
        self.default_model = settings.model or self.vendor_default_model
        self.sessions: set[Session] = set()

    @property
    @abstractmethod
    def vendor_default_model(self) -> str:
        """The model that answers when neither the request nor the settings name one."""

    @abstractmethod
    def available_models(self) -> list[ModelInfo]:
        """The models to offer; others may work too when a request names them."""

    def offers(self, model: str) -> bool:
        """Whether a bare name means one of these models."""
        return any(info.model == model for info in self.available_models())

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What this runner can do."""

    async def discover(self) -> None:  # noqa: B027 most runners know without looking
        """Learns what `capabilities` and `available_models` depend on, such as a version; cheap when nothing changed.

        Raises the RunnerError that a chat would meet.
        """

    def caveats(self, request: ChatRequest) -> Iterator[str]:  # noqa: ARG002 its overriders need it
        """What of the request this runner does otherwise than asked, although it can do the thing as such."""
        yield from ()

    def resumes(self, results: Sequence[ChatMessage]) -> bool:  # noqa: ARG002 its overriders need it
        """Whether a parked session takes these results as they are. Else another is told the whole conversation."""
        return True

    @abstractmethod
    async def probe(self) -> Health:
        """Looks at binary, version and login, without a model call. Raises the RunnerError that a chat would meet."""

    @abstractmethod
    async def open(self) -> Session:
        """Starts a blank session for `default_model`; raises NotInstalledError, DeadlineExceededError, ..."""

    def processes(self) -> list[ProcessRef]:
        """The live CLI processes."""
        sessions = Counter(session.process for session in self.sessions if session.process)
        return [replace(process, sessions=count) for process, count in sessions.items()]

    async def health_check(self) -> Health:
        """The result of a probe, after at most 10 s. Raises nothing that the vendor's CLI is to blame for."""
        began = time.monotonic()
        try:
            health = await within(self.probe(), PROBE_S, deadline="probe", doing=f"asking {self.name} how it is")
        except DeadlineExceededError as error:
            health = Health("degraded", error.kind, detail=error.message)
        except RunnerError as error:
            health = Health.unavailable(error)
        return replace(health, latency_s=time.monotonic() - began)

    def with_model(self, model: str) -> Self:
        """The same runner with another default model."""
        other = copy.copy(self)
        other.default_model = model
        return other

    def complete_stream(self, request: ChatRequest) -> ChatStream:
        """Answers in a session of its own: opens it, runs one turn, closes it. See ChatStream for errors and cancel."""
        provider = self.with_model(request.model) if request.model else self
        return ChatStream(provider._answer(request), runner=self.name)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The fold of the stream."""
        return await fold(self.complete_stream(request))

    async def _answer(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        await self.started_within(request, self.discover())
        for warning in self.preflight(request):
            yield warning
        session = await self.started_within(request, self.open())
        session.timeouts = self.timeouts(request)
        try:
            await session.prepare(self.session_options(request))
            async with session.turn(request.conversation, self.sampling(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            await session.aclose()

    async def started_within(self, request: ChatRequest, starting: Awaitable[T]) -> T:
        """What `starting` returns, in the time that a request gives of its own.

        Without that it has the settings' time, as what many share always has: that goes on when who asked gives up.
        """
        spawn_s = request.timeouts.spawn_s
        if spawn_s is None:
            return await starting
        return await within(starting, spawn_s, deadline="spawn_s", doing=f"starting {self.name}")

    def preflight(self, request: ChatRequest) -> list[Warn]:
        """What the request asks for and this runner will not do, as warnings.

        Raises InvalidRequestError for a conversation that no model can continue, UnsupportedError for images that
        would be lost, and with `strict` for everything that would else be a warning.
        """
        conversation = request.conversation
        if not conversation or conversation[-1].role == "assistant":
            raise InvalidRequestError("messages: the last one must be from the user or a tool", runner=self.name)
        able = self.capabilities()
        refuse_what_would_be_lost(request, able, self.image_roles, runner=self.name, model=self.default_model)
        warnings = [f"{path} is not a field of a chat request: ignored" for path in unknown_fields(request)]
        warnings += [f"{name} is not supported by {self.name}: ignored" for name in gaps(request, able)]
        warnings += [
            f"tools[{index}].parameters: {problem}; the arguments of {tool.name!r} are not checked"
            for index, tool in enumerate(request.tools if able.tools else [])
            if (problem := schema_problem(tool)) is not None
        ]
        warnings += [
            f"tool call {message.tool_call_id!r} has no result, and the model is told so"
            for message in conversation
            if message.role == "tool" and message.content == NO_RESULT
        ]
        warnings += self.caveats(request)
        if request.strict and warnings:
            raise UnsupportedError("; ".join(warnings), runner=self.name)
        return [Warn(message) for message in warnings]

    def session_options(self, request: ChatRequest) -> SessionOptions:
        """The request's part that holds for its whole conversation, as far as this runner can do it."""
        able = self.capabilities()
        return SessionOptions(
            system=request.system,
            tools=tuple(request.tools) if able.tools and (able.tool_choice or request.tool_choice != "none") else (),
            reasoning_effort=request.reasoning_effort if able.reasoning_effort else None,
        )

    def sampling(self, request: ChatRequest) -> Sampling:
        """The request's part that holds for this turn, completed from the settings."""
        able = self.capabilities()
        temperature = self.settings.temperature if request.temperature is None else request.temperature
        return Sampling(
            max_tokens=(request.max_tokens or self.settings.max_tokens) if able.max_tokens else None,
            temperature=temperature if able.temperature else None,
            top_p=request.top_p if able.top_p else None,
            stop=tuple(request.stop) if able.stop else (),
            response_format=request.response_format if able.response_format else None,
            tool_choice=request.tool_choice if able.tool_choice and request.tool_choice != "auto" else None,
        )

    def timeouts(self, request: ChatRequest) -> Timeouts:
        """The settings' deadlines, with what the request has in their place."""
        own = {name: getattr(request.timeouts, name) for name in Timeouts.model_fields}
        return self.settings.timeouts.model_copy(update={name: own[name] for name in own if own[name] is not None})

    def binary(self) -> str:
        """The absolute path of the CLI; NotInstalledError when there is none."""
        wanted = self.settings.binary or self.program
        return find_binary(wanted, self.environment({}), hint=self.install_hint)

    def environment(self, kind_env: Mapping[str, str]) -> dict[str, str]:
        """What the CLI may see: the allowed part of ours, what its kind needs, then the settings' `env`."""
        env = {**kind_env, **self.settings.env}
        return child_environment(self.surroundings, env=env, env_pass=self.settings.env_pass)

    def variable(self, name: str | None, *, key: str) -> str | None:
        """The value of a variable that the entry names under `key`: in its `env`, else in the daemon's environment.

        None when it names none; ConfigError when that is nowhere.
        """
        if name is None:
            return None
        value = self.settings.env.get(name) or self.surroundings.get(name)
        if not value:
            where = f"runners.{self.name}.{key}"
            raise ConfigError(f"{where}: {name} stands neither in the entry's env nor in the daemon's environment")
        return value

    def directory(self, name: str) -> Path:
        """A private directory of this runner that outlives the daemon, made when it is not there."""
        return self._made(self.state_dir / name)

    def run_directory(self, name: str) -> Path:
        """The same, for what need not: what is left in it by a daemon that was killed, another removes."""
        return self._made(self.run_dir / name)

    def _made(self, path: Path) -> Path:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path} cannot be made: {error.strerror}", runner=self.name) from error
        return path

    def temporary(self, inside: str = "tmp") -> "tempfile.TemporaryDirectory[str]":
        """A new private directory for one process, or for what else that ends; who asks for it removes it."""
        above = self.run_directory(inside)
        try:
            return tempfile.TemporaryDirectory(dir=above, ignore_cleanup_errors=True)
        except OSError as error:
            raise ConfigError(f"{above} cannot be written: {error.strerror}", runner=self.name) from error

    async def aclose(self) -> None:
        """Closes every session, all at once: many that are stuck take no longer than one. Idempotent."""
        await asyncio.gather(*(session.aclose() for session in list(self.sessions)))
