"""The provider contract as a kit: numbered checks that any runner can be put to.

Each is given a fresh Subject (a provider and the world that answers it) and fails with an AssertionError. With pytest:
`@pytest.mark.parametrize("contract", CONTRACTS)`, then `async with leaves_nothing(): await contract(subject)`.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from runners.capabilities import Capabilities
from runners.errors import NotInstalledError, RunnerError, UnsupportedError
from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.stream import ChatChunk, ChatStream, Done, OrderChecker, Start, Text, UsageReport, Warn, fold
from runners.translator import Translator

CLOSE_S = 10.0
"""How long anything may take to end; generous, for a busy machine."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a model API received: its system prompt, its messages as (role, text), our knobs by name, images' data.

    A tool result is a message of the role `tool`. `calls` are those in the messages, as (id, name, arguments): an
    object, or the text where the API was given one that is none. `results` are (id, text, whether it is an error; None
    where the API has no word for that). `tools` are the definitions, each with `name`, `description`, `parameters`.
    """

    system: str
    messages: list[tuple[str, str]]
    knobs: dict[str, Any] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    results: list[tuple[str, str, bool | None]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)


class Subject(ABC):
    """A provider to be put to the contract, and the world behind its CLI.

    For a runner that claims tools that world answers a text of `calling`, as the last message, with these calls, each
    under an id that is new; also when that message is the result of a tool. Any other result it answers with its text.
    """

    provider: LlmProvider
    is_free_in_arguments: bool = True
    """Whether its model can write arguments that are no JSON object."""
    whole_properties: int = 40
    """How many properties, of 220 bytes each, a tool may have of which its model is told everything."""
    tells_usage_of_whole_turns: bool = False
    """Whether its CLI, which goes on with its own turn behind the results of tools, tells what that cost at its end."""
    sessions_share_a_process: bool = False
    """Whether a session that is open keeps a process for those that follow, whose start may be dear."""
    model_usage: tuple[int, int] | None = None
    """What every call of its model costs, as (input, output) tokens, where it is always the same."""

    @abstractmethod
    def answer(self, *pieces: str) -> ChatRequest:
        """A request that will be answered with exactly these pieces of text; CLIs may cut them anew."""

    def shown(self, text: str) -> str:
        """What comes back of an answer: all of it, but from a terminal, which has no place for some characters."""
        return text

    @abstractmethod
    def hold(self) -> ChatRequest:
        """A request whose answer begins with some text and does not end until it is stopped."""

    @abstractmethod
    async def deliver(self, request: ChatRequest) -> Received:
        """Lets the provider complete a request and tells what the model API received."""

    def received(self) -> Received:
        """What the model API received last; for a runner that claims tools."""
        raise NotImplementedError

    def model_calls(self) -> int:
        """How often the model was called so far; for a runner that claims tools."""
        raise NotImplementedError

    @abstractmethod
    def missing(self) -> LlmProvider:
        """The same provider with a binary that does not exist."""

    @abstractmethod
    def translator(self) -> Translator:
        """A new translator of the provider's."""


_CALLING = "[call] "


def calling(*calls: tuple[str, Any], text: str = "") -> str:
    """A text that is answered with `text` and calls of tools: (name, arguments), these as an object or as raw text."""
    written = [[name, raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)] for name, raw in calls]
    return _CALLING + json.dumps({"text": text, "calls": written}, ensure_ascii=False)


def called_by(text: str) -> tuple[str, list[tuple[str, str]]] | None:
    """What `calling` was given: the text before, and (name, arguments' text) of each call; None for any other text."""
    if not text.startswith(_CALLING):
        return None
    told = json.loads(text.removeprefix(_CALLING))
    return told["text"], [(name, raw) for name, raw in told["calls"]]


def request(text: str, **fields: Any) -> ChatRequest:
    """A chat request of one user message."""
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": text}], **fields})


async def the_chunks(stream: ChatStream) -> list[ChatChunk]:
    """All chunks of a stream, which must not hang."""
    async with asyncio.timeout(CLOSE_S * 6), stream:
        return [chunk async for chunk in stream]


async def ability(subject: Subject) -> Capabilities:
    """What the subject's provider claims, once it knows."""
    await subject.provider.discover()
    return subject.provider.capabilities()


@asynccontextmanager
async def standing_by(subject: Subject) -> AsyncIterator[None]:
    """One more session is open meanwhile, where that spares a start of the process for each of the others."""
    if not subject.sessions_share_a_process:
        yield
        return
    session = await subject.provider.open()
    try:
        yield
    finally:
        async with asyncio.timeout(CLOSE_S):
            await session.aclose()


async def _first_sign(subject: Subject) -> type[Text | Start]:
    """The chunk by which a held answer shows that it has begun: a text, where the runner shows one before the end."""
    return Text if (await ability(subject)).streaming else Start


async def _begun(subject: Subject, stream: ChatStream) -> None:
    first = await _first_sign(subject)
    async with asyncio.timeout(CLOSE_S * 6):
        while not isinstance(await anext(stream), first):
            pass


async def c01_chunks_come_in_order_and_join_to_the_exact_text(subject: Subject) -> None:
    """start, text, usage when claimed, done; the texts joined are the answer."""
    pieces = ["Hél", "lo\n\n", "  wor", "ld \u2028 \U0001f642 ", "-- \x00 \\ \"'", " end\n"]
    chunks = await the_chunks(subject.provider.complete_stream(subject.answer(*pieces)))
    order = OrderChecker()
    for chunk in chunks:
        order.feed(chunk)
    assert order.ended
    assert "".join(chunk.chunk for chunk in chunks if isinstance(chunk, Text)) == subject.shown("".join(pieces))
    start = next(chunk for chunk in chunks if isinstance(chunk, Start))
    assert start.runner == subject.provider.name
    assert start.model
    assert start.message_id
    done = chunks[-1]
    assert isinstance(done, Done)
    assert done.stop_reason == "end_turn"
    reports = [chunk.usage for chunk in chunks if isinstance(chunk, UsageReport)]
    claimed = (await ability(subject)).usage
    assert bool(reports and reports[0].input_tokens and reports[0].output_tokens is not None) == claimed


async def c02_complete_is_the_fold_of_the_stream(subject: Subject) -> None:
    """Both ways give the same response, but for its id and what the vendor measured."""
    asked = subject.answer("one ", "two ", "three")
    whole = await subject.provider.complete(asked)
    folded = await fold(subject.provider.complete_stream(asked))
    same = [(r.content, r.model, r.runner, r.stop_reason, r.tool_calls, r.reasoning) for r in (whole, folded)]
    assert same[0] == same[1]
    assert whole.content == "one two three"


async def c03_streaming_is_not_faked(subject: Subject) -> None:
    """A runner that claims streaming shows text while the answer still goes on."""
    if (await ability(subject)).streaming:
        async with subject.provider.complete_stream(subject.hold()) as stream:
            await _begun(subject, stream)


async def c04_closing_a_stream_ends_its_turn_and_the_runner_goes_on(subject: Subject) -> None:
    """A cancel is bounded, leaves no session, and the next chat works."""
    stream = subject.provider.complete_stream(subject.hold())
    await _begun(subject, stream)
    async with asyncio.timeout(CLOSE_S):
        await stream.aclose()
        await stream.aclose()
    assert not subject.provider.sessions
    assert (await subject.provider.complete(subject.answer("again"))).content == "again"


async def c05_cancelling_the_reader_stays_a_cancellation(subject: Subject) -> None:
    """CancelledError comes out, and nothing is left of the turn."""
    started = asyncio.Event()

    first = await _first_sign(subject)

    async def read() -> None:
        async with subject.provider.complete_stream(subject.hold()) as stream:
            async for chunk in stream:
                if isinstance(chunk, first):
                    started.set()

    reader = asyncio.create_task(read())
    async with asyncio.timeout(CLOSE_S * 6):
        await started.wait()
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
    assert reader.cancelled()
    assert not subject.provider.sessions


async def c06_an_interrupt_ends_the_turn_as_cancelled(subject: Subject) -> None:
    """`interrupt` lets the stream end in order, with done{cancelled}."""
    if not (await ability(subject)).interrupt:
        return
    session = await subject.provider.open()
    try:
        asked = subject.hold()
        await session.prepare(subject.provider.session_options(asked))
        async with session.turn(asked.conversation, subject.provider.sampling(asked)) as stream:
            await _begun(subject, stream)
            await session.interrupt()
            async with asyncio.timeout(CLOSE_S):
                *_, last = [chunk async for chunk in stream]
        assert isinstance(last, Done)
        assert last.stop_reason == "cancelled"
    finally:
        await session.aclose()


async def c07_a_session_holds_its_conversation(subject: Subject) -> None:
    """A second turn sends what is new alone, and is answered."""
    session = await subject.provider.open()
    try:
        first, second = subject.answer("first"), subject.answer("second")
        await session.prepare(subject.provider.session_options(first))
        sampling = subject.provider.sampling(first)
        assert (await fold(session.turn(first.conversation, sampling))).content == "first"
        assert session.state == "idle"
        assert (await fold(session.turn(second.conversation, sampling))).content == "second"
        assert session.turns == 2
    finally:
        await session.aclose()


async def c08_conversations_at_once_never_mix(subject: Subject) -> None:
    """Each of four chats at once gets its own answer."""
    texts = [f"answer {number} " * 20 for number in range(4)]
    answers = await asyncio.gather(*(subject.provider.complete(subject.answer(text)) for text in texts))
    assert [answer.content for answer in answers] == [subject.shown(text) for text in texts]


async def c09_a_missing_binary_is_said_before_the_stream_starts(subject: Subject) -> None:
    """NotInstalledError with what mends it, and a health that says the same."""
    provider = subject.missing()
    error = await _raised(NotInstalledError, provider.complete(request("hello")))
    assert error.hint
    assert error.runner == provider.name
    health = await provider.health_check()
    assert (health.ok, health.reason) == (False, "not_installed")
    assert health.hint


async def c10_health_is_ready_when_a_chat_works(subject: Subject) -> None:
    """A probe of the working subject says ready, and which version answers."""
    health = await subject.provider.health_check()
    assert health.state == "ready", health
    assert health.version


async def c11_closing_is_idempotent_also_in_the_middle_of_a_turn(subject: Subject) -> None:
    """`aclose` of session and provider, twice and at once, is bounded; the stream then fails and does not hang."""
    session = await subject.provider.open()
    asked = subject.hold()
    await session.prepare(subject.provider.session_options(asked))
    stream = session.turn(asked.conversation, subject.provider.sampling(asked))
    await _begun(subject, stream)
    async with asyncio.timeout(CLOSE_S):
        await asyncio.gather(session.aclose(), session.aclose(), subject.provider.aclose())
        await session.aclose()
        *_, last = [chunk async for chunk in stream]
    assert last.type == "error"
    assert session.state == "dead"
    assert not subject.provider.sessions


async def c12_unknown_events_are_ignored(subject: Subject) -> None:
    """A vendor's new event brings no chunk, raises nothing and does not end the turn."""
    translator = subject.translator()
    for event in ({"type": "runnerd-never-heard-of"}, {"type": None}, {}, {"type": "system", "subtype": "novelty"}):
        assert translator.feed(event) == []
    assert not translator.ended


async def c13_the_system_prompt_and_the_history_arrive_as_messages(subject: Subject) -> None:
    """For a runner that claims them: the model API receives exactly the conversation."""
    able = await ability(subject)
    conversation = [
        ("user", "one"),
        ("assistant", "two "),
        ("user", " three\n"),
        ("assistant", "four"),
        ("user", "five"),
    ]
    messages = [{"role": "system", "content": "Be brief."}]
    messages += [{"role": role, "content": text} for role, text in conversation]
    received = await subject.deliver(ChatRequest.model_validate({"messages": messages}))
    if able.system_prompt == "replace":
        assert received.system == "Be brief."
    if able.history == "native":
        assert received.messages == conversation


async def c14_exact_text_means_exact(subject: Subject) -> None:
    """Texts that CLIs like to treat as commands, files or options reach the model as they are."""
    if not (await ability(subject)).exact_text:
        return
    texts = ["/help", "@/etc/passwd", "-p", "  two", "!ls", "#x", "a\r\nb\t", "\U0001f642\u2028 end \n"]
    async with standing_by(subject):
        for text in texts:
            received = await subject.deliver(request(text))
            assert received.messages[-1] == ("user", text)


async def c15_a_claimed_knob_arrives_and_another_is_warned_of(subject: Subject) -> None:
    """What is claimed is on the wire; what is not gives a warning, and an error with `strict`."""
    able = await ability(subject)
    knobs: dict[str, Any] = {
        "temperature": 0.25,
        "top_p": 0.5,
        "stop": ["END"],
        "max_tokens": 321,
        "reasoning_effort": "low",
        "tools": [{"name": "f", "parameters": {"type": "object"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    }
    async with standing_by(subject):
        for name, value in knobs.items():
            asked = request("knob", **{name: value})
            if getattr(able, name):
                received = await subject.deliver(asked)
                assert received.knobs.get(name) == value, f"{name}: the model API received {received.knobs}"
                continue
            warnings = [chunk.message for chunk in subject.provider.preflight(asked)]
            assert any(name in warning for warning in warnings), f"{name}: neither claimed nor warned of"
            await _raised(UnsupportedError, subject.provider.complete(asked.model_copy(update={"strict": True})))


async def c16_images_arrive_or_are_refused(subject: Subject) -> None:
    """An image is never silently dropped."""
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    image = {"type": "image", "media_type": "image/png", "data": pixel}
    content = [{"type": "text", "text": "look"}, image]
    asked = ChatRequest.model_validate({"messages": [{"role": "user", "content": content}]})
    if (await ability(subject)).images:
        assert (await subject.deliver(asked)).images == [pixel]
    else:
        await _raised(UnsupportedError, subject.provider.complete(asked))


async def c17_a_warning_comes_before_the_answer(subject: Subject) -> None:
    """An unknown field of a request is named, and the chat goes on."""
    asked = subject.answer("warned").model_copy(update={"colour": "blue"})
    first, *_ = await the_chunks(subject.provider.complete_stream(asked))
    assert isinstance(first, Warn)
    assert "colour" in first.message


async def _raised(kind: type[RunnerError], awaitable: Awaitable[Any]) -> RunnerError:
    try:
        await awaitable
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} was raised")


Contract = Callable[[Subject], Awaitable[None]]
CONTRACTS: list[Contract] = [
    check for name, check in sorted(globals().items()) if name[0] == "c" and name[1:3].isdigit()
]
"""Every contract, in the order of its number."""
