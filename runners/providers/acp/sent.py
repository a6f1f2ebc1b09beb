"""A conversation as the content blocks of a prompt: pure.

For an agent that knows no past but its own all of it is one prompt; for one that can be told the past otherwise a
prompt is one message.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from runners.messages import ChatMessage, ImagePart, TextPart
from runners.prompt import as_one_text
from runners.stream import paired

GUARD = "\u200b"
"""Stands in a block of its own before a text that an agent would else take for a command of its own."""
_SPACES = "".join(map(chr, range(0x2000, 0x200B)))
_JAVASCRIPT_BLANKS = f"\t\n\v\f\r \xa0\u1680{_SPACES}\u2028\u2029\u202f\u205f\u3000\ufeff"


def prompt(system: str, messages: Sequence[ChatMessage], guarded: Callable[[str], str]) -> list[dict[str, Any]]:
    """One block of text, and behind it the images of all messages in their order.

    A protocol that has no past but its own leaves no other place for those of earlier messages.
    """
    from acp.schema import ImageContentBlock, TextContentBlock

    text = paired(as_one_text(system, messages))
    blocks: list[TextContentBlock | ImageContentBlock] = []
    if text:
        blocks.append(TextContentBlock(type="text", text=guarded(text)))
    blocks += [
        ImageContentBlock(type="image", data=image.data, mime_type=image.media_type) for image in images_of(messages)
    ]
    return [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in blocks]


def images_of(messages: Sequence[ChatMessage]) -> Iterator[ImagePart]:
    """The images of all messages, in their order."""
    yield from (part for message in messages for part in message.parts if isinstance(part, ImagePart))


def moves_images(messages: Sequence[ChatMessage]) -> bool:
    """Whether an image stands elsewhere than behind all text."""
    are_images = [isinstance(part, ImagePart) for message in messages for part in message.parts]
    return any(is_image and not all(are_images[index:]) for index, is_image in enumerate(are_images))


def are_turns(messages: Sequence[ChatMessage]) -> bool:
    """Whether these are messages of a user and a model and nothing else, the first and the last the user's."""
    are_plain = all(message.role in ("user", "assistant") and not message.tool_calls for message in messages)
    return are_plain and messages[0].role == messages[-1].role == "user"


def message_blocks(message: ChatMessage, commands: tuple[str, ...]) -> list[dict[str, Any]]:
    """A user's message, with a guard where its text begins with one of `commands`."""
    told = [
        {"type": "text", "text": paired(part.text)}
        if isinstance(part, TextPart)
        else {"type": "image", "data": part.data, "mimeType": part.media_type}
        for part in message.parts
    ]
    return [{"type": "text", "text": GUARD}, *told] if bare(message).startswith(commands) else told


def bare(message: ChatMessage) -> str:
    """Its text before any image, without white space around it: where an agent in JavaScript looks for commands."""
    texts = itertools.takewhile(lambda part: isinstance(part, TextPart), message.parts)
    return trimmed("".join(part.text for part in texts if isinstance(part, TextPart)))


def trimmed(text: str) -> str:
    """A text as JavaScript's `trim` leaves it."""
    return text.strip(_JAVASCRIPT_BLANKS)
