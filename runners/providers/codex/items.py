"""A conversation and the client's tools in the form that codex is told them: pure. Facts are from 0.169.0 and 0.171.0.

A thread takes messages of the past, and with them the one to answer, as items of the Responses API, and hands them on
as they are. What a turn could take as its input has a limit of 2^20 characters.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from runners.messages import ChatMessage, ImagePart
from runners.tools import ToolDefinition, ToolNames
from runners.wire.framing import dump_json

_NAME_CHARACTERS = 64
"""The CLI takes 128, and some of the APIs behind it do not."""
WHOLE_SCHEMA_BYTES = 5000
"""A longer schema loses its descriptions."""
_DROPPED = re.compile(
    "title|default|examples|(exclusiveM|m)(in|ax)imum|multipleOf|(min|max)(Length|Properties)|pattern(Properties)?|format|"
    "content(Encoding|MediaType)|contains|(min|max)Contains|propertyNames|dependent(Required|Schemas)|"
    "unevaluated(Properties|Items)|not|if|then|else|const"
)
"""What of a schema does not reach the model, or in another form."""
_OF_SCHEMAS = ("properties", "$defs", "definitions", "dependentSchemas")
_OF_VALUES = ("enum", "const", "default", "examples", "required")


def names_of(tools: Sequence[ToolDefinition]) -> ToolNames:
    """What the model calls the tools. Two names the CLI keeps for itself: of such a tool it tells nobody."""
    return ToolNames(
        tools,
        longest=_NAME_CHARACTERS,
        reserved=("exec_command", "shell_command", "mcp"),
        reserved_beginning="mcp__",
    )


def definitions(tools: Sequence[ToolDefinition], names: ToolNames) -> list[dict[str, Any]]:
    """The tools as a thread takes them."""
    return [
        {
            "type": "function",
            "name": names.theirs(tool.name),
            "description": tool.description,
            "inputSchema": tool.parameters,
        }
        for tool in tools
    ]


def dropped(tool: ToolDefinition) -> list[str]:
    """The words of a tool's schema that its model is not told."""
    return sorted({word for word in _words(tool.parameters) if _DROPPED.fullmatch(word)})


def is_too_long(tool: ToolDefinition) -> bool:
    """Whether its schema is one that loses its descriptions."""
    return len(dump_json(tool.parameters)) - 1 > WHOLE_SCHEMA_BYTES


def _words(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _words(item)
    elif isinstance(schema, dict):
        for word, value in schema.items():
            yield word
            if word in _OF_SCHEMAS and isinstance(value, dict):
                yield from _words(list(value.values()))
            elif word not in _OF_VALUES:
                yield from _words(value)


def items(messages: Sequence[ChatMessage], names: ToolNames) -> Iterator[dict[str, Any]]:
    """The messages as items of the Responses API."""
    for message in messages:
        if message.role == "tool":
            yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": _output(message)}
        elif message.role == "assistant":
            if message.text or not message.tool_calls:
                content = [{"type": "output_text", "text": message.text}]
                yield {"type": "message", "role": "assistant", "content": content}
            for call in message.tool_calls:
                arguments = json.dumps(call.arguments) if call.arguments_raw is None else call.arguments_raw
                called = {"name": names.theirs(call.name), "arguments": arguments}
                yield {"type": "function_call", "call_id": call.id} | called
        else:
            yield {"type": "message", "role": message.role, "content": _content(message)}


def result_of(message: ChatMessage) -> dict[str, Any]:
    """A tool's result, as the CLI takes it for a call that it has asked for. It tells no model that one failed."""
    parts = [
        {"type": "inputImage", "imageUrl": _url(part)}
        if isinstance(part, ImagePart)
        else {"type": "inputText", "text": part.text}
        for part in message.parts
    ]
    return {"contentItems": parts or [{"type": "inputText", "text": ""}], "success": not message.is_error}


def _output(message: ChatMessage) -> str | list[dict[str, Any]]:
    has_image = any(isinstance(part, ImagePart) for part in message.parts)
    return _content(message) if has_image else message.text


def _content(message: ChatMessage) -> list[dict[str, Any]]:
    parts = [
        {"type": "input_image", "image_url": _url(part), "detail": "auto"}
        if isinstance(part, ImagePart)
        else {"type": "input_text", "text": part.text}
        for part in message.parts
    ]
    return parts or [{"type": "input_text", "text": ""}]


def _url(image: ImagePart) -> str:
    return f"data:{image.media_type};base64,{image.data}"
