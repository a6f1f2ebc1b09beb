"""From what a terminal shows to chunks: what is sent, when, and never what is taken back."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.errors import ModelNotFoundError, ProtocolError
from runners.providers.terminal.events import TerminalTranslator
from runners.providers.terminal.settings import TerminalSettings
from runners.stream import ChatChunk, Done, OrderChecker, Start, Text
from runners.wire.screen import Screen


class Terminal:
    """A screen, its translator, and what has been sent."""

    def __init__(self, *, columns: int = 80, lines: int = 10, **declared: Any) -> None:
        declared = {"agent": True, "binary": "x", "prompt": ">>> ", **declared}
        self.translator = TerminalTranslator(
            "t", TerminalSettings.model_validate(declared), model="m", message_id="1", prompt_columns=4
        )
        self.screen = Screen(columns, lines)
        self.screen.keep_from((0, 0))
        self.order = OrderChecker()
        self.chunks: list[ChatChunk] = []

    def writes(self, text: str, end: str | None = None) -> str:
        """What is sent when the CLI writes this."""
        self.screen.feed(text)
        look = {"type": "screen", "scrolled": self.screen.scrolled(), "rows": self.screen.rows((0, 0)), "end": end}
        new = self.translator.feed(json.loads(json.dumps(look)))
        for chunk in new:
            self.order.feed(chunk)
        self.chunks += new
        return "".join(chunk.chunk for chunk in new if isinstance(chunk, Text))

    @property
    def sent(self) -> str:
        return "".join(chunk.chunk for chunk in self.chunks if isinstance(chunk, Text))


def test_a_word_is_sent_when_the_next_one_comes() -> None:
    terminal = Terminal()
    assert [terminal.writes(text) for text in ("Hello", " wor", "ld, how", " are")] == ["", "Hello", " world,", " how"]
    assert terminal.writes(" you?\r\n\r\n", end="prompt") == " are you?"
    assert [type(chunk) for chunk in terminal.chunks[:1] + terminal.chunks[-1:]] == [Start, Done]
    assert terminal.translator.is_clean


def test_a_spinner_is_never_sent() -> None:
    terminal = Terminal()
    for frame in "⠋⠙⠹":
        assert terminal.writes(f"\x1b[?2026h\x1b[1G{frame} \x1b[K\x1b[?2026l") == ""
        assert terminal.writes(f"\x1b[1GThinking hard {frame}\x1b[K") == ""
    assert terminal.chunks == []
    assert terminal.writes("\x1b[2K\x1b[1Gthe answer is") == "the answer"
    assert terminal.writes(" 42", end="prompt") == " is 42"


def test_a_spinner_of_another_kind_is_declared() -> None:
    terminal = Terminal(transient=r"\(working.*")
    assert terminal.writes("(working on it 1 s)") == ""
    assert terminal.writes("\r\n(still)\x1b[1A\r\x1b[J") == ""
    assert terminal.writes("done now ", end="prompt") == "done now"


def test_a_word_that_is_moved_to_the_next_line_is_sent_once_and_there() -> None:
    terminal = Terminal()
    assert terminal.writes("the quick bro") == "the quick"
    assert terminal.writes("\x1b[3D\x1b[K\r\nbrown fox ") == " \nbrown fox"
    terminal.writes("", end="prompt")
    assert terminal.sent == "the quick \nbrown fox"


def test_a_line_that_may_become_the_prompt_waits() -> None:
    terminal = Terminal()
    assert [terminal.writes(text) for text in ("a\r\n", ">>", "> x", " y ")] == ["a", "", "\n>>>", " x y"]


def test_empty_lines_and_spaces_around_an_answer_are_not_its_own() -> None:
    terminal = Terminal()
    terminal.writes("\r\n\r\n  one\r\n\r\ntwo  \r\n")
    terminal.writes("\r\n", end="prompt")
    assert terminal.sent == "  one\n\ntwo"


def test_a_text_that_was_sent_and_is_changed_is_an_error_that_says_what_mends_it() -> None:
    terminal = Terminal()
    assert terminal.writes("one two three ") == "one two three"
    with pytest.raises(ProtocolError, match="streams: lines"):
        terminal.writes("\x1b[1Gtwo three four five ")
    assert terminal.translator.ended


@pytest.mark.parametrize(("streams", "first"), [("lines", "one two"), ("answer", "")])
def test_what_a_cli_redraws_can_be_sent_later(streams: str, first: str) -> None:
    terminal = Terminal(streams=streams)
    assert terminal.writes("one two\r\nthree four five") == first
    assert terminal.writes("\x1b[1Gfour five six  ") == ""
    terminal.writes("", end="prompt")
    assert terminal.sent == "one two\nfour five six"


def test_an_answer_that_is_longer_than_the_screen_is_whole() -> None:
    terminal = Terminal(columns=20, lines=3)
    text = "\n".join(f"line {number} " + "and more of it " * (number % 4) for number in range(50))
    for at in range(0, len(text), 11):
        terminal.writes(text[at : at + 11].replace("\n", "\r\n"))
    terminal.writes("\r\n\r\n", end="prompt")
    assert terminal.sent == text.rstrip()


def test_an_answer_that_scrolls_by_at_once_is_whole_too() -> None:
    terminal = Terminal(lines=3, streams="answer")
    text = "\n".join(map(str, range(100)))
    terminal.writes(text.replace("\n", "\r\n"), end="silence")
    assert terminal.sent == text
    assert terminal.chunks[-1] == Done("end_turn", "silence")


def test_a_line_that_tells_a_failure_is_one_and_nothing_of_it_is_sent() -> None:
    terminal = Terminal(errors={"Error: ": "model_not_found"})
    assert terminal.writes("Some text that\r\n") == "Some text that"
    assert terminal.writes("Error:") == ""
    with pytest.raises(ModelNotFoundError, match=r"^Error: no such$"):
        terminal.writes(" no such")


def test_an_interrupted_answer_is_what_was_sent() -> None:
    terminal = Terminal()
    terminal.writes("one two")
    terminal.writes(" ^C", end="interrupt")
    assert terminal.sent == "one"
    assert terminal.chunks[-1] == Done("cancelled", "interrupt")
    assert not terminal.translator.is_clean


_WORDS = st.lists(
    st.sampled_from(["a", "word ", "  ", "\n", "日本語", ">>> ", "...", "x" * 30, "\t", "🙂"]), max_size=40
)


@settings(max_examples=40, deadline=None)
@given(_WORDS, st.lists(st.integers(1, 12), min_size=1, max_size=8), st.sampled_from(["text", "lines", "answer"]))
def test_however_it_is_cut_the_texts_joined_are_what_was_written(
    words: list[str], cuts: list[int], streams: str
) -> None:
    terminal, text = Terminal(columns=25, lines=4, streams=streams), "".join(words)
    at = 0
    while at < len(text):
        size = cuts[at % len(cuts)]
        terminal.writes(text[at : at + size].replace("\n", "\r\n"))
        at += size
    terminal.writes("", end="prompt")
    tabs_may_not_fit = "\t" in text
    if not tabs_may_not_fit:
        assert terminal.sent == text.rstrip().lstrip("\n")
