"""What a terminal shows of what is written to it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.wire.screen import Screen


def shown(written: str, columns: int = 80, lines: int = 10) -> str:
    """The text from the first character to the cursor."""
    screen = Screen(columns, lines)
    screen.keep_from((0, 0))
    screen.feed(written)
    return screen.scrolled() + "\n".join(screen.rows((0, 0)))


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("one\r\n\r\n two  ", "one\n\n two  "),
        ("one\rtwo", "two"),
        ("spinner \x1b[2K\x1b[1Gtext", "text"),
        ("one two\x1b[3D\x1b[K\r\ntwo", "one \ntwo"),
        ("a\tb\r\n\tc", "a\tb\n\tc"),
        ("日本\x1b[31m語\x1b[0m", "日本語"),
        (
            "e\u0301 \U0001f469\u200d\U0001f4bb \u2764\ufe0f a\u2028b",
            "e\u0301 \U0001f469\u200d\U0001f4bb \u2764\ufe0f a\u2028b",
        ),
        ("ab\x1b[1D\x1b[@X", "aX"),
        ("abc\x1b[3D\x1b[P\x1b[2C", "bc"),
        ("a\0b\x07c\x7f", "abc"),
        ("\x1b]0;a title\x07x\x1b]8;;http://x\x1b\\y", "xy"),
    ],
)
def test_the_text_is_what_a_person_would_see(written: str, text: str) -> None:
    assert shown(written) == text


@pytest.mark.parametrize(
    "sequence",
    [
        *(
            "\x1b[<u",
            "\x1b[=1;2u",
            "\x1b[>4;1m",
            "\x1b[!p",
            "\x1b[38:2::1:2:3m",
            "\x1b[2 q",
            "\x1b[?2026h",
            "\x1b[?1$p",
        ),
        *(
            "\x1bPq#0;2;0\x1b\\",
            "\x1b_Gf=100;AAAA\x1b\\",
            "\x1b^secret\x1b\\",
            "\x1bXs\x1b\\",
            "\x1b(0",
            "\x1b=",
            "\x1b[c",
        ),
        *(
            "\x1b[1;2;3;4K",
            "\x1b[?1m",
            "\x1b[999999999999999999999C\x1b[1G\x1b[4C",
            "\x1b[" + "1" * 5000 + "m",
            "\x1b#8",
        ),
    ],
)
def test_sequences_that_mean_nothing_for_the_text_are_no_text(sequence: str) -> None:
    assert shown(f"text{sequence}!") == "text!"


def test_a_long_line_is_one_line_however_many_rows_it_takes() -> None:
    text = "abcdefghij" * 3 + "\r\nk"
    assert shown(text, columns=4, lines=3) == shown(text) == "abcdefghij" * 3 + "\nk"


def test_what_scrolls_away_is_told_once_and_only_from_where_it_is_wanted() -> None:
    screen = Screen(20, 3)
    screen.feed("banner\r\n>>> hi\r\n")
    screen.keep_from((1, 4))
    screen.feed("".join(f"line {number}\r\n" for number in range(4)))
    assert screen.scrolled() == "hi\nline 0\nline 1\n"
    assert screen.scrolled() == ""
    assert screen.rows((1, 4)) == ["line 2", "line 3", ""]
    screen.keep_from(None)
    screen.feed("\n" * 1000)
    assert screen.scrolled() == ""
    assert screen.place == (1006, 0)


def test_questions_to_the_terminal_are_answered_and_a_flood_of_them_is_not() -> None:
    screen = Screen(80, 10)
    screen.feed("abc\x1b[6n")
    assert screen.replies == ["\x1b[1;4R"]
    screen.feed("\x1b[6n" * 10_000)
    assert len(screen.replies) < 100


def test_a_flood_leaves_nothing_behind() -> None:
    screen = Screen(80, 10)
    screen.feed("\x1b7a\x1b[s" * 1000 + "\x1b]0;" + "t" * 1000 + "\x07" + "e\u0301" + "\u0301" * 1000 + "\x1bH" * 1000)
    assert len(screen.savepoints) == 1
    assert len(screen.seen()) < 2000
    screen.feed("\x1b[10;1Hx\x1b8y")
    assert screen.place[1] < 80


def test_it_is_known_whether_pastes_are_taken() -> None:
    screen = Screen(80, 10)
    assert not screen.takes_pastes
    screen.feed("\x1b[?2004h")
    assert screen.takes_pastes
    screen.feed("\x1b[?2004l")
    assert not screen.takes_pastes


_CODES = st.sampled_from(
    ["\x1b[", "\x1b]", "\x1bP", "\x1b\\", "\x1b", "\r", "\n", "\b", "\t", ";", "?", "9999", "m", "H", "r"]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(_CODES | st.text(max_size=4), max_size=40).map("".join), st.integers(1, 7))
def test_nothing_that_is_written_raises_and_pieces_are_as_good_as_the_whole(written: str, size: int) -> None:
    whole, cut = Screen(20, 4), Screen(20, 4)
    whole.keep_from((0, 0))
    cut.keep_from((0, 0))
    whole.feed(written)
    for at in range(0, len(written), size):
        cut.feed(written[at : at + size])
    assert whole.scrolled() == cut.scrolled()
    assert whole.seen() == cut.seen()
    assert 0 <= whole.cursor.y < 4
