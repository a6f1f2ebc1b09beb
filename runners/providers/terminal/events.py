"""What stands on a terminal as chunks: pure, one translator for each turn, no I/O.

An event is a look at the screen: `rows` from where the answer began to the cursor, `scrolled` the text before them that
has left the screen since the last look, and `end` how the turn ended (prompt, silence, interrupt) or None. A chunk
cannot be taken back, so a text waits until it is sure to stay.
"""

import re
from collections.abc import Iterable, Iterator

from runners.errors import LineTooLongError, ProtocolError
from runners.providers.terminal.settings import TerminalSettings
from runners.stream import ChatChunk, Done, Start, Text
from runners.translator import Event, Translator

_UNSENT_CHARACTERS = 16 * 1024 * 1024
_WIDE = "\u1100"
"""From here on are scripts that put no spaces between words."""


class TerminalTranslator(Translator):
    """The looks at the screen of one turn. White space at the end of an answer is the CLI's, and left out.

    `prompt_columns` is how long the CLI's prompt is: so short a line may become one.
    """

    def __init__(
        self, runner: str, settings: TerminalSettings, *, model: str, message_id: str, prompt_columns: int = 0
    ) -> None:
        super().__init__(runner)
        self._settings = settings
        self._start = Start(message_id, runner, model)
        self._started = False
        self._transient = re.compile(settings.transient)
        self._prompt_columns = prompt_columns
        self._final = ""
        """What has left the screen and has not been sent whole."""
        self._sent = ""
        """What has been sent of that and of what is on the screen."""

    def _chunks(self, event: Event) -> Iterable[ChatChunk] | None:
        if event.get("type") != "screen":
            return None
        return self._look(event["scrolled"], event["rows"], event["end"])

    def _look(self, scrolled: str, rows: list[str], end: str | None) -> Iterator[ChatChunk]:
        self._final += scrolled
        whole = self._final + "\n".join(rows)
        if end == "interrupt":
            stable = self._sent
        else:
            self._refuse_failures(whole)
            stable = whole[: self._stable(rows)].rstrip() if end is None else whole.rstrip()
        if end or len(stable) > len(self._sent):
            yield from self._show(stable, is_whole=end is not None)
        done = min(len(self._final), len(self._sent))
        self._final, self._sent = self._final[done:], self._sent[done:]
        if len(self._final) > _UNSENT_CHARACTERS:
            raise LineTooLongError(f"more than {_UNSENT_CHARACTERS} characters came before any could be sent")
        if end:
            self.ended = True
            self.is_clean = end != "interrupt"
            yield Done("end_turn" if self.is_clean else "cancelled", end)

    def _show(self, text: str, *, is_whole: bool) -> Iterator[ChatChunk]:
        if not text.startswith(self._sent):
            raise ProtocolError(
                f"the CLI has changed what it had shown before: with `streams: "
                f"{'answer' if self._settings.streams == 'lines' else 'lines'}` less is sent ahead"
            )
        if not self._started and (text or is_whole):
            self._started = True
            # Empty lines before an answer are the CLI's too.
            self._sent = text[: len(text) - len(text.lstrip("\n"))]
            yield self._start
        if piece := text[len(self._sent) :]:
            self._sent = text
            yield Text(piece)

    def _stable(self, rows: list[str]) -> int:
        """Up to where the text is sure to stay: not a line that is still written, or its last word."""
        if self._settings.streams == "answer":
            return 0
        at = len(self._final)
        for row in rows[:-1]:
            after = at + len(row) + 1
            if after > len(self._sent) and self._transient.fullmatch(row):
                return at
            at = after
        line = rows[-1]
        is_open = self._settings.streams == "lines" or len(line) <= self._prompt_columns
        return at if is_open or self._transient.fullmatch(line) else at + _last_word(line)

    def _refuse_failures(self, whole: str) -> None:
        if self._settings.errors:
            for line in whole[whole.rfind("\n", 0, len(self._sent)) + 1 :].split("\n"):
                if error := self._settings.failure(line):
                    raise error


def holds_text(rows: list[str], settings: TerminalSettings) -> bool:
    """Whether there is any text that is not to be taken away again."""
    return any(row.strip() and not re.fullmatch(settings.transient, row) for row in rows)


def _last_word(line: str) -> int:
    """Where the last word begins: it may grow, or be moved to the next line."""
    at = len(line)
    while at and not line[at - 1].isspace() and line[at - 1] < _WIDE:
        at -= 1
    return at
