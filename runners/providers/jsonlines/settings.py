"""An entry of the kind jsonlines: the whole declaration of a CLI, checked when runners.yaml is read."""

from collections import Counter
from itertools import pairwise
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from runners.providers.jsonlines.arguments import Argument, placeholders
from runners.providers.jsonlines.expressions import Expression
from runners.settings import AgentSettings, StrictModel

T = TypeVar("T")
Word = Annotated[str, Field(min_length=1)]


class ByKind(StrictModel, Generic[T]):
    """What tells each kind of error: a CLI's exit codes, or words in its messages."""

    not_authenticated: tuple[T, ...] = ()
    auth_expired: tuple[T, ...] = ()
    permission: tuple[T, ...] = ()
    rate_limited: tuple[T, ...] = ()
    quota_exhausted: tuple[T, ...] = ()
    overloaded: tuple[T, ...] = ()
    vendor_error: tuple[T, ...] = ()
    network: tuple[T, ...] = ()
    context_overflow: tuple[T, ...] = ()
    model_not_found: tuple[T, ...] = ()
    invalid_request: tuple[T, ...] = ()
    unsupported: tuple[T, ...] = ()

    def items(self) -> list[tuple[str, tuple[T, ...]]]:
        """Each kind and what tells it, in the order above."""
        return [(kind, getattr(self, kind)) for kind in ByKind.model_fields]


class ExitCodes(ByKind[int]):
    """What a CLI means by its exit codes. One that stands nowhere is `process_exited`."""

    success: tuple[int, ...] = (0,)

    @model_validator(mode="after")
    def _mean_one_thing(self) -> "ExitCodes":
        told = Counter(self.success) + sum((Counter(codes) for _, codes in self.items()), Counter[int]())
        if twice := [code for code, count in told.items() if count > 1]:
            raise ValueError(f"{twice[0]} stands here twice")
        return self


class UsageRules(StrictModel):
    """Where the counts stand: each is looked up in what `at` finds. Those of several lines are added."""

    at: Expression = "@"
    input_tokens: Expression | None = None
    cached_input_tokens: Expression | None = None
    cache_creation_input_tokens: Expression | None = None
    output_tokens: Expression | None = None
    reasoning_tokens: Expression | None = None
    cost_usd: Expression | None = None


class ErrorRules(StrictModel):
    """The line that says that the run failed: a `message`, and what kind of failure that is.

    That tell `words` of the message (in any case), else the HTTP `status`, else the exit code, else it is a
    `vendor_error`.
    """

    message: Expression
    status: Expression | None = None
    words: ByKind[Word] = ByKind[Word]()


class Lines(StrictModel):
    """How a line maps to what we tell: JMESPath expressions, each looked up in every line.

    One that finds null or false says nothing of that line. `text` and `reasoning` find the next piece. `whole_text`
    finds a text of which the pieces since the last one are the beginning: what is missing of it is sent. `end` finds
    anything at the end of an answer; without it a good exit code is the end.
    """

    model: Expression | None = None
    text: Expression | None = None
    whole_text: Expression | None = None
    reasoning: Expression | None = None
    usage: UsageRules | None = None
    stop_reason: Expression | None = None
    error: ErrorRules | None = None
    end: Expression | None = None

    @model_validator(mode="after")
    def _tell_the_answer(self) -> "Lines":
        if self.text is None and self.whole_text is None:
            raise ValueError("needs `text`, `whole_text` or both: else there is no answer")
        return self


class Command(StrictModel):
    """A short command of the CLI, which does well when it exits with one of `success`."""

    args: list[str] = Field(min_length=1)
    success: tuple[int, ...] = (0,)


class LoginCommand(Command):
    """The command that tells whether the CLI is logged in; `hint` is what its user does when it is not."""

    hint: str | None = None


class JsonLinesSettings(AgentSettings):
    """Any CLI that reads a prompt from stdin, to its end, and prints its answer as JSON lines.

    `args` are all of its arguments. In them stand `{model}`, `{system}` or a file with it, `{system_file}`, and
    `{effort}`: an argument with that is left out when a request names no effort. `system_prompt` says what the CLI does
    with the system prompt; where no argument takes it, it stands in the text. `stop_reasons` translate the CLI's words
    into ours. `exact_text`: its user knows that a text reaches the model as it is.
    """

    kind: Literal["jsonlines"] = "jsonlines"
    binary: str
    args: list[Argument] = Field(default_factory=list)
    lines: Lines
    stop_reasons: dict[str, str] = Field(default_factory=dict)
    exit_codes: ExitCodes = ExitCodes()
    health: Command = Command(args=["--version"])
    login: LoginCommand | None = None
    system_prompt: Literal["replace", "append"] = "append"
    exact_text: bool = False

    @property
    def takes(self) -> set[str]:
        """The placeholders that stand in its arguments."""
        return {name for argument in self.args for name in placeholders(argument)}

    @property
    def takes_system(self) -> bool:
        """Whether the system prompt has an argument."""
        return not self.takes.isdisjoint(("system", "system_file"))

    @field_validator("temperature", "max_tokens")
    @classmethod
    def _is_not_set(cls, value: float | None) -> None:
        if value is not None:
            raise ValueError("a CLI of this kind is not told it")

    @field_validator("args")
    @classmethod
    def _keep_their_options_whole(cls, args: list[str]) -> list[str]:
        for option, value in pairwise(args):
            if option.startswith("-") and value == "{effort}":
                hint = f"it is left out when a request names none: write `{option}={{effort}}`, as one argument"
                raise ValueError(f"`{option}` would take the next argument in the place of {{effort}}: {hint}")
        return args

    @model_validator(mode="after")
    def _names_its_model(self) -> "JsonLinesSettings":
        if "model" in self.takes and self.model is None:
            raise ValueError("`args` take a {model}: `model` must say which one a request means that names none")
        if "model" not in self.takes and self.models:
            raise ValueError("`models` are of no use without a {model} in `args`")
        return self
