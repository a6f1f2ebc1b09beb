"""The client's tools as an MCP server tells of them, and their results as it hands them on. Pure, no I/O.

How a message comes in and its answer goes out is its holder's business, and so is a call (`tools/call`), which stays
open until its result has come.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from runners.messages import ChatMessage, ImagePart, TextPart
from runners.tools import ToolDefinition, ToolNames

RESULT_CHARACTERS = 500_000
"""The most that Claude Code lets a tool ask for, also where it is an ACP agent (claude-agent-acp 0.23.1).

Its model is told of a file in the place of a longer result.
"""

_METHOD_NOT_FOUND = -32601


class McpTools:
    """The server `name` of `tools`, under the `names` that the model knows."""

    def __init__(self, name: str, tools: Sequence[ToolDefinition], names: ToolNames) -> None:
        self._name = name
        self._tools = [
            {
                "name": names.theirs(tool.name),
                "description": tool.description,
                "inputSchema": tool.parameters,
                "annotations": {"readOnlyHint": True},  # so that all calls of an answer may be asked for at once
                "_meta": {"anthropic/maxResultSizeChars": RESULT_CHARACTERS},
            }
            for tool in tools
        ]

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The `result` or `error` for any message but a call."""
        match method:
            case "initialize":
                version = {"protocolVersion": params.get("protocolVersion")}
                server = {"serverInfo": {"name": self._name, "version": "1"}}
                return {"result": {"capabilities": {"tools": {}}} | version | server}
            case "tools/list":
                return {"result": {"tools": self._tools}}
            case "ping" | "notifications/initialized" | "notifications/cancelled":
                return {"result": {}}
            case _:
                return {"error": {"code": _METHOD_NOT_FOUND, "message": f"there is no {method}"}}


def outcome(result: ChatMessage, white_space: str = "") -> dict[str, Any]:
    """A result as the answer to its call. Text parts side by side are one block, or none if they are `white_space`."""
    if result.is_error:
        return {"content": [{"type": "text", "text": result.text}], "isError": True}
    return {"content": list(_content(result, white_space)), "isError": False}


def _content(result: ChatMessage, white_space: str) -> Iterator[dict[str, Any]]:
    for is_text, parts in itertools.groupby(result.parts, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            text = "".join(part.text for part in parts if isinstance(part, TextPart))
            yield from [{"type": "text", "text": text}] if text.strip(white_space) else []
        else:
            for part in parts:
                assert isinstance(part, ImagePart)
                yield {"type": "image", "data": part.data, "mimeType": part.media_type}
