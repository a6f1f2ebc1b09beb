"""A session that has a CLI process of its own and talks JSON lines with it: what such runners share."""

import asyncio
import logging
from typing import Any

from runners.event_session import EventSession
from runners.messages import ChatMessage
from runners.provider import LlmProvider, ProcessRef, Sampling
from runners.stream import ChatStream
from runners.translator import Event
from runners.wire.framing import dump_json, parse_json
from runners.wire.process import CliProcess

_log = logging.getLogger(__name__)


class ProcessSession(EventSession):
    """One process, one conversation. A turn that failed or was cancelled leaves the session dead."""

    def __init__(self, provider: LlmProvider, process: CliProcess) -> None:
        super().__init__(provider)
        self.cli = process
        self.process = ProcessRef(process.pid, process.start_time)
        self._lines = JsonLines(provider.name, process)
        process.when_exited(self.cli_is_gone)

    def turn(self, messages: list[ChatMessage], sampling: Sampling) -> ChatStream:
        """See Session.turn."""
        if self.state == "idle" and self.turns > 0:
            # Whatever the CLI has told since its last turn, unasked, is no part of the answer.
            self.cli.drop_unread()
        return super().turn(messages, sampling)

    def settle(self, *, is_clean: bool) -> None:
        """See EventSession.settle."""
        # A CLI that exited behind its answer has told so when nobody was to hear it.
        is_alive = is_clean and self.cli.returncode is None
        self.state = ("parked" if self.awaits else "idle") if is_alive else "dead"
        if not is_clean:
            # Killed, not asked: a CLI that is interrupted or terminated has time for another request to its vendor.
            self.cli.kill()

    async def send(self, message: dict[str, Any]) -> None:
        """Writes one line to the CLI."""
        await self.cli.write(dump_json(message))

    async def event(self) -> Event:
        """The CLI's next event; see JsonLines."""
        return await self._lines.next()

    async def aclose(self) -> None:
        """See Session.aclose. A CLI that is not at rest is not asked to leave, but terminated."""
        ask = self.state == "idle"
        self.state = "dead"
        closing = self.cli.close(ask=ask)
        # When it is done and not before, also when we are cancelled: who closes the provider must wait for it.
        closing.add_done_callback(lambda _: self.provider.sessions.discard(self))
        await asyncio.shield(closing)


class JsonLines:
    """What a process prints as JSON objects. A line that is none is skipped and counted.

    The first one's length is logged, never its content. The last object may lack its line feed: half of one is none.
    """

    def __init__(self, runner: str, process: CliProcess) -> None:
        self._runner = runner
        self._process = process
        self._has_ended = False
        self.stray_lines = 0

    async def next(self) -> Event:
        """The next object; ProcessExitedError when no more come."""
        while True:
            line = await self._process.read_line()
            if line is None:
                last = [] if self._has_ended else self._process.unended()
                self._has_ended = True
                if last and (event := json_object(last[0])) is not None:
                    return event
                raise await self._process.exited_early("it closed its output before its answer was whole")
            event = json_object(line)
            if event is not None:
                return event
            self.stray_lines += 1
            if self.stray_lines == 1:
                _log.warning("%s: skips a line of %d bytes that is no JSON object", self._runner, len(line))


def json_object(line: bytes) -> Event | None:
    """The JSON object of a line, or None when it is anything else."""
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
