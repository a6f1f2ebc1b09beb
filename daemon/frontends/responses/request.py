"""What a client of the Responses API asks: its shapes, and what they mean for a runner. Pure.

A field that this API knows and that changes nothing here (`store`, `include`, `metadata`, ...) is left alone; one that
needs what OpenAI has stored, or that no CLI can do, is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from daemon.frontends import openai
from daemon.frontends.incoming import Parameters, Sent, checked, in_place, only, text_or_list, word_or_named
from runners.messages import ChatMessage, ChatRequest, ImagePart, Part, TextPart
from runners.tool_calls import tool_call
from runners.tools import ToolCall


class _Text(Sent):
    type: Literal["input_text", "output_text", "text"]
    text: str

    def ours(self) -> TextPart:
        return TextPart(text=self.text)


class _Refusal(Sent):
    type: Literal["refusal"]
    refusal: str

    def ours(self) -> TextPart:
        return TextPart(text=self.refusal)


class _Image(Sent):
    type: Literal["input_image"]
    image_url: openai.Image

    def ours(self) -> ImagePart:
        return self.image_url


_Part = Annotated[_Text | _Refusal | _Image, Field(discriminator="type")]


_Content = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[_Part], Tag("<list>")], Discriminator(text_or_list)]


def _parts(content: str | list[_Text | _Refusal | _Image]) -> list[Part]:
    return [TextPart(text=content)] if isinstance(content, str) else [part.ours() for part in content]


_ID = re.compile(r"[a-z]+_(?P<answer>[0-9a-f]{32})_\d+")


class _Item(Sent):
    id: str | None = None

    @property
    def answer(self) -> str | None:
        """The answer of ours that it was an item of; None where it has another's id, or none."""
        found = _ID.fullmatch(self.id or "")
        return found and found["answer"]


def item_id(kind: str, answer: str, number: int) -> str:
    """The id of an item of an answer: clients send it back, and so it is known what belongs together."""
    return f"{kind}_{answer}_{number}"


class _Message(_Item):
    role: Literal["user", "assistant", "system", "developer"]
    content: _Content


class _Summary(Sent):
    text: str = ""


class _Reasoning(_Item):
    summary: list[_Summary] | None = None
    content: list[_Summary] | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.content or self.summary or [])


class _Call(_Item):
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    namespace: str | None = None
    arguments: str

    def ours(self) -> ToolCall:
        return tool_call(self.call_id, Offered(self.name, self.namespace).our_name, self.arguments)


class _CustomCall(_Item):
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: str

    def ours(self) -> ToolCall:
        return ToolCall(id=self.call_id, name=self.name, arguments={"input": self.input})


class _Result(Sent):
    call_id: str = Field(min_length=1)
    output: _Content

    def ours(self) -> ChatMessage:
        content = self.output if isinstance(self.output, str) else _parts(self.output)
        return ChatMessage(role="tool", tool_call_id=self.call_id, content=content)


class _Reference(Sent):
    """An item that OpenAI is to look up."""

    @model_validator(mode="after")
    def _is_stored(self) -> "_Reference":
        raise ValueError("runnerd stores nothing: send the item itself")


def _kind_of_item(item: Any) -> Any:
    return item.get("type", "message") if isinstance(item, dict) else None


_AnyItem = Annotated[
    Annotated[_Message, Tag("message")]
    | Annotated[_Reasoning, Tag("reasoning")]
    | Annotated[_Call, Tag("function_call")]
    | Annotated[_CustomCall, Tag("custom_tool_call")]
    | Annotated[_Result, Tag("function_call_output")]
    | Annotated[_Result, Tag("custom_tool_call_output")]
    | Annotated[_Reference, Tag("item_reference")],
    Discriminator(_kind_of_item),
]


@dataclass(frozen=True)
class Offered:
    """A tool as its client knows it: one in a `namespace` is called by both names, a custom one with a text."""

    name: str
    namespace: str | None = None
    is_custom: bool = False

    @property
    def our_name(self) -> str:
        """By which no other tool is known."""
        return self.name if self.namespace is None else f"{self.namespace}__{self.name}"


class _Function(Sent):
    type: Literal["function", "custom"]
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: Parameters | None = None

    def offered(self, namespace: str | None = None) -> tuple[Offered, "_Function"]:
        return Offered(self.name, namespace, self.type == "custom"), self


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


_Tool = Annotated[
    Annotated[_Function, Tag("<function>")]
    | Annotated[_Namespace, Tag("<namespace>")]
    | Annotated[_Search, Tag("<search>")]
    | Annotated[_OpenAis, Tag("<openai>")],
    Discriminator(_kind_of_tool),
]

_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
"""What a custom tool takes: one text. That it may have a grammar no CLI knows."""


class _NamedTool(Sent):
    type: Literal["function", "custom"]
    name: str
    namespace: str | None = None


_Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[_NamedTool, Tag("<named>")],
    Discriminator(word_or_named),
]


class _Format(openai.JsonSchema):
    type: Literal["text", "json_object", "json_schema"] = "text"

    @model_validator(mode="after")
    def _has_its_schema(self) -> "_Format":
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("type json_schema needs a schema")
        return self

    def ours(self) -> dict[str, Any]:
        return {"type": self.type, "json_schema": self.wrapped() if self.type == "json_schema" else None}


class _TextConfig(Sent):
    format: _Format | None = None


class _ReasoningConfig(Sent):
    effort: openai.Effort | None = None


def _is_stored(value: Any) -> Any:
    if value is not None:
        raise ValueError("runnerd stores nothing: send the whole conversation as input")
    return value


class ResponsesRequest(Sent):
    """The body of a request."""

    model: str | None = None
    input: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[_AnyItem], Field(min_length=1), Tag("<list>")],
        Discriminator(text_or_list),
    ]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    parallel_tool_calls: bool | None = None
    text: _TextConfig | None = None
    reasoning: _ReasoningConfig | None = None
    previous_response_id: Annotated[Any, AfterValidator(_is_stored)] = None
    conversation: Annotated[Any, AfterValidator(_is_stored)] = None
    prompt: Annotated[Any, AfterValidator(_is_stored)] = None
    background: Annotated[bool | None, only(False)] = None
    top_logprobs: Annotated[int | None, only(0)] = None

    @property
    def offered(self) -> dict[str, Offered]:
        """The client's tools, by our names."""
        return {offered.our_name: offered for offered, _ in self._functions()}

    def _functions(self) -> Iterator[tuple[Offered, _Function]]:
        for tool in self.tools or []:
            if isinstance(tool, _Function):
                yield tool.offered()
            elif isinstance(tool, _Namespace):
                yield from (function.offered(tool.name) for function in tool.tools)

    def ours(self) -> tuple[ChatRequest, list[str]]:
        """The request to a runner, and what of this one it does not have; WrongFieldsError for what makes no sense."""
        effort, warnings = openai.effort(self.reasoning.effort if self.reasoning else None)
        request = {
            "model": self.model or None,
            "messages": self._whole(warnings),
            "tools": [_definition(offered, function) for offered, function in self._functions()],
            "tool_choice": self._choice(),
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "response_format": self.text.format.ours() if self.text and self.text.format else None,
            "reasoning_effort": effort,
            "stream": bool(self.stream),
        }
        searches = [tool.type for tool in self.tools or [] if isinstance(tool, _Search)]
        warnings += [f"{kind} is run by OpenAI, and no CLI has it: it is left out" for kind in searches]
        if self.tools and self.parallel_tool_calls is False:
            warnings.append(openai.PARALLEL)
        return checked(ChatRequest, request), warnings

    def _choice(self) -> Any:
        if not isinstance(self.tool_choice, _NamedTool):
            return self.tool_choice
        return {"name": Offered(self.tool_choice.name, self.tool_choice.namespace).our_name}

    def _whole(self, warnings: list[str]) -> list[ChatMessage]:
        messages = list(in_place(self._messages(), warnings))
        # So Codex asks again where an answer broke off.
        while len(messages) > 1 and messages[-1].role == "assistant" and not messages[-1].tool_calls:
            messages.pop()
            warnings.append("an answer that the conversation ends with is left out: the model begins it anew")
        return messages

    def _messages(self) -> Iterator[ChatMessage]:
        """The items that are one answer of the model's are one message."""
        if self.instructions:
            yield ChatMessage(role="system", content=self.instructions)
        if isinstance(self.input, str):
            yield ChatMessage(role="user", content=self.input)
            return
        answer: _AnswerOfThePast | None = None
        for item in self.input:
            is_the_models = isinstance(item, _Reasoning | _Call | _CustomCall) or (
                isinstance(item, _Message) and item.role == "assistant"
            )
            if answer is not None and not (is_the_models and answer.goes_on_with(item)):
                yield answer.ours()
                answer = None
            if is_the_models:
                answer = answer or _AnswerOfThePast()
                answer.add(item)
            elif isinstance(item, _Message):
                role = "system" if item.role == "developer" else item.role
                yield ChatMessage(role=role, content=_parts(item.content))
            elif isinstance(item, _Result):
                yield item.ours()
        if answer is not None:
            yield answer.ours()


def _definition(offered: Offered, function: _Function) -> dict[str, Any]:
    parameters = _FREE_TEXT if offered.is_custom else function.parameters
    return {"name": offered.our_name, "description": function.description, "parameters": parameters}


class _AnswerOfThePast:
    """The items of one answer, put together again."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._parts: list[Part] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []

    def goes_on_with(self, item: Any) -> bool:
        """Whether an item of the model's is one of this answer too.

        Two texts are two answers where nobody says that they are one; but never while calls have no results yet.
        """
        is_ours = self._id is not None and self._id == item.answer
        return is_ours or not (isinstance(item, _Message) and self._parts and not self._calls)

    def add(self, item: Any) -> None:
        """Takes the next item."""
        self._id = self._id or item.answer
        if isinstance(item, _Message):
            self._parts += _parts(item.content)
        elif isinstance(item, _Reasoning):
            self._reasoning.append(item.text)
        elif isinstance(item, _Call | _CustomCall):
            self._calls.append(item.ours())

    def ours(self) -> ChatMessage:
        """The message."""
        reasoning = "".join(self._reasoning) or None
        return ChatMessage(role="assistant", content=self._parts, reasoning=reasoning, tool_calls=self._calls)
