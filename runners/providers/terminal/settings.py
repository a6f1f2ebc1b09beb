"""An entry of the kind terminal: how to talk to a CLI that has nothing but a terminal."""

import codecs
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from runners.errors import TOLD_BY_CLIS, RunnerError
from runners.settings import AgentSettings, StrictModel

_CARET = re.compile(r"\^[@-_a-z]")
_LINE_CHARACTERS = 4096
"""So much of a line is looked at for an error: an answer may be a line that fills the screen."""
_ASCII = "".join(map(chr, range(128)))


def _regular_expression(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


def _matches_something(pattern: str) -> str:
    if re.fullmatch(pattern, ""):
        raise ValueError(f"{pattern!r} matches an empty line too, and so says nothing")
    return pattern


def _may_stand_in_another(pattern: str) -> str:
    try:
        re.compile(rf"\A(?:{pattern})\Z")
    except re.error as error:
        raise ValueError(f"{pattern!r} cannot stand in another one: {error}; flags are written `(?i:...)`") from error
    return pattern


def _keys(written: str) -> str:
    r"""What is typed: `^C` is Ctrl-C, everything else itself."""
    return chr(ord(written[1].upper()) ^ 64) if _CARET.fullmatch(written) else written


Pattern = Annotated[str, AfterValidator(_regular_expression)]
SomePattern = Annotated[Pattern, AfterValidator(_matches_something)]
PromptPattern = Annotated[SomePattern, AfterValidator(_may_stand_in_another)]


class Size(StrictModel):
    """How large the terminal is. Wide: what does not fit in a row is wrapped or cut by most CLIs."""

    columns: int = Field(default=10_000, ge=20, le=32_767)
    rows: int = Field(default=50, ge=2, le=1_000)


class Multiline(StrictModel):
    """What is written before and behind a text of several lines, for the CLI to take it as one."""

    open: str = ""
    close: str = ""


class TerminalSettings(AgentSettings):
    """Any CLI that only talks to a terminal.

    In `args` the text `{model}` stands for the model that answers; `version_args` have the CLI tell its version.

    `prompt` is what stands at the beginning of a line when it waits for a message, `continuation` when it waits for
    another line of it, both without what the CLI shows behind the cursor; `silence_end_s` ends an answer where no
    prompt does. For `settle_s` nothing may come behind a prompt, for an answer may hold its text; a CLI that reads keys
    at its prompt, and is seen to read none elsewhere, is taken at its word.

    With `bracketed_paste` a message is pasted; else one of several lines needs `multiline`. What begins like `commands`
    the CLI would take for something else than a message: it is put between those too, and is refused where there are
    none. What has one of `unsafe` in it is refused always.

    `echo`: what is typed is shown. `transient` are lines that are shown and taken away again, such as a spinner's.
    `streams` says when a text is sure to stay as it is: a word as soon as the next one comes, a line when the next one
    comes, or only the whole answer. `errors` are patterns of lines that tell a failure, each with its kind.
    """

    kind: Literal["terminal"] = "terminal"
    binary: str
    version_args: list[str] = Field(default_factory=lambda: ["--version"])
    prompt: PromptPattern | None = None
    continuation: PromptPattern | None = None
    silence_end_s: float | None = Field(default=None, gt=0)
    settle_s: float = Field(default=0.3, gt=0, le=60)
    bracketed_paste: bool = False
    multiline: Multiline | None = None
    commands: SomePattern | None = None
    unsafe: list[SomePattern] = Field(default_factory=list)
    echo: bool = True
    interrupt: Annotated[str, AfterValidator(_keys)] = Field(default="\x03", min_length=1)
    exit: Annotated[str, AfterValidator(_keys)] | None = None
    size: Size = Size()
    encoding: str = "utf-8"
    streams: Literal["text", "lines", "answer"] = "text"
    transient: SomePattern = "[\u2800-\u28ff].*|.*[\u2800-\u28ff]\\s*"
    errors: dict[str, str] = Field(default_factory=dict)

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding(cls, encoding: str) -> str:
        try:
            codecs.getincrementaldecoder(encoding)()
            is_of_terminals = _ASCII.encode(encoding) == _ASCII.encode()
        except (LookupError, UnicodeError):
            is_of_terminals = False
        if not is_of_terminals:
            raise ValueError(f"{encoding!r} is no encoding that Python knows in which ASCII, so every key, is as it is")
        return encoding

    @field_validator("errors")
    @classmethod
    def _tells_known_failures(cls, told: dict[str, str]) -> dict[str, str]:
        for pattern, kind in told.items():
            _matches_something(_regular_expression(pattern))
            if kind not in TOLD_BY_CLIS:
                raise ValueError(f"{pattern!r}: {kind!r} is none of {', '.join(TOLD_BY_CLIS)}")
        return told

    @field_validator("temperature", "max_tokens")
    @classmethod
    def _is_not_set(cls, value: float | None) -> None:
        if value is not None:
            raise ValueError("a CLI of this kind is not told it")

    @model_validator(mode="after")
    def _is_whole(self) -> "TerminalSettings":
        if self.prompt is None and self.silence_end_s is None:
            raise ValueError("needs `prompt` or `silence_end_s`: else nothing tells when an answer has ended")
        for key, text in (("exit", self.exit), *(self.multiline or ())):
            try:
                (text or "").encode(self.encoding)
            except UnicodeEncodeError as error:
                raise ValueError(f"`{key}` has characters that {self.encoding} has not") from error
        if self.model is None and self.takes_models:
            raise ValueError("its `args` name {model}, so `model` must say which one is meant")
        return self

    @property
    def takes_models(self) -> bool:
        """Whether the CLI can be told which model is to answer."""
        return any("{model}" in arg for arg in self.args)

    @property
    def farewell(self) -> bytes:
        """What is typed to make the CLI leave: Ctrl-D where the entry has nothing else."""
        return b"\x04" if self.exit is None else self.exit.encode(self.encoding) + b"\r"

    def failure(self, line: str) -> RunnerError | None:
        """The error that a line tells, if any."""
        line = line[:_LINE_CHARACTERS]
        for pattern, kind in self.errors.items():
            if re.match(pattern, line):
                return TOLD_BY_CLIS[kind](line.strip())
        return None
