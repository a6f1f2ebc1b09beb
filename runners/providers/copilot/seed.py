"""A conversation as copilot's own record of it, which it reads when it resumes a session."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from runners.messages import ChatMessage, ImagePart
from runners.tools import ToolNames
from runners.translator import Event


def seed(session_id: str, messages: list[ChatMessage], cwd: str, model: str, names: ToolNames) -> Iterator[Event]:
    """The record's events, the first one that of the session itself. `names` are those of the tools in it."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    parent: str | None = None
    started = {
        "sessionId": session_id,
        "version": 1,
        "producer": "copilot-agent",
        "copilotVersion": "",
        "startTime": now,
        "selectedModel": model,
        "context": {"cwd": cwd},
    }
    for kind, data in [
        ("session.start", started),
        *(entry for message in messages for entry in _entries(message, names)),
    ]:
        event_id = str(uuid.uuid4())
        yield {"type": kind, "data": data, "id": event_id, "timestamp": now, "parentId": parent}
        parent = event_id


def _entries(message: ChatMessage, names: ToolNames) -> Iterator[tuple[str, dict[str, Any]]]:
    if message.role == "assistant":
        # Arguments that are a text go to the model as they are.
        calls = [
            {
                "toolCallId": call.id,
                "name": names.theirs(call.name),
                "arguments": call.arguments if call.arguments_raw is None else call.arguments_raw,
                "type": "function",
            }
            for call in message.tool_calls
        ]
        answer = {"messageId": str(uuid.uuid4()), "content": message.text, "toolRequests": calls}
        yield "assistant.message", answer
    elif message.role == "tool":
        # Of a failure the model is told this message alone.
        said = {"error": {"message": message.text}} if message.is_error else {"result": {"content": message.text}}
        done = {"toolCallId": message.tool_call_id, "success": not message.is_error}
        yield "tool.execution_complete", done | said
    else:
        # `transformedContent` is what the model is sent.
        text = {"content": message.text, "transformedContent": message.text}
        yield "user.message", text | attachments(message)


def attachments(message: ChatMessage) -> dict[str, Any]:
    """The images of a message, as the parameter that carries them."""
    images = [
        {"type": "blob", "data": part.data, "mimeType": part.media_type, "displayName": "image"}
        for part in message.parts
        if isinstance(part, ImagePart)
    ]
    return {"attachments": images} if images else {}
