"""A conversation and what was asked with it, in the form that Claude Code is sent: pure, no I/O."""

import itertools
import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from runners.errors import InvalidRequestError
from runners.messages import ChatMessage, ImagePart, ResponseFormat, TextPart
from runners.provider import Sampling
from runners.tools import CallIds, NamedTool, ToolDefinition, ToolNames

WHITE_SPACE = "\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
"""As JavaScript has it: text of nothing else is no content for the CLI."""

_NAME_CHARACTERS = 128
_OWN_TOOLS = ("ToolSearch", "Bash", "Edit", "ExitPlanMode", "TaskOutput", "Write")
_TOOL_CHOICES = {None: None, "auto": None, "none": {"type": "none"}, "required": {"type": "any"}}


def names_of(tools: Sequence[ToolDefinition]) -> ToolNames:
    """What the model calls the tools.

    Of the names that the CLI knows these are not as good as any: `ToolSearch` it never offers, and of calls of the
    others it changes the arguments in what its model reads back (white space at the end of `content`, say).
    """
    return ToolNames(tools, longest=_NAME_CHARACTERS, reserved=_OWN_TOOLS)


def flags(sampling: Sampling, names: ToolNames) -> dict[str, str]:
    """The variables of the CLI's environment that a turn needs; an empty one is to be none."""
    choice = sampling.tool_choice
    body = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_sequences": list(sampling.stop) or None,
        "tool_choice": {"type": "tool", "name": names.theirs(choice.name)}
        if isinstance(choice, NamedTool)
        else _TOOL_CHOICES[choice],
        "output_config": _shape(sampling.response_format),
        # Of the two this one holds also within a turn that goes on behind its tools.
        "max_tokens": sampling.max_tokens,
    }
    body = {name: value for name, value in body.items() if value is not None}
    return {
        "CLAUDE_CODE_EXTRA_BODY": json.dumps(body) if body else "",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(sampling.max_tokens or ""),
    }


def _shape(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    """The vendor's word for the shape of an answer. It has none for an object of any shape."""
    if wanted is None or wanted.type != "json_schema" or wanted.wrapped is None:
        return None
    return {"format": {"type": "json_schema", "schema": wanted.wrapped["schema"]}}


def line(role: str, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """A message of content blocks as a line of stdin."""
    return {"type": role, "message": {"role": role, "content": blocks}, "parent_tool_use_id": None}


def turns_of(messages: list[ChatMessage], names: ToolNames) -> list[tuple[str, list[dict[str, Any]]]]:
    """The conversation as alternating (role, content blocks): neighbours of one role become one message.

    Text that is only white space is no content: the CLI drops it, and so does its vendor.
    """
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    ids = CallIds()
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message, names, ids))
        if blocks and turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((role, blocks))
    if not turns or turns[-1][0] != "user":
        raise InvalidRequestError("messages: the last one is empty")
    return turns


def _blocks(message: ChatMessage, names: ToolNames, ids: CallIds) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield {
            "type": "tool_result",
            "tool_use_id": ids.of_result(message.tool_call_id or ""),
            "content": list(content_of(message)),
            "is_error": message.is_error,
        }
        return
    for block in content_of(message):
        yield block
        if message.role == "user" and block.get("text", "").lstrip(WHITE_SPACE).startswith("/"):
            # `/word` alone would be a command. Before a second block it is text, and that block is dropped again.
            yield {"type": "text", "text": "\n"}
    for call in message.tool_calls:
        raw = call.arguments_raw
        # Its vendor takes an object. This is how the CLI itself keeps what its model wrote and is none.
        unparsed = None if raw is None else {"__unparsedToolInput": {"raw": raw, "len": len(raw)}}
        use = {"name": names.theirs(call.name), "input": call.arguments if unparsed is None else unparsed}
        yield {"type": "tool_use", "id": ids.of_call(call.id)} | use


def content_of(message: ChatMessage) -> Iterator[dict[str, Any]]:
    """The parts as blocks. Text parts side by side are one block, for one of white space alone would be dropped."""
    for is_text, parts in itertools.groupby(message.parts, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            text = "".join(part.text for part in parts if isinstance(part, TextPart))
            yield from [{"type": "text", "text": text}] if text.strip(WHITE_SPACE) else []
        else:
            for part in parts:
                assert isinstance(part, ImagePart)
                yield {
                    "type": "image",
                    "source": {"type": "base64", "media_type": part.media_type, "data": part.data},
                }


def is_told_unchanged(tool: ToolDefinition) -> bool:
    """Whether the CLI hands on the texts of a definition as they are.

    It normalizes them (NFKC), and takes characters of format and of private use out, names and values in the schema
    included.
    """
    text = tool.description + json.dumps(tool.parameters, ensure_ascii=False)
    is_plain = not any(unicodedata.category(character) in ("Cf", "Co", "Cn") for character in set(text))
    return is_plain and unicodedata.is_normalized("NFKC", text)


def units(text: str) -> int:
    """The length of a text as JavaScript has it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
