"""How a CLI on a terminal is declared, and what is typed to it."""

from typing import Any

import pytest

from daemon.config import load_config
from runners.errors import ConfigError, InvalidRequestError, UnsupportedError
from runners.providers.terminal.sent import plain, typed
from runners.providers.terminal.settings import TerminalSettings
from tests.world import World

ENTRY = "runners:\n  x:\n    kind: terminal\n    agent: true\n    binary: cli\n    prompt: '> '\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("    agent: true\n", r":2: runners\.x\.agent: must be true"),
        ("    binary: cli\n", r":2: runners\.x\.binary: Field required"),
        ("    prompt: '> '\n", r":2: runners\.x: needs `prompt` or `silence_end_s`"),
    ],
)
def test_what_an_entry_must_say_is_asked_for(world: World, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(world.config(ENTRY.replace(change, "")))


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("prompt: '('", r":6: runners\.x\.prompt: '\(' is no regular expression"),
        ("prompt: '(?i)> '", r":6: runners\.x\.prompt: '\(\?i\)> ' cannot stand in another one"),
        ("prompt: '.*'", r":6: runners\.x\.prompt: '\.\*' matches an empty line too"),
        ("continuation: '['", r":7: runners\.x\.continuation: '\[' is no regular"),
        ("commands: '*'", r":7: runners\.x\.commands: '\*' is no regular"),
        ("unsafe: [a, '(']", r":7: runners\.x\.unsafe\[1\]: '\(' is no regular"),
        ("transient: ''", r":7: runners\.x\.transient: '' matches an empty line"),
        ("size: {columns: 5}", r":7: runners\.x\.size\.columns: Input should be greater"),
        ("size: {rows: 100000}", r":7: runners\.x\.size\.rows: Input should be less"),
        ("size: wide", r":7: runners\.x\.size: must be a mapping"),
        ("encoding: utf-1000", r":7: runners\.x\.encoding: 'utf-1000' is no encoding"),
        ("encoding: base64", r":7: runners\.x\.encoding: 'base64' is no encoding"),
        ("encoding: utf-16", r":7: runners\.x\.encoding: 'utf-16' is no encoding"),
        ("encoding: cp037", r":7: runners\.x\.encoding: 'cp037' is no encoding"),
        ("encoding: ascii\n    exit: /ad\xe9", r":2: runners\.x: `exit` has characters that ascii has not"),
        ("encoding: ascii\n    multiline: {close: \xbb}", r":2: runners\.x: `close` has characters that ascii has not"),
        ("silence_end_s: 0", r":7: runners\.x\.silence_end_s: Input should be greater"),
        ("errors: {'(': network}", r":7: runners\.x\.errors: '\(' is no regular"),
        ("errors: {'Error': bad}", r":7: runners\.x\.errors: 'Error': 'bad' is none of"),
        ("temperature: 1", r":7: runners\.x\.temperature: a CLI of this kind is not told it"),
        ("max_tokens: 5", r":7: runners\.x\.max_tokens: a CLI of this kind is not told it"),
        ("streams: never", r":7: runners\.x\.streams: Input should be"),
        ("interrupt: ''", r":7: runners\.x\.interrupt: String should have at least"),
        ("multiline: {begin: x}", r":7: runners\.x\.multiline\.begin: unknown key"),
        ("args: ['{model}']", r":2: runners\.x: its `args` name \{model\}"),
        ("promt: '> '", r":7: runners\.x\.promt: unknown key; did you mean prompt\?"),
    ],
)
def test_a_broken_declaration_is_refused_with_its_key_and_line(world: World, added: str, message: str) -> None:
    entry = ENTRY.replace("    prompt: '> '\n", "") if added.startswith("prompt") else ENTRY
    with pytest.raises(ConfigError, match=message):
        load_config(world.config(f"{entry}    {added}\n"))


def test_keys_are_written_as_they_are_called(world: World) -> None:
    entry = load_config(world.config(ENTRY + "    interrupt: ^X\n    exit: ^D\n")).runners["x"]
    assert isinstance(entry, TerminalSettings)
    assert (entry.interrupt, entry.exit) == ("\x18", "\x04")
    assert declared(interrupt="^c").interrupt == "\x03"


def declared(**changes: Any) -> TerminalSettings:
    return TerminalSettings.model_validate({"agent": True, "binary": "x", "prompt": "> ", **changes})


def keys(text: str, **changes: Any) -> list[str]:
    entry = declared(**changes)
    return [line.keys for line in typed(plain(text, entry), entry)]


@pytest.mark.parametrize(
    "control", ["\x1b[A", "\x03", "\x04", "\0", "\x1a", "\x7f", "\x9b", "x\x1b[201~\rrm -rf ~\r", "\b"]
)
@pytest.mark.parametrize("is_pasted", [False, True])
def test_no_key_that_acts_on_a_terminal_is_typed(control: str, is_pasted: bool) -> None:
    with pytest.raises(InvalidRequestError, match=r"control character U\+00"):
        keys(f"hello {control}", bracketed_paste=is_pasted)


def test_no_encoding_brings_a_key_that_acts_in() -> None:
    assert keys("\u65e5\u672c", encoding="shift_jis") == ["\u65e5\u672c"]
    with pytest.raises(InvalidRequestError, match="the escape key"):
        keys("\u65e5\u672c", encoding="iso2022_jp")


def test_a_message_of_several_lines_needs_a_way(world: World) -> None:
    with pytest.raises(UnsupportedError, match="several lines"):
        keys("one\ntwo")
    assert keys("one\r\ntwo\n", multiline={"open": "<<", "close": "\n."}) == ["<<one", "two", "."]
    assert keys("one", multiline={"open": "<<", "close": "\n."}) == ["one"]
    assert keys("one\ntwo", bracketed_paste=True) == ["\x1b[200~one\rtwo\x1b[201~"]


def test_what_looks_like_a_command_is_guarded_or_refused() -> None:
    with pytest.raises(UnsupportedError, match="'/bye' for a command"):
        keys("/bye", commands="/")
    with pytest.raises(UnsupportedError, match="for a command"):
        keys("!ls", commands="[/!]", bracketed_paste=True)
    assert keys("/bye", commands="/", multiline={"open": '"""', "close": '"""'}) == ['"""/bye"""']
    assert keys("no /bye", commands="/") == ["no /bye"]


def test_what_would_be_misread_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="misread"):
        keys('x """\ny', unsafe=['"""$'], multiline={"open": '"""', "close": '"""'})


def test_a_text_is_made_plain() -> None:
    assert keys("a\tb") == ["a       b"]
    assert keys("a\tb", bracketed_paste=True) == ["\x1b[200~a\tb\x1b[201~"]
    assert keys("x\ud83d") == ["x\ufffd"]
    with pytest.raises(InvalidRequestError, match="latin-1 has not"):
        keys("日本", encoding="latin-1")
    with pytest.raises(InvalidRequestError, match="empty"):
        keys(" \n")
