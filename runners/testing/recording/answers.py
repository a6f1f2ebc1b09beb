"""The answers of a model that a recording needs, in the forms of each API that there is a stand-in for."""

from collections.abc import Callable
from dataclasses import dataclass

from runners.testing.apis import completions_api, gemini_api, messages_api, responses_api
from runners.testing.apis.stand_in import BaseError, BaseReply, StandIn


@dataclass(frozen=True)
class Api:
    """A stand-in, and what its model can be made to answer."""

    stand_in: type[StandIn]
    text: Callable[..., BaseReply]
    """These pieces of text."""
    thought: Callable[[str, str], BaseReply]
    """A thought, and a text."""
    calls: Callable[..., BaseReply]
    """Calls of tools, each (name, text of its arguments)."""
    cut: Callable[[str], BaseReply]
    """A text that was cut at its length."""
    refused: BaseError
    """An error of who asks."""
    busy: BaseError
    """An error that passes by itself."""


MESSAGES = Api(
    stand_in=messages_api.MessagesApi,
    text=messages_api.text,
    thought=lambda thought, text: messages_api.text(text, thinking=thought),
    calls=messages_api.tool_calls,
    cut=lambda text: messages_api.text(text, stop_reason="max_tokens"),
    refused=messages_api.error(400, "invalid_request_error", "This cannot be asked"),
    busy=messages_api.error(529, "overloaded_error", "Overloaded"),
)

COMPLETIONS = Api(
    stand_in=completions_api.CompletionsApi,
    text=completions_api.text,
    thought=lambda thought, text: completions_api.text(text, reasoning=thought),
    calls=completions_api.tool_calls,
    cut=lambda text: completions_api.text(text, finish_reason="length"),
    refused=completions_api.error(400, "This cannot be asked"),
    busy=completions_api.error(503, "Overloaded", "server_error"),
)

RESPONSES = Api(
    stand_in=responses_api.ResponsesApi,
    text=responses_api.text,
    thought=lambda thought, text: responses_api.text(text, reasoning=thought),
    calls=responses_api.tool_calls,
    cut=lambda text: responses_api.text(text, incomplete="max_output_tokens"),
    refused=responses_api.error(400, "This cannot be asked"),
    busy=responses_api.error(503, "Overloaded", "server_error"),
)

GEMINI = Api(
    stand_in=gemini_api.GeminiApi,
    text=gemini_api.text,
    thought=lambda thought, text: gemini_api.text(text, reasoning=thought),
    calls=gemini_api.tool_calls,
    cut=lambda text: gemini_api.text(text, finish_reason="MAX_TOKENS"),
    refused=gemini_api.error(400, "This cannot be asked", "INVALID_ARGUMENT"),
    busy=gemini_api.error(503, "Overloaded", "UNAVAILABLE"),
)
