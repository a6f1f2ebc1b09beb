"""The tools that a client of the Responses API offers, and what a runner is offered in their place. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from daemon.frontends.incoming import Parameters, Sent, word_or_named

_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
"""What a custom tool takes: one text. That it may have a grammar no CLI knows."""


@dataclass(frozen=True)
class Offered:
    """A tool as its client knows it: one in a `namespace` is called by both names, a custom one with a text."""

    name: str
    namespace: str | None = None
    is_custom: bool = False
    description: str | None = None
    parameters: dict[str, Any] | None = None

    @property
    def our_name(self) -> str:
        """By which no other tool is known."""
        return self.name if self.namespace is None else f"{self.namespace}__{self.name}"

    @property
    def definition(self) -> dict[str, Any]:
        """What a runner is offered."""
        parameters = _FREE_TEXT if self.is_custom else self.parameters
        return {"name": self.our_name, "description": self.description, "parameters": parameters}


class _Function(Sent):
    type: Literal["function", "custom"]
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: Parameters | None = None

    def offered(self, namespace: str | None = None) -> Offered:
        return Offered(self.name, namespace, self.type == "custom", self.description, self.parameters)


class _Namespace(Sent):
    """What an MCP server has: so Codex tells of those."""

    type: Literal["namespace"]
    name: str = Field(min_length=1)
    tools: list[_Function]


class _Search(Sent):
    """OpenAI runs it itself, and Codex offers it without being asked to."""

    type: Literal["web_search", "web_search_preview"]


class _OpenAis(Sent):
    """Whatever else there is."""

    type: Any

    @field_validator("type")
    @classmethod
    def _is_nobodys(cls, kind: Any) -> Any:
        raise ValueError(f"{kind!r} is no tool of a client's own, and no CLI has it: offer your own tools")


_TOOLS = {
    "function": "<function>",
    "custom": "<function>",
    "namespace": "<namespace>",
    "web_search": "<search>",
    "web_search_preview": "<search>",
}


def _kind_of_tool(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return _TOOLS.get(str(kind), "<openai>")


Tool = Annotated[
    Annotated[_Function, Tag("<function>")]
    | Annotated[_Namespace, Tag("<namespace>")]
    | Annotated[_Search, Tag("<search>")]
    | Annotated[_OpenAis, Tag("<openai>")],
    Discriminator(_kind_of_tool),
]


class NamedTool(Sent):
    """The choice of one tool."""

    type: Literal["function", "custom"]
    name: str
    namespace: str | None = None


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[NamedTool, Tag("<named>")],
    Discriminator(word_or_named),
]


def offered_in(tools: Iterable[Any]) -> Iterator[Offered]:
    """Those of the client's own."""
    for tool in tools:
        if isinstance(tool, _Function):
            yield tool.offered()
        elif isinstance(tool, _Namespace):
            yield from (function.offered(tool.name) for function in tool.tools)


def caveats(tools: Iterable[Any]) -> Iterator[str]:
    """What the client should know of the others."""
    for tool in tools:
        if isinstance(tool, _Search):
            yield f"{tool.type} is run by OpenAI, and no CLI has it: it is left out"
