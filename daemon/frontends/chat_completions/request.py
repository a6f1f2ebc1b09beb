"""What a client of chat completions asks: its shapes, and what they mean for a runner. Pure.

A field that this API knows and that changes nothing here (`user`, `store`, `metadata`, ...) is left alone; one that
would change the answer and that no CLI has is refused, as the API does for a model that has it not.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from daemon.frontends import openai
from daemon.frontends.incoming import Sent, checked, in_place, only, text_or_list, word_or_named
from runners.messages import ChatMessage, ChatRequest, ImagePart, TextPart
from runners.tool_calls import tool_call


class _Text(Sent):
    type: Literal["text"]
    text: str

    def ours(self) -> TextPart:
        return TextPart(text=self.text)


class _Refusal(Sent):
    type: Literal["refusal"]
    refusal: str

    def ours(self) -> TextPart:
        return TextPart(text=self.refusal)


class _ImageUrl(Sent):
    url: openai.Image


class _Image(Sent):
    type: Literal["image_url"]
    image_url: _ImageUrl

    def ours(self) -> ImagePart:
        return self.image_url.url


_Part = Annotated[_Text | _Image | _Refusal, Field(discriminator="type")]
_Content = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[_Part], Tag("<list>")], Discriminator(text_or_list)]


def _parts(content: str | list[_Text | _Image | _Refusal] | None) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    return [part.ours() for part in content]


class _Said(Sent):
    role: Literal["system", "developer", "user"]
    content: _Content

    def ours(self) -> ChatMessage:
        role = "system" if self.role == "developer" else self.role
        return ChatMessage(role=role, content=_parts(self.content))


class _CalledFunction(Sent):
    name: str = Field(min_length=1)
    arguments: str = ""


class _Call(Sent):
    id: str = Field(min_length=1)
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Answered(Sent):
    role: Literal["assistant"]
    content: _Content | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None

    def ours(self) -> ChatMessage:
        return ChatMessage(
            role="assistant",
            content=_parts(self.content) or self.refusal or "",
            reasoning=self.reasoning_content,
            tool_calls=[
                tool_call(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or []
            ],
        )


class _Result(Sent):
    role: Literal["tool"]
    tool_call_id: str
    content: _Content

    def ours(self) -> ChatMessage:
        return ChatMessage(role="tool", tool_call_id=self.tool_call_id, content=_parts(self.content))


_Message = Annotated[_Said | _Answered | _Result, Field(discriminator="role")]


class _Tool(Sent):
    type: Literal["function"]
    function: openai.Function


class _Named(Sent):
    name: str


class _NamedTool(Sent):
    type: Literal["function"]
    function: _Named


_Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[_NamedTool, Tag("<named>")],
    Discriminator(word_or_named),
]


class _Format(Sent):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: openai.JsonSchema | None = None


class _StreamOptions(Sent):
    include_usage: bool | None = None


_Stop = Annotated[Annotated[str, Tag("<text>")] | Annotated[list[str], Tag("<list>")], Discriminator(text_or_list)]


class CompletionRequest(Sent):
    """The body of a request."""

    model: str | None = None
    messages: list[_Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    max_completion_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: _Stop | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: openai.Effort | None = None
    seed: int | None = None
    n: Annotated[int | None, only(1)] = None
    logprobs: Annotated[bool | None, only(False)] = None
    top_logprobs: Annotated[int | None, only(0)] = None
    logit_bias: Annotated[dict[str, float] | None, only({})] = None
    presence_penalty: Annotated[float | None, only(0)] = None
    frequency_penalty: Annotated[float | None, only(0)] = None
    modalities: Annotated[list[str] | None, only([], ["text"])] = None
    audio: Annotated[Any, only()] = None
    web_search_options: Annotated[Any, only()] = None
    functions: Annotated[Any, only([])] = None
    function_call: Annotated[Any, only("none", "auto")] = None

    @property
    def tells_usage(self) -> bool:
        """Whether a stream is to end with what it cost."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def ours(self) -> tuple[ChatRequest, list[str]]:
        """The request to a runner, and what of this one it does not have; WrongFieldsError for what makes no sense."""
        effort, warnings = openai.effort(self.reasoning_effort)
        if self.seed is not None:
            warnings.append("no CLI takes a seed: it is left out")
        if self.tools and self.parallel_tool_calls is False:
            warnings.append(openai.PARALLEL)
        request = {
            "model": self.model or None,
            "messages": list(in_place((message.ours() for message in self.messages), warnings)),
            "tools": [tool.function.ours() for tool in self.tools or []],
            "tool_choice": self._choice(),
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": self.stop or [],
            "response_format": self._format(),
            "reasoning_effort": effort,
            "stream": bool(self.stream),
        }
        return checked(ChatRequest, request), warnings

    def _choice(self) -> Any:
        return (
            {"name": self.tool_choice.function.name} if isinstance(self.tool_choice, _NamedTool) else self.tool_choice
        )

    def _format(self) -> dict[str, Any] | None:
        if self.response_format is None:
            return None
        schema = self.response_format.json_schema
        return {"type": self.response_format.type, "json_schema": schema and schema.wrapped()}
