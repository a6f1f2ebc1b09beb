"""A conversation as the content blocks of one prompt: pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from runners.messages import ChatMessage, ImagePart
from runners.prompt import as_one_text
from runners.stream import paired


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
