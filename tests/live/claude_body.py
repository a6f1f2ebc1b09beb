"""What of a request that claude made is ours: its messages and its system prompt less what the CLI adds.

Measured on the pinned versions. The CLI adds the date and, in the new version, its environment: as messages of the role
`system`, or as `<system-reminder>` blocks at the start of a user message. It adds `cache_control` here and there. Only
these known additions are taken away: anything else, a file's content say, stays and must be explained.
"""

import re
from typing import Any

from tests.fakes.fake_claude import digest
from tests.live.messages_api import Reply, text

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
        blocks = _blocks(message["content"])
        while blocks and _is_added(blocks[0], message["role"]):
            del blocks[0]
        if blocks:
            ours.append({"role": message["role"], "content": blocks})
    return ours


def our_system(body: Json) -> list[str]:
    """The texts of the system prompt that came from us."""
    return [block["text"] for block in _blocks(body["system"]) if block["text"] != AGENT_LINE]


def newest(body: Json) -> str:
    """The text of our last message."""
    return "".join(block.get("text", "") for block in our_messages(body)[-1]["content"])


def said(role: str, *texts: str) -> Json:
    """A message of text blocks, as `our_messages` gives it."""
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def digested(body: Json) -> Reply:
    """For `MessagesApi.answer`: the digest of the system prompt and the messages that came from us."""
    return text(digest("".join(our_system(body)), [(m["role"], _told(m["content"])) for m in our_messages(body)]))


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
