"""What a runner can do, and what of a request it cannot."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runners.errors import InvalidRequestError, UnsupportedError
from runners.messages import ChatMessage, ChatRequest, ImagePart


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runner can truly do; the contract kit proves every claim against what its model API receives.

    `tools`: the client's tools are the model's own, `parallel_tools`: several calls of an answer come together,
    `tool_choice`: the model can be made to call one. `system_prompt`: ours replaces the CLI's, is appended to it, or
    stands in the first user text. `history`: earlier messages reach the model as messages, by resuming a session, or
    as text. `exact_text`: user text arrives byte for byte. `sessions_per_process`: conversations that one CLI process
    holds at once.
    """

    streaming: bool = False
    reasoning: bool = False
    tools: bool = False
    parallel_tools: bool = False
    tool_choice: bool = False
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
    """Raises UnsupportedError for images that a runner does not take, InvalidRequestError for results out of place."""
    for message in request.messages:
        has_images = any(isinstance(part, ImagePart) for part in message.parts)
        if has_images and not (able.images and message.role in image_roles):
            raise UnsupportedError(f"{runner}:{model} takes no images in {message.role} messages", runner=runner)
    try:
        _match_results(request.messages)
    except ValueError as error:
        raise InvalidRequestError(str(error), runner=runner) from error


def _match_results(messages: Sequence[ChatMessage]) -> None:
    """Raises ValueError where a tool result follows no call of its own, and where the last calls lack some of theirs.

    Results stand right behind the message with their calls, in any order.
    """
    open_calls: list[str] = []
    last, calls_at = "", 0
    called: set[str | None] = set()
    answered: set[str | None] = set()
    for index, message in enumerate(messages):
        last = last if message.role in ("system", "error") else message.role
        if message.role == "tool" and message.tool_call_id in open_calls:
            open_calls.remove(message.tool_call_id)
            answered.add(message.tool_call_id)
        elif message.role == "tool":
            wrong = f"no tool call has the id {message.tool_call_id!r}"
            if message.tool_call_id in answered:
                wrong = f"tool call {message.tool_call_id!r} has its result already"
            elif message.tool_call_id in called:
                wrong = f"the result of tool call {message.tool_call_id!r} must stand right behind the calls"
            raise ValueError(f"messages[{index}]: {wrong}")
        elif message.role in ("user", "assistant", "summary"):
            open_calls, calls_at = [call.id for call in message.tool_calls], index
            answered.difference_update(open_calls)
            called.update(open_calls)
            if len(set(open_calls)) < len(open_calls):
                raise ValueError(f"messages[{index}].tool_calls: two of them have the same id")
    if open_calls and last == "tool":
        missing = f"no result for tool call {open_calls[0]!r}; each call of a message needs one"
        raise ValueError(f"messages[{calls_at}].tool_calls: {missing}")


def gaps(request: ChatRequest, able: Capabilities) -> Iterator[str]:
    """The names of what the request asks for and the runner does not do."""
    shaped = request.response_format is not None and request.response_format.type != "text"
    # Who has no tools offered calls none, and who may call them needs no word for it.
    is_chosen = bool(request.tools) and request.tool_choice not in (None, "auto", "none")
    asked: dict[str, Any] = {
        "tools": request.tools,
        "tool_choice": is_chosen,
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
        if wanted and not getattr(able, name, False):
            yield name
