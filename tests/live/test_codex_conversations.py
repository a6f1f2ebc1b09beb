"""A conversation in one thread of the real codex: at each turn the model is sent all that was said, and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runners.errors import PermissionDeniedError
from runners.messages import ChatMessage, ChatResponse
from runners.provider import Sampling, Session, SessionOptions
from runners.providers.codex.provider import CodexProvider
from runners.providers.codex.settings import CodexSettings
from runners.stream import ChatStream, Done, Text, fold
from runners.testing.apis.responses_api import AnyReply, ResponsesApi, error, text
from tests.live.codex_lab import ENV, MODEL
from tests.subjects.codex import received_by_api
from tests.world import World

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_leaks")]

SYSTEM = "Be brief.\n\n- Use digits. "
CLOSE_S = 10.0
ODD = ["  lead", "trail \n\n", "/help", "", " \n\t ", "e\u0301 \U0001f600 \x00", "a\r\nb"]


class Talk:
    """A session and what it should hold: `said` is the conversation as the API has it."""

    def __init__(self, api: ResponsesApi, session: Session) -> None:
        self.api = api
        self.session = session
        self.said: list[tuple[str, str]] = []

    def begin(self, *new: str) -> ChatStream:
        """The stream of a turn with these messages of a user's."""
        return self.session.turn([ChatMessage(role="user", content=text) for text in new], Sampling())

    async def say(self, *new: str, reply: AnyReply | None = None) -> ChatResponse:
        """A turn that ends well. The API must have been sent the whole conversation, once."""
        asked = len(self.api.requests)
        if reply is not None:
            self.api.script(reply)
        answer = await fold(self.begin(*new))
        self.said += [("user", said) for said in new]
        assert len(self.api.requests) == asked + 1
        received = received_by_api(self.api.requests[-1].body)
        assert (received.system, received.messages) == (SYSTEM, self.said)
        self.said.append(("assistant", answer.content))
        return answer

    @property
    def thread(self) -> str:
        """The thread of the CLI's that asked last."""
        name = self.api.requests[-1].body["prompt_cache_key"]
        assert isinstance(name, str)
        return name


@pytest.fixture
async def api() -> AsyncIterator[ResponsesApi]:
    async with ResponsesApi() as served:
        yield served


@asynccontextmanager
async def talking(world: World, codex: Path, api: ResponsesApi, **options: Any) -> AsyncIterator[Talk]:
    """A conversation, which leaves nothing behind."""
    env = ENV | {"HOME": str(world.home)}
    settings = CodexSettings(binary=str(codex), model=MODEL, base_url=api.url, api_key_env="KEY", env=env)
    provider = CodexProvider("codex", settings, state_dir=world.state / "codex")
    session = await provider.open()
    try:
        await session.prepare(SessionOptions(system=SYSTEM, **options))
        yield Talk(api, session)
    finally:
        async with asyncio.timeout(CLOSE_S):
            await session.aclose()
            await provider.aclose()
        assert list((world.state / "codex" / "tmp").iterdir()) == []


async def first_text(stream: ChatStream) -> None:
    while not isinstance(await anext(stream), Text):
        pass


async def test_each_turn_sends_what_is_new_to_one_thread(world: World, codex: Path, api: ResponsesApi) -> None:
    async with talking(world, codex, api, reasoning_effort="low") as talk:
        threads = set()
        for number, odd in enumerate(ODD):
            thought = await talk.say(odd, reply=text(odd[::-1] or "x", reasoning=f"thought {number}"))
            assert thought.reasoning == f"thought {number}"
            assert talk.session.resent == (number == 0)
            threads.add(talk.thread)
        await talk.say("one", "two")
        assert {talk.thread, *threads} == threads
        assert len(threads) == 1
        # What the model thought is told it again, as it was, while its thread lives.
        kinds = [item["type"] for item in api.requests[-1].body["input"]]
        assert kinds.count("reasoning") == len(ODD)
        assert api.requests[-1].body["reasoning"] == {"effort": "low", "summary": "auto"}


async def test_a_turn_that_failed_or_ended_early_is_no_part_of_it(world: World, codex: Path, api: ResponsesApi) -> None:
    async with talking(world, codex, api) as talk:
        await talk.say("first")
        first = talk.thread
        api.script(error(403, "not allowed"))
        with pytest.raises(PermissionDeniedError):
            await fold(talk.begin("refused"))
        await talk.say("second")
        second = talk.thread
        for how in ("closed", "interrupted"):
            api.script(text("some", "more").broken("stall", after=1))
            stream = talk.begin("stopped")
            await first_text(stream)
            if how == "interrupted":
                await talk.session.interrupt()
                *_, last = [chunk async for chunk in stream]
                assert isinstance(last, Done)
                assert last.stop_reason == "cancelled"
            await stream.aclose()
            assert talk.session.state == "idle"
            await talk.say(how)
        assert len({first, second, talk.thread}) == 3
        api.script(text("cut", incomplete="max_output_tokens"))
        assert (await fold(talk.begin("long"))).stop_reason == "length"
        talk.said += [("user", "long"), ("assistant", "cut")]
        await talk.say("go on")
        assert talk.session.resent
