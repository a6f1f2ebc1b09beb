"""What a client of the Messages API asks: its shapes, and what they mean for a runner. Pure.

A field that this API knows and that changes nothing here (`metadata`, `cache_control`, `service_tier`, ...) is left
alone. One that would change the answer, and that no CLI has, is refused.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from daemon.frontends.incoming import Parameters, Sent, checked, image_part, in_place, only, text_or_list
from runners.messages import ChatMessage, ChatRequest, ImagePart, Part, ReasoningEffort, TextPart
from runners.tools import ToolCall

UNPARSED = "__unparsedToolInput"
"""Where Claude Code keeps arguments that are no object, which this API has no other place for."""

_LITTLE_THINKING, _SOME_THINKING = 4096, 16_384


class _Text(Sent):
    type: Literal["text"]
    text: str


class _Base64(Sent):
    type: Literal["base64"]
    media_type: str
    data: str


def _image(source: Any) -> ImagePart:
    given = _Base64.model_validate(source)
    return image_part(given.media_type, given.data)


class _Image(Sent):
    type: Literal["image"]
    source: Annotated[ImagePart, BeforeValidator(_image)]


class _Call(Sent):
    type: Literal["tool_use"]
    id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: dict[str, Any]

    def ours(self) -> ToolCall:
        unparsed = self.input.get(UNPARSED)
        if isinstance(unparsed, dict) and isinstance(raw := unparsed.get("raw"), str):
            return ToolCall(id=self.id, name=self.name, arguments_raw=raw)
        return ToolCall(id=self.id, name=self.name, arguments=self.input)


class _Thinking(Sent):
    type: Literal["thinking"]
    thinking: str


class _Redacted(Sent):
    type: Literal["redacted_thinking"]


class _ToolReference(Sent):
    """What Claude Code's search for tools has found."""

    type: Literal["tool_reference"]
    tool_name: str


_Plain = Annotated[_Text | _Image | _ToolReference, Field(discriminator="type")]
_PlainContent = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[_Plain], Tag("<list>")], Discriminator(text_or_list)
]


class _Result(Sent):
    type: Literal["tool_result"]
    tool_use_id: str = Field(min_length=1)
    content: _PlainContent | None = None
    is_error: bool | None = None

    def ours(self) -> ChatMessage:
        content = self.content if isinstance(self.content, str) else _parts(self.content or [])
        return ChatMessage(role="tool", tool_call_id=self.tool_use_id, content=content, is_error=bool(self.is_error))


_Block = Annotated[_Text | _Image | _Call | _Result | _Thinking | _Redacted, Field(discriminator="type")]
_Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[_Block], Tag("<list>")], Discriminator(text_or_list)
]


def _parts(blocks: list[Any]) -> list[Part]:
    return [part for block in blocks for part in _part(block)]


def _part(block: Any) -> Iterator[Part]:
    match block:
        case _Text():
            yield TextPart(text=block.text)
        case _Image():
            yield block.source
        case _ToolReference():
            yield TextPart(text=f"The tool {block.tool_name} can be called now.")


class _Message(Sent):
    role: Literal["user", "assistant", "system"]
    content: _Content

    @model_validator(mode="after")
    def _has_what_its_role_says(self) -> "_Message":
        others = (_Result,) if self.role == "assistant" else (_Call, _Thinking, _Redacted)
        for index, block in enumerate(self._blocks):
            if isinstance(block, others) or (self.role == "system" and not isinstance(block, _Text)):
                raise ValueError(f"content[{index}]: a message of the {self.role} has no {block.type} block")
        return self

    @property
    def _blocks(self) -> list[Any]:
        return [] if isinstance(self.content, str) else self.content

    @property
    def references(self) -> Iterator[str]:
        """The names of tools that were found."""
        results = [block.content for block in self._blocks if isinstance(block, _Result)]
        blocks = [block for content in results if isinstance(content, list) for block in content]
        yield from (block.tool_name for block in blocks if isinstance(block, _ToolReference))

    def ours(self) -> Iterator[ChatMessage]:
        """Results of tools are messages of their own, before what the user says besides."""
        if isinstance(self.content, str):
            yield ChatMessage(role=self.role, content=self.content)
            return
        yield from (block.ours() for block in self.content if isinstance(block, _Result))
        parts = _parts(self.content)
        calls = [block.ours() for block in self.content if isinstance(block, _Call)]
        thinking = "".join(block.thinking for block in self.content if isinstance(block, _Thinking))
        if parts or self.role == "assistant" or not any(isinstance(block, _Result) for block in self.content):
            yield ChatMessage(role=self.role, content=parts, reasoning=thinking or None, tool_calls=calls)


class _Tool(Sent):
    type: Literal["custom"] | None = None
    name: str = Field(min_length=1)
    description: str | None = None
    input_schema: Parameters
    defer_loading: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_the_clients(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("type") not in (None, "custom"):
            raise ValueError(f"{given['type']!r} is a tool of Anthropic's own, and no CLI has it: offer your own tools")
        return given


class _Choice(Sent):
    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _is_named(self) -> "_Choice":
        if self.type == "tool" and self.name is None:
            raise ValueError("a choice of one tool needs its name")
        return self

    def ours(self) -> Any:
        return {"name": self.name} if self.type == "tool" else {"any": "required"}.get(self.type, self.type)


class _ThinkingConfig(Sent):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None

    def ours(self) -> ReasoningEffort | None:
        if self.type == "disabled":
            return "none"
        if self.type == "adaptive" or self.budget_tokens is None:
            return None
        if self.budget_tokens <= _LITTLE_THINKING:
            return "low"
        return "medium" if self.budget_tokens <= _SOME_THINKING else "high"


class _Format(Sent):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class _OutputConfig(Sent):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _Format | None = None


class MessagesRequest(Sent):
    """The body of a request."""

    model: str | None = None
    messages: list[_Message] = Field(min_length=1)
    system: (
        Annotated[Annotated[str, Tag("<text>")] | Annotated[list[_Text], Tag("<list>")], Discriminator(text_or_list)]
        | None
    ) = None
    max_tokens: int | None = Field(default=None, gt=0)
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: Annotated[int | None, only(0)] = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    thinking: _ThinkingConfig | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    mcp_servers: Annotated[list[Any] | None, only([])] = None
    container: Annotated[Any, only()] = None

    def ours(self) -> tuple[ChatRequest, list[str]]:
        """The request to a runner, and what of this one it does not have; WrongFieldsError for what makes no sense."""
        effort, warnings = self._effort()
        if self.tool_choice is not None and self.tool_choice.disable_parallel_tool_use:
            warnings.append("no CLI takes disable_parallel_tool_use: the model may call several tools at once")
        shape = (self.output_config and self.output_config.format) or self.output_format
        request = {
            "model": self.model or None,
            "messages": list(in_place(self._all_messages(), warnings)),
            "tools": [
                {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
                for tool in self._offered()
            ],
            "tool_choice": self.tool_choice and self.tool_choice.ours(),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": self.stop_sequences or [],
            "response_format": shape and {"type": "json_schema", "json_schema": {"schema": shape.schema_}},
            "reasoning_effort": effort,
            "stream": bool(self.stream),
        }
        return checked(ChatRequest, request), warnings

    def _all_messages(self) -> Iterator[ChatMessage]:
        blocks = [self.system] if isinstance(self.system, str) else [block.text for block in self.system or []]
        yield from (ChatMessage(role="system", content=text) for text in blocks if text)
        for message in self.messages:
            yield from message.ours()

    def _offered(self) -> list[_Tool]:
        """Without those that the model knows nothing of until a search has found them."""
        found = {name for message in self.messages for name in message.references}
        return [tool for tool in self.tools or [] if not tool.defer_loading or tool.name in found]

    def _effort(self) -> tuple[ReasoningEffort | None, list[str]]:
        thinking = self.thinking.ours() if self.thinking else None
        named = self.output_config.effort if self.output_config else None
        if thinking == "none" or named is None:
            return thinking, []
        if named == "max":
            return "xhigh", ["no runner has the effort 'max': 'xhigh' is asked for"]
        return named, []
