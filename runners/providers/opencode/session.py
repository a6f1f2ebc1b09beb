"""A conversation with opencode: what its session is to know stands in a file, which our plugin reads at each call."""

import json
from pathlib import Path
from typing import Any

from runners.errors import ConfigError
from runners.messages import ChatMessage, TextPart
from runners.provider import LlmProvider, Sampling
from runners.providers.acp.agent import AcpAgent
from runners.providers.acp.agents import Agents
from runners.providers.acp.conversation import AgentSession
from runners.providers.acp.sent import are_turns, message_blocks
from runners.providers.acp.session import AcpSession
from runners.providers.opencode.dialect import meant
from runners.stream import paired
from runners.translator import Event

COMMANDS = ("/",)
SESSIONS = "sessions"


class OpencodeSession(AcpSession):
    """A conversation in an opencode process. Messages, system prompt and parameters reach the model as such."""

    def __init__(self, provider: LlmProvider, agents: Agents, agent: AcpAgent) -> None:
        super().__init__(provider, agents, agent)
        self._past: list[ChatMessage] = []

    async def primed(self, messages: list[ChatMessage], sampling: Sampling) -> AgentSession:
        session = await super().primed(messages, sampling)
        if self.resent:
            self._past = messages[:-1] if are_turns(messages) else []
        params = {
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "maxOutputTokens": sampling.max_tokens,
        }
        known = {
            "system": self.options.system,
            "past": [_told(message) for message in self._past],
            "params": {name: value for name, value in params.items() if value is not None},
        }
        try:
            self._file(session, "told").unlink(missing_ok=True)
            self._file(session, "json").write_text(json.dumps(known), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from error
        return session

    def blocks(self, messages: list[ChatMessage]) -> list[dict[str, Any]]:
        if self.resent and not are_turns(messages):
            return super().blocks(messages)
        return message_blocks(messages[-1], COMMANDS)

    async def event(self) -> Event:
        event = await super().event()
        if event.get("type") in ("result", "failed") and self.held is not None and not self.held.is_spent:
            try:
                told = json.loads(self._file(self.held, "told").read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return event
            return meant(event, told)
        return event

    def let_go(self) -> None:
        if self.held is not None:
            for kind in ("json", "told"):
                self._file(self.held, kind).unlink(missing_ok=True)
        super().let_go()

    def _file(self, session: AgentSession, kind: str) -> Path:
        return self.agent.directory / SESSIONS / f"{session.id}.{kind}"


def _told(message: ChatMessage) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": paired(part.text)}
        if isinstance(part, TextPart)
        else {"type": "file", "mime": part.media_type, "url": f"data:{part.media_type};base64,{part.data}"}
        for part in message.parts
    ]
    return {"role": message.role, "parts": parts}
