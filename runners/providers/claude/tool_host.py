"""The client's tools as the MCP server that Claude Code asks over its control protocol. Pure, no I/O.

Facts are from 2.1.197 and 2.1.329. The CLI lists the tools when it is initialized, and asks for each call that its
model makes; a call stays open until it is answered (160 s were tried), and `readOnlyHint` lets it ask for all of an
answer's calls at once. Nothing of this server but the tools' names, descriptions and schemas reaches the model.
"""

import json
from collections.abc import Sequence
from typing import Any

from runners.messages import ChatMessage, ImagePart
from runners.providers.claude.sent import WHITE_SPACE, content_of, units
from runners.tools import ToolDefinition, ToolNames
from runners.translator import Event

SERVER = "host"
_RESULT_CHARACTERS = 500_000
"""The most that the CLI lets a tool ask for; the model is told of a file in the place of a longer result."""
_ERROR_CHARACTERS = 10_000
"""The middle of a longer error is left out."""
_METHOD_NOT_FOUND = -32601


class ToolHost:
    """The server of `tools`, under the `names` that the model knows."""

    def __init__(self, tools: Sequence[ToolDefinition], names: ToolNames) -> None:
        self._tools = [
            {
                "name": names.theirs(tool.name),
                "description": tool.description,
                "inputSchema": tool.parameters,
                "annotations": {"readOnlyHint": True},
                "_meta": {"anthropic/maxResultSizeChars": _RESULT_CHARACTERS},
            }
            for tool in tools
        ]
        self._open: dict[str, Event] = {}
        self._results: dict[str, ChatMessage] = {}

    def asked(self, request: Event) -> Event | None:
        """The answer to a request of the CLI's to the server; None for a call whose result is not there yet."""
        message = request["request"]["message"]
        params = message.get("params") or {}
        match message["method"]:
            case "initialize":
                server = {"name": SERVER, "version": "1"}
                version = {"protocolVersion": params.get("protocolVersion"), "serverInfo": server}
                return _answer(request, result={"capabilities": {"tools": {}}} | version)
            case "tools/list":
                return _answer(request, result={"tools": self._tools})
            case "tools/call":
                call_id = params["_meta"]["claudecode/toolUseId"]
                self._open[call_id] = request
                return self._answered(call_id)
            case "ping" | "notifications/initialized" | "notifications/cancelled":
                return _answer(request, result={})
            case method:
                return _answer(request, error={"code": _METHOD_NOT_FOUND, "message": f"there is no {method}"})

    def given(self, results: Sequence[ChatMessage]) -> list[Event]:
        """The client's results have come: the answers to those of their calls that the CLI has asked for."""
        self._results |= {str(result.tool_call_id): result for result in results}
        answers = [self._answered(call_id) for call_id in list(self._open)]
        return [answer for answer in answers if answer is not None]

    def _answered(self, call_id: str) -> Event | None:
        if call_id not in self._results:
            return None
        result = self._results.pop(call_id)
        content = {"content": _content(result), "isError": result.is_error}
        return _answer(self._open.pop(call_id), result=content)


def passes_unchanged(result: ChatMessage) -> bool:
    """Whether the model is told this result as it is, when it comes as the answer to an open call.

    The CLI puts words of its own in the place of an empty one, a file in that of a long one, and of an error it takes
    the text alone, without white space around it and not all of a long one.
    """
    size = units(json.dumps(_content(result), ensure_ascii=False))
    has_image = any(isinstance(part, ImagePart) for part in result.parts)
    text = result.text.strip(WHITE_SPACE)
    if result.is_error:
        return size < _ERROR_CHARACTERS and not has_image and text == result.text != ""
    return size < _RESULT_CHARACTERS and (has_image or text != "")


def _content(result: ChatMessage) -> list[dict[str, Any]]:
    if result.is_error:
        return [{"type": "text", "text": result.text}]
    return [
        {"type": "image", "data": block["source"]["data"], "mimeType": block["source"]["media_type"]}
        if block["type"] == "image"
        else block
        for block in content_of(result)
    ]


def _answer(request: Event, **outcome: Any) -> Event:
    message = {"jsonrpc": "2.0", "id": request["request"]["message"].get("id", 0), **outcome}
    answer = {"subtype": "success", "request_id": request["request_id"], "response": {"mcp_response": message}}
    return {"type": "control_response", "response": answer}
