"""Copilot's one-shot mode, for versions whose headless server cannot do what a conversation needs.

One process answers one prompt, which it reads from stdin to its end; what it tells are the headless server's events,
one JSON object a line. Its own system prompt stays, the conversation is one text, and a line with the date is put
before it. It loses deltas when they come fast, so its text comes whole, at the end.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from runners.errors import ProcessExitedError
from runners.messages import ChatMessage
from runners.one_shot_session import OneShotSession
from runners.prompt import as_one_text
from runners.provider import LlmProvider
from runners.providers.copilot.events import CopilotTranslator
from runners.providers.copilot.failures import NO_LOGIN, not_logged_in
from runners.translator import Event
from runners.wire.process import CliProcess

ARGUMENTS = [
    *("--output-format", "json"),
    "--available-tools=none",  # an empty list means all of them
    *("--no-custom-instructions", "--disable-builtin-mcps", "--no-ask-user"),
    *("--no-auto-update", "--log-level", "none"),
]


class OneShotCopilot(OneShotSession):
    """A conversation with a copilot process for every turn. It would take 1.5 s to leave by itself, and is killed."""

    def __init__(self, provider: LlmProvider, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        super().__init__(provider)
        self._argv = argv
        self._env = env
        self._cwd = cwd

    def translator(self) -> CopilotTranslator:
        return CopilotTranslator(self.provider.name, self.model, is_one_shot=True)

    async def start(self) -> CliProcess:
        temporary = self.provider.temporary()
        # Each run leaves the conversation there, and would start the MCP servers of a home of the user's.
        env = {**self._env, "COPILOT_HOME": temporary.name}
        return await CliProcess.spawn(self._argv, env=env, cwd=self._cwd, temporary=temporary)

    def prompt(self, conversation: Sequence[ChatMessage]) -> str:
        return as_one_text(self.options.system, conversation)

    async def event(self) -> Event:
        try:
            return await super().event()
        except ProcessExitedError as error:
            if any(words in (error.stderr_tail or "") for words in NO_LOGIN):
                raise not_logged_in() from error
            raise
