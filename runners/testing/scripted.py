"""A provider that answers from a script, without any process: the double for whoever builds on providers."""

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from runners.capabilities import Capabilities
from runners.errors import ProtocolError, RunnerError
from runners.messages import ChatMessage, ModelInfo, Usage
from runners.provider import Health, LlmProvider, ProcessRef, Sampling, Session, SessionOptions
from runners.settings import RunnerSettings
from runners.stream import ChatChunk, ChatStream, Done, Start, Text, UsageReport

_ABLE = Capabilities(streaming=True, system_prompt="replace", history="native")


@dataclass(frozen=True, slots=True)
class Call:
    """One turn that a ScriptedProvider was asked for."""

    model: str
    options: SessionOptions
    messages: list[ChatMessage]
    sampling: Sampling


class ScriptedProvider(LlmProvider):
    """Answers turns from a script, first in first out, and keeps what it was asked in `calls`.

    A reply is a text, a list of chunks, or a RunnerError to raise. A turn past the script's end is a ProtocolError:
    a test that asks more than it planned must fail.
    """

    kind = "scripted"
    display_name = "Scripted"
    settings_type = RunnerSettings
    program = "scripted"
    install_hint = "there is nothing to install"

    def __init__(
        self,
        *replies: str | list[ChatChunk] | RunnerError,
        name: str = "scripted",
        capabilities: Capabilities = _ABLE,
        settings: RunnerSettings | None = None,
    ) -> None:
        super().__init__(name, settings or RunnerSettings(kind=self.kind), state_dir=Path())
        self.calls: list[Call] = []
        self.script = deque(replies)
        self._capabilities = capabilities

    @property
    def vendor_default_model(self) -> str:
        """The only model."""
        return "script"

    def available_models(self) -> list[ModelInfo]:
        """The only model."""
        return [ModelInfo(self.vendor_default_model)]

    def capabilities(self) -> Capabilities:
        """As given."""
        return self._capabilities

    async def probe(self) -> Health:
        """Always ready."""
        return Health("ready")

    async def open(self) -> Session:
        """A session without a process."""
        session = _ScriptedSession(self)
        self.sessions.add(session)
        return session

    def processes(self) -> list[ProcessRef]:
        """None."""
        return []


class _ScriptedSession(Session):
    def __init__(self, provider: ScriptedProvider) -> None:
        self._provider = provider
        self._options = SessionOptions()
        self.model = provider.default_model

    async def prepare(self, options: SessionOptions) -> None:
        self._options = options
        self.state = "idle"

    def turn(self, messages: list[ChatMessage], sampling: Sampling) -> ChatStream:
        self._provider.calls.append(Call(self.model, self._options, messages, sampling))
        return ChatStream(self._reply(len(self._provider.calls)), runner=self._provider.name)

    async def _reply(self, number: int) -> AsyncGenerator[ChatChunk, None]:
        if not self._provider.script:
            raise ProtocolError(f"turn {number} is past the end of the script")
        reply = self._provider.script.popleft()
        if isinstance(reply, RunnerError):
            raise reply
        if isinstance(reply, str):
            start = Start(f"scripted-{number}", self._provider.name, self.model)
            reply = [start, Text(reply), UsageReport(Usage()), Done("end_turn")]
        for chunk in reply:
            yield chunk

    async def interrupt(self) -> None:
        pass

    async def aclose(self) -> None:
        self.state = "dead"
        self._provider.sessions.discard(self)
