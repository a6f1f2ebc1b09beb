"""A conversation in the words of both sides: entries as they are kept, messages for the daemon, updates for the editor.

An entry is a message of the daemon's form, but the user's holds the blocks that the editor has sent: it is told them
again, as they were, when the session is loaded. Pure.
"""

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

from acp import RequestError, text_block, tool_content, update_agent_message_text, update_agent_thought_text
from acp.schema import (
    AgentMessageChunk,
    AgentThoughtChunk,
    ToolCallProgress,
    ToolCallStart,
    UsageUpdate,
    UserMessageChunk,
)
from pydantic import BaseModel

from daemon.acp.hands import shown

Update = AgentMessageChunk | AgentThoughtChunk | ToolCallProgress | ToolCallStart | UsageUpdate | UserMessageChunk


def user_entry(blocks: list[Any]) -> dict[str, Any]:
    """What a user has said; RequestError where no model can be told it."""
    entry = {"role": "user", "blocks": [_plain(block) for block in blocks]}
    message(entry)
    return entry


def title(entry: dict[str, Any]) -> str:
    """What a list of sessions shows of one that begins so: its first line of text."""
    texts = " ".join(block["text"] for block in entry["blocks"] if block["type"] == "text").split("\n")
    return next((line.strip()[:100] for line in texts if line.strip()), "(no text)")


def message(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as the daemon takes it."""
    if entry["role"] != "user":
        return entry
    return {"role": "user", "content": [_part(block) for block in entry["blocks"]]}


def replayed(entries: list[dict[str, Any]], cwd: str) -> Iterator[Update]:
    """A whole conversation, as the editor was told it. Of what is damaged: KeyError, TypeError or ValueError."""
    results = dict(_results(entries))
    for number, entry in enumerate(entries):
        match entry["role"]:
            case "user":
                for block in entry["blocks"]:
                    yield UserMessageChunk.model_validate({"sessionUpdate": "user_message_chunk", "content": block})
            case "assistant":
                if entry["reasoning"]:
                    yield update_agent_thought_text(entry["reasoning"])
                if entry["content"]:
                    yield update_agent_message_text(entry["content"])
                for call in entry["tool_calls"]:
                    call_id = shown_id(number, call["id"])
                    yield _replayed_call(call, call_id, results[call_id], cwd)


def shown_id(number: int, call_id: str) -> str:
    """The id of a call of the entry of that number: a vendor's own may come again in a later answer."""
    return f"{number}.{call_id}"


def _results(entries: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    answer = 0
    for number, entry in enumerate(entries):
        if entry["role"] == "assistant":
            answer = number
        elif entry["role"] == "tool":
            yield shown_id(answer, entry["tool_call_id"]), entry


def _replayed_call(call: dict[str, Any], call_id: str, result: dict[str, Any], cwd: str) -> ToolCallStart:
    name, kind, locations = shown(call["name"], call["arguments"], cwd)
    return ToolCallStart(
        session_update="tool_call",
        tool_call_id=call_id,
        title=name,
        kind=kind,
        status="failed" if result["is_error"] else "completed",
        locations=locations,
        raw_input=call["arguments"],
        content=[tool_content(text_block(result["content"]))],
    )


def _plain(block: BaseModel) -> dict[str, Any]:
    return block.model_dump(mode="json", by_alias=True, exclude_none=True)


def _part(block: dict[str, Any]) -> dict[str, Any]:
    match block:
        case {"type": "text", "text": text}:
            return {"type": "text", "text": text}
        case {"type": "image", "data": data, "mimeType": media_type}:
            return {"type": "image", "media_type": media_type, "data": data}
        case {"type": "resource_link", "uri": uri, "name": name}:
            return {"type": "text", "text": f"<resource_link uri={quoteattr(uri)} name={quoteattr(name)}/>"}
        case {"type": "resource", "resource": {"uri": uri, "text": text}}:
            return {"type": "text", "text": f"<resource uri={quoteattr(uri)}>\n{text}\n</resource>"}
        case {"type": "resource", "resource": {"blob": data, "mimeType": media_type}} if media_type.startswith(
            "image/"
        ):
            return {"type": "image", "media_type": media_type, "data": data}
        case {"type": "resource", "resource": {"uri": uri}}:
            raise RequestError(-32602, f"{uri} is neither text nor an image: no model here takes it")
    raise RequestError(-32602, f"no model here takes content of the type {block['type']!r}: send text or images")
