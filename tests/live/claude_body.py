"""What of a request that claude made is ours: its messages and its system prompt less what the CLI adds.

Measured on the pinned versions. The CLI adds the date and, in the new version, its environment: as messages of the role
`system`, or as `<system-reminder>` blocks at the start of a user message. It adds `cache_control` here and there.
"""

import re
from typing import Any

Json = dict[str, Any]

_REMINDER = re.compile(r"<system-reminder>\n.*</system-reminder>\s*", re.DOTALL)
AGENT_LINE = "You are a Claude agent, built on Anthropic's Claude Agent SDK."


def our_messages(body: Json) -> list[Json]:
    """The messages that came from us, in order, every content as a list of blocks."""
    ours = []
    for message in body["messages"]:
        blocks = _blocks(message["content"])
        if message["role"] == "user":
            while blocks and _REMINDER.fullmatch(blocks[0].get("text", "")):
                del blocks[0]
        if blocks and message["role"] != "system":
            ours.append({"role": message["role"], "content": blocks})
    return ours


def our_system(body: Json) -> list[str]:
    """The texts of the system prompt that came from us."""
    return [block["text"] for block in _blocks(body["system"]) if block["text"] != AGENT_LINE]


def newest(body: Json) -> list[Json]:
    """The content blocks of our last message."""
    blocks = our_messages(body)[-1]["content"]
    assert isinstance(blocks, list)
    return blocks


def said(role: str, *texts: str) -> Json:
    """A message of text blocks, as `our_messages` gives it."""
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


def _blocks(content: str | list[Json]) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in content]
