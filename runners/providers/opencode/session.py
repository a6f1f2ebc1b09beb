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
        self._text = ""
        self._end: Event | None = None
        self._ended: set[str] = set()

    async def primed(self, messages: list[ChatMessage], sampling: Sampling) -> AgentSession:
        session = await super().primed(messages, sampling)
        self._text, self._end = "", None
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
        if self._end is not None:
            end, self._end = self._end, None
            return end
        event = await super().event()
        while event.get("messageId") in self._ended:
            event = await super().event()
        if event.get("type") == "agent_message_chunk":
            self._text += str((event.get("content") or {}).get("text", ""))
        if event.get("type") in ("result", "failed") and self.held is not None and not self.held.is_spent:
            return self._ending(event, self.held)
        return event

    def _ending(self, event: Event, held: AgentSession) -> Event:
        """The end of a turn, as our plugin tells it; before that what of the text has not come until now.

        What comes of it later, maybe in the next turn, is not told twice.
        """
        try:
            told = json.loads(self._file(held, "told").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return event
        if "message" in told:
            self._ended.add(told["message"])
        whole, end = str(told.get("text", "")), meant(event, told)
        if end["type"] == "failed":
            end = end | {"hint": self.host.login_hint}
        if len(whole) <= len(self._text) or not whole.startswith(self._text):
            return end
        self._end = end
        rest = {"type": "text", "text": whole[len(self._text) :]}
        return {"type": "agent_message_chunk", "messageId": told.get("message"), "content": rest}

    def let_go(self) -> None:
        if self.held is not None:
            for kind in ("json", "told"):
                self._file(self.held, kind).unlink(missing_ok=True)
        super().let_go()

    def _file(self, session: AgentSession, kind: str) -> Path:
        return self.host.directory / SESSIONS / f"{session.id}.{kind}"


def _told(message: ChatMessage) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": paired(part.text)}
        if isinstance(part, TextPart)
        else {"type": "file", "mime": part.media_type, "url": f"data:{part.media_type};base64,{part.data}"}
        for part in message.parts
    ]
    return {"role": message.role, "parts": parts}
