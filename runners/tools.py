"""What a client offers a model to call, and the model's calls of it: the shapes, and the names that vendors take.

Owns what a definition, a choice and a call look like. Knows no message and no provider, and does no I/O.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator


class Incoming(BaseModel):
    """Strict in its types, tolerant of unknown fields: they are kept, and reported by `unknown_fields`."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


class ToolCall(Incoming):
    """The model's call of a client tool.

    Arguments that are no JSON object stay in `arguments_raw`, and `parse_error` says why. It also says what does not
    fit the tool's schema: then `arguments` are all the same what the model gave.
    """

    id: str = Field(min_length=1)
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    arguments_raw: str | None = None
    parse_error: str | None = None


class ToolDefinition(Incoming):
    """A tool that the client runs: `parameters` is the JSON Schema of its arguments, which are an object."""

    name: str = Field(min_length=1)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object"})
    server: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_of_our_form(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.keys() & {"input_schema", "function"}:
            raise ValueError("a tool is name, description and parameters, and nothing around them")
        if isinstance(given, dict):
            return {name: value for name, value in given.items() if value is not None}
        return given

    @field_validator("parameters")
    @classmethod
    def _are_of_an_object(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        kind = parameters.setdefault("type", "object")
        if kind != "object":
            raise ValueError(f'the arguments of a tool are an object: its "type" is "object", and not {kind!r}')
        return parameters


class NamedTool(Incoming):
    """The choice of one tool, which the model has to call."""

    name: str

    @model_validator(mode="before")
    @classmethod
    def _is_of_our_form(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "name" not in given:
            raise ValueError('it is "auto", "none", "required", or {"name": ...} of a tool')
        return given


ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required"], Tag("<word>")] | Annotated[NamedTool, Tag("<named>")],
    Discriminator(lambda choice: "<word>" if isinstance(choice, str) else "<named>"),
]
"""Whether the model may call a tool, must not, must call one, or a certain one."""


class ToolNames:
    """What a vendor calls the client's tools: by their own names, where it takes them.

    A name of other characters than `A-Z a-z 0-9 _ -`, of more than `longest`, among `reserved` or with the
    `reserved_beginning` becomes another, which none of the tools has. `changed` has those, by their own names.
    """

    def __init__(
        self,
        tools: Sequence[ToolDefinition],
        *,
        longest: int,
        reserved: Collection[str] = (),
        reserved_beginning: str | None = None,
    ) -> None:
        self._longest = longest
        self._reserved = reserved
        self._reserved_beginning = reserved_beginning
        self.changed: dict[str, str] = {}
        taken = {tool.name for tool in tools if self._alike(tool.name) == tool.name}
        for tool in tools:
            if tool.name not in taken:
                alike = self._alike(tool.name)
                ends = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
                free = (f"{alike[: longest - len(end)]}{end}" for end in ends)
                self.changed[tool.name] = next(name for name in free if name not in taken)
                taken.add(self.changed[tool.name])
        self._own = {theirs: own for own, theirs in self.changed.items()}

    def theirs(self, own: str) -> str:
        """The vendor's name of a tool, also of one that is offered no more."""
        return self.changed.get(own) or self._alike(own)

    def own(self, theirs: str) -> str:
        """The client's name of a tool that the vendor calls so."""
        return self._own.get(theirs, theirs)

    def caveats(self, runner: str) -> Iterator[str]:
        """What the client should know of names that are not its own."""
        for own, theirs in self.changed.items():
            yield f"{runner} takes no tool of the name {own!r}: its model knows it as {theirs!r}"

    def _alike(self, own: str) -> str:
        taken = re.sub(r"[^A-Za-z0-9_-]", "_", own)[: self._longest]
        if self._reserved_beginning is not None and taken.startswith(self._reserved_beginning):
            taken = f"_{taken}"[: self._longest]
        return f"{taken[: self._longest - 1]}_" if taken in self._reserved else taken


class CallIds:
    """The ids of a conversation's calls as its vendor takes them: without other characters, and each of them once.

    Other vendors begin again with each answer, and a CLI drops a call whose id it has seen.
    """

    def __init__(self) -> None:
        self._latest: dict[str, str] = {}
        self._taken: set[str] = set()

    def of_call(self, call_id: str) -> str:
        """The id of the next call."""
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", call_id)
        others = (f"{plain}-{number}" for number in itertools.count(2))
        self._latest[call_id] = next(one for one in itertools.chain([plain], others) if self._is_free(one))
        self._taken.add(self._latest[call_id])
        return self._latest[call_id]

    def _is_free(self, one: str) -> bool:
        # Claude 2.1.329 takes `c_2` for the same as `c` before it.
        return self._taken.isdisjoint([one, re.sub(r"_\d+$", "", one)])

    def of_result(self, call_id: str) -> str:
        """The id of the latest call with this id of the client's."""
        return self._latest.get(call_id, call_id)
