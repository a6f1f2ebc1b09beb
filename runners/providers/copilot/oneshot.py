"""Copilot's one-shot mode, for versions whose headless server cannot do what a conversation needs.

One process answers one prompt, which it reads from stdin to its end; what it tells are the headless server's events,
one JSON object a line. Its own system prompt stays, the conversation is one text, and a line with the date is put
before it. It loses deltas when they come fast, so its text comes whole, at the end.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from runners.errors import ProcessExitedError
from runners.event_session import TranscriptSession
from runners.messages import ChatMessage
from runners.process_session import JsonLines
from runners.prompt import as_one_text
from runners.provider import LlmProvider, ProcessRef, Sampling, SessionOptions
from runners.providers.copilot.events import CopilotTranslator
from runners.providers.copilot.failures import NO_LOGIN, not_logged_in
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines
from runners.wire.process import CliProcess

ARGUMENTS = [
    *("--output-format", "json"),
    "--available-tools=none",  # an empty list means all of them
    *("--no-custom-instructions", "--disable-builtin-mcps", "--no-ask-user"),
    *("--no-auto-update", "--log-level", "none"),
]


class OneShotSession(TranscriptSession):
    """A conversation of which every turn has a process of its own."""

    def __init__(self, provider: LlmProvider, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        super().__init__(provider)
        self._argv = argv
        self._env = env
        self._cwd = cwd
        self._system = ""
        self._cli: CliProcess | None = None
        self._lines: JsonLines
        self._starting = asyncio.Lock()
        self._closing: list[asyncio.Task[None]] = []
        self._leaving: asyncio.Task[None] | None = None

    async def prepare(self, options: SessionOptions) -> None:
        self._system = options.system
        self.state = "idle"

    def translator(self) -> CopilotTranslator:
        return CopilotTranslator(self.provider.name, self.model, is_one_shot=True)

    async def say(self, messages: list[ChatMessage], _sampling: Sampling, deadlines: TurnDeadlines) -> None:
        async with self._starting:
            temporary = self.provider.temporary()
            # Each run leaves the conversation there, and would start the MCP servers of a home of the user's.
            env = {**self._env, "COPILOT_HOME": temporary.name}
            cli = self._cli = await CliProcess.spawn(self._argv, env=env, cwd=self._cwd, temporary=temporary)
            self.process = ProcessRef(cli.pid, cli.start_time)
            self._lines = JsonLines(self.provider.name, cli)
        await deadlines.wait(cli.write(as_one_text(self._system, messages).encode(errors="replace")))
        cli.close_stdin()

    async def event(self) -> Event:
        try:
            return await self._lines.next()
        except ProcessExitedError as error:
            if any(words in (error.stderr_tail or "") for words in NO_LOGIN):
                raise not_logged_in() from error
            raise

    def settle(self, *, is_clean: bool) -> None:  # noqa: ARG002 the process goes in any case
        self.state = "idle"
        if self._cli is not None:
            # Also behind a whole answer: it would take 1.5 s to leave by itself.
            self._cli.kill()
            self._closing.append(self._cli.close(ask=False))
            self.process = self._cli = None

    async def interrupt(self) -> None:
        """This mode knows no other end than that of the process, which is what closing the stream does."""

    async def aclose(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="copilot-leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        # A process that is only just coming would be nobody's.
        async with self._starting:
            if self.state == "busy":
                self.settle(is_clean=False)
            self.state = "dead"
        await asyncio.gather(*self._closing)
        self.provider.sessions.discard(self)
