"""Several models by turns under one name, and the mistakes that runners.yaml can make about them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load_config
from runners.errors import ConfigError, OverloadedError
from runners.messages import ChatRequest, ModelInfo
from runners.provider import LlmProvider
from runners.stream import Start, fold
from tests.routing import Routed, Scripted, settings
from tests.stage import Stage
from tests.world import Wire, World, assistant, user

House = Callable[..., Routed]


class Windowed(Scripted):
    def __init__(self, name: str, window: int | None, *replies: str) -> None:
        super().__init__(name, *replies, settings=settings(attempts=1))
        self.window = window

    def available_models(self) -> list[ModelInfo]:
        return [ModelInfo("script", context_window=self.window, max_output_tokens=self.window and self.window // 10)]


@pytest.fixture
async def house(tmp_path: Path, no_leaks: None) -> AsyncIterator[House]:
    made: list[Routed] = []

    def make(top: str, **runners: LlmProvider) -> Routed:
        made.append(Routed(tmp_path, top=top, **runners))
        return made[-1]

    yield make
    for routed in made:
        await routed.supervisor.aclose()


async def who_answers(routed: Routed, times: int, model: str | None = "alloy") -> str:
    names = []
    for _ in range(times):
        [start] = [chunk for chunk in await routed.chat(model) if isinstance(chunk, Start)]
        names.append(start.runner)
    return " ".join(names)


def three(**fields: Any) -> dict[str, Scripted]:
    return {name: Windowed(name, fields.get(name, 100), *["fine"] * 9) for name in "abc"}


async def test_requests_go_round_its_members_in_their_order(house: House) -> None:
    assert await who_answers(house("alloy: [b, a, c]", **three()), 7) == "b a c b a c b"


@pytest.mark.parametrize(
    ("top", "model"),
    [
        ("alloy: [a, b]\ndefault: alloy", None),
        ("alloy: [a, b]\naliases: {mixed: alloy}", "mixed"),
        ("alloy: [a, b]\naliases: {mixed: alloy}\ndefault: mixed", None),
    ],
    ids=["default", "alias", "alias as default"],
)
async def test_it_may_be_the_default_and_have_another_name(house: House, top: str, model: str | None) -> None:
    assert await who_answers(house(top, **three()), 3, model) == "a b a"


async def test_a_member_may_be_a_model_or_an_alias(house: House) -> None:
    runners = three()
    routed = house('aliases: {quick: "b:small"}\nalloy: ["a:big", quick]', **runners)
    assert await who_answers(routed, 2) == "a b"
    assert [runners[name].calls[0].model for name in "ab"] == ["big", "small"]


async def test_who_cannot_answer_in_its_turn_is_mended_by_the_fallback_and_loses_no_turn(house: House) -> None:
    runners = three()
    runners["a"].script.clear()
    runners["a"].script.extend([OverloadedError("full"), "fine"])
    assert await who_answers(house("alloy: [a, b]\nfallback: [c]", **runners), 3) == "c b a"


async def test_among_the_models_it_has_the_smallest_window_of_its_members(house: House) -> None:
    routed = house("alloy: [a, b]", a=Windowed("a", 1000), b=Windowed("b", 400), c=Windowed("c", 10))
    rows = (await routed.service.models())["models"]
    assert [row["id"] for row in rows] == ["a:script", "b:script", "c:script", "alloy"]
    assert rows[-1] | {"images": None, "tools": None, "reasoning": None} == rows[-1]
    assert (rows[-1]["runner"], rows[-1]["context_window"], rows[-1]["max_output_tokens"]) == (None, 400, 40)


async def test_a_window_that_nobody_knows_is_not_made_up(house: House) -> None:
    routed = house("alloy: [a, b]", a=Windowed("a", None), b=Windowed("b", None))
    assert (await routed.service.models())["models"][-1]["context_window"] is None


async def test_without_an_alloy_the_name_means_nothing_and_a_runner_may_have_it(world: World) -> None:
    with world.daemon(world.config("runners: {alloy: {kind: echo}}\n")):
        async with await Wire.connect(world.socket) as wire:
            assert (await wire.call("chat", model="alloy", messages=user("Hi")))["result"]["runner"] == "alloy"
            assert [row["id"] for row in (await wire.call("models"))["result"]["models"]][-1] != "alloy"


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("alloy:\n- a\n- nobody\n", [":3: alloy[1]: 'nobody' names no runner of this file (a, echo)"]),
        ("fallback:\n- nobody:model\n", [":2: fallback[0]: 'nobody:model' names no runner of this file (a, echo)"]),
        ("alloy: [a, echo]\n", [":1: alloy[1]: echo answers only when it is asked for by name"]),
        ("fallback: [echo]\n", [":1: fallback[0]: echo answers only when it is asked for by name"]),
        ("aliases: {e: echo}\nfallback: [e]\n", [":2: fallback[0]: echo answers only when it is asked for by name"]),
        ("alloy: [a]\nfallback: [alloy]\n", [":2: fallback[0]: 'alloy' names no runner of this file (a, echo)"]),
        ("alloy: [alloy]\n", [":1: alloy[0]: 'alloy' names no runner of this file (a, echo)"]),
        (
            "aliases: {again: alloy}\nalloy: [a, again]\n",
            [":2: alloy[1]: 'alloy' names no runner of this file (a, echo)"],
        ),
        ("alloy: [a]\naliases: {alloy: a}\n", [":2: aliases.alloy: with an alloy this name means the alloy"]),
        ("default: alloy\n", [":1: default: 'alloy' names no runner of this file (a, echo)"]),
        ("aliases: {mixed: alloy}\n", [":1: aliases.mixed: 'alloy' names no runner of this file (a, echo)"]),
        ("alloy: a\n", [":1: alloy: Input should be a valid list"]),
        ("fallback: [1]\n", [":1: fallback[0]: Input should be a valid string"]),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, mistakes: list[str]) -> None:
    path = tmp_path / "runners.yaml"
    path.write_text(text + "runners:\n  a: {kind: claude}\n  echo: {kind: echo}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.message.splitlines() == [f"{path}{mistake}" for mistake in mistakes]


def test_a_runner_called_alloy_beside_an_alloy_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "runners.yaml"
    path.write_text("alloy: [alloy]\nrunners:\n  alloy: {kind: claude}\n")
    with pytest.raises(ConfigError, match=r":3: runners\.alloy: with an alloy this name means the alloy"):
        load_config(path)


async def test_the_results_of_tools_go_to_the_member_whose_turn_waits_for_them(house: House) -> None:
    routed = house("alloy: [a, b]", a=Stage("a", warm=0), b=Stage("b", warm=0))

    async def asked(messages: list[dict[str, Any]]) -> tuple[str, str]:
        request = ChatRequest.model_validate({"model": "alloy", "messages": messages})
        answer = await fold(await routed.service.chat(request))
        return answer.runner, answer.served

    calling = {"id": "c1", "name": "weather", "arguments": {"city": "Paris"}}
    rounds = user("call")
    assert (await asked(rounds))[0] == "a"
    for _ in range(3):
        rounds = [*rounds, assistant("re: call", tool_calls=[calling])]
        rounds.append({"role": "tool", "tool_call_id": "c1", "content": "call"})
        assert await asked(rounds) == ("a", "resumed")
    # Nobody has lost a turn by that.
    assert (await asked(user("Hi")))[0] == "b"
    assert (await asked(user("Hi again")))[0] == "a"
