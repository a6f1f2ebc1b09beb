"""A conversation and the client's tools in the form that codex is told them: pure. Facts are from 0.169.0 and 0.171.0.

A thread takes messages of the past as items of the Responses API, and hands them on as they are; with them the one to
answer, where it is no input of a turn: that answers 16 ms sooner, but is a text that is not empty and not too long.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from runners.messages import ChatMessage, ImagePart
from runners.tools import CallIds, ToolDefinition, ToolNames
from runners.wire.framing import dump_json

_INPUT_CHARACTERS = 1 << 20
_NAME_CHARACTERS = 64
"""The CLI takes 128, and some of the APIs behind it do not."""
WHOLE_SCHEMA_BYTES = 5000
"""A longer schema loses its descriptions."""
_KEPT = {
    *("type", "description", "enum", "properties", "required", "additionalProperties", "items", "minItems"),
    *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
}
_TYPED_BY = {"type", "$ref", "anyOf", "oneOf", "allOf"}
_OF_SCHEMAS = ("properties", "$defs", "definitions")


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


def altered(tool: ToolDefinition) -> list[str]:
    """The words of a tool's schema that do not reach its model as they are: most are left out.

    A schema that says something and no type is made one of a string, an object or a list.
    """
    return sorted(set(_altered(tool.parameters)))


def _altered(schema: Any) -> Iterator[str]:
    if schema is True or schema is False:
        yield json.dumps(schema)
    if not isinstance(schema, dict):
        return
    is_typed = not schema or _TYPED_BY & schema.keys()
    yield from (word for word in schema if word not in _KEPT or not is_typed)
    if schema.get("type") == "array" and schema.keys().isdisjoint({"items"}):
        yield "array"
    for word, value in schema.items():
        if word in _OF_SCHEMAS and isinstance(value, dict):
            inner: list[Any] = list(value.values())
        elif word in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            inner = value
        elif word == "items" or (word == "additionalProperties" and isinstance(value, dict)):
            inner = [value]
        else:
            continue
        for one in inner:
            yield from _altered(one)


def is_too_long(tool: ToolDefinition) -> bool:
    """Whether its schema is one that loses its descriptions."""
    return len(dump_json(tool.parameters)) - 1 > WHOLE_SCHEMA_BYTES


def items(messages: Sequence[ChatMessage], names: ToolNames) -> Iterator[dict[str, Any]]:
    """The messages as items of the Responses API."""
    ids = CallIds()
    for message in messages:
        if message.role == "tool":
            call_id = ids.of_result(message.tool_call_id or "")
            yield {"type": "function_call_output", "call_id": call_id, "output": _output(message)}
        elif message.role == "assistant":
            if message.text or not message.tool_calls:
                content = [{"type": "output_text", "text": message.text}]
                yield {"type": "message", "role": "assistant", "content": content}
            for call in message.tool_calls:
                arguments = json.dumps(call.arguments) if call.arguments_raw is None else call.arguments_raw
                called = {"name": names.theirs(call.name), "arguments": arguments}
                yield {"type": "function_call", "call_id": ids.of_call(call.id)} | called
        else:
            yield {"type": "message", "role": message.role, "content": _content(message)}


def input_of(message: ChatMessage) -> list[dict[str, Any]]:
    """A message of a user's as the input of a turn; empty where it must be an item."""
    if message.role != "user" or not 0 < len(message.text) <= _INPUT_CHARACTERS:
        return []
    return [
        {"type": "image", "url": _url(part), "detail": "auto"}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": part.text}
        for part in message.parts
    ]


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
