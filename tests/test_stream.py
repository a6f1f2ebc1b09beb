"""Chunks: their order, their fold, the stream's manners, and mended characters."""

from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.errors import NetworkError, ProtocolError, RunnerError
from runners.messages import Usage
from runners.stream import (
    ChatChunk,
    ChatStream,
    Done,
    Failed,
    OrderChecker,
    Reasoning,
    Retrying,
    Start,
    SurrogateJoiner,
    Text,
    ToolRequestArg,
    ToolRequestComplete,
    ToolRequestStart,
    UsageReport,
    Warn,
    fold,
)
from runners.tools import ToolCall

START = Start("m1", "r", "model")
CALL = ToolCall(id="c1", name="f", arguments={"a": 1})
TOOLS: list[ChatChunk] = [ToolRequestStart("c1", "f"), ToolRequestArg("c1", '{"a":1}'), ToolRequestComplete(CALL)]
RETRY = Retrying(attempt=1, max_attempts=2, delay_s=0.1, error="network")
USAGE = UsageReport(Usage(1))
DONE = Done("end_turn")
FAILED = Failed(NetworkError("gone"))


@pytest.mark.parametrize(
    "chunks",
    [
        [START, DONE],
        [Warn("w"), RETRY, Warn("w"), START, Text("a"), Warn("w"), Reasoning("b"), *TOOLS, USAGE, Warn("w"), DONE],
        [START, Text("a"), FAILED],
        [START, TOOLS[0], FAILED],
        [START, USAGE, FAILED],
    ],
)
def test_these_orders_are_right(chunks: list[ChatChunk]) -> None:
    order = OrderChecker()
    for chunk in chunks:
        order.feed(chunk)
    assert order.ended


@pytest.mark.parametrize(
    "chunks",
    [
        [Text("a")],
        [DONE],
        [FAILED],
        [START, START],
        [START, RETRY],
        [START, USAGE, Text("a")],
        [START, USAGE, USAGE],
        [START, TOOLS[1]],
        [START, TOOLS[2]],
        [START, TOOLS[0], DONE],
        [START, *TOOLS, TOOLS[1]],
        [START, DONE, Warn("w")],
        [START, FAILED, DONE],
    ],
)
def test_these_orders_are_wrong_and_only_with_their_last_chunk(chunks: list[ChatChunk]) -> None:
    order = OrderChecker()
    for chunk in chunks[:-1]:
        order.feed(chunk)
    with pytest.raises(ProtocolError):
        order.feed(chunks[-1])


class Source:
    """A stream's source that knows whether it was closed."""

    def __init__(self, *steps: ChatChunk | Exception) -> None:
        self.steps = steps
        self.closed = False

    async def chunks(self) -> AsyncGenerator[ChatChunk, None]:
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.closed = True

    def stream(self) -> ChatStream:
        return ChatStream(self.chunks(), runner="r")


async def test_a_failure_before_start_raises_and_names_its_runner() -> None:
    with pytest.raises(NetworkError) as caught:
        await anext(Source(NetworkError("no")).stream())
    assert caught.value.runner == "r"


async def test_a_failure_behind_start_is_the_last_chunk() -> None:
    chunks = [chunk async for chunk in Source(START, Text("a"), NetworkError("no")).stream()]
    assert chunks[:2] == [START, Text("a")]
    assert isinstance(chunks[2], Failed)
    assert (chunks[2].error.kind, len(chunks)) == ("network", 3)


@pytest.mark.parametrize("steps", [(), (START,), (START, Text("a"))])
async def test_a_source_that_ends_without_an_end_is_a_protocol_error(steps: tuple[ChatChunk, ...]) -> None:
    with pytest.raises(ProtocolError):
        await fold(Source(*steps).stream())


async def test_a_source_out_of_order_is_a_protocol_error_of_the_stream() -> None:
    chunks = [chunk async for chunk in Source(START, START, DONE).stream()]
    assert isinstance(chunks[-1], Failed)
    assert chunks[-1].error.kind == "protocol"


async def test_a_bug_in_a_source_is_not_taken_for_a_vendors_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        await fold(Source(START, ZeroDivisionError()).stream())


async def test_the_source_is_cleaned_up_before_its_reader_sees_the_end() -> None:
    source = Source(START, DONE)
    async for chunk in source.stream():
        assert source.closed == (chunk is DONE)


async def test_closing_a_stream_closes_its_source_and_ends_it() -> None:
    source = Source(START, Text("a"), DONE)
    async with source.stream() as stream:
        assert await anext(stream) == START
    assert source.closed
    assert [chunk async for chunk in stream] == []


async def test_the_fold_joins_what_came() -> None:
    source = Source(
        Warn("w"), START, Reasoning("t"), Text("a"), Text("b"), *TOOLS, USAGE, Done("tool_calls", "tool_use")
    )
    response = await fold(source.stream())
    assert (response.id, response.runner, response.model) == ("m1", "r", "model")
    assert (response.content, response.reasoning, response.tool_calls) == ("ab", "t", [CALL])
    assert (response.stop_reason, response.usage, response.warnings) == ("tool_calls", Usage(1), ["w"])


async def test_the_fold_of_a_failed_stream_raises_its_error() -> None:
    with pytest.raises(RunnerError) as caught:
        await fold(Source(START, Text("a"), NetworkError("no")).stream())
    assert caught.value.kind == "network"


@given(st.text(), st.lists(st.integers(0, 40)))
def test_text_cut_between_surrogates_comes_out_whole(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    halves = [units[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2)]
    joiner, out = SurrogateJoiner(), ""
    for size in cuts:
        out += joiner.feed("".join(halves[:size]))
        del halves[:size]
    out += joiner.feed("".join(halves)) + joiner.flush()
    assert out == text


@given(st.lists(st.text(st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010))))
def test_what_comes_out_can_always_be_encoded_and_ordinary_characters_stay(pieces: list[str]) -> None:
    joiner = SurrogateJoiner()
    out = "".join(joiner.feed(piece) for piece in pieces) + joiner.flush()
    out.encode()
    ordinary = [char for char in "".join(pieces) if not "\ud800" <= char <= "\udfff"]
    assert [char for char in out if char != "\ufffd" and ord(char) <= 0xFFFF] == ordinary
