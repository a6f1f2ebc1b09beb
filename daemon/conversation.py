"""Which conversation a history is: told by its content alone, so that a client need remember nothing of us.

Pure. Two histories are the same conversation when a model that read the one has read the other.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from runners.messages import ChatMessage, ImagePart

Conversation = bytes
"""A digest of the messages of a conversation, in their order."""

NOTHING_SAID: Conversation = b""


def told(messages: Iterable[ChatMessage], after: Conversation = NOTHING_SAID) -> Conversation:
    """The conversation that `messages` make of the one before them.

    Texts count exactly, those of the assistant without white space at their end, which editors cut off; texts side by
    side in a message are one. Reasoning does not count, and the arguments of a tool call do as the JSON that they are.
    """
    for message in messages:
        content = json.dumps(_content(message), sort_keys=True, separators=(",", ":")).encode()
        after = hashlib.blake2b(after + content, digest_size=32).digest()
    return after


def parted(messages: Sequence[ChatMessage]) -> tuple[Sequence[ChatMessage], Sequence[ChatMessage]]:
    """A request's history, through the model's last answer, and what is new behind it."""
    answered = [index for index, message in enumerate(messages) if message.role == "assistant"]
    new = answered[-1] + 1 if answered else 0
    return messages[:new], messages[new:]


def _plain(value: Any) -> Any:
    """A JSON value in which 1.0 is 1, as it is for clients that have one kind of numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _content(message: ChatMessage) -> list[Any]:
    parts: list[Any] = []
    for part in message.parts:
        if isinstance(part, ImagePart):
            parts.append([part.media_type, part.data])
        elif parts and isinstance(parts[-1], str):
            parts[-1] += part.text
        else:
            parts.append(part.text)
    if message.role == "assistant" and parts and isinstance(parts[-1], str):
        parts[-1] = parts[-1].rstrip()
    # Without its end an empty text is none.
    parts = [part for part in parts if part != ""]
    calls = [[call.id, call.name, _plain(call.arguments), call.arguments_raw] for call in message.tool_calls]
    return [message.role, parts, calls, message.tool_call_id, message.is_error]
