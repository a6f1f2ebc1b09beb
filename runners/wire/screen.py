"""What a terminal shows of the characters that a CLI writes to it: pure, no I/O.

pyte interprets them. Here stands what it has no place for: the rows that scroll away, which rows a long line takes, and
how a text is read from them. Colours are not kept. Nothing that a CLI writes can raise, and no single character of it
costs more than the row it changes.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pyte
from pyte import modes
from pyte.screens import Char, wcwidth

_BRACKETED_PASTE = 2004
_PRIVATE_SHIFT = 5  # how pyte tells private modes from others
_KEPT_MODES = {(modes.IRM, False), (modes.LNM, False), (_BRACKETED_PASTE, True)} | {
    (mode >> _PRIVATE_SHIFT, True) for mode in (modes.DECAWM, modes.DECOM, modes.DECTCEM)
}
_WRAPS = -1
"""The cell that a row has whose text goes on in the next one, because it did not fit."""
_TEXT = -2
"""The cell with the text of a row that has not changed since it was read: an answer is looked at with every piece."""
_REPLIES_AT_ONCE = 16
_STUB = Char("")
_cell = lru_cache(maxsize=4096)(Char)

Place = tuple[int, int]
"""A row, counted from the first that the terminal ever had, and a column, both from 0."""


class Screen(pyte.Screen):
    """A screen of `columns` and `lines`, whose text is read from a place to the cursor.

    `replies` are the answers that the CLI has asked its terminal for, such as where the cursor is. `moved_cells` counts
    those that made room for others or closed a gap: what a character may cost.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.replies: list[str] = []
        self.moved_cells = 0
        self._rows_gone = 0
        self._kept_from: Place | None = None
        self._scrolled: list[str] = []
        self._swallows = ""
        super().__init__(columns, lines)
        self._stream = _Stream(self)

    def feed(self, text: str) -> None:
        """Takes the next characters that the CLI has written."""
        self._stream.feed(text)

    @property
    def place(self) -> Place:
        """Where the cursor is."""
        return self._rows_gone + self.cursor.y, self.cursor.x

    @property
    def takes_pastes(self) -> bool:
        """Whether the CLI has asked its terminal to put brackets around what is pasted."""
        return _BRACKETED_PASTE << _PRIVATE_SHIFT in self.mode

    def keep_from(self, place: Place | None) -> None:
        """From now on what scrolls away behind `place` is kept, for `scrolled` to give; None keeps nothing."""
        self._kept_from = place
        self._scrolled.clear()

    def scrolled(self) -> str:
        """What has scrolled away since this was asked last, whole rows, and will never change any more."""
        text = "".join(self._scrolled)
        self._scrolled.clear()
        return text

    def rows(self, begin: Place) -> list[str]:
        """The rows from `begin` to the cursor, that of the cursor up to it. Rows that have scrolled away are left out.

        A row that goes on in the next one, because it did not fit, is one with it.
        """
        return self._rows_from(max(begin[0] - self._rows_gone, 0), begin)

    def line(self, begin: Place) -> str:
        """The last of these rows."""
        y, first = self.cursor.y, max(begin[0] - self._rows_gone, 0)
        while y > first and _WRAPS in self.buffer.get(y - 1, {}):
            y -= 1
        return self._rows_from(y, begin)[-1]

    def seen(self) -> str:
        """All that is on the screen, for a person to read."""
        rows = [self._text(y).rstrip() for y in range(self.lines)]
        return "\n".join(rows).strip("\n")

    def _rows_from(self, first: int, begin: Place) -> list[str]:
        rows, last = [""], self.cursor.y
        for y in range(first, last + 1):
            first_column = begin[1] if y + self._rows_gone == begin[0] else 0
            rows[-1] += self._text(y, first_column, self.cursor.x if y == last else None)
            if y < last and _WRAPS not in self.buffer.get(y, {}):
                rows.append("")
        return rows

    def _text(self, y: int, begin: int = 0, end: int | None = None) -> str:
        row: dict[int, Char] = self.buffer.get(y, {})
        is_whole = begin == 0 and end is None
        if is_whole and _TEXT in row:
            return row[_TEXT].data
        columns = sorted(x for x in row if begin <= x and (end is None or x < end))
        pieces, at = [], begin
        if columns and columns[0] == begin and columns[-1] - begin + 1 == len(columns):
            pieces, at = [row[x].data for x in columns], columns[-1] + 1  # without gaps, as nearly always
        else:
            for x in columns:
                pieces += [" " * (x - at), row[x].data]
                at = x + 1
        if end is not None:
            pieces.append(" " * (end - at))
        text = "".join(pieces)
        if is_whole and row:
            row[_TEXT] = Char(text)
        return text

    def _changed(self, y: int) -> dict[int, Char]:
        """A row whose cells are about to change."""
        row: dict[int, Char] = self.buffer[y]
        row.pop(_TEXT, None)
        return row

    # What pyte calls

    def draw(self, data: str) -> None:
        """Puts characters where the cursor is. One without a width stays with the one before it."""
        for char in self._unswallowed(data):
            width = wcwidth(char)
            if width <= 0:
                self._attach(char, width)
                continue
            if self.cursor.x + width > self.columns:
                self._wrap(width)
            if modes.IRM in self.mode:
                self.insert_characters(width)
            row = self._changed(self.cursor.y)
            row[self.cursor.x] = _cell(char)
            if width == 2:
                row[self.cursor.x + 1] = _STUB
            self.cursor.x += width

    def _attach(self, char: str, width: int) -> None:
        row = self._changed(self.cursor.y)
        x = self.cursor.x - 1
        if x in row and row[x] == _STUB:
            x -= 1
        if width == 0 and x in row:
            row[x] = Char((row[x].data + char)[:64])  # no endless pile of accents

    def _wrap(self, width: int) -> None:
        if modes.DECAWM in self.mode:
            self.buffer[self.cursor.y][_WRAPS] = _STUB
            self.carriage_return()
            self.linefeed()
        else:
            self.cursor.x = max(self.columns - width, 0)

    def index(self) -> None:
        """A row down; at the bottom the first one scrolls away."""
        if self.margins is not None or self.cursor.y < self.lines - 1:
            super().index()
            return
        if self._kept_from is not None and self._kept_from[0] <= self._rows_gone:
            begin = self._kept_from[1] if self._kept_from[0] == self._rows_gone else 0
            self._scrolled.append(self._text(0, begin) + ("" if _WRAPS in self.buffer.get(0, {}) else "\n"))
        self._rows_gone += 1
        rows = {y - 1: row for y, row in self.buffer.items() if y}
        self.buffer.clear()
        self.buffer.update(rows)

    def tab(self) -> None:
        """On to the next stop. It stays a tab where nothing stands yet, for a text to have it."""
        row, x = self._changed(self.cursor.y), self.cursor.x
        stop = min(x - x % 8 + 8, self.columns - 1)
        if not any(at in row for at in range(x, stop)):
            row.update(dict.fromkeys(range(x + 1, stop), _STUB))
            row[x] = _cell("\t")
        self.cursor.x = stop

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:  # noqa: ARG002 as pyte has it
        """Empties the row behind the cursor, before it, or whole."""
        begin = self.cursor.x if how == 0 else 0
        end = self.cursor.x + 1 if how == 1 else self.columns
        self._erase(self.cursor.y, begin, end)

    def erase_characters(self, count: int | None = None) -> None:
        """Empties some cells."""
        self._erase(self.cursor.y, self.cursor.x, self.cursor.x + (count or 1))

    def _erase(self, y: int, begin: int, end: int) -> None:
        row = self._changed(y)
        for x in range(begin, end) if end - begin < len(row) else [x for x in row if begin <= x < end]:
            row.pop(x, None)
        if end >= self.columns:
            row.pop(_WRAPS, None)

    def erase_in_display(self, how: int = 0, *_: Any, **__: Any) -> None:
        """Empties the screen behind the cursor, before it, or whole."""
        for y in list(self.buffer):
            if how in (2, 3) or (how == 0 and y > self.cursor.y) or (how == 1 and y < self.cursor.y):
                del self.buffer[y]
        if how in (0, 1):
            self.erase_in_line(how)

    def insert_characters(self, count: int | None = None) -> None:
        """Moves what is behind the cursor to the right."""
        self._move_cells(count or 1)

    def delete_characters(self, count: int | None = None) -> None:
        """Moves what is behind the cursor to the left, over it."""
        self._move_cells(-(count or 1))

    def _move_cells(self, by: int) -> None:
        row, begin = self._changed(self.cursor.y), self.cursor.x
        moved = {x + by: row.pop(x) for x in [x for x in row if x >= begin]}
        self.moved_cells += len(moved)
        row.update({x: cell for x, cell in moved.items() if begin <= x < self.columns})

    def set_mode(self, *numbers: int, private: bool = False, **_: Any) -> None:
        """Sets those modes that matter for a text."""
        super().set_mode(*(n for n in numbers if (n, private) in _KEPT_MODES), private=private)

    def reset_mode(self, *numbers: int, private: bool = False, **_: Any) -> None:
        """Resets those modes that matter for a text."""
        super().reset_mode(*(n for n in numbers if (n, private) in _KEPT_MODES), private=private)

    def select_graphic_rendition(self, *_: int, **__: Any) -> None:
        """Colours are not kept."""

    def save_cursor(self) -> None:
        """Remembers one place, as terminals do: pyte would pile them up."""
        self.savepoints.clear()
        super().save_cursor()

    def alignment_display(self) -> None:
        """A test picture for people with a screwdriver."""

    def write_process_input(self, data: str) -> None:
        """Keeps an answer for the CLI; not more than a few at once, for a flood of questions has no reader."""
        if len(self.replies) < _REPLIES_AT_ONCE:
            self.replies.append(data)

    # Sequences that pyte does not know, and would show the rest of

    def begin_string(self) -> None:
        """What comes now is for another kind of terminal, up to the string's end."""
        self._swallows = "string"

    def end_string(self) -> None:
        """And from here on is text again."""
        self._swallows = ""

    def skip_sequence(self, *_: int, **__: Any) -> None:
        """The rest of this control sequence is none of ours."""
        self._swallows = "sequence"

    def _unswallowed(self, data: str) -> Iterator[str]:
        for char in data:
            if not self._swallows:
                yield char
            elif self._swallows == "sequence" and "@" <= char <= "~":
                self._swallows = ""


def in_columns(text: str) -> str:
    """What of a text has columns of its own: neither white space nor what goes with the character before it.

    A terminal shows the latter only behind one, and only so many.
    """
    text = "".join(text.split())
    return text if text.isascii() else "".join(char for char in text if wcwidth(char) > 0)


class _Stream(pyte.Stream):
    """pyte's parser, that a sequence of a wrong form does not stop.

    pyte 0.8.2 raises for one with more numbers than it expects, and takes sequences with a prefix or intermediate
    character for text from there on, and device control strings from their beginning.
    """

    escape = pyte.Stream.escape | dict.fromkeys("PX^_", "begin_string") | {"\\": "end_string"}
    csi = pyte.Stream.csi | dict.fromkeys("!\"#%&'()*+,-./:<=", "skip_sequence")

    def _send_to_parser(self, data: str) -> bool | None:
        try:
            return super()._send_to_parser(data)
        except (TypeError, ValueError, LookupError, AssertionError):
            return True  # it has begun anew, with plain text
