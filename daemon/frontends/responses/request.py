"""What a client of the Responses API asks: the body of a request, and what it means for a runner. Pure.

A field that this API knows and that changes nothing here (`store`, `include`, `metadata`, ...) is left alone; one that
needs what OpenAI has stored, or that no CLI can do, is refused.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from daemon.frontends import openai
from daemon.frontends.incoming import Sent, checked, in_place, only, text_or_list
from daemon.frontends.responses.items import AnyItem, messages_of
from daemon.frontends.responses.tools import Choice, NamedTool, Offered, Tool, caveats, offered_in
from runners.messages import ChatMessage, ChatRequest


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
        Annotated[str, Tag("<text>")] | Annotated[list[AnyItem], Field(min_length=1), Tag("<list>")],
        Discriminator(text_or_list),
    ]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    tools: list[Tool] | None = None
    tool_choice: Choice | None = None
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
        return {tool.our_name: tool for tool in offered_in(self.tools or [])}

    def ours(self) -> tuple[ChatRequest, list[str]]:
        """The request to a runner, and what of this one it does not have; WrongFieldsError for what makes no sense."""
        effort, warnings = openai.effort(self.reasoning.effort if self.reasoning else None)
        request = {
            "model": self.model or None,
            "messages": self._whole(warnings),
            "tools": [tool.definition for tool in offered_in(self.tools or [])],
            "tool_choice": self._choice(),
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "response_format": self.text.format.ours() if self.text and self.text.format else None,
            "reasoning_effort": effort,
            "stream": bool(self.stream),
        }
        warnings += caveats(self.tools or [])
        if self.tools and self.parallel_tool_calls is False:
            warnings.append(openai.PARALLEL)
        return checked(ChatRequest, request), warnings

    def _choice(self) -> Any:
        if not isinstance(self.tool_choice, NamedTool):
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
        if self.instructions:
            yield ChatMessage(role="system", content=self.instructions)
        if isinstance(self.input, str):
            yield ChatMessage(role="user", content=self.input)
        else:
            yield from messages_of(self.input)
