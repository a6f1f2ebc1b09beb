"""The past of a conversation as gemini is told it: the record of a session, which it loads. Pure.

Facts are from 0.52.0 and 0.61.0.
"""

import json
from collections.abc import Sequence
from typing import Any

from runners.messages import ChatMessage, TextPart
from runners.providers.acp.sent import GUARD, trimmed
from runners.stream import paired

_DROPPED = ("/", "?", "<session_context>", "<hook_context>")
"""So begins what the CLI leaves out when it loads a session, beside what is white space alone."""
_CONTEXT_ID = "d04923d38bb0f6017037e74183378ef4"
"""The id of the message in which the CLI tells its model of date, system and directories: one that has it is taken to
be that message, and no other is added."""
_LONG_AGO = "2000-01-01T00:00:00.000Z"


def record(session_id: str, past: Sequence[ChatMessage]) -> str:
    """The file of a session that holds these messages: one that the user began."""
    head = {"sessionId": session_id, "projectHash": "0", "startTime": _LONG_AGO, "lastUpdated": _LONG_AGO}
    lines: list[dict[str, Any]] = [head | {"kind": "main"}]
    for number, message in enumerate(past):
        kind = "user" if message.role == "user" else "gemini"
        told = {"id": str(number) if number else _CONTEXT_ID, "timestamp": _LONG_AGO, "type": kind}
        lines.append(told | {"content": _parts(message)})
    return "".join(json.dumps(line) + "\n" for line in lines)


def told_back(past: Sequence[ChatMessage]) -> int:
    """How many of these messages the CLI tells its client when it loads them: those that hold any text."""
    return sum(message.role == "user" or bool(trimmed(message.text)) for message in past)


def _parts(message: ChatMessage) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = [
        {"text": paired(part.text)}
        if isinstance(part, TextPart)
        else {"inlineData": {"mimeType": part.media_type, "data": part.data}}
        for part in message.parts
    ]
    text = trimmed(message.text)
    is_dropped = message.role == "user" and (not text or text.startswith(_DROPPED))
    return [{"text": GUARD}, *told] if is_dropped else told
