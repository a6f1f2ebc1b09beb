"""A CLI's screen as one who sits before it has it: types, sees what was typed, and sees when the CLI waits again."""

import asyncio
import codecs
import re
import sys
from collections.abc import Awaitable
from typing import Literal, Protocol, TypeVar

from pexpect.expect import searcher_re

from runners.errors import (
    DeadlineExceededError,
    NotInstalledError,
    ProcessExitedError,
    ProtocolError,
    RunnerError,
    UnsupportedError,
)
from runners.providers.terminal.sent import Typed
from runners.providers.terminal.settings import TerminalSettings
from runners.wire.on_terminal import NOT_A_PROGRAM
from runners.wire.screen import Place, Screen, in_columns
from runners.wire.terminal import TerminalProcess

_QUIET_S = 0.03
"""So long nothing may come behind a prompt of a CLI that reads keys there and nowhere else."""
_IN_A_LINE = 3
"""So many times longer must a prompt stand that does not begin its line."""
_PROMPT_CHARACTERS = 512
"""The end of a line in which a prompt is looked for: a line may fill the screen, and a pattern take its square."""
_LOOKS_AGAIN_S = 0.05
_WRITE_BYTES = 2048
_AT_ONCE = 64
"""So many characters are shown before it is asked what they cost."""
_SHOWN_CHARACTERS = 64 * 1024
_SHOWN_TIMES = 16
"""So much longer than a text may be what has scrolled away when it has been typed: rows are filled up with spaces."""
_CONTROL_BYTES = 2 * 1024 * 1024
_TAIL_CHARACTERS = 4096
_LINE_BYTES = 4095 if sys.platform == "linux" else 1023
"""What a line may have that the system edits and not the CLI; it drops the rest."""
_ENTER = b"\r"
_START: Place = (0, 0)

T = TypeVar("T")
Rest = Literal["prompt", "continuation", "silence"]


class Wait(Protocol):
    """What waits for the CLI, and gives up at a deadline."""

    async def __call__(self, awaitable: Awaitable[T], /) -> T: ...


class Console:
    """One CLI on its terminal. `begin` is where what the CLI says next begins: a prompt before it is none.

    `closing` is what is typed when a message has been and the CLI wants more of it; None while none has been.
    """

    def __init__(self, cli: TerminalProcess, settings: TerminalSettings) -> None:
        self.screen = Screen(settings.size.columns, settings.size.rows)
        self.begin = _START
        self.closing: list[Typed] | None = None
        self.prompt_columns = 0
        self._entered = _START
        self._cli = cli
        self._settings = settings
        self._decoder = codecs.getincrementaldecoder(settings.encoding)("replace")
        self._prompt = _at_the_end(settings.prompt)
        self._continuation = _at_the_end(settings.continuation)
        self._reads_keys_at_prompt = False
        self._has_read_lines = False
        self._control_bytes = 0
        self._furthest = _START
        self._written_bytes = 0
        self._written_at = asyncio.get_running_loop().time()

    async def settle(self) -> None:
        """Waits until the CLI waits for the first time, and learns how it does."""
        while await self.more() is None:
            pass
        self.prompt_columns = self.screen.place[1]
        self._reads_keys_at_prompt = self._cli.reads_keys

    async def rest(self, wait: Wait) -> None:
        """Waits until the CLI waits for a message."""
        while self._cli.has_more:
            await wait(self._piece())
        while not self._is_before_prompt() and await wait(self.more()) is None:
            pass

    async def more(self) -> Rest | None:
        """Takes what the CLI has written next, or tells by what it is seen that it waits; raises when it has ended."""
        while True:
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._cli.stirs()
            except TimeoutError:
                if rest := self._rest():
                    return rest
            else:
                await self._piece()
                return None

    async def _piece(self) -> None:
        piece = await self._cli.read_line()
        if piece is None:
            raise await self._exited()
        self._take(piece)
        # A flood must leave the others their turn: what it costs is the understanding.
        await asyncio.sleep(0)

    def answer(self) -> list[str]:
        """The rows of what the CLI has said since `begin`, as far as they are on the screen.

        What ends the last one like a prompt is left out: if it is none, more will come.
        """
        rows = self.screen.rows(self.begin)
        if self._prompt is not None and _search(self._prompt, rows[-1]) >= 0:
            rows[-1] = rows[-1][: self._prompt.start]
        elif self._continuation is not None and _search(self._continuation, rows[-1]) == 0:
            rows[-1] = ""
        return rows

    @property
    def is_above_answer(self) -> bool:
        """Whether the CLI has gone back to before `begin`, where nothing is read."""
        return self.screen.place < self.begin

    async def type(self, keys: list[Typed], wait: Wait) -> None:
        """Types a message, to the last Enter; from there on all is answer."""
        for number, typed in enumerate(keys, 1):
            begin = self.screen.place
            await self._press(typed, begin, wait)
            self._entered = self.screen.place
            self.begin = (self._entered[0] + 1, 0) if self._settings.echo else self._entered
            self.screen.keep_from(self.begin)
            await wait(self._write(_ENTER))
            if number < len(keys):
                await self._continue(number, wait)

    async def close(self, wait: Wait) -> None:
        """Types what ends a message that the CLI wants more of."""
        keys, self.closing = self.closing, []
        if not keys or self._has_said():
            raise ProtocolError("the CLI wants another line behind the last one of the message (`multiline`)")
        await self.type(keys, wait)

    async def _press(self, typed: Typed, begin: Place, wait: Wait) -> None:
        keys = typed.keys.encode(self._settings.encoding)
        if not self._cli.reads_keys and max(map(len, keys.split(b"\r"))) > _LINE_BYTES:
            raise UnsupportedError(
                f"a line of the message is too long: this CLI reads no more than {_LINE_BYTES} bytes"
            )
        if self._settings.bracketed_paste and not self.screen.takes_pastes:
            raise ProtocolError("the CLI has not asked for pastes in brackets: `bracketed_paste` is not for it")
        self.screen.keep_from(begin)
        # So many bytes, and not fewer, show it; to compare before is in vain, and of a long text takes long.
        enough = self._written_bytes + len("".join(typed.shown.split()).encode(self._settings.encoding))
        for at in range(0, len(keys), _WRITE_BYTES):
            # It must be read what it shows of them, else it stops reading.
            await wait(self._write(keys[at : at + _WRITE_BYTES]))
            while self._cli.has_more:
                await wait(self._piece())
        if not self._settings.echo:
            return
        scrolled = ""
        try:
            while True:
                scrolled += self.screen.scrolled()
                if len(scrolled) > _SHOWN_CHARACTERS + _SHOWN_TIMES * len(typed.shown):
                    raise ProtocolError("the CLI shows other things than what is typed while it is typed")
                if self._written_bytes >= enough and self._shows(typed, scrolled, begin):
                    return
                await wait(self._piece())
        except DeadlineExceededError as error:
            error.stderr_tail = self.tail()
            error.hint = "it does not show what is typed: is it one for `echo: false`?"
            if max(map(len, typed.shown.split("\n"))) + begin[1] >= self._settings.size.columns:
                error.hint = "it does not show all of a line that is longer than those of its terminal (`size`)"
            raise

    async def _write(self, keys: bytes) -> None:
        try:
            await self._cli.write(keys)
        except ProcessExitedError:
            # Its last words say more.
            while (piece := await self._cli.read_line()) is not None:
                self._take(piece)
            raise await self._exited() from None

    def _shows(self, typed: Typed, scrolled: str, begin: Place) -> bool:
        """Whether all that was typed is on the screen; a line editor may wrap it, and fill it up with spaces."""
        first, *others = (scrolled + "\n".join(self.screen.rows(begin))).split("\n")
        if self._settings.continuation is not None:
            others = [re.sub(rf"\A(?:{self._settings.continuation})", "", row) for row in others]
        if len(others) < typed.shown.count("\n"):
            return False
        return in_columns("".join([first, *others])) == in_columns(typed.shown)

    async def _continue(self, number: int, wait: Wait) -> None:
        """Waits until the CLI wants the next line."""
        if self._continuation is None:
            return
        while True:
            if _search(self._continuation, self._line()) == 0:
                return
            if await wait(self.more()) == "prompt":
                raise ProtocolError(
                    f"the CLI took line {number} of the message for the whole of it (`multiline`)",
                    hint="send what stands behind that line as a message of its own, or all in one line",
                )

    def turn_is_over(self) -> None:
        """Whatever comes now is no answer."""
        self.screen.keep_from(None)
        self.begin = _START
        self.closing = None

    def _line(self) -> str:
        # Where Enter was pressed stands what was there before, until the CLI moves on.
        return "" if self._entered <= self.screen.place < self.begin else self.screen.line(self.begin)

    def _is_before_prompt(self) -> bool:
        return self._prompt is not None and _search(self._prompt, self._line()) == 0

    def _patience_s(self) -> float | None:
        """How long nothing may come until it is looked who waits for whom."""
        silence_s = self._silence_left_s()
        patience = [] if silence_s is None else [silence_s]
        rest, times = self._asked()
        if rest and self._reads_keys_at_prompt and not self._cli.reads_keys:
            patience.append(_LOOKS_AGAIN_S)
        elif rest and self._reads_keys_at_prompt and self._has_read_lines:
            patience.append(_QUIET_S)
        elif rest:
            # An answer may hold the prompt's text too.
            patience.append(self._settings.settle_s * times)
        return min(patience, default=None)

    def _asked(self) -> tuple[Rest | None, int]:
        """What the CLI asks for with what it shows last, if it does, and so many times longer must that stand."""
        line = self._line()
        found = -1 if self._prompt is None else _search(self._prompt, line)
        if found != 0 and self._wants_more(line):
            return "continuation", 1
        return (None, 0) if found < 0 else ("prompt", 1 if found == 0 else _IN_A_LINE)

    def _wants_more(self, line: str) -> bool:
        """Whether all was typed and a further line is wanted; where no keys are read an answer may look like that."""
        if self.closing is None or self._continuation is None or _search(self._continuation, line) != 0:
            return False
        return self._reads_keys_at_prompt or not self._has_said()

    def _has_said(self) -> bool:
        """Whether there is an answer above the line that is written."""
        return any(row.strip() for row in self.screen.rows(self.begin)[:-1])

    def _rest(self) -> Rest | None:
        rest, _ = self._asked()
        if rest and (self._cli.reads_keys or not self._reads_keys_at_prompt):
            return rest
        silence_s = self._silence_left_s()
        return "silence" if silence_s is not None and silence_s <= 0 else None

    def _silence_left_s(self) -> float | None:
        """How long nothing may come until that is an end; None where it is none: before an answer has begun."""
        if self._settings.silence_end_s is None:
            return None
        if self.begin != _START and not any(row.strip() for row in self.screen.rows(self.begin)):
            return None
        since_s = asyncio.get_running_loop().time() - self._written_at
        return max(self._settings.silence_end_s - since_s, 0)

    def _take(self, piece: bytes) -> None:
        self._written_at = asyncio.get_running_loop().time()
        self._written_bytes += len(piece)
        self._has_read_lines = self._has_read_lines or (self._reads_keys_at_prompt and not self._cli.reads_keys)
        self._control_bytes += len(piece)
        text = self._decoder.decode(piece)
        for at in range(0, len(text), _AT_ONCE):
            self._show(text[at : at + _AT_ONCE])
        for reply in self.screen.replies:
            self._cli.reply(reply)
        self.screen.replies.clear()

    def _show(self, text: str) -> None:
        """What the CLI redraws counts as what it writes: a single key can move a whole row."""
        self.screen.moved_cells = 0
        self.screen.feed(text)
        self._control_bytes += self.screen.moved_cells
        if self.screen.place > self._furthest:
            self._furthest = self.screen.place
            self._control_bytes = 0
        elif self._control_bytes > _CONTROL_BYTES:
            raise ProtocolError(
                f"the CLI wrote {_CONTROL_BYTES // 1024**2} MiB of control sequences and redrawn text, and nothing new"
            )

    def tail(self) -> str | None:
        """What the terminal shows, for who has to find out what is wrong."""
        return self.screen.seen()[-_TAIL_CHARACTERS:] or None

    async def _exited(self) -> RunnerError:
        """The error for a CLI that has ended: as its last words tell it, where an entry knows them."""
        error: RunnerError = await self._cli.exited_early("it closed its terminal")
        if error.exit_code == NOT_A_PROGRAM:
            error = NotInstalledError(error.message, exit_code=error.exit_code)
        for line in reversed(self.screen.rows(self.begin)):
            if told := self._settings.failure(line):
                told.exit_code, told.stderr_tail = error.exit_code, self.tail()
                return told
        error.stderr_tail = self.tail()
        return error


def _at_the_end(pattern: str | None) -> "searcher_re[str] | None":
    """Finds a pattern at the end of a line: 0 when it is the whole line, 1 when it has something before it."""
    if pattern is None:
        return None
    return searcher_re([re.compile(rf"\A(?:{pattern})\Z"), re.compile(rf"(?:{pattern})\Z")])


def _search(searcher: "searcher_re[str]", line: str) -> int:
    """As the searcher says, or -1 where there is nothing at the end of the line."""
    found: int = searcher.search(line, len(line), _PROMPT_CHARACTERS)
    return found
