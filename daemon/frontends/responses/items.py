"""The items of a conversation as the Responses API has it, and the messages that they are. Pure.

A message of ours is several items there: the reasoning, the text, a call for each tool.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from daemon.frontends import openai
from daemon.frontends.incoming import Sent, text_or_list
from daemon.frontends.responses.tools import Offered
from runners.messages import ChatMessage, ImagePart, Part, TextPart
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


AnyItem = Annotated[
    Annotated[_Message, Tag("message")]
    | Annotated[_Reasoning, Tag("reasoning")]
    | Annotated[_Call, Tag("function_call")]
    | Annotated[_CustomCall, Tag("custom_tool_call")]
    | Annotated[_Result, Tag("function_call_output")]
    | Annotated[_Result, Tag("custom_tool_call_output")]
    | Annotated[_Reference, Tag("item_reference")],
    Discriminator(_kind_of_item),
]


def messages_of(items: Iterable[Any]) -> Iterator[ChatMessage]:
    """The messages of a conversation. Items that are one answer of the model's are one message."""
    answer: _AnswerOfThePast | None = None
    for item in items:
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
