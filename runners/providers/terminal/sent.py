"""A text as it is typed on a CLI's terminal: pure, no I/O.

Nothing in it may act on the terminal: control characters are refused, for ESC begins a key, Ctrl-C interrupts, Ctrl-D
ends, and a pasted end of the paste would let the rest be typed.
"""

import re
from dataclasses import dataclass

from runners.errors import InvalidRequestError, UnsupportedError
from runners.providers.terminal.settings import TerminalSettings
from runners.stream import paired

_PASTE = "\x1b[200~{}\x1b[201~"
_NEWLINE = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TAB_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Typed:
    """Some keys, behind which Enter is pressed, and what the CLI shows of them."""

    keys: str
    shown: str


def plain(text: str, settings: TerminalSettings) -> str:
    """A text as it can be typed; raises InvalidRequestError for what acts on a terminal.

    Lines end at line feeds alone, none at the end, and a tab, which a line editor would take for a question, is spaces
    where it is not pasted.
    """
    text = _NEWLINE.sub("\n", paired(text)).rstrip("\n")
    if found := _CONTROL.search(text):
        raise InvalidRequestError(f"the text holds the control character U+{ord(found[0]):04X}, a key on a terminal")
    try:
        keys = text.encode(settings.encoding)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"the text has characters that {settings.encoding} has not: {error.reason}"
        ) from error
    if b"\x1b" in keys:
        raise InvalidRequestError(f"the text has characters for which {settings.encoding} has the escape key")
    return text if settings.bracketed_paste else text.expandtabs(_TAB_COLUMNS)


def refuse_unsafe(text: str, settings: TerminalSettings) -> None:
    """Raises UnsupportedError for a text that the CLI would misread."""
    for pattern in settings.unsafe:
        if found := re.search(pattern, text, re.MULTILINE):
            raise UnsupportedError(f"this CLI would misread {found[0]!r} in a message (`unsafe`)")


def typed(text: str, settings: TerminalSettings) -> list[Typed]:
    """The keys for a plain text; raises UnsupportedError for one that this CLI cannot be given."""
    if not text.strip():
        raise InvalidRequestError("messages: the last one is empty")
    refuse_unsafe(text, settings)
    is_command = _is_command(text, settings)
    if is_command and settings.multiline is None:
        raise UnsupportedError(f"this CLI would take {text[:20]!r} for a command of its own (`commands`)")
    if settings.multiline is not None and (is_command or "\n" in text):
        text = settings.multiline.open + text + settings.multiline.close
    elif "\n" in text and not settings.bracketed_paste:
        raise UnsupportedError("this CLI takes no text of several lines (`bracketed_paste`, `multiline`)")
    return _keys(text, settings)


def closing(text: str, settings: TerminalSettings) -> list[Typed]:
    """The keys for when the CLI wants more behind all that is `typed`; none where nothing is left to close it with."""
    if settings.multiline is None or not settings.multiline.close or "\n" in text or _is_command(text, settings):
        return []
    return _keys(settings.multiline.close.removeprefix("\n"), settings)  # Enter has been pressed


def _is_command(text: str, settings: TerminalSettings) -> bool:
    return settings.commands is not None and re.match(settings.commands, text) is not None


def _keys(text: str, settings: TerminalSettings) -> list[Typed]:
    if settings.bracketed_paste:
        return [Typed(_PASTE.format(text.replace("\n", "\r")), text)]
    return [Typed(line, line) for line in text.split("\n")]
