"""One prompt: the chats that it takes, what the editor sees of them, and what the conversation keeps."""

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from acp import Client, start_tool_call, text_block, update_agent_message_text, update_tool_call
from acp.schema import AgentThoughtChunk, Cost, PromptResponse, StopReason, Usage, UsageUpdate

from daemon.acp.content import Update, message, shown_id
from daemon.acp.hands import Hands, shown
from daemon.acp.models import Choices
from daemon.acp.store import Conversation
from daemon.acp.uses import Daemon

_MOST_ANSWERS = 100
_STOP_REASONS: dict[str, StopReason] = {"length": "max_tokens", "content_filter": "refusal", "cancelled": "cancelled"}
_CANCELLED = "The user cancelled the turn before this was done."


@dataclass
class _Answer:
    """What a chat has said so far. `number` is that of its entry."""

    number: int
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    runner: str = ""
    model: str = ""
    stop_reason: str | None = None

    def entry(self) -> dict[str, Any] | None:
        """The answer as it is kept: calls that nobody is going to make are no part of it. None when it is empty."""
        calls = self.calls if self.stop_reason == "tool_calls" else []
        if not calls and not self.texts:
            return None
        text, thoughts = "".join(self.texts), "".join(self.thoughts)
        return {"role": "assistant", "content": text, "reasoning": thoughts, "tool_calls": calls}


class Turn:
    """Answers the prompt that a conversation ends with.

    A model that calls tools is asked again with their results, until it is done. Each piece is shown as it comes; what
    was said is in the conversation behind every chat, also behind one that fails or is cancelled.
    """

    def __init__(
        self, editor: Client, daemon: Daemon, conversation: Conversation, choices: Choices, hands: Hands
    ) -> None:
        self._editor = editor
        self._daemon = daemon
        self._conversation = conversation
        self._choices = choices
        self._hands = hands
        self._usages: list[dict[str, Any]] = []

    async def run(self) -> PromptResponse:
        """The whole turn, and how it ended; CallError or another DaemonError when a chat fails."""
        who = (await self._daemon.call(("resolve", {"model": self._conversation.model})))[0]
        able = who["capabilities"] is None or who["capabilities"]["tools"]
        tools = self._hands.tools if able else []
        for _ in range(_MOST_ANSWERS):
            answer = await self._answer(tools, who["model"])
            if answer.stop_reason != "tool_calls":
                stop = _STOP_REASONS.get(answer.stop_reason or "", "end_turn")
                return PromptResponse(stop_reason=stop, usage=_sum(self._usages))
            await self._work(answer)
        return PromptResponse(stop_reason="max_turn_requests", usage=_sum(self._usages))

    async def _answer(self, tools: list[dict[str, Any]], asked_model: str | None) -> _Answer:
        entries = self._conversation.entries
        answer = _Answer(len(entries))
        request = {
            "model": self._conversation.model,
            "reasoning_effort": self._conversation.effort,
            "messages": [message(entry) for entry in entries],
            "tools": tools,
        }
        try:
            async with aclosing(self._daemon.chat(request)) as chunks:
                async for chunk in chunks:
                    await self._take(chunk, answer, asked_model)
        finally:
            if (entry := answer.entry()) is not None:
                entries.append(entry)
        return answer

    async def _take(self, chunk: dict[str, Any], answer: _Answer, asked_model: str | None) -> None:
        match chunk["type"]:
            case "start":
                answer.runner, answer.model = chunk["runner"], chunk["model"]
            case "text":
                answer.texts.append(chunk["chunk"])
                await self._show(update_agent_message_text(chunk["chunk"]))
            case "reasoning":
                answer.thoughts.append(chunk["chunk"])
                await self._show(_thought(chunk["chunk"]))
            case "warning":
                await self._show(_thought(f"[{chunk['message']}]\n\n", warning=chunk["message"]))
            case "retrying":
                await self._show(_thought(f"[{chunk['error']}, trying again]\n\n", warning=chunk["error"]))
            case "tool_request_start":
                name, kind, _ = shown(chunk["name"], {}, self._conversation.cwd)
                call_id = shown_id(answer.number, chunk["id"])
                await self._show(start_tool_call(call_id, name, kind=kind, status="pending"))
            case "tool_request_complete":
                answer.calls.append(chunk["tool_call"])
                await self._show_call(answer.number, chunk["tool_call"])
            case "usage":
                self._usages.append(chunk["usage"])
                await self._show_usage(chunk["usage"], self._choices.window(answer.runner, answer.model, asked_model))
            case "done":
                answer.stop_reason = chunk["stop_reason"]

    async def _work(self, answer: _Answer) -> None:
        """Makes the calls of an answer, one behind the other. Each has a result when this ends, however it ends."""
        undone = [call["id"] for call in answer.calls]
        try:
            for call in answer.calls:
                text, is_error = await self._hands.do(call, shown_id(answer.number, call["id"]))
                self._keep_result(undone.pop(0), text, is_error=is_error)
        finally:
            for call_id in undone:
                self._keep_result(call_id, _CANCELLED, is_error=True)

    def _keep_result(self, call_id: str, text: str, *, is_error: bool) -> None:
        result = {"role": "tool", "tool_call_id": call_id, "content": text, "is_error": is_error}
        self._conversation.entries.append(result)

    async def _show_call(self, number: int, call: dict[str, Any]) -> None:
        title, kind, locations = shown(call["name"], call["arguments"], self._conversation.cwd)
        given = call["arguments"] if call["arguments_raw"] is None else call["arguments_raw"]
        call_id = shown_id(number, call["id"])
        await self._show(update_tool_call(call_id, title=title, kind=kind, locations=locations, raw_input=given))

    async def _show_usage(self, usage: dict[str, Any], window: int | None) -> None:
        self._conversation.cost_usd += usage["cost_usd"] or 0
        if window and usage["input_tokens"] is not None:
            used = usage["input_tokens"] + (usage["output_tokens"] or 0)
            cost = Cost(amount=self._conversation.cost_usd, currency="USD") if self._conversation.cost_usd else None
            await self._show(UsageUpdate(session_update="usage_update", used=used, size=window, cost=cost))

    async def _show(self, update: Update) -> None:
        await self._editor.session_update(session_id=self._conversation.id, update=update)


def _thought(text: str, **meta: Any) -> AgentThoughtChunk:
    """A piece of thinking; with `meta`, what runnerd has to say.

    For that the protocol has no place of its own, and editors show nobody a `_meta`. Beside the answer, in what they
    show of its making, everybody sees it and no model is sent it.
    """
    told = {"runnerd": meta} if meta else None
    return AgentThoughtChunk(session_update="agent_thought_chunk", content=text_block(text), field_meta=told)


def _sum(usages: list[dict[str, Any]]) -> Usage | None:
    """What the chats of a turn took together; None where one of them did not say.

    The protocol's counts stand beside each other and its total is their sum; some of ours are parts of others.
    """
    if not usages or any(usage["input_tokens"] is None or usage["output_tokens"] is None for usage in usages):
        return None
    read, written, thought, all_in, all_out = (
        sum(usage[name] or 0 for usage in usages)
        for name in (
            "cached_input_tokens",
            "cache_creation_input_tokens",
            "reasoning_tokens",
            "input_tokens",
            "output_tokens",
        )
    )
    return Usage(
        total_tokens=all_in + all_out,
        input_tokens=max(0, all_in - read - written),
        output_tokens=max(0, all_out - thought),
        thought_tokens=thought,
        cached_read_tokens=read,
        cached_write_tokens=written,
    )
