"""The chats that are recorded: what is asked, what the model answers, and what must come of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from reprlib import repr as short
from typing import Any

from runners.capabilities import Capabilities
from runners.messages import ChatResponse
from runners.testing.apis.stand_in import BaseError, BaseReply
from runners.testing.recording.answers import Api

_TOOL = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_PARIS = '{"city": "Paris"}'
_ROME = '{"city": "Rome"}'
_PIECES = tuple(f"Word number {number}. " for number in range(40))


@dataclass(frozen=True)
class Step:
    """One turn: how the model answers the CLI's requests, one after the other, and what is then told to the client.

    The results of `calls` are what the next step sends. With `may_fail` a failure is as good as the answer.
    """

    replies: Callable[[Api], Sequence[BaseReply | BaseError]]
    text: str = ""
    reasoning: str | None = None
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    stop_reason: str = "end_turn"
    may_fail: bool = False

    def _reasoning_of(self, answer: ChatResponse) -> str | None:
        # Gemini puts a heading before it.
        is_told = self.reasoning is not None and self.reasoning in (answer.reasoning or "")
        return self.reasoning if is_told else answer.reasoning

    def _lacks_usage(self, answer: ChatResponse) -> bool:
        # Codex tells none of an answer that was cut.
        return self.stop_reason != "length" and answer.usage.output_tokens is None

    def problem_of(self, answer: ChatResponse) -> str | None:
        """What of an answer is not as the model gave it; its counts are not compared, but must be there."""
        given = {
            "text": (self.text, answer.content),
            "reasoning": (self.reasoning, self._reasoning_of(answer)),
            "tool calls": (list(self.calls), [(call.name, call.arguments) for call in answer.tool_calls]),
            "stop reason": (self.stop_reason, answer.stop_reason),
            "usage": ("told", "not told" if self._lacks_usage(answer) else "told"),
        }
        wrong = [(what, short(got), short(want)) for what, (want, got) in given.items() if want != got]
        return "; ".join(f"{what}: {got} in place of {want}" for what, got, want in wrong) or None


@dataclass(frozen=True)
class Scenario:
    """A chat: its name, what its request has beside the text, and its turns. `needs` is what its runner must claim."""

    name: str
    steps: tuple[Step, ...]
    fields: dict[str, Any] = field(default_factory=dict)
    needs: Callable[[Capabilities], bool] = lambda _: True


_TOOLS: dict[str, Any] = {"tools": [_TOOL]}
_THANKS = Step(lambda api: [api.text("It is ", "warm.")], text="It is warm.")

CUT = "an answer that is cut"

SCENARIOS = (
    Scenario("a short text", (Step(lambda api: [api.text("Hello.")], text="Hello."),)),
    Scenario("a long text", (Step(lambda api: [api.text(*_PIECES)], text="".join(_PIECES)),)),
    Scenario(
        "reasoning",
        (Step(lambda api: [api.thought("Let me think.", "42")], text="42", reasoning="Let me think."),),
        {"reasoning_effort": "low"},
        needs=lambda able: able.reasoning,
    ),
    Scenario(
        "a tool call and its result",
        (
            Step(
                lambda api: [api.calls(("get_weather", _PARIS), text="I look.")],
                text="I look.",
                calls=(("get_weather", {"city": "Paris"}),),
                stop_reason="tool_calls",
            ),
            _THANKS,
        ),
        _TOOLS,
        needs=lambda able: able.tools,
    ),
    Scenario(
        "parallel tool calls",
        (
            Step(
                lambda api: [api.calls(("get_weather", _PARIS), ("get_weather", _ROME))],
                calls=(("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})),
                stop_reason="tool_calls",
            ),
            _THANKS,
        ),
        _TOOLS,
        needs=lambda able: able.tools and able.parallel_tools,
    ),
    Scenario(CUT, (Step(lambda api: [api.cut("Once")], text="Once", stop_reason="length"),)),
    Scenario("a request that is refused", (Step(lambda api: [api.refused] * 9, may_fail=True),)),
    Scenario("a model that is busy", (Step(lambda api: [api.busy, api.text("Back.")], text="Back.", may_fail=True),)),
)
