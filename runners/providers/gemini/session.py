"""A conversation with gemini: the past is a session's record, which the CLI loads as if it had been there."""

import uuid
from pathlib import Path
from typing import Any

from runners.errors import ConfigError, ProtocolError
from runners.messages import ChatMessage
from runners.provider import Sampling
from runners.providers.acp.agent import AcpAgent
from runners.providers.acp.conversation import AgentSession
from runners.providers.acp.sent import are_turns, message_blocks
from runners.providers.acp.session import AcpSession
from runners.providers.gemini.past import record, told_back

COMMANDS = ("/", "$")
"""What the CLI looks for at the beginning of a prompt, behind white space. It expands no `@file`."""
HOME = "home"


class GeminiSession(AcpSession):
    """A conversation in a gemini process. Its messages reach the model as such, each text in a part of its own."""

    async def primed(self, messages: list[ChatMessage], sampling: Sampling) -> AgentSession:
        past = messages[:-1]
        if not (self.resent and past and are_turns(messages)):
            return await super().primed(messages, sampling)
        self.let_go()
        session_id = str(uuid.uuid4())
        path = _records(self.host) / f"session-2000-01-01T00-00-{session_id[:8]}.jsonl"
        try:
            path.write_text(record(session_id, past), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
        self.held = await self.begun(self.host.loaded_session(session_id, messages=told_back(past)))
        return self.held

    def blocks(self, messages: list[ChatMessage]) -> list[dict[str, Any]]:
        if self.resent and not are_turns(messages):
            return super().blocks(messages)
        return message_blocks(messages[-1], COMMANDS)


def _records(agent: AcpAgent) -> Path:
    """Where the process looks for the sessions of its one working directory: there from its start on."""
    found = list((agent.directory / HOME / ".gemini" / "tmp").glob("*/chats"))
    if len(found) != 1:
        raise ProtocolError(f"gemini keeps its sessions in {len(found)} places, not in one")
    return found[0]
