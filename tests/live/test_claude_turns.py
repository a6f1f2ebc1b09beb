"""Many turns on one live claude: each time its API receives exactly the conversation, and of what is new only once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runners.messages import ChatMessage, ChatResponse, ImagePart, TextPart
from runners.provider import Sampling, Session, SessionOptions
from runners.providers.claude.provider import ClaudeProvider
from runners.providers.claude.settings import ClaudeSettings
from runners.stream import fold
from runners.testing.apis.messages_api import AnyReply, MessagesApi, several, text, tool_use
from runners.testing.apis.stand_in import Json
from tests.fakes.fake_claude import digest
from tests.live.claude_body import digested, our_messages, our_system, said
from tests.live.test_claude_exact_text import MORE, PROMPTS
from tests.live.test_claude_requests import png
from tests.world import World

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_leaks")]

SYSTEM = "Be brief.\n\n- Use digits. \u2028 \U0001f600\n"


class Talk:
    """One live session on an API of its own, and the conversation as its client knows it."""

    def __init__(self, session: Session, api: MessagesApi) -> None:
        self.session = session
        self.api = api
        self.conversation: list[Json] = []
        self.bodies: list[Json] = []

    async def turn(self, *new: ChatMessage | str, reply: AnyReply | None = None, **sampling: Any) -> ChatResponse:
        """A turn, whose request must be the whole conversation and nothing else."""
        before = len(self.api.requests)
        if reply is not None:
            self.api.script(reply)
        messages = [ChatMessage(role="user", content=one) if isinstance(one, str) else one for one in new]
        self.conversation.append({"role": "user", "content": [block for one in messages for block in blocks(one)]})
        answer = await fold(self.session.turn(messages, Sampling(**sampling)))
        self.bodies = [received.body for received in self.api.requests[before:]]
        assert [as_clients_know_it(message) for message in our_messages(self.bodies[0])] == self.conversation
        assert our_system(self.bodies[0]) == [SYSTEM]
        self.conversation.append(said("assistant", answer.content))
        return answer

    async def is_exact(self) -> None:
        """The session takes another turn, and that one's request is the conversation; see `turn`."""
        assert self.session.state == "idle"
        assert len(self.bodies) == 1
        await self.turn("and then?")


def blocks(message: ChatMessage) -> list[Json]:
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}
        for part in message.parts
    ]


def as_clients_know_it(message: Json) -> Json:
    """An answer as the one text that a client was told of it."""
    if message["role"] == "user":
        return message
    return said("assistant", "".join(block["text"] for block in message["content"] if block["type"] == "text"))


@pytest.fixture
async def provider(world: World, claude: Path, api: MessagesApi) -> AsyncIterator[ClaudeProvider]:
    env = {"HOME": str(world.home), "ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "dummy"}
    made = ClaudeProvider("claude", ClaudeSettings(binary=str(claude), env=env), state_dir=world.state / "claude")
    yield made
    await made.aclose()


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as served:
        yield served


@pytest.fixture
async def talk(provider: ClaudeProvider, api: MessagesApi) -> Talk:
    """A session that was told its system prompt and nothing else."""
    return await begun(provider, api)


async def begun(provider: ClaudeProvider, api: MessagesApi, **options: Any) -> Talk:
    session = await provider.open()
    await session.prepare(SessionOptions(system=SYSTEM, **options))
    return Talk(session, api)


async def test_each_turns_request_is_the_conversation_as_it_was_said(talk: Talk) -> None:
    answers = ["2", "  4, I think.\n\n", "\n\ta \u2028 \U0001f600\r\n", "API Error: 500", "/clear", "\u200b", "ok"]
    for number, answer in enumerate(answers):
        assert (await talk.turn(f"And  {number}?\n", reply=text(answer[:1], answer[1:]))).content == answer
    assert len(talk.api.requests) == len(answers)
    assert talk.api.others in ([], [("HEAD", "/")])


async def test_whatever_a_user_and_a_model_say_stays_as_it_is_in_later_turns(talk: Talk) -> None:
    every = [*PROMPTS.values(), *MORE]
    for prompt in every:
        answer = "ok" if prompt == "(no content)" else prompt
        assert (await talk.turn(prompt, reply=text(answer))).content == answer
    await talk.is_exact()
    assert len(talk.api.requests) == len(every) + 1


async def test_several_messages_and_images_in_one_turn_arrive_once_and_in_their_order(talk: Talk) -> None:
    picture = ImagePart(type="image", media_type="image/png", data=png(2))
    larger = ImagePart(type="image", media_type="image/png", data=png(200))
    parts: list[TextPart | ImagePart] = [
        TextPart(type="text", text="what is"),
        picture,
        TextPart(type="text", text="beside "),
        larger,
    ]
    await talk.turn("one", "/two", ChatMessage(role="user", content=parts), "three")
    await talk.turn(ChatMessage(role="user", content=[picture]), "four")
    await talk.turn("five")
    assert len(talk.api.requests) == 3


async def test_messages_that_others_answered_meanwhile_are_told_within_the_turn(talk: Talk) -> None:
    await talk.turn("one")
    talk.conversation += [said("user", "two"), said("assistant", "by another  \n")]
    between = [ChatMessage(role="user", content="two"), ChatMessage(role="assistant", content="by another  \n")]
    new = [*between, ChatMessage(role="user", content="three")]
    talk.conversation.append(said("user", "three"))
    answer = await fold(talk.session.turn(new, Sampling()))
    assert our_messages(talk.api.requests[-1].body) == talk.conversation
    talk.conversation.append(said("assistant", answer.content))
    await talk.turn("four")
    assert len(talk.api.requests) == 3


async def test_sampling_holds_for_its_turn_alone(talk: Talk) -> None:
    async def sent(**sampling: Any) -> dict[str, object]:
        await talk.turn("go on", **sampling)
        knobs = ("temperature", "top_p", "stop_sequences", "max_tokens")
        return {name: talk.bodies[0][name] for name in knobs if name in talk.bodies[0]}

    usual = await sent()
    assert usual.keys() == {"max_tokens"}
    assert await sent(temperature=0.5, max_tokens=321) == {"temperature": 0.5, "max_tokens": 321}
    assert await sent(temperature=0.5, stop=("END",)) == usual | {"temperature": 0.5, "stop_sequences": ["END"]}
    assert await sent(top_p=0.25, max_tokens=7) == {"top_p": 0.25, "max_tokens": 7}
    assert await sent() == usual
    assert await sent(temperature=0.0) == usual | {"temperature": 0.0}


async def test_thoughts_stay_with_their_answers(provider: ClaudeProvider, api: MessagesApi) -> None:
    talk = await begun(provider, api, reasoning_effort="high")
    for answer in ("Paris", "  Rome\n"):
        told = await talk.turn("the capital?", reply=text(answer, thinking="So \U0001f1eb\U0001f1f7."))
        assert (told.reasoning, told.content) == ("So \U0001f1eb\U0001f1f7.", answer)
        assert talk.bodies[0]["output_config"]["effort"] == "high"
    await talk.is_exact()
    thoughts = [
        block for message in our_messages(talk.bodies[0]) for block in message["content"] if "thinking" in block
    ]
    assert [thought["thinking"] for thought in thoughts] == ["So \U0001f1eb\U0001f1f7."] * 2


async def test_each_turn_has_its_own_usage_and_cost(talk: Talk) -> None:
    costs = []
    for number in (1, 10, 100, 1, 10, 100):
        usage = {"input_tokens": number, "cache_read_input_tokens": 2 * number, "output_tokens": number}
        told = (await talk.turn("go on", reply=text("ok", usage=usage))).usage
        counts = (told.input_tokens, told.cached_input_tokens, told.cache_creation_input_tokens, told.output_tokens)
        assert counts == (3 * number, 2 * number, 0, number)
        assert told.cost_usd is not None
        costs.append(told.cost_usd)
    assert costs == pytest.approx([costs[0] * number for number in (1, 10, 100, 1, 10, 100)])
    assert costs[0] > 0


async def test_sessions_side_by_side_hold_each_its_own_conversation(provider: ClaudeProvider, api: MessagesApi) -> None:
    api.answer = digested
    sessions = [await provider.open() for _ in range(3)]
    for number, session in enumerate(sessions):
        await session.prepare(SessionOptions(system=f"You are {number}."))
    told: list[list[tuple[str, str]]] = [[] for _ in sessions]

    async def turn(number: int, text: str) -> None:
        told[number].append(("user", text))
        asked = [ChatMessage(role="user", content=text)]
        answer = (await fold(sessions[number].turn(asked, Sampling()))).content
        assert answer == digest(f"You are {number}.", told[number])
        told[number].append(("assistant", answer))

    for round_ in range(4):
        await asyncio.gather(*(turn(number, f"{round_}?") for number in range(len(sessions))))


EXACT: dict[str, AnyReply] = {
    "stop sequence": text("before ", stop_reason="stop_sequence", stop_sequence="END"),
    "pause": text("to be continued", stop_reason="pause_turn"),
    "a reason that nobody knows": text("so", stop_reason="novelty"),
    "two texts": several("one ", "two"),
    "a text and an empty one": several("one", ""),
    "half of an emoji": text("a\ud83d", "b"),
}


@pytest.mark.parametrize("reply", EXACT.values(), ids=EXACT)
async def test_an_ending_behind_which_the_history_is_exact_leaves_a_session_that_goes_on(
    talk: Talk, reply: AnyReply
) -> None:
    await talk.turn("first")
    await talk.turn("second", reply=reply)
    await talk.is_exact()


INEXACT: dict[str, AnyReply] = {
    "no answer": text(),
    "an answer of white space": text(" \n", "\ufeff"),
    "a thought and no answer": text(thinking="hmm"),
    "a text and one of white space": several("one", " \n"),
    "white space before a text": several("\n\n", "one"),
    "the CLI's word for nothing": text("(no content)"),
    "a call of a tool": tool_use("Bash", {"command": "ls"}),
    "a refusal": text("I will not.", stop_reason="refusal"),
    "cut at its length": text("cut", stop_reason="max_tokens"),
    "cut at the window": text("cut", stop_reason="model_context_window_exceeded"),
}


@pytest.mark.parametrize("reply", INEXACT.values(), ids=INEXACT)
async def test_an_ending_behind_which_the_history_is_another_leaves_a_dead_session(talk: Talk, reply: AnyReply) -> None:
    await talk.turn("first")
    await talk.turn("second", reply=reply)
    assert talk.session.state == "dead"
