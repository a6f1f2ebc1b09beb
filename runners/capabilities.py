"""What a runner can do, and what of a request it cannot."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from runners.errors import InvalidRequestError, UnsupportedError
from runners.messages import ChatRequest, ImagePart


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runner can truly do; the contract kit proves every claim against what its model API receives.

    `system_prompt`: ours replaces the CLI's, is appended to it, or stands in the first user text. `history`: earlier
    messages reach the model as messages, by resuming a session, or as text. `exact_text`: user text arrives byte
    for byte. `sessions_per_process`: conversations that one CLI process holds at once.
    """

    streaming: bool = False
    reasoning: bool = False
    tools: bool = False
    parallel_tools: bool = False
    system_prompt: Literal["replace", "append", "inline"] = "inline"
    history: Literal["native", "resume", "text"] = "text"
    images: bool = False
    response_format: bool = False
    temperature: bool = False
    top_p: bool = False
    stop: bool = False
    max_tokens: bool = False
    reasoning_effort: bool = False
    interrupt: bool = False
    usage: bool = False
    exact_text: bool = False
    sessions_per_process: int = 1


def refuse_what_would_be_lost(
    request: ChatRequest, able: Capabilities, image_roles: Collection[str], *, runner: str, model: str
) -> None:
    """Raises UnsupportedError for images that the runner does not take, InvalidRequestError for results of no call."""
    called = {call.id for message in request.messages for call in message.tool_calls}
    for message in request.messages:
        has_images = any(isinstance(part, ImagePart) for part in message.parts)
        if has_images and not (able.images and message.role in image_roles):
            raise UnsupportedError(f"{runner}:{model} takes no images in {message.role} messages", runner=runner)
        if message.role == "tool" and message.tool_call_id not in called:
            raise InvalidRequestError(f"messages: no tool call has the id {message.tool_call_id!r}", runner=runner)


def gaps(request: ChatRequest, able: Capabilities) -> Iterator[str]:
    """The names of what the request asks for and the runner does not do."""
    shaped = request.response_format is not None and request.response_format.type != "text"
    asked: dict[str, Any] = {
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop,
        "response_format": shaped,
        "reasoning_effort": None if request.reasoning_effort == "none" else request.reasoning_effort,
        "prompt_cache_key": request.prompt_cache_key,
    }
    for name, value in asked.items():
        wanted = value is not None and value is not False and value != []
        if wanted and not getattr(able, "tools" if name == "tool_choice" else name, False):
            yield name
