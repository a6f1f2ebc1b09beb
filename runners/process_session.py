"""A session that has a CLI process of its own and talks JSON lines with it: what such runners share.

Owns the course of a turn (send, read until the translator says that it ended, abandon what did not end well). The
vendor's words are its subclasses' business.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from runners.errors import ProtocolError
from runners.messages import ChatMessage
from runners.provider import LlmProvider, ProcessRef, Sampling, Session
from runners.stream import ChatChunk, ChatStream, Reasoning, Text
from runners.wire.deadlines import TurnDeadlines
from runners.wire.framing import dump_json, parse_json
from runners.wire.process import CliProcess

_log = logging.getLogger(__name__)


class Translator(Protocol):
    """The events of one turn as chunks, without I/O. `feed` raises the RunnerError of a turn that failed.

    `is_clean`: the turn ended so that the CLI's history is exactly the conversation, and another may follow.
    """

    ended: bool
    is_clean: bool

    def feed(self, event: dict[str, Any]) -> list[ChatChunk]:
        """The chunks that an event brings, often none. An event that nobody knows brings none."""
        ...


class ProcessSession(Session):
    """One process, one conversation. A turn that failed or was cancelled leaves the session dead."""

    def __init__(self, provider: LlmProvider, process: CliProcess) -> None:
        self.cli = process
        self.process = ProcessRef(process.pid, process.start_time, sessions=1)
        self.provider = provider
        self.model = provider.default_model
        self.stray_lines = 0
        self.timeouts = provider.settings.timeouts
        provider.sessions.add(self)

    @abstractmethod
    def translator(self) -> Translator:
        """A new one, for the turn that begins."""

    @abstractmethod
    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        """Sends what the turn begins with, every wait through `deadlines`."""

    def turn(self, messages: list[ChatMessage], sampling: Sampling) -> ChatStream:
        """See Session.turn."""
        return ChatStream(self._turn(messages, sampling), runner=self.provider.name)

    async def _turn(self, messages: list[ChatMessage], sampling: Sampling) -> AsyncGenerator[ChatChunk, None]:
        if self.state != "idle":
            raise ProtocolError(f"a turn on a session that is {self.state}")
        self.state = "busy"
        self.turns += 1
        translator = self.translator()
        deadlines = TurnDeadlines(self.timeouts)
        # Also while the client does not read: nobody waits for the CLI then, and it must not run for ever.
        overdue = asyncio.get_running_loop().call_at(deadlines.turn_ends, self._abandon)
        try:
            await self.say(messages, sampling, deadlines)
            while not translator.ended:
                deadlines.check()
                chunks = translator.feed(await deadlines.wait(self.event()))
                if translator.is_clean:
                    self.state = "idle"
                elif translator.ended:
                    self._abandon()
                for chunk in chunks:
                    if isinstance(chunk, Text | Reasoning):
                        deadlines.content_seen()
                    yield chunk
        finally:
            overdue.cancel()
            if self.state == "busy":
                self._abandon()

    def _abandon(self) -> None:
        # Killed, not asked: a CLI that is interrupted or terminated has time for another request to its vendor.
        self.state = "dead"
        self.cli.kill()

    async def send(self, message: dict[str, Any]) -> None:
        """Writes one line to the CLI."""
        await self.cli.write(dump_json(message))

    async def event(self) -> dict[str, Any]:
        """The CLI's next event. A line that is no JSON object is skipped and counted.

        The first one's length is logged, never its content.
        """
        while True:
            line = await self.cli.read_line()
            if line is None:
                raise await self.cli.exited_early("it closed its output before its answer was whole")
            event = json_object(line)
            if event is not None:
                return event
            self.stray_lines += 1
            if self.stray_lines == 1:
                _log.warning("%s: skips a line of %d bytes that is no JSON object", self.provider.name, len(line))

    async def aclose(self) -> None:
        """See Session.aclose. A CLI that is not at rest is not asked to leave, but terminated."""
        ask = self.state == "idle"
        self.state = "dead"
        closing = self.cli.close(ask=ask)
        # When it is done and not before, also when we are cancelled: who closes the provider must wait for it.
        closing.add_done_callback(lambda _: self.provider.sessions.discard(self))
        await asyncio.shield(closing)


def json_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, or None when it is anything else."""
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
