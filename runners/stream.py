"""The chunks of an answer, the one order that holds for every runner, and their fold into a response.

Owns ChatChunk, ChatStream, OrderChecker, ResponseBuilder and the joining of split surrogates. Knows no vendor
and no process.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from runners.errors import ProtocolError, RunnerError
from runners.messages import ChatResponse, Served, Usage
from runners.tools import ToolCall


@dataclass(frozen=True, slots=True)
class Start:
    """The CLI showed the first event of its answer.

    `model` is the one that really answers. For `served` and `session_s` see ChatResponse.
    """

    type: Literal["start"] = field(default="start", init=False)
    message_id: str
    runner: str
    model: str
    served: Served = "cold"
    session_s: float | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the answer."""

    type: Literal["text"] = field(default="text", init=False)
    chunk: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The next piece of the model's thinking."""

    type: Literal["reasoning"] = field(default="reasoning", init=False)
    chunk: str


@dataclass(frozen=True, slots=True)
class ToolRequestStart:
    """The model began to call a tool."""

    type: Literal["tool_request_start"] = field(default="tool_request_start", init=False)
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolRequestArg:
    """The next piece of the JSON text of a tool call's arguments."""

    type: Literal["tool_request_arg"] = field(default="tool_request_arg", init=False)
    id: str
    chunk: str


@dataclass(frozen=True, slots=True)
class ToolRequestComplete:
    """A tool call is whole."""

    type: Literal["tool_request_complete"] = field(default="tool_request_complete", init=False)
    tool_call: ToolCall


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that was asked for is not done as asked, or the vendor wants its user to know something."""

    type: Literal["warning"] = field(default="warning", init=False)
    message: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """An attempt failed before `start`; the next one follows after `delay_s` seconds. `error` is its kind."""

    type: Literal["retrying"] = field(default="retrying", init=False)
    attempt: int
    max_attempts: int | None
    delay_s: float | None
    error: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What the answer cost."""

    type: Literal["usage"] = field(default="usage", init=False)
    usage: Usage


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is whole. `raw` is the vendor's own word for `stop_reason`."""

    type: Literal["done"] = field(default="done", init=False)
    stop_reason: str
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A started answer broke off; what came before it is all there is."""

    type: Literal["error"] = field(default="error", init=False)
    error: RunnerError


ChatChunk = (
    Start
    | Text
    | Reasoning
    | ToolRequestStart
    | ToolRequestArg
    | ToolRequestComplete
    | Warn
    | Retrying
    | UsageReport
    | Done
    | Failed
)


_PLAIN = (Text, Reasoning)
_BEFORE_CONTENT = (Start, Retrying)
_LAST = (Done, Failed)


class OrderChecker:
    """Holds every runner to one order of chunks.

    `warning* retrying*` in any mix, `start`, content and `warning` in any mix, at most one `usage`, then one of
    `done` and `error`. A tool call's chunks stand between its start and its completion.
    """

    def __init__(self) -> None:
        self.started = False
        self.ended = False
        self._in_content = False
        self._open_calls: set[str] = set()

    def feed(self, chunk: ChatChunk) -> None:
        """Accepts the next chunk, or raises ProtocolError and says what was out of order."""
        if self._in_content and isinstance(chunk, _PLAIN):
            return
        if self.ended:
            raise ProtocolError(f"a {chunk.type} chunk came after the end of the stream")
        if isinstance(chunk, Warn):
            return
        if not self.started:
            if not isinstance(chunk, _BEFORE_CONTENT):
                raise ProtocolError(f"a {chunk.type} chunk came before start")
            self.started = self._in_content = isinstance(chunk, Start)
        elif isinstance(chunk, _BEFORE_CONTENT):
            raise ProtocolError(f"a {chunk.type} chunk came after start")
        elif isinstance(chunk, _LAST):
            if self._open_calls and isinstance(chunk, Done):
                raise ProtocolError(f"done while tool calls are incomplete: {sorted(self._open_calls)}")
            self.ended = True
            self._in_content = False
        elif not self._in_content:
            raise ProtocolError(f"a {chunk.type} chunk came after usage")
        else:
            self._feed_content(chunk)

    def _feed_content(self, chunk: ChatChunk) -> None:
        match chunk:
            case UsageReport():
                self._in_content = False
            case ToolRequestStart(id=call_id):
                self._open_calls.add(call_id)
            case ToolRequestArg(id=call_id):
                self._expect_open(call_id)
            case ToolRequestComplete(tool_call=call):
                self._expect_open(call.id)
                self._open_calls.discard(call.id)

    def _expect_open(self, call_id: str) -> None:
        if call_id not in self._open_calls:
            raise ProtocolError(f"a chunk of tool call {call_id!r}, which is not open")


class ChatStream:
    """An answer as it comes: an async iterator of chunks in the order of `OrderChecker`.

    A failure before `start` raises its RunnerError; after `start` it becomes the last chunk, `error`. A source
    that ends without a last chunk is a ProtocolError. Use it as an async context manager, or call `aclose`: that
    cancels the turn when it is still running, and returns when the runner has let go of it. Cancelling the task
    that waits for a chunk does the same and stays `CancelledError`.
    """

    def __init__(self, chunks: AsyncGenerator[ChatChunk, None], *, runner: str) -> None:
        self._chunks = chunks
        self._runner = runner
        self._order = OrderChecker()
        self._exhausted = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        if self._exhausted:
            raise StopAsyncIteration
        try:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                raise ProtocolError("the answer ended without its last chunk") from None
            self._order.feed(chunk)
        except RunnerError as error:
            self._exhausted = True
            error.runner = error.runner or self._runner
            if not self._order.started or self._order.ended:
                raise
            self._order.ended = True
            chunk = Failed(error)
        if self._order.ended:
            # The source's own clean-up runs before its consumer sees the end.
            self._exhausted = True
            await self._chunks.aclose()
        return chunk

    async def aclose(self) -> None:
        """Ends the stream; idempotent."""
        self._exhausted = True
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class ResponseBuilder:
    """Folds chunks into a ChatResponse, one at a time, so that a front end can forward and fold at once."""

    def __init__(self) -> None:
        self._start: Start | None = None
        self._done: Done | None = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        # In the order in which they began, as clients see them.
        self._tool_calls: dict[str, ToolCall | None] = {}
        self._warnings: list[str] = []
        self._usage = Usage()

    def add(self, chunk: ChatChunk) -> None:
        """Takes the next chunk; raises the RunnerError of an `error` chunk."""
        match chunk:
            case Text():
                self._text.append(chunk.chunk)
            case Reasoning():
                self._reasoning.append(chunk.chunk)
            case ToolRequestStart():
                self._tool_calls[chunk.id] = None
            case ToolRequestComplete():
                self._tool_calls[chunk.tool_call.id] = chunk.tool_call
            case Warn():
                self._warnings.append(chunk.message)
            case UsageReport():
                self._usage = chunk.usage
            case Start():
                self._start = chunk
            case Done():
                self._done = chunk
            case Failed():
                raise chunk.error

    def response(self) -> ChatResponse:
        """The whole answer; ProtocolError when the stream has not ended well."""
        if self._start is None or self._done is None:
            raise ProtocolError("the answer is not whole")
        return ChatResponse(
            id=self._start.message_id,
            runner=self._start.runner,
            model=self._start.model,
            content="".join(self._text),
            reasoning="".join(self._reasoning) or None,
            tool_calls=[call for call in self._tool_calls.values() if call is not None],
            stop_reason=self._done.stop_reason,
            usage=self._usage,
            warnings=self._warnings,
            served=self._start.served,
            session_s=self._start.session_s,
        )


async def fold(stream: ChatStream) -> ChatResponse:
    """Reads a stream to its end and returns the response; raises the error of a stream that failed."""
    builder = ResponseBuilder()
    async with stream:
        async for chunk in stream:
            builder.add(chunk)
    return builder.response()


class SurrogateJoiner:
    r"""Mends characters that a CLI cut in two.

    Node writes the halves of an emoji that two deltas share as lone surrogates. A trailing first half waits for
    the next piece; a half whose other half never comes becomes U+FFFD, as every UTF-8 encoder would have it.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text that can be shown now, which may be empty."""
        piece = self._held + piece
        self._held = ""
        if piece.isascii():
            return piece
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            self._held, piece = piece[-1], piece[:-1]
        return paired(piece)

    def flush(self) -> str:
        """What still waits, at the end of the text."""
        held, self._held = self._held, ""
        return paired(held)


def paired(text: str) -> str:
    """A text whose lone surrogates, which are no characters, have become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def mended(value: Any) -> Any:
    """The same JSON value with every text so: a CLI that reads strictly drops a message with a lone surrogate."""
    if isinstance(value, str):
        return value if value.isascii() else paired(value)
    if isinstance(value, list):
        return [mended(item) for item in value]
    if isinstance(value, dict):
        return {mended(key): mended(item) for key, item in value.items()}
    return value
