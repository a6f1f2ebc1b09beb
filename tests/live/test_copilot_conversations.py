"""A conversation on one session of the real copilot: at each turn the model is sent all that was said, and no more."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from runners.errors import ContextOverflowError, PermissionDeniedError
from runners.messages import ChatMessage, ChatResponse, ResponseFormat
from runners.provider import Sampling, Session, SessionOptions
from runners.providers.copilot.provider import CopilotProvider
from runners.providers.copilot.settings import CopilotModelProvider, CopilotSettings
from runners.stream import ChatStream, Done, Text, fold
from runners.testing.apis.completions_api import AnyReply, CompletionsApi, error, text
from runners.testing.apis.stand_in import Json
from tests.live.copilot_lab import ENV, MODEL
from tests.live.test_copilot_requests import image, png, prose
from tests.world import World, until

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_leaks")]

SYSTEM = "Be brief.\n\n- Use digits. "
CLOSE_S = 10.0
ODD = [
    "  lead",
    "trail \n\n",
    "/help",
    "@/etc/passwd \u2028",
    "",
    " \n\t ",
    "e\u0301 \U0001f600 \x00 \x1b[31m",
    "a\r\nb",
]


class Place:
    """A provider on the real CLI, and the API that answers it. The answers are those of `replies`, else "ok"."""

    def __init__(self, world: World, binary: Path, api: CompletionsApi, **own: Any) -> None:
        provider = CopilotModelProvider(base_url=api.url, api_key_env="KEY", **own)
        env = ENV | {"HOME": str(world.home)}
        settings = CopilotSettings(binary=str(binary), model=MODEL, provider=provider, env=env)
        self.api = api
        self.provider = CopilotProvider("copilot", settings, state_dir=world.state / "copilot")

    def directories(self) -> list[Path]:
        """Those of the CLI's sessions."""
        return list(self.provider.directory("conversations").iterdir())

    @asynccontextmanager
    async def talk(self) -> AsyncIterator["Talk"]:
        """A conversation, which leaves nothing behind."""
        session = await self.provider.open()
        try:
            await session.prepare(SessionOptions(system=SYSTEM))
            yield Talk(self, session)
        finally:
            async with asyncio.timeout(CLOSE_S):
                await session.aclose()


class Talk:
    """A session and what it should hold: `said` is the conversation as the API has it."""

    def __init__(self, place: Place, session: Session) -> None:
        self.place = place
        self.session = session
        self.said: list[Json] = [{"role": "system", "content": SYSTEM}]

    def begin(self, *new: str | ChatMessage, **knobs: Any) -> ChatStream:
        """The stream of a turn with these messages of a user's."""
        messages = [ChatMessage(role="user", content=m) if isinstance(m, str) else m for m in new]
        return self.session.turn(messages, Sampling(**knobs))

    async def say(self, *new: str, reply: AnyReply | None = None, **knobs: Any) -> ChatResponse:
        """A turn that ends well. The API must have been sent the whole conversation, once."""
        asked = len(self.place.api.requests)
        if reply is not None:
            self.place.api.script(reply)
        answer = await fold(self.begin(*new, **knobs))
        self.said += [{"role": "user", "content": said} for said in new]
        assert len(self.place.api.requests) == asked + 1
        assert sent(self.place.api.requests[-1].body) == self.said
        self.said.append({"role": "assistant", "content": answer.content or None})
        return answer


def sent(body: Json) -> list[Json]:
    """The messages of a request, less what the CLI hands back of the API's own answer: that it was no refusal."""
    assert all(message.get("refusal") is None for message in body["messages"])
    return [{key: message[key] for key in message if key != "refusal"} for message in body["messages"]]


@pytest.fixture
async def api() -> AsyncIterator[CompletionsApi]:
    async with CompletionsApi() as served:
        yield served


@pytest.fixture
def place(world: World, copilot: Path, api: CompletionsApi) -> Place:
    return Place(world, copilot, api)


async def first_text(stream: ChatStream) -> None:
    while not isinstance(await anext(stream), Text):
        pass


async def test_each_turn_sends_the_whole_conversation_once_from_one_session_of_the_cli(place: Place) -> None:
    async with place.talk() as talk:
        for number, odd in enumerate(ODD):
            answer = odd[::-1]
            assert (await talk.say(odd, reply=text(answer))).content == answer
            if not number:
                [directory] = place.directories()
            assert place.directories() == [directory]
        assert {r.headers["x-initiator"] for r in place.api.requests} == {"user"}
        assert place.api.others == []
    assert place.directories() == []


async def test_a_session_that_began_with_a_history_goes_on_from_it(place: Place) -> None:
    async with place.talk() as talk:
        past = [ChatMessage(role="user", content="  one\n"), ChatMessage(role="assistant", content="1 \n")]
        await fold(talk.begin(*past, "two"))
        talk.said += [{"role": m.role, "content": m.text} for m in past] + [{"role": "user", "content": "two"}]
        assert sent(place.api.requests[-1].body) == talk.said
        talk.said.append({"role": "assistant", "content": "ok"})
        [directory] = place.directories()
        await talk.say("three")
        await talk.say("four")
        assert place.directories() == [directory]


async def cancelled(talk: Talk) -> None:
    stream = talk.begin("lost")
    await first_text(stream)
    await stream.aclose()


async def interrupted(talk: Talk) -> None:
    stream = talk.begin("lost")
    await first_text(stream)
    await talk.session.interrupt()
    *_, last = [chunk async for chunk in stream]
    assert isinstance(last, Done)
    assert last.stop_reason == "cancelled"


async def refused(talk: Talk) -> None:
    with pytest.raises(PermissionDeniedError):
        await fold(talk.begin("lost"))


STALLED = text("lost ", "too").broken("stall", after=1)
LOST: dict[str, tuple[Callable[[Talk], Awaitable[None]], AnyReply]] = {
    "cancelled": (cancelled, STALLED),
    "interrupted": (interrupted, STALLED),
    "refused": (refused, error(403, "no")),
}


@pytest.mark.parametrize("how", LOST)
async def test_a_turn_that_did_not_end_is_no_part_of_the_conversation(place: Place, how: str) -> None:
    loses, reply = LOST[how]
    async with place.talk() as talk:
        await talk.say("one", reply=text("1"))
        for _ in range(2):
            place.api.script(reply)
            await loses(talk)
            assert talk.session.state == "idle"
            await talk.say("two", reply=text("2"))
            await talk.say("three", reply=text("3"))


async def test_an_answer_whose_end_was_not_read_is_no_part_of_the_conversation(place: Place) -> None:
    async with place.talk() as talk:
        await talk.say("one")
        stream = talk.begin("lost")
        async for chunk in stream:
            if chunk.type == "usage":
                break
        await stream.aclose()
        assert talk.session.state == "idle"
        await talk.say("two")


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_that_was_cut_is_a_part_of_the_conversation_and_nothing_else_is(
    place: Place, reason: str
) -> None:
    async with place.talk() as talk:
        await talk.say("one")
        place.api.script(text("cut ", "off", finish_reason=reason))
        # The CLI may be too quick for us, and ask the model to go on.
        assert (await fold(talk.begin("two"))).content == "cut off"
        talk.said += [{"role": "user", "content": "two"}, {"role": "assistant", "content": "cut off"}]
        await until(lambda: _is(place.directories() == []))
        await talk.say("three")
        await talk.say("four")


async def _is(value: bool) -> bool:
    return value


async def test_an_error_that_the_cli_gets_over_leaves_no_trace(place: Place) -> None:
    async with place.talk() as talk:
        await talk.say("one")
        place.api.script(error(500, "oops", "server_error"), text("2"))
        assert (await fold(talk.begin("two"))).content == "2"
        talk.said += [{"role": "user", "content": "two"}]
        assert [sent(r.body) for r in place.api.requests[-2:]] == [talk.said] * 2
        talk.said += [{"role": "assistant", "content": "2"}]
        await talk.say("three")


async def test_messages_in_a_row_and_results_of_tools_are_sent_as_they_are(place: Place) -> None:
    async with place.talk() as talk:
        await talk.say("one")
        await talk.say(" two", "three ")
        await talk.say("four")


async def test_images_stay_in_the_conversation(place: Place) -> None:
    pictures = [png(2, 2), png(3, 3)]
    async with place.talk() as talk:
        for number, data in enumerate(pictures):
            parts = [{"type": "text", "text": f" what is {number}?\n"}, image(data)]
            await fold(talk.begin(ChatMessage.model_validate({"role": "user", "content": parts})))
        await fold(talk.begin("and now?"))
        _, first, _, second, _, last = sent(place.api.requests[-1].body)
        for number, (message, data) in enumerate(zip((first, second), pictures, strict=True)):
            assert message["content"][0]["text"] == f" what is {number}?\n"
            urls = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
            assert urls == [f"data:image/png;base64,{data}"]
        assert last == {"role": "user", "content": "and now?"}


async def test_what_a_turn_asks_for_holds_for_that_turn(place: Place) -> None:
    schema = {"name": "count", "schema": {"type": "object"}}
    shape = ResponseFormat.model_validate({"type": "json_schema", "json_schema": schema})
    async with place.talk() as talk:
        for knobs in ({}, {"response_format": shape}, {}, {"max_tokens": 321}, {"max_tokens": 321}, {}):
            await talk.say("go on", **knobs)
            body = place.api.requests[-1].body
            assert body.get("max_tokens") == knobs.get("max_tokens")
            assert (body.get("response_format") or {}).get("json_schema") == (
                schema if "response_format" in knobs else None
            )


async def test_what_is_told_late_of_an_answer_comes_in_no_other_one(place: Place) -> None:
    flood = [f"{number} " for number in range(3_000)]
    async with place.talk() as talk:
        for number in range(4):
            assert (await talk.say("flood", reply=text(*flood))).content == "".join(flood)
            assert (await talk.say("short", reply=text(f"s{number}"))).content == f"s{number}"


async def test_conversations_in_one_process_do_not_mix(place: Place) -> None:
    place.api.answer = lambda body: text("re: ", body["messages"][-1]["content"])
    async with place.talk() as one, place.talk() as other:
        for number in range(6):
            streams = [talk.begin(f"{name}{number}") for name, talk in (("a", one), ("b", other))]
            answers = await asyncio.gather(*map(fold, streams))
            assert [answer.content for answer in answers] == [f"re: a{number}", f"re: b{number}"]
    for name in "ab":
        bodies = [sent(r.body) for r in place.api.requests if sent(r.body)[-1]["content"].startswith(name)]
        told: list[Json] = [{"role": "system", "content": SYSTEM}]
        for number, body in enumerate(bodies):
            told.append({"role": "user", "content": f"{name}{number}"})
            assert body == told
            told.append({"role": "assistant", "content": f"re: {name}{number}"})
        assert len(bodies) == 6


async def test_a_conversation_that_outgrows_the_window_is_refused_and_never_shortened(
    world: World, copilot: Path, api: CompletionsApi
) -> None:
    place = Place(world, copilot, api, max_prompt_tokens=2_000)
    async with place.talk() as talk:
        for seed in range(4):
            await talk.say(prose(450, seed))
        asked = len(api.requests)
        for _ in range(3):
            with pytest.raises(ContextOverflowError) as caught:
                await fold(talk.begin(prose(450, 5)))
            assert caught.value.max_tokens == 2_000
        await until(lambda: _is(place.directories() == []))
        # An abort may come too late for the call. What it sends is whole, and no summary.
        for received in api.requests[asked:]:
            assert sent(received.body) == [*talk.said, {"role": "user", "content": prose(450, 5)}]
        await talk.say("short")


async def test_a_session_whose_process_has_gone_is_dead_and_says_so(place: Place) -> None:
    async with place.talk() as talk, place.talk() as blank:
        told: list[str] = []
        talk.session.when_dead = lambda: told.append("talk")
        blank.session.when_dead = lambda: told.append("blank")
        await talk.say("one")
        assert talk.session.process is not None
        psutil.Process(talk.session.process.pid).kill()
        await until(lambda: _is(len(told) == 2))
        assert sorted(told) == ["blank", "talk"]
        assert {talk.session.state, blank.session.state} == {"dead"}
    assert place.directories() == []


async def test_closing_a_conversation_ends_it_in_the_cli_and_twice_is_once(place: Place) -> None:
    async with place.talk() as other:
        async with place.talk() as talk:
            await talk.say("one")
            await other.say("one")
            began = time.monotonic()
            await asyncio.gather(talk.session.aclose(), talk.session.aclose())
            assert time.monotonic() - began < CLOSE_S
            assert len(place.directories()) == 1
        await other.say("two")
