"""What OpenAI's two APIs have in common: tools, images, efforts, and the form of errors."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from daemon.frontends.incoming import Parameters, Sent, WrongFieldsError, image_part
from runners.errors import RunnerError
from runners.messages import ImagePart, ReasoningEffort, Usage
from runners.tools import ToolCall

_DATA_URL = re.compile(r"data:(?P<type>[a-z/+.-]+);base64,(?P<data>.*)", re.IGNORECASE | re.DOTALL)
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {
    "context_overflow": "context_length_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "quota_exhausted": "insufficient_quota",
    "unsupported": "unsupported_value",
    "cancelled": "server_error",
}
_EFFORTS: dict[str, ReasoningEffort] = {
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "xhigh",
}
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class JsonSchema(Sent):
    """The shape that an answer is to have."""

    name: str = "answer"
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    description: str | None = None

    def wrapped(self) -> dict[str, Any]:
        """As a ResponseFormat takes it."""
        whole: dict[str, Any] = {"name": self.name, "schema": self.schema_ or {"type": "object"}}
        whole |= {"strict": self.strict, "description": self.description}
        return {name: value for name, value in whole.items() if value is not None}


class Function(Sent):
    """A tool of the client's: its arguments are `parameters`."""

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: Parameters | None = None

    def ours(self) -> dict[str, Any]:
        """As a ToolDefinition takes it."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


def error_type(status: int) -> str:
    """What OpenAI calls an error of this status."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_code(kind: str) -> str:
    """What OpenAI calls a failure of ours; where it has no word for it, our own stands."""
    return _CODES.get(kind, kind)


def error_body(status: int, message: str, error: RunnerError | None) -> dict[str, Any]:
    """An error as OpenAI's clients read it, and beside it what we know besides."""
    wrong = error.problems[0] if isinstance(error, WrongFieldsError) else None
    body = {
        "message": message,
        "type": error_type(status),
        "param": wrong and (wrong.path or None),
        "code": wrong.code if wrong else error and error_code(error.kind),
    }
    return {"error": body if error is None else body | {"runnerd": error.to_dict()}}


def effort(asked: Effort | None) -> tuple[ReasoningEffort | None, list[str]]:
    """Our word for an effort, and a warning where it is not the same."""
    if asked is None:
        return None, []
    ours = _EFFORTS[asked]
    return ours, [] if ours == asked else [f"no runner has the effort {asked!r}: {ours!r} is asked for"]


def _image(url: Any) -> ImagePart:
    found = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    if found is None:
        raise ValueError("only a data URL is taken (data:image/png;base64,...): runnerd fetches nothing")
    return image_part(found["type"].lower().replace("image/jpg", "image/jpeg"), found["data"])


Image = Annotated[ImagePart, BeforeValidator(_image)]
"""An image, sent as its data URL."""


PARALLEL = "no CLI takes parallel_tool_calls: the model may call several tools at once"
"""The warning of who wants one call at a time."""


def arguments_of(call: ToolCall) -> str:
    """The JSON text of a call's arguments; what is no object, as the model wrote it."""
    return json.dumps(call.arguments, ensure_ascii=False) if call.arguments_raw is None else call.arguments_raw


def token_counts(usage: Usage) -> tuple[int, int] | None:
    """The prompt's and the answer's tokens; None where the CLI did not say, for there is no word for that."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return usage.input_tokens, usage.output_tokens
