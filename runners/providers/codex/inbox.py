"""What a thread of codex tells, between the process and the client that reads it."""

import asyncio
from typing import Any

from runners.inbox import JOINED_CHARACTERS, Inbox
from runners.translator import Event

_DELTAS = ("item/agentMessage/delta", "item/reasoning/summaryTextDelta", "item/reasoning/textDelta")
# The CLI tells a message back that it was sent, with its images; nobody needs to keep that until it is read.
_ECHOES = {"item/completed": ("agentMessage", "reasoning"), "rawResponseItem/completed": ("function_call",)}


class CodexInbox(Inbox):
    """The events of a turn, see Inbox, without what it tells of the messages that it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.is_idle = asyncio.Event()
        """The thread is at rest, or gone."""
        self.is_idle.set()
        self._turn: Any = None

    def begin(self) -> None:
        """See Inbox.begin."""
        super().begin()
        self.is_idle.clear()

    def put(self, event: Event) -> None:
        """See Inbox.put."""
        params = event["params"]
        if event["type"] == "turn/started":
            self._turn = (params.get("turn") or {}).get("id")
            return
        if event["type"] == "turn/completed":
            self.is_idle.set()
        if params.get("turnId", self._turn) != self._turn:
            return  # what it was told of the past it tells as if it came now
        kept, item = _ECHOES.get(event["type"]), params.get("item")
        if kept is None or (isinstance(item, dict) and item.get("type") in kept):
            super().put(event)

    def joined(self, last: Event, event: Event) -> bool:
        """See Inbox.joined."""
        if event["type"] not in _DELTAS or last["type"] != event["type"]:
            return False
        before, new = last["params"], event["params"]
        pieces: tuple[Any, Any] = (before.get("delta"), new.get("delta"))
        is_same = all(before.get(name) == new.get(name) for name in ("itemId", "summaryIndex", "contentIndex"))
        if not is_same or not all(isinstance(piece, str) for piece in pieces) or len(pieces[0]) > JOINED_CHARACTERS:
            return False
        before["delta"] = pieces[0] + pieces[1]
        return True
