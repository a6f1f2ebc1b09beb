"""A conversation with a CLI on its terminal. The console shows and types, the translator says what was said."""

import asyncio
import secrets
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from runners.errors import DeadlineExceededError, ProcessExitedError, ProtocolError, RunnerError
from runners.messages import ChatMessage
from runners.process_session import ProcessSession
from runners.prompt import as_one_text
from runners.provider import Sampling, SessionOptions
from runners.providers.terminal.console import Console
from runners.providers.terminal.events import TerminalTranslator, holds_text
from runners.providers.terminal.sent import closing, plain, typed
from runners.providers.terminal.settings import TerminalSettings
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines, within
from runners.wire.terminal import TerminalProcess

if TYPE_CHECKING:
    from runners.providers.terminal.provider import TerminalProvider

_STOPS_WITHIN_S = 2.0

T = TypeVar("T")


class TerminalSession(ProcessSession):
    """A CLI's process and its conversation, which it holds itself.

    A turn that was interrupted leaves the session dead: what the CLI remembers of it is not known.
    """

    def __init__(self, provider: "TerminalProvider", process: TerminalProcess, settings: TerminalSettings) -> None:
        super().__init__(provider, process)
        self._settings = settings
        self._console = Console(process, settings)
        self._system = ""
        self._deadlines: TurnDeadlines | None = None
        self._stopping: asyncio.TimerHandle | None = None

    async def settle_down(self) -> None:
        """Waits until the CLI waits for its first message."""
        doing = f"waiting for {self.provider.name} to be ready"
        try:
            await within(self._console.settle(), self.timeouts.spawn_s, deadline="spawn_s", doing=doing)
        except DeadlineExceededError as error:
            error.stderr_tail = self._console.tail()
            error.hint = "does `prompt` match what its terminal shows at last?"
            raise

    async def prepare(self, options: SessionOptions) -> None:
        if self.state != "starting":
            raise await self.cli.exited_early("it did not wait for its first message")
        self._system = options.system
        self.state = "idle"

    def translator(self) -> TerminalTranslator:
        return TerminalTranslator(
            self.provider.name,
            self._settings,
            model=self.model,
            message_id=f"terminal_{secrets.token_hex(8)}",
            prompt_columns=self._console.prompt_columns,
        )

    async def say(self, messages: list[ChatMessage], _sampling: Sampling, deadlines: TurnDeadlines) -> None:
        text = as_one_text(self._system if self.turns == 1 else "", messages)
        text = plain(text, self._settings)
        keys = typed(text, self._settings)
        self._deadlines = deadlines
        try:
            await self._console.rest(deadlines.wait)
            await self._console.type(keys, deadlines.wait)
            self._console.closing = closing(text, self._settings)
        except RunnerError:
            if self._stopping is None:
                raise

    async def event(self) -> Event:
        end: str | None = None
        try:
            end = await self._console.more()
            # What is shown of the key that interrupts, and of how the CLI stops, is no answer.
            while self._stopping is not None and end is None:
                end = await self._console.more()
            if end == "continuation" and self._stopping is None:
                await self._console.close(_at_once)
                end = None
        except RunnerError:
            if self._stopping is None:
                raise
        if self._stopping is not None:
            end = "interrupt"
        elif end is not None and self._console.is_above_answer:
            raise ProtocolError(
                "the CLI has written over what stood before its answer: what it shows is no text to read"
            )
        rows = self._console.answer()
        if self._deadlines is not None and holds_text(rows, self._settings):
            # It has begun to answer, also where nothing is sent before the end.
            self._deadlines.is_content_seen = True
        return {"type": "screen", "scrolled": self._console.screen.scrolled(), "rows": rows, "end": end}

    async def interrupt(self) -> None:
        if self.state == "busy" and self._stopping is None:
            # One that does not stop is stopped.
            self._stopping = asyncio.get_running_loop().call_later(_STOPS_WITHIN_S, self.cli.kill)
            with suppress(ProcessExitedError):  # it has stopped
                await self.cli.write(self._settings.interrupt.encode())

    def settle(self, *, is_clean: bool) -> None:
        self._console.turn_is_over()
        if self._stopping is not None:
            self._stopping.cancel()
        super().settle(is_clean=is_clean)


async def _at_once(awaitable: Awaitable[T]) -> T:
    """An event is waited for as a whole."""
    return await awaitable
