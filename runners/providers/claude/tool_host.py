"""The client's tools as the MCP server that Claude Code asks over its control protocol. Pure, no I/O.

Facts are from 2.1.197 and 2.1.329. The CLI lists the tools when it is initialized, and asks for each call that its
model makes; a call stays open until it is answered (160 s were tried), and `readOnlyHint` lets it ask for all of an
answer's calls at once. Nothing of this server but the tools' names, descriptions and schemas reaches the model.
"""

import json
from collections.abc import Sequence
from typing import Any

from runners.mcp_tools import RESULT_CHARACTERS, McpTools, outcome
from runners.messages import ChatMessage, ImagePart
from runners.providers.claude.sent import WHITE_SPACE, units
from runners.tools import ToolDefinition, ToolNames
from runners.translator import Event

SERVER = "host"
_ERROR_CHARACTERS = 10_000
"""The middle of a longer error is left out."""


class ToolHost:
    """The server of `tools`, under the `names` that the model knows."""

    def __init__(self, tools: Sequence[ToolDefinition], names: ToolNames) -> None:
        self._mcp = McpTools(SERVER, tools, names)
        self._open: dict[str, Event] = {}
        self._results: dict[str, ChatMessage] = {}

    def asked(self, request: Event) -> Event | None:
        """The answer to a request of the CLI's to the server; None for a call whose result is not there yet."""
        message = request["request"]["message"]
        params = message.get("params") or {}
        if message["method"] != "tools/call":
            return _answer(request, **self._mcp.answer(message["method"], params))
        call_id = params["_meta"]["claudecode/toolUseId"]
        self._open[call_id] = request
        return self._answered(call_id)

    def given(self, results: Sequence[ChatMessage]) -> list[Event]:
        """The client's results have come: the answers to those of their calls that the CLI has asked for."""
        self._results |= {str(result.tool_call_id): result for result in results}
        answers = [self._answered(call_id) for call_id in list(self._open)]
        return [answer for answer in answers if answer is not None]

    def _answered(self, call_id: str) -> Event | None:
        if call_id not in self._results:
            return None
        result = outcome(self._results.pop(call_id), WHITE_SPACE)
        return _answer(self._open.pop(call_id), result=result)


def passes_unchanged(result: ChatMessage) -> bool:
    """Whether the model is told this result as it is, when it comes as the answer to an open call.

    The CLI puts words of its own in the place of an empty one, a file in that of a long one, and of an error it takes
    the text alone, without white space around it and not all of a long one.
    """
    size = units(json.dumps(outcome(result, WHITE_SPACE)["content"], ensure_ascii=False))
    has_image = any(isinstance(part, ImagePart) for part in result.parts)
    text = result.text.strip(WHITE_SPACE)
    if result.is_error:
        return size < _ERROR_CHARACTERS and not has_image and text == result.text != ""
    return size < RESULT_CHARACTERS and (has_image or text != "")


def _answer(request: Event, **outcome: Any) -> Event:
    message = {"jsonrpc": "2.0", "id": request["request"]["message"].get("id", 0), **outcome}
    answer = {"subtype": "success", "request_id": request["request_id"], "response": {"mcp_response": message}}
    return {"type": "control_response", "response": answer}
