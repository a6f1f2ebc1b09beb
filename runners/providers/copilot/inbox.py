"""What a session of copilot's server tells, between the server and the client that reads it."""

import asyncio

from runners.inbox import JOINED_CHARACTERS, Inbox
from runners.translator import Event

_DELTAS = ("assistant.message_delta", "assistant.reasoning_delta")


class CopilotInbox(Inbox):
    """The events of a turn, see Inbox: each once, and each delta with its place in the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()
        self._seen_before: set[str] = set()
        self._size: int | None = None
        self._calls: dict[str, str] = {}
        self.is_idle = asyncio.Event()
        """The CLI's session is at rest, or gone."""
        self.is_idle.set()

    def begin(self) -> None:
        """See Inbox.begin."""
        super().begin()
        self._seen, self._seen_before = set(), self._seen
        self._size = None
        self.is_idle.clear()

    def put(self, event: Event) -> None:
        """See Inbox.put."""
        # 1.0.102 tells some events of a fast answer twice, the second time behind its end.
        event_id = event.get("id")
        if event_id in self._seen or event_id in self._seen_before:
            return
        if event_id is not None:
            self._seen.add(event_id)
        if event.get("type") == "session.idle":
            self.is_idle.set()
        data = event.get("data")
        if event.get("type") == "external_tool.requested" and isinstance(data, dict):
            # Comes behind the end of its turn, as far as a client knows.
            self._calls[str(data.get("toolCallId"))] = str(data.get("requestId"))
            self._changed.set()
            return
        if self._error is not None or not self.is_open:
            return
        if event.get("type") == "assistant.streaming_delta" and isinstance(data, dict):
            # Stands before each delta: how long the answer is with it, which says where it belongs.
            self._size = data.get("totalResponseSizeBytes")
            if self._events:
                return
        elif event.get("type") == "model.call_start":
            self._size = None
        if event.get("type") in _DELTAS and isinstance(data, dict):
            event = event | {"data": data | {"size": self._size}}
        super().put(event)

    async def request_of(self, call_id: str) -> str:
        """The id under which the CLI asks for a tool call of its model's, as soon as it does."""
        while call_id not in self._calls:
            await self.change()
        return self._calls.pop(call_id)

    def joined(self, last: Event, event: Event) -> bool:
        """See Inbox.joined."""
        if event.get("type") not in _DELTAS or last.get("type") != event["type"]:
            return False
        before, new = last.get("data"), event.get("data")
        if not isinstance(before, dict) or not isinstance(new, dict):
            return False
        pieces = (before.get("deltaContent"), new.get("deltaContent"))
        same = all(before.get(name) == new.get(name) for name in ("messageId", "reasoningId"))
        if not same or not isinstance(pieces[0], str) or not isinstance(pieces[1], str):
            return False
        if len(pieces[0]) > JOINED_CHARACTERS:
            return False  # joining long texts again and again would cost more than keeping them
        sizes = (before.get("size"), new.get("size"))
        if isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] + size_of(pieces[1]) != sizes[1]:
            return False  # something is missing between them
        before["size"] = sizes[1]
        before["deltaContent"] = pieces[0] + pieces[1]
        return True


def size_of(text: str) -> int:
    """Its length as the CLI counts it."""
    return len(text.encode("utf-8", "surrogatepass"))
