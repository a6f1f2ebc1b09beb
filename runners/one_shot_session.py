"""A session whose CLI answers one prompt and ends: each turn has a process of its own, which reads stdin to the end."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from runners.errors import ProcessExitedError
from runners.event_session import TranscriptSession
from runners.messages import ChatMessage
from runners.process_session import JsonLines
from runners.provider import LlmProvider, ProcessRef, Sampling, SessionOptions
from runners.stream import ChatChunk, Done, Warn
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines
from runners.wire.process import CliProcess


class OneShotSession(TranscriptSession):
    """A conversation of which every turn has a process of its own. A subclass starts it and writes its prompt."""

    leaves_by_itself = False
    """Whether a CLI that has answered is given a moment to end, and not killed."""

    def __init__(self, provider: LlmProvider) -> None:
        super().__init__(provider)
        self.options = SessionOptions()
        self._cli: CliProcess | None = None
        self._lines: JsonLines
        self._starting = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._is_read_whole = False
        self._closing: list[asyncio.Task[None]] = []
        self._leaving: asyncio.Task[None] | None = None

    async def prepare(self, options: SessionOptions) -> None:
        """See Session.prepare."""
        self.options = options
        self.state = "idle"

    @abstractmethod
    async def start(self) -> CliProcess:
        """Starts the process of the turn that begins."""

    @abstractmethod
    def prompt(self, conversation: Sequence[ChatMessage]) -> str:
        """What that process is to read."""

    async def _turn(self, messages: list[ChatMessage], sampling: Sampling) -> AsyncGenerator[ChatChunk, None]:
        async with aclosing(super()._turn(messages, sampling)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, Done) and not self._is_read_whole:
                    yield Warn(f"{self.provider.name} has answered before it had read all that it was asked")
                yield chunk

    async def say(self, messages: list[ChatMessage], _sampling: Sampling, _deadlines: TurnDeadlines) -> None:
        """See EventSession.say."""
        prompt = self.prompt(messages).encode(errors="replace")
        async with self._starting:
            cli = self._cli = await self.start()
            self.process = ProcessRef(cli.pid, cli.start_time)
            self._lines = JsonLines(self.provider.name, cli)
        # Beside the reading: a CLI may have much to tell before it reads.
        self._is_read_whole = False
        self._writing = asyncio.create_task(self._write(cli, prompt), name=f"prompt-{cli.pid}")

    async def _write(self, cli: CliProcess, prompt: bytes) -> None:
        try:
            await cli.write(prompt)
        except ProcessExitedError:
            return  # what it says to that, and its end, are met by who reads
        cli.close_stdin()
        self._is_read_whole = True

    async def event(self) -> Event:
        """See EventSession.event."""
        return await self._lines.next()

    def settle(self, *, is_clean: bool) -> None:
        """See EventSession.settle. The session may have another turn in any case: that has another process."""
        self.state = "idle"
        if self._cli is None:
            return
        if self._writing is not None:
            self._writing.cancel()
        is_awaited = is_clean and self.leaves_by_itself
        if not is_awaited:
            self._cli.kill()
        self._closing = [closing for closing in self._closing if not closing.done()]
        self._closing.append(self._cli.close(ask=is_awaited))
        self.process = self._cli = self._writing = None

    async def interrupt(self) -> None:
        """A one-shot CLI knows no other end than that of its process, which is what closing the stream does."""

    async def aclose(self) -> None:
        """See Session.aclose."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="one-shot-leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        # A process that is only just coming would be nobody's.
        async with self._starting:
            if self.state == "busy":
                self.settle(is_clean=False)
            self.state = "dead"
        await asyncio.gather(*self._closing)
        self.provider.sessions.discard(self)
