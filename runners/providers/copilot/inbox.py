"""The events of a CLI's session between the process that tells them and the client that reads them."""

import asyncio
from collections import deque

from runners.errors import RunnerError
from runners.translator import Event

_DELTAS = ("assistant.message_delta", "assistant.reasoning_delta")
_MERGED_CHARACTERS = 4096


class Inbox:
    """The events of the turn that is under way, from `begin` to `end`, until its client reads them.

    Other sessions share the process, so nobody can tell it to wait: deltas that pile up are joined, and what is held is
    no more than the answer itself.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._is_open = False
        self._seen: set[str] = set()
        self._seen_before: set[str] = set()
        self._size: int | None = None
        self._calls: dict[str, str] = {}
        self._error: RunnerError | None = None
        self._changed = asyncio.Event()
        self.is_idle = asyncio.Event()
        """The CLI's session is at rest, or gone."""
        self.is_idle.set()

    def begin(self) -> None:
        """A turn begins now: what was told before is none of its events."""
        self._seen, self._seen_before = set(), self._seen
        self._size = None
        self._events.clear()
        self._is_open = True
        self.is_idle.clear()

    def end(self) -> None:
        """The turn has ended: what is unread of it, and what may still come, is forgotten."""
        self._events.clear()
        self._is_open = False

    def put(self, event: Event) -> None:
        """Takes the next event."""
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
        if self._error is not None or not self._is_open:
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
        last = self._events[-1] if self._events else None
        if last is None or not _joined(last, event):
            self._events.append(event)
        self._changed.set()

    def fail(self, error: RunnerError) -> None:
        """No more events come, for this reason, behind those that are unread; the first reason counts."""
        self._error = self._error or error
        self._changed.set()

    def close(self, error: RunnerError) -> None:
        """The same, and those that are unread are forgotten."""
        self._events.clear()
        self.fail(error)

    async def request_of(self, call_id: str) -> str:
        """The id under which the CLI asks for a tool call of its model's, as soon as it does."""
        while call_id not in self._calls:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._calls.pop(call_id)

    async def get(self) -> Event:
        """The next event; behind the last one the error that ended them."""
        while not self._events:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()


def size_of(text: str) -> int:
    """Its length as the CLI counts it."""
    return len(text.encode("utf-8", "surrogatepass"))


def _joined(last: Event, event: Event) -> bool:
    """Whether `event` is a delta that went into the one before it, which nobody has read yet."""
    if event.get("type") not in _DELTAS or last.get("type") != event["type"]:
        return False
    before, new = last.get("data"), event.get("data")
    if not isinstance(before, dict) or not isinstance(new, dict):
        return False
    pieces = (before.get("deltaContent"), new.get("deltaContent"))
    same = all(before.get(name) == new.get(name) for name in ("messageId", "reasoningId"))
    if not same or not isinstance(pieces[0], str) or not isinstance(pieces[1], str):
        return False
    if len(pieces[0]) > _MERGED_CHARACTERS:
        return False  # joining long texts again and again would cost more than keeping them
    sizes = (before.get("size"), new.get("size"))
    if isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] + size_of(pieces[1]) != sizes[1]:
        return False  # something is missing between them
    before["size"] = sizes[1]
    before["deltaContent"] = pieces[0] + pieces[1]
    return True
