"""What goes into a chat and what comes out: messages, requests, usage, responses.

Owns the shapes and their validation. Knows no provider and does no I/O.
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, FailFast, Field, Tag, ValidationInfo, field_validator, model_validator

from runners.tools import Incoming, NamedTool, ToolCall, ToolChoice, ToolDefinition

Role = Literal["system", "user", "assistant", "tool", "summary", "error"]
ReasoningEffort = Literal["none", "low", "medium", "high", "xhigh"]
Served = Literal["cold", "warm", "continued", "resumed"]
"""How a session was found for a request. `cold`: its CLI process was started for it. `warm`: the process ran already,
and was sent the whole conversation. `continued`: the session holds the conversation, and was sent the new messages
alone. `resumed`: the session's turn had stopped to wait for the results of tools, was given them, and went on."""


class TextPart(Incoming):
    """A piece of text in a message."""

    type: Literal["text"] = "text"
    text: str


_SIGNATURES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}


class ImagePart(Incoming):
    """An image in a message: base64 `data` of the given `media_type`."""

    type: Literal["image"] = "image"
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str

    @field_validator("data")
    @classmethod
    def _is_what_it_says(cls, data: str, info: ValidationInfo) -> str:
        try:
            image = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"not base64: {error}") from error
        media_type = info.data.get("media_type")
        # A vendor's CLI drops what it cannot read, and tells nobody.
        if media_type is not None and not _SIGNATURES[media_type].match(image):
            raise ValueError(f"no {media_type}: it does not begin as one")
        return data


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]
# Told apart by their JSON type, so that an error names the field that is wrong and not both alternatives.
_Content = Annotated[
    Annotated[str, Tag("<string>")] | Annotated[list[Part], Tag("<parts>")],
    Discriminator(lambda content: "<parts>" if isinstance(content, list) else "<string>"),
]


class ChatMessage(Incoming):
    """One message of a conversation.

    `summary` stands for earlier messages that a client compacted, `error` for a failure it shows its user
    (never sent to a model). `tool_calls` belong to assistant messages, `tool_call_id` to tool results.
    """

    role: Role
    content: _Content = ""
    reasoning: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None
    is_error: bool = False
    timestamp: Any = None

    @model_validator(mode="before")
    @classmethod
    def _may_say_nothing_beside_its_calls(cls, given: Any) -> Any:
        is_silent = isinstance(given, dict) and given.get("tool_calls") and given.get("content", "") is None
        return given | {"content": ""} if is_silent else given

    @field_validator("timestamp")
    @classmethod
    def _is_a_time(cls, timestamp: Any) -> Any:
        if timestamp is not None and (isinstance(timestamp, bool) or not isinstance(timestamp, int | float | str)):
            raise ValueError("a time is a number of seconds or a text")
        return timestamp

    @model_validator(mode="after")
    def _fits_its_role(self) -> "ChatMessage":
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool message needs the tool_call_id that it answers")
        if self.role != "tool" and self.tool_call_id is not None:
            raise ValueError(f"only a tool message has a tool_call_id, this one is from {self.role}")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"only an assistant message has tool_calls, this one is from {self.role}")
        return self

    @property
    def parts(self) -> list[Part]:
        """The content as parts, in order; an empty string is no part."""
        if isinstance(self.content, str):
            return [TextPart(text=self.content)] if self.content else []
        return self.content

    @property
    def text(self) -> str:
        """The text parts, joined without a separator."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class ResponseFormat(Incoming):
    """How the answer is to be shaped: any JSON object, or one by a schema.

    `json_schema` is the schema itself, or OpenAI's wrapping of it: `{name, schema, strict?, description?}`.
    """

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and not self.json_schema:
            raise ValueError("type json_schema needs a json_schema")
        return self

    @property
    def wrapped(self) -> dict[str, Any] | None:
        """The schema as OpenAI wraps it; None for plain text."""
        if self.type == "text":
            return None
        given = self.json_schema or {"type": "object"}
        is_wrapped = isinstance(given.get("schema"), dict)
        return {"name": "answer"} | (given if is_wrapped else {"schema": given})


class RequestTimeouts(Incoming):
    """Deadlines of this request alone, in seconds; what is left out stays as the runner's settings have it."""

    spawn_s: float | None = Field(default=None, gt=0)
    first_chunk_s: float | None = Field(default=None, gt=0)
    silence_s: float | None = Field(default=None, gt=0)
    turn_s: float | None = Field(default=None, gt=0)


class ChatRequest(Incoming):
    """One turn that a client asks for.

    `messages` is the whole conversation, its last message the new one. `model` is the vendor's own name here;
    the daemon has taken the runner's name off. None means that the vendor's default stands. `strict` makes an
    error of what would be a warning, and lets nobody else answer; `stream` only matters to front ends.
    """

    model: str | None = None
    messages: Annotated[list[ChatMessage], FailFast()] = Field(min_length=1)
    tools: list[ToolDefinition] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stop: list[str] = Field(default_factory=list)
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    prompt_cache_key: str | None = None
    timeouts: RequestTimeouts = Field(default_factory=RequestTimeouts)
    strict: bool = False
    stream: bool = True

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop_is_a_list(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @field_validator("tools")
    @classmethod
    def _have_names_of_their_own(cls, tools: list[ToolDefinition]) -> list[ToolDefinition]:
        twice = [name for name, count in Counter(tool.name for tool in tools).items() if count > 1]
        if twice:
            raise ValueError(f"two tools have the name {twice[0]!r}")
        return tools

    @field_validator("tool_choice")
    @classmethod
    def _is_offered(cls, choice: ToolChoice | None, info: ValidationInfo) -> ToolChoice | None:
        names = [tool.name for tool in info.data.get("tools", [])]
        if isinstance(choice, NamedTool) and choice.name not in names:
            raise ValueError(f"there is no tool {choice.name!r}")
        if choice == "required" and not names:
            raise ValueError("there are no tools")
        return choice

    @property
    def system(self) -> str:
        """The system messages, joined by an empty line: every CLI takes one system prompt."""
        return "\n\n".join(message.text for message in self.messages if message.role == "system")

    @property
    def conversation(self) -> list[ChatMessage]:
        """What the model is to read besides the system prompt: only user, assistant and tool messages.

        A summary becomes a hand-off note of the user's; error messages are left out. Tool calls behind which the
        conversation goes on without their results are given `NO_RESULT`.
        """
        return list(_for_the_model(self.messages))


NO_RESULT = "There is no result: the conversation went on without it."
"""What stands, as an error, for the result of a call that a client did not answer: no vendor takes a call without."""


def _for_the_model(messages: Sequence[ChatMessage]) -> Iterator[ChatMessage]:
    unanswered: list[str] = []
    for message in messages:
        if message.role in ("user", "assistant", "summary"):
            for call_id in unanswered:
                yield ChatMessage(role="tool", tool_call_id=call_id, content=NO_RESULT, is_error=True)
            unanswered = [call.id for call in message.tool_calls]
        if message.role == "tool" and message.tool_call_id in unanswered:
            unanswered.remove(message.tool_call_id)
        if message.role in ("user", "assistant", "tool"):
            yield message
        elif message.role == "summary":
            yield ChatMessage(role="user", content=f"Summary of our conversation so far:\n\n{message.text}")


def unknown_fields(model: BaseModel, path: str = "") -> Iterator[str]:
    """Yields the path of every field that the shapes above do not know, e.g. `messages[0].colour`.

    An assistant message may be a whole ChatResponse: what else that says is known, and of no use to a model.
    """
    answered = isinstance(model, ChatMessage) and model.role == "assistant"
    known = ChatResponse.__dataclass_fields__ if answered else {}
    yield from (f"{path}{name}" for name in model.model_extra or {} if name not in known)
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from unknown_fields(value, f"{path}{name}.")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from unknown_fields(item, f"{path}{name}[{index}].")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one response cost, as the CLI reported it; None where it said nothing.

    `input_tokens` is all of the prompt; the two cache counts are parts of it. `reasoning_tokens` is a part of
    `output_tokens`. `cost_usd` is the CLI's own figure. `duration_s` is how long the answer took by the CLI's own
    clock, `load_s` the part of it in which a model was loaded.
    """

    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    duration_s: float | None = None
    load_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that a runner offers, and what it can take: `images`, `tools`, `reasoning`. None where nobody said."""

    model: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    images: bool | None = None
    tools: bool | None = None
    reasoning: bool | None = None


@dataclass(frozen=True, slots=True)
class ChatResponse:
    """A whole answer: the fold of its stream.

    `content` and `reasoning` are the joined chunks. `served` says how a session was found for it, and `session_s` how
    many seconds that took, None where no daemon did it.
    """

    id: str
    runner: str
    model: str
    content: str
    reasoning: str | None
    tool_calls: list[ToolCall]
    stop_reason: str
    usage: Usage
    warnings: list[str] = field(default_factory=list)
    served: Served = "cold"
    session_s: float | None = None

    def as_message(self) -> ChatMessage:
        """The answer as a message of the conversation that goes on."""
        return ChatMessage(role="assistant", content=self.content, tool_calls=self.tool_calls)
