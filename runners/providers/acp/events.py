"""An ACP agent's updates, and the answer to a prompt, as chunks: pure, one translator for each turn, no I/O.

An event is an update with its `sessionUpdate` as `type`, or one of ours: `result` and `failed` for the answer to
`session/prompt`, `called` for a call of the client's tools, `refused` for what else the agent asked us for.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from runners.errors import AuthExpiredError, NotAuthenticatedError, RequestCancelledError
from runners.inbox import JOINED_CHARACTERS, Inbox
from runners.messages import Usage
from runners.providers.acp.dialect import Dialect
from runners.providers.acp.tool_server import is_titled_as_ours, names_of
from runners.providers.acp.usage import added, counted
from runners.stream import ChatChunk, Done, Reasoning, Start, SurrogateJoiner, Text, UsageReport, Warn
from runners.tool_calls import ToolCalls
from runners.tools import ToolDefinition
from runners.translator import Event, Translator

_STOP_REASONS = {"end_turn": "end_turn", "max_tokens": "length", "refusal": "content_filter", "cancelled": "cancelled"}
_CHUNKS = ("agent_message_chunk", "agent_thought_chunk")
_TOOLS = ("tool_call", "tool_call_update")
_NEWEST = ("tool_call_update", "usage_update")
# What an agent's tool reads, writes and prints, again with each update of it.
_WORK = ("content", "locations", "rawInput", "rawOutput")
# Of what an agent is about to do, of its own settings, and of what we have said ourselves.
_NO_PART_OF_AN_ANSWER = (
    *("plan", "plan_update", "plan_removed", "available_commands_update", "current_mode_update"),
    *("config_option_update", "session_info_update", "user_message_chunk"),
)
_TITLE_CHARACTERS = 200


class AcpTranslator(Translator):
    """An agent's updates.

    What it does with tools of its own is no call for the client to make, but nothing to be silent about either: each is
    a warning. Behind a call of the client's `tools` its turn goes on: `used` are the ids of all tools in it so far,
    and whether each is the client's.
    `model` answers; `cost_usd` is what its session has cost so far; `has_usage`: it has said what the turn cost.
    """

    def __init__(
        self,
        runner: str,
        model: str,
        dialect: Dialect | None = None,
        *,
        tools: Sequence[ToolDefinition] = (),
        used: dict[str, bool] | None = None,
    ) -> None:
        super().__init__(runner)
        self.has_usage = False
        self.model = model
        self.cost_usd = self._cost_before_usd = 0.0
        self._dialect = dialect or Dialect()
        self._names = names_of(tools)
        self._offered = {self._names.theirs(tool.name) for tool in tools}
        self._calls = ToolCalls(tools)
        self._started = False
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._used = {} if used is None else used
        self._usage: Usage | None = None
        self._handlers: dict[str, Callable[[Event], Iterator[ChatChunk]]] = {
            "agent_message_chunk": self._message,
            "agent_thought_chunk": self._thought,
            "tool_call": self._tool,
            "tool_call_update": self._tool,
            "called": self._called,
            "usage_update": self._cost,
            "result": self._result,
            "failed": self._failed,
            "refused": self._refused,
            **dict.fromkeys(_NO_PART_OF_AN_ANSWER, _nothing),
        }

    def is_of(self, model: str, cost_usd: float) -> None:
        """The turn is one of a session in which this model answers, and which has cost so much before."""
        self.model = model
        self.cost_usd = self._cost_before_usd = cost_usd

    def has_given_up(self, unread: Sequence[Event]) -> bool:
        """Whether the agent says in these that a call of the client's tools has failed, which nobody has answered."""
        used = dict(self._used)
        for event in unread:
            if event["type"] in _TOOLS:
                is_ours = used.setdefault(str(event.get("toolCallId")), is_titled_as_ours(event, self._offered))
                if is_ours and event.get("status") == "failed":
                    return True
        return False

    def _chunks(self, event: Event) -> Iterator[ChatChunk] | None:
        event = self._dialect.meant(event)
        handler = self._handlers.get(str(event.get("type")))
        return None if handler is None else handler(event)

    def _start(self, message_id: str | None = None) -> Iterator[ChatChunk]:
        if not self._started:
            self._started = True
            yield Start(message_id or f"msg_{uuid.uuid4().hex}", self._runner, self.model)

    def _message(self, event: Event) -> Iterator[ChatChunk]:
        yield from self._start(event.get("messageId"))
        content = event["content"]
        if content["type"] == "text":
            yield from (Text(piece) for piece in [self._text.feed(content["text"])] if piece)
        else:
            yield Warn(f"the agent shows what a chat has no place for: {content['type']}")
        # So qwen-code 0.15.10: behind each call of its model.
        told = (event.get("_meta") or {}).get("usage")
        if isinstance(told, dict) and (usage := counted(told)) is not None:
            self._usage = added(self._usage, usage)

    def _thought(self, event: Event) -> Iterator[ChatChunk]:
        yield from self._start(event.get("messageId"))
        if event["content"]["type"] == "text":
            yield from (Reasoning(piece) for piece in [self._reasoning.feed(event["content"]["text"])] if piece)

    def _tool(self, event: Event) -> Iterator[ChatChunk]:
        if event["toolCallId"] not in self._used:
            self._used[event["toolCallId"]] = is_titled_as_ours(event, self._offered)
            yield from self._start()
            if self._used[event["toolCallId"]]:
                return  # it comes as a call, too
            yield Warn(f"the agent uses a tool of its own: {_titled(event)}")

    def _called(self, event: Event) -> Iterator[ChatChunk]:
        """The agent asks for a tool of the client's. Of several at once each other one comes behind the result."""
        yield from self._start()
        self.ended = self.is_clean = True
        yield from self._flushed()
        arguments = json.dumps(event["arguments"], ensure_ascii=False)
        yield from self._calls.whole(event["id"], self._names.own(event["name"]), arguments)
        self.awaits = self._calls.ids
        if self._usage is not None:
            self.has_usage = True
            yield UsageReport(self._usage)
        yield Done("tool_calls")

    def _flushed(self) -> Iterator[ChatChunk]:
        yield from (Reasoning(piece) for piece in [self._reasoning.flush()] if piece)
        yield from (Text(piece) for piece in [self._text.flush()] if piece)

    def _refused(self, event: Event) -> Iterator[ChatChunk]:
        yield Warn(f"the agent asked for leave, and was refused: {_titled(event)}")

    def _cost(self, event: Event) -> Iterator[ChatChunk]:
        """The cost of the whole session so far."""
        yield from ()
        cost = event.get("cost") or {}
        if cost.get("currency") == "USD":
            self.cost_usd = float(cost["amount"])

    def _result(self, event: Event) -> Iterator[ChatChunk]:
        raw = str(event["stopReason"])
        if raw == "cancelled" and not self._started:
            raise RequestCancelledError("interrupted before the answer began")
        yield from self._start()
        self.ended = True
        # Behind anything else the agent's session may hold another conversation than its client does.
        self.is_clean = raw == "end_turn"
        yield from self._flushed()
        usage = self._dialect.usage(event) or self._usage
        if usage is not None:
            self.has_usage = True
            # An agent that knows no price says 0.
            yield UsageReport(replace(usage, cost_usd=max(self.cost_usd - self._cost_before_usd, 0) or None))
        yield Done(_STOP_REASONS.get(raw, raw), raw)

    def _failed(self, event: Event) -> Iterator[ChatChunk]:
        yield from ()
        error = self._dialect.failure(event["code"], event["message"], event.get("data"))
        if isinstance(error, NotAuthenticatedError | AuthExpiredError):
            error.hint = error.hint or event.get("hint")
        raise error


def _nothing(_event: Event) -> Iterator[ChatChunk]:
    yield from ()


def _titled(event: Event) -> str:
    said = str(event.get("title") or event.get("kind") or "it does not say which")
    return said if len(said) <= _TITLE_CHARACTERS else f"{said[:_TITLE_CHARACTERS]}..."


class AcpInbox(Inbox):
    """The events of a turn, see Inbox: pieces of one message that lie side by side are joined."""

    @property
    def unread(self) -> Sequence[Event]:
        """What has come of it so far and was not read."""
        return tuple(self._events)

    def put(self, event: Event) -> None:
        """See Inbox.put. Nobody needs to keep what goes on inside an agent's own tools until it is read."""
        if event["type"] in _TOOLS:
            event = {name: value for name, value in event.items() if name not in _WORK}
        super().put(event)

    def joined(self, last: Event, event: Event) -> bool:
        """See Inbox.joined. Of what goes on with one tool, or of the cost, the newest is enough."""
        if event["type"] in _NEWEST and last["type"] == event["type"]:
            if last.get("toolCallId") == event.get("toolCallId"):
                last.update((name, value) for name, value in event.items() if value is not None)
                return True
            return False
        if event["type"] not in _CHUNKS or last["type"] != event["type"] or "_meta" in last or "_meta" in event:
            return False
        before, new = last.get("content"), event.get("content")
        if last.get("messageId") != event.get("messageId") or not (_is_text(before) and _is_text(new)):
            return False
        if len(before["text"]) > JOINED_CHARACTERS:
            return False
        before["text"] += new["text"]
        return True


def _is_text(content: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(content, dict) and content.get("type") == "text" and isinstance(content.get("text"), str)
