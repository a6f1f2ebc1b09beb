"""What of a request that claude made is ours: its messages and its system prompt less what the CLI adds.

Measured on the pinned versions. The CLI adds the date and, in the new version, its environment: as messages of the role
`system`, or as `<system-reminder>` blocks of a user message, before its text or behind the results of tools. It adds
`cache_control` here and there. Only these known additions are taken away: anything else, a file's content say, stays
and must be explained.
"""

import re
from collections.abc import Callable
from typing import Any

from runners.testing.apis.messages_api import Reply, text
from tests.fakes.fake_claude import digest

Json = dict[str, Any]

AGENT_LINE = "You are a Claude agent, built on Anthropic's Claude Agent SDK."
_DATE = r"Today's date is [\d-]+\."
_CONTEXT = rf"As you answer [^\n]*\n# currentDate\n{_DATE}\n\n +IMPORTANT: [^\n]*"
_ENVIRONMENT = r"# Environment\n[^\n]*(?:\n - [^\n]*)+"
_MODEL = r"You are powered by the model named [^\n]*"
_ADDED = re.compile(rf"(?:(?:{_CONTEXT}|{_ENVIRONMENT}|{_MODEL}|{_DATE})\s*)+")
_REMINDER = re.compile(r"<system-reminder>\n(.*)\n</system-reminder>\s*", re.DOTALL)


def our_messages(body: Json) -> list[Json]:
    """The messages that came from us, in order, every content as a list of blocks."""
    ours = []
    for message in body["messages"]:
        blocks = [block for block in _blocks(message["content"]) if not _is_added(block, message["role"])]
        if blocks:
            ours.append({"role": message["role"], "content": blocks})
    return ours


def our_system(body: Json) -> list[str]:
    """The texts of the system prompt that came from us."""
    return [block["text"] for block in _blocks(body["system"]) if block["text"] != AGENT_LINE]


def newest(body: Json) -> str:
    """The text of our last message."""
    return "".join(block.get("text", "") for block in our_messages(body)[-1]["content"])


def text_of(content: str | list[Json]) -> str:
    """The text of a message's or a result's content."""
    return "".join(block.get("text", "") for block in _blocks(content))


def told(message: Json, text: Callable[[list[Json]], str] = text_of) -> list[tuple[str, str]]:
    """A message of `our_messages` as (role, text): a tool's result is one of the role `tool`, before any text."""
    results = [block for block in message["content"] if block["type"] == "tool_result"]
    others = [block for block in message["content"] if block["type"] != "tool_result"]
    said = [(message["role"], text(others))] if others or not results else []
    return [("tool", text(_blocks(result.get("content") or ""))) for result in results] + said


def said(role: str, *texts: str) -> Json:
    """A message of text blocks, as `our_messages` gives it."""
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def digested(body: Json) -> Reply:
    """For `MessagesApi.answer`: the digest of the system prompt and the messages that came from us."""
    return text(digest("".join(our_system(body)), [one for m in our_messages(body) for one in told(m, _told)]))


def _told(blocks: list[Json]) -> str:
    """Texts, and images' data, in their order. What a model thought is no part of a conversation."""
    parts = (block.get("text") or block.get("source", {}).get("data", "") for block in blocks)
    return "".join(parts)


def _is_added(block: Json, role: str) -> bool:
    text = block.get("text", "")
    if role == "user":
        reminder = _REMINDER.fullmatch(text)
        return reminder is not None and _ADDED.fullmatch(reminder[1]) is not None
    return role == "system" and _ADDED.fullmatch(text) is not None


def _blocks(content: str | list[Json]) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in content]
