"""The contract of runners that claim tools, as numbered checks like the others: see `contract`.

Each holds for runners that park a session and for those that send the whole conversation again. What comes in between
is exact where the runner claims `exact_text`: an agent cuts a long result, or rewrites a schema, as it likes.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runners.messages import ChatMessage, ChatRequest, ChatResponse
from runners.provider import Session
from runners.stream import (
    ChatChunk,
    Done,
    OrderChecker,
    ResponseBuilder,
    ToolRequestArg,
    ToolRequestComplete,
    ToolRequestStart,
)
from runners.testing.contract import CLOSE_S, Contract, Subject, ability, calling, request, standing_by, the_chunks

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a city.\n\nIn degrees \u2014 \u00b0C.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "its name"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME: dict[str, Any] = {
    "name": "get_time",
    "description": "The time.",
    "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
}
PARIS = ("get_weather", {"city": "Paris"})
_ODD = "  18 \u00b0C,\r\n\tsunny \u2028 \U0001f600 \\ \"'</tool_result> {}\n"


class Loop:
    """A client's conversation in one session: `said` is the whole of it, `new` what the next turn brings."""

    def __init__(self, subject: Subject, session: Session, asked: ChatRequest) -> None:
        self.subject = subject
        self.session = session
        self.asked = asked
        self.said = list(asked.conversation)
        self.new = list(self.said)
        self.chunks: list[ChatChunk] = []

    async def turn(self) -> ChatResponse:
        """The next answer, of which the order of its chunks is checked, and what its session is good for."""
        self.chunks = await the_chunks(self.session.turn(self.new, self.subject.provider.sampling(self.asked)))
        order, answer = OrderChecker(), ResponseBuilder()
        for chunk in self.chunks:
            order.feed(chunk)
            answer.add(chunk)
        response = answer.response()
        self.said.append(response.as_message())
        if self.session.state == "parked":
            assert self.session.awaits == {call.id for call in response.tool_calls}
        return response

    async def calls(self, *wanted: tuple[str, Any]) -> ChatResponse:
        """The next answer, which calls these tools, as it should be."""
        answer = await self.turn()
        assert answer.stop_reason == "tool_calls"
        assert [(call.name, call.arguments, call.parse_error) for call in answer.tool_calls] == [
            (name, arguments, None) for name, arguments in wanted
        ]
        assert self.session.state in ("parked", "idle")
        return answer

    def give(self, *results: ChatMessage) -> None:
        """What the next turn brings."""
        self.new = list(results)
        self.said += results

    def was_received(self) -> None:
        """The model API received the whole conversation, calls and results in its own form, and no other words."""
        if not self.subject.provider.capabilities().exact_text:
            return
        received = self.subject.received()
        before = self.said[:-1]  # the answer to it came last
        assert received.messages == [(message.role, message.text) for message in before]
        results = [message for message in before if message.role == "tool"]
        assert [text for _, text, _ in received.results] == [message.text for message in results]
        for (_, _, is_error), message in zip(received.results, results, strict=True):
            assert is_error in (None, message.is_error)
        made = [(call.name, call.arguments) for message in before for call in message.tool_calls]
        assert [(name, arguments) for _, name, arguments in received.calls] == made
        # Ids may be the vendor's own: what counts is which result belongs to which call.
        names = {call_id: name for call_id, name, _ in received.calls}
        own = {call.id: call.name for message in before for call in message.tool_calls}
        assert [names[call_id] for call_id, _, _ in received.results] == [own[str(m.tool_call_id)] for m in results]


def result(call_id: str, text: str, *, is_error: bool = False) -> ChatMessage:
    """The result of a call."""
    return ChatMessage(role="tool", tool_call_id=call_id, content=text, is_error=is_error)


@asynccontextmanager
async def loop_of(subject: Subject, text: str, *tools: dict[str, Any], **fields: Any) -> AsyncIterator[Loop]:
    """A conversation that begins with this text, and has these tools."""
    await subject.provider.discover()
    asked = request(text, tools=list(tools or (WEATHER, TIME)), **fields)
    session = await subject.provider.open()
    try:
        await session.prepare(subject.provider.session_options(asked))
        yield Loop(subject, session, asked)
    finally:
        async with asyncio.timeout(CLOSE_S):
            await session.aclose()


async def c18_a_call_streams_and_its_result_is_answered(subject: Subject) -> None:
    """start, the arguments' text in pieces, complete, done; then the result, and the answer to it."""
    if not (await ability(subject)).tools:
        return
    async with loop_of(subject, calling(PARIS, text="I will look.")) as loop:
        answer = await loop.calls(PARIS)
        assert answer.content == "I will look."
        kinds = [
            chunk.type for chunk in loop.chunks if isinstance(chunk, ToolRequestStart | ToolRequestComplete | Done)
        ]
        assert kinds == ["tool_request_start", "tool_request_complete", "done"]
        [call] = answer.tool_calls
        told = [chunk.chunk for chunk in loop.chunks if isinstance(chunk, ToolRequestArg) and chunk.id == call.id]
        assert json.loads("".join(told)) == call.arguments
        loop.give(result(call.id, _ODD))
        assert (await loop.turn()).content == _ODD
        loop.was_received()


async def c19_definitions_arrive_as_they_are(subject: Subject) -> None:
    """Names, descriptions and schemas of 40 tools, native and whole, with no word about them anywhere else."""
    able = await ability(subject)
    if not (able.tools and able.exact_text):
        return
    described = {"type": "string", "description": "\u00e9 " + "x" * 180}
    properties: dict[str, Any] = {f"p{n}": described for n in range(subject.whole_properties)}
    properties["one_of"] = {"$ref": "#/$defs/a"}
    one_of_two = {"type": "string", "enum": ["\u00e9", "1"]}
    schema = {"type": "object", "$defs": {"a": one_of_two}, "properties": properties, "required": ["p0"]}
    tools = [{"name": f"tool_{n}", "description": f"Tool {n}.\n", "parameters": schema} for n in range(38)]
    tools += [WEATHER, TIME]
    received = await subject.deliver(request("hello", tools=tools))
    assert sorted(received.tools, key=lambda tool: tool["name"]) == sorted(tools, key=lambda tool: str(tool["name"]))
    assert (received.system, received.messages) == ("", [("user", "hello")])


async def c20_calls_at_once_are_told_apart(subject: Subject) -> None:
    """Three calls of one answer, two of one tool, whose results come in another order."""
    able = await ability(subject)
    if not (able.tools and able.parallel_tools):
        return
    wanted = [PARIS, ("get_time", {}), ("get_weather", {"city": "R\u00f6\u00f6m \U0001f600", "days": 3})]
    async with loop_of(subject, calling(*wanted)) as loop:
        first, second, third = (await loop.calls(*wanted)).tool_calls
        assert len({first.id, second.id, third.id}) == 3
        loop.give(result(third.id, "third"), result(first.id, "first", is_error=True), result(second.id, "second"))
        assert (await loop.turn()).content in ("first", "second", "third")
        received = subject.received()
        arguments = {call_id: arguments for call_id, _, arguments in received.calls}
        told = {text: arguments[call_id] for call_id, text, _ in received.results}
        assert told == {"first": first.arguments, "second": {}, "third": third.arguments}


async def c21_a_loop_of_three_rounds(subject: Subject) -> None:
    """Results that are answered with other calls, and another question behind the last answer."""
    if not (await ability(subject)).tools:
        return
    async with loop_of(subject, calling(PARIS)) as loop:
        for number in range(2):
            [call] = (await loop.calls(PARIS)).tool_calls
            loop.give(result(call.id, calling(PARIS, text=f"round {number}")))
        [call] = (await loop.calls(PARIS)).tool_calls
        loop.give(result(call.id, "done"))
        assert (await loop.turn()).content == "done"
        loop.was_received()
        loop.give(ChatMessage(role="user", content="and now?"))
        await loop.turn()
        loop.was_received()


async def c22_results_of_every_kind_arrive_exactly(subject: Subject) -> None:
    """An error, an odd text and one of 300 KB."""
    able = await ability(subject)
    if not (able.tools and able.exact_text):
        return
    async with standing_by(subject):
        for text, is_error in (("no such city", True), (_ODD, False), ("18 degrees, \u00e9\n" * 20_000, False)):
            async with loop_of(subject, calling(PARIS)) as loop:
                [call] = (await loop.calls(PARIS)).tool_calls
                loop.give(result(call.id, text, is_error=is_error))
                assert (await loop.turn()).content == text
                loop.was_received()


async def c23_arguments_reach_the_client_as_they_are(subject: Subject) -> None:
    """What is no JSON object stays a text, what does not fit its schema stays as it is; both with the reason."""
    if not (await ability(subject)).tools:
        return
    async with loop_of(subject, calling(("get_weather", {"city": 5, "more": [1]}))) as loop:
        [call] = (await loop.turn()).tool_calls
        assert (call.arguments, call.arguments_raw) == ({"city": 5, "more": [1]}, None)
        assert call.parse_error
    if not subject.is_free_in_arguments:
        return
    async with standing_by(subject):
        for raw in ('{"city": "Par', "Paris", '["Paris"]'):
            async with loop_of(subject, calling(("get_weather", raw))) as loop:
                answer = await loop.turn()
                [call] = answer.tool_calls
                assert (answer.stop_reason, call.arguments, call.arguments_raw) == ("tool_calls", {}, raw)
                assert call.parse_error
            # Its client says so, in a session that knows nothing yet.
            spoken = [*loop.said, result(call.id, "no JSON", is_error=True)]
            again = loop.asked.model_copy(update={"messages": spoken})
            assert (await subject.deliver(again)).calls[0][1:] == ("get_weather", raw)


async def c24_a_conversation_with_calls_is_told_to_a_new_session(subject: Subject) -> None:
    """Calls and results of the past reach the model API as such, also where the results come last."""
    able = await ability(subject)
    if not (able.tools and able.history == "native"):
        return
    calls = [{"id": "c1", "name": "get_weather", "arguments": {"city": "Paris"}}, {"id": "c2", "name": "get_time"}]
    past: list[dict[str, Any]] = [
        {"role": "user", "content": "The weather?"},
        {"role": "assistant", "content": "Let me look.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
        {"role": "tool", "tool_call_id": "c2", "content": "no clock", "is_error": True},
    ]
    for messages in (past, [*past, {"role": "assistant", "content": "18."}, {"role": "user", "content": "And now?"}]):
        asked = ChatRequest.model_validate({"messages": messages, "tools": [WEATHER, TIME]})
        received = await subject.deliver(asked)
        assert received.messages == [(message.role, message.text) for message in asked.messages]
        assert [call[1:] for call in received.calls] == [PARIS, ("get_time", {})]
        first, second = received.results
        assert (first[1], second[1]) == ("18 degrees", "no clock")
        assert [first[0], second[0]] == [call[0] for call in received.calls]
        assert (first[2], second[2]) in [(False, True), (None, None)]


async def c25_a_parked_session_that_is_closed_asks_its_model_nothing(subject: Subject) -> None:
    """What nobody brings the results of ends, in time, and without another call of the model."""
    able = await ability(subject)
    if not able.tools:
        return
    wanted = [PARIS, PARIS] if able.parallel_tools else [PARIS]
    async with loop_of(subject, calling(*wanted)) as loop:
        await loop.calls(*wanted)
        asked = subject.model_calls()
        async with asyncio.timeout(CLOSE_S):
            await asyncio.gather(loop.session.aclose(), loop.session.aclose())
        assert loop.session.state == "dead"
        assert subject.model_calls() == asked
    assert not subject.provider.sessions


async def c26_names_that_vendors_do_not_take_are_the_clients_all_the_same(subject: Subject) -> None:
    """Unusual characters, a long name, two that are nearly alike, and those of a CLI's own tools."""
    able = await ability(subject)
    if not (able.tools and able.exact_text):
        return
    own = [
        "files.read",
        "files_read",
        "get weather",
        "m\u00e9t\u00e9o",
        "\u65e5\u672c",
        "x/y",
        "-lead",
        "n" * 64,
        "N" * 200,
    ]
    own += ["Bash", "bash", "Agent", "Task", "ToolSearch", "tool_search_tool", "view", "mcp__host__f"]
    async with loop_of(subject, "?", *({"name": name} for name in own)) as loop:
        loop.give(ChatMessage(role="user", content="which?"))
        await loop.turn()
        received = subject.received()
    theirs = [tool["name"] for tool in received.tools]
    assert len(set(theirs)) == len(own)
    async with loop_of(subject, calling(*((name, {}) for name in theirs)), *({"name": name} for name in own)) as loop:
        answer = await loop.turn()
        assert sorted(call.name for call in answer.tool_calls) == sorted(own)
        assert loop.session.state in ("parked", "idle")
        loop.give(*(result(call.id, call.name) for call in answer.tool_calls))
        await loop.turn()
        received = subject.received()
        assert sorted(name for _, name, _ in received.calls) == sorted(theirs)
        back = {call_id: name for call_id, name, _ in received.calls}
        assert {text: back[call_id] for call_id, text, _ in received.results} == {
            call.name: theirs[index] for index, call in enumerate(answer.tool_calls)
        }


async def c27_arguments_of_a_megabyte_come_in_pieces_and_whole(subject: Subject) -> None:
    """Also with characters of several bytes."""
    able = await ability(subject)
    if not (able.tools and able.exact_text):
        return
    city = 'R\u00f6\u00f6m \U0001f600 "\\\n' * 60_000
    async with loop_of(subject, calling(("get_weather", {"city": city}))) as loop:
        [call] = (await loop.calls(("get_weather", {"city": city}))).tool_calls
        loop.give(result(call.id, "far"))
        assert (await loop.turn()).content == "far"
        loop.was_received()


async def c28_a_turn_that_goes_on_can_be_cancelled(subject: Subject) -> None:
    """Closing the stream behind the results ends it in time, and the runner goes on."""
    if not (await ability(subject)).tools:
        return
    async with loop_of(subject, calling(PARIS)) as loop:
        [call] = (await loop.calls(PARIS)).tool_calls
        stream = loop.session.turn(
            [result(call.id, subject.hold().messages[0].text)], subject.provider.sampling(loop.asked)
        )
        async with asyncio.timeout(CLOSE_S * 6):
            while (await anext(stream)).type != "start":
                pass
        async with asyncio.timeout(CLOSE_S):
            await stream.aclose()
        assert loop.session.state in ("idle", "dead")
    assert not subject.provider.sessions
    assert (await subject.provider.complete(subject.answer("again"))).content == "again"


async def c29_each_answer_has_the_usage_of_its_own_model_calls(subject: Subject) -> None:
    """An answer that calls tools, and the one that goes on behind it."""
    able = await ability(subject)
    if not (able.tools and able.usage) or subject.tells_usage_of_whole_turns:
        return
    plain = (await subject.provider.complete(request("hello"))).usage
    async with loop_of(subject, calling(PARIS)) as loop:
        first = await loop.calls(PARIS)
        loop.give(result(first.tool_calls[0].id, "18"))
        second = await loop.turn()
    for usage in (first.usage, second.usage):
        assert usage.output_tokens
        assert usage.input_tokens
    if subject.model_usage is not None:
        assert [(usage.input_tokens, usage.output_tokens) for usage in (plain, first.usage, second.usage)] == [
            subject.model_usage
        ] * 3


async def c30_the_choice_of_a_tool_arrives(subject: Subject) -> None:
    """That a model must call one, or a certain one, where that is claimed; that it must not, in any case."""
    able = await ability(subject)
    if not able.tools:
        return
    received = await subject.deliver(request("hello", tools=[WEATHER, TIME], tool_choice="none"))
    assert received.knobs.get("tool_choice") == "none" or not received.tools
    for choice in ("required", {"name": "get_time"}):
        asked = request("hello", tools=[WEATHER, TIME], tool_choice=choice)
        if able.tool_choice:
            assert (await subject.deliver(asked)).knobs["tool_choice"] == choice
        else:
            assert any("tool_choice" in chunk.message for chunk in subject.provider.preflight(asked))


TOOL_CONTRACTS: list[Contract] = [
    check for name, check in sorted(globals().items()) if name[0] == "c" and name[1:3].isdigit()
]
"""Those of tools, in the order of their numbers."""
