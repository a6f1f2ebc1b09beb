"""Sessions of the real CLIs that wait for the results of tools, in a real daemon: how they go on, and how they end."""

import asyncio
import random
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from runners.messages import NO_RESULT
from runners.testing import calling
from tests.live.lab import Entries, Json
from tests.live.tool_lab import NEWEST_CLIS, WEATHER, ToolLab, going_on, tool_lab
from tests.world import Wire, World, until, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

PARIS = ("get_weather", {"city": "Paris"})
ASKED = [{"role": "system", "content": "Be brief."}, *user(calling(PARIS, PARIS, text="I look."))]


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {"impatient": {"parked_ttl_s": 0.2}}


@pytest.fixture
def lab(lab_with_tools: ToolLab) -> ToolLab:
    return lab_with_tools


def told(lab: ToolLab, *results: tuple[str, bool | None]) -> bool:
    """Whether the model was told the conversation with these results, in its API's own form and nothing else."""
    received = lab.received()
    assert received.system == "Be brief."
    assert received.messages[:2] == [("user", ASKED[1]["content"]), ("assistant", "I look.")]
    assert [call[1:] for call in received.calls] == [PARIS, PARIS]
    assert [tool["name"] for tool in received.tools] == ["get_weather"]
    assert {call_id for call_id, _, _ in received.results} == {call_id for call_id, _, _ in received.calls}
    return sorted((text, is_error or None) for _, text, is_error in received.results) == sorted(results)


async def states(lab: ToolLab, runner: str | None = None) -> list[str]:
    return [worker["state"] for worker in await lab.lab.workers(runner)]


async def test_the_results_may_come_on_another_connection(lab: ToolLab) -> None:
    async with await Wire.connect(lab.lab.world.socket) as first:
        response = await first.call("chat", model=lab.lab.runner, messages=ASKED, tools=[WEATHER])
    calls = response["result"]["tool_calls"]
    assert response["result"]["stop_reason"] == "tool_calls"
    assert await states(lab) == ["parked"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"]} for call in reversed(calls)]
    answer = await lab.chat([*ASKED, {"role": "assistant", **response["result"]}, *results])
    assert answer.result["served"] == "resumed"
    assert answer.result["content"] in [call["id"] for call in calls]
    assert lab.model_calls == 2
    received = lab.received()
    assert {call_id: text for call_id, text, _ in received.results} == {call["id"]: call["id"] for call in calls}


async def test_what_waits_for_too_long_ends_asks_its_model_nothing_and_its_results_are_told_to_another(
    lab: ToolLab,
) -> None:
    asked = await lab.chat(ASKED, runner="impatient")
    await lab.lab.no_cli_is_left()
    assert lab.model_calls == 1
    answer = await lab.chat(going_on(ASKED, asked, "18 degrees", "19 degrees"), runner="impatient")
    assert (answer.result["served"], answer.result["content"]) == ("cold", "19 degrees")
    assert told(lab, ("18 degrees", None), ("19 degrees", None))
    assert lab.model_calls == 2


async def test_a_cli_that_is_killed_meanwhile_is_replaced_by_one_that_is_told_all(lab: ToolLab) -> None:
    asked = await lab.chat(ASKED)
    for process in lab.lab.clis():
        process.kill()

    async def is_noticed() -> bool:
        return await states(lab) == []

    await until(is_noticed)
    answer = await lab.chat(going_on(ASKED, asked, "18 degrees", "19 degrees"))
    assert (answer.result["served"], answer.result["content"]) == ("cold", "19 degrees")
    assert told(lab, ("18 degrees", None), ("19 degrees", None))


async def test_a_conversation_that_goes_on_without_its_results_is_right_and_leaves_nothing_waiting(
    lab: ToolLab,
) -> None:
    asked = await lab.chat(ASKED)
    without = [*going_on(ASKED, asked, "18 degrees", "-")[:-1], *user("never mind")]
    answer = await lab.chat(without)
    assert answer.result["content"] == "never mind"
    assert any("has no result" in warning for warning in answer.result["warnings"])
    is_told = lab.received().results[0][2]
    assert told(lab, ("18 degrees", None), (NO_RESULT, None if is_told is None else True))
    await lab.lab.no_cli_is_left()
    assert lab.model_calls == 2


async def test_a_reload_that_does_not_change_its_runner_leaves_it_waiting(lab: ToolLab) -> None:
    asked = await lab.chat(ASKED)
    assert "error" not in await lab.lab.wire.call("reload")
    assert await states(lab) == ["parked"]
    assert (await lab.chat(going_on(ASKED, asked, "18 degrees", "19 degrees"))).result["served"] == "resumed"


async def test_a_result_that_is_missing_is_a_clear_error_and_the_session_waits_on(lab: ToolLab) -> None:
    asked = await lab.chat(ASKED)
    whole = going_on(ASKED, asked, "18 degrees", "19 degrees")
    refused = (await lab.chat(whole[:-1])).error
    missing = asked.result["tool_calls"][1]["id"]
    assert (refused["kind"], missing in refused["message"]) == ("invalid_request", True)
    unknown = [*whole, {"role": "tool", "tool_call_id": "nobody's", "content": "?"}]
    assert "nobody's" in (await lab.chat(unknown)).error["message"]
    assert await states(lab) == ["parked"]
    assert (await lab.chat(whole)).result["served"] == "resumed"
    assert told(lab, ("18 degrees", None), ("19 degrees", None))


@pytest.mark.parametrize(
    ("text", "is_error"),
    [
        ("", False),
        ("", True),
        ("no such city\n", True),
        ("a" * 20_000, True),
        ("18 \u00b0C\n" * 75_000, False),
        ("\U0001f600" * 260_000, False),
    ],
)
async def test_a_result_that_the_cli_would_change_is_told_as_it_is_by_another(
    lab: ToolLab, text: str, is_error: bool
) -> None:
    asked = await lab.chat(ASKED)
    whole = going_on(ASKED, asked, "18 degrees", text)
    whole[-1]["is_error"] = is_error
    answer = await lab.chat(whole)
    assert answer.result["content"] == (text or "ok")
    # Copilot hands on whatever it is given.
    assert answer.result["served"] == ("cold" if lab.lab.runner == "claude" else "resumed")
    ids = [call["id"] for call in asked.result["tool_calls"]]
    told_of = dict(zip((call[0] for call in lab.received().calls), ids, strict=True))
    results = {told_of[call_id]: (said, failed) for call_id, said, failed in lab.received().results}
    assert results[ids[0]][0] == "18 degrees"
    assert results[ids[1]] in [(text, is_error), (text, None)]
    await lab.lab.no_cli_is_left()
    assert lab.model_calls == 2


@NEWEST_CLIS
async def test_twenty_that_wait_at_once_go_on_in_any_order_and_none_is_mixed(lab: ToolLab) -> None:
    asked = [user(calling(("get_weather", {"city": f"city {n}"}), text=f"number {n}")) for n in range(20)]
    wire = lab.lab.wire
    wire.patience_s = 120
    ids = [await lab.lab.begin(messages, tools=[WEATHER]) for messages in asked]
    first = await lab.lab.rest_of_all(*ids)
    assert [answer.result["content"] for answer in first] == [f"number {n}" for n in range(20)]
    assert await states(lab) == ["parked"] * 20
    order = list(range(20))
    random.shuffle(order)
    whole = {n: going_on(asked[n], first[n], f"result {n}") for n in order}
    ids = [await lab.lab.begin(whole[n], tools=[WEATHER]) for n in order]
    answers = dict(zip(order, await lab.lab.rest_of_all(*ids), strict=True))
    for n, answer in answers.items():
        assert (answer.result["served"], answer.result["content"]) == ("resumed", f"result {n}")
    sent = [lab.read(received.body) for received in lab.lab.api.requests[20:]]
    assert sorted((one.calls[0][2]["city"], one.results[0][1]) for one in sent) == sorted(
        (f"city {n}", f"result {n}") for n in range(20)
    )


async def test_arguments_come_as_the_model_writes_them(lab: ToolLab) -> None:
    may_go_on = asyncio.Event()
    lab.script(("get_weather", '{"city": "Paris, Texas"}'), pause=may_go_on, pause_after=3)
    if lab.lab.runner == "codex":
        may_go_on.set()  # it tells them when they are whole
    chat = await lab.lab.begin(user("weather?"), tools=[WEATHER])
    shown: list[Json] = []
    while not shown or shown[-1]["type"] != "tool_request_arg":
        shown.append((await lab.lab.wire.read())["params"]["chunk"])
    may_go_on.set()
    rest = await lab.lab.rest(chat)
    pieces = [chunk["chunk"] for chunk in [*shown, *rest.chunks] if chunk["type"] == "tool_request_arg"]
    assert "".join(pieces) == '{"city": "Paris, Texas"}'
    [call] = rest.result["tool_calls"]
    assert (call["name"], call["arguments"]) == ("get_weather", {"city": "Paris, Texas"})
    asked = [*user("weather?"), {"role": "assistant", **rest.result}]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"}
    assert (await lab.chat([*asked, result])).result["content"] == "18 degrees"


async def test_nothing_of_a_tool_s_error_is_left_behind(lab: ToolLab) -> None:
    asked = await lab.chat(ASKED)
    whole = going_on(ASKED, asked, "18 degrees", "a secret of its client")
    whole[-1]["is_error"] = True
    assert (await lab.chat(whole)).result["served"] == "resumed"
    await lab.lab.no_cli_is_left()

    async def nothing() -> bool:
        command = ["grep", "-rl", "a secret of its client", str(lab.lab.world.root)]
        return (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == 1

    await until(nothing)


async def test_each_answer_costs_its_own_model_calls(lab: ToolLab) -> None:
    plain = (await lab.chat(user("hello"))).result["usage"]
    asked = await lab.chat(ASKED)
    again = calling(PARIS, text="and again")
    second = await lab.chat(going_on(ASKED, asked, "18", again))
    third = await lab.chat(going_on(going_on(ASKED, asked, "18", again), second, "20"))
    counts = ("input_tokens", "output_tokens", "cached_input_tokens")
    for answer in (asked, second, third):
        assert {name: answer.result["usage"][name] for name in counts} == {name: plain[name] for name in counts}
    assert lab.model_calls == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_daemon_that_ends_leaves_nothing_that_waits(
    cli: tuple[str, Path], world: World, number: signal.Signals
) -> None:
    name, binary = cli
    async with tool_lab(world, name, binary, {name: {}}) as lab:
        lab.obey()
        async with await Wire.connect(world.socket) as lab.lab.wire:
            await lab.chat(ASKED)
        lab.lab.daemon.signal(number)
        await asyncio.to_thread(lab.lab.daemon.wait)
        if number == signal.SIGKILL:
            # What a killed daemon leaves, the next one ends.
            with world.daemon(world.root / "runners.yaml"):
                await gone(lab)
        await gone(lab)
        # A claude whose stdin ends answers its calls itself, and asks its model again.
        assert lab.model_calls == 1 or (number, name) == (signal.SIGKILL, "claude")


def is_daemon(process: psutil.Process) -> bool:
    try:
        return "runnerd" in process.cmdline()
    except psutil.NoSuchProcess:
        return True  # it has gone meanwhile, whatever it was


async def gone(lab: ToolLab) -> None:
    async def are() -> bool:
        return not [process for process in lab.lab.world.processes() if not is_daemon(process)]

    await until(are)


async def test_a_tool_s_definition_and_a_choice_arrive_whole_or_it_is_said(lab: ToolLab, cli: tuple[str, Path]) -> None:
    long: Json = {"name": "long", "description": "d" * 5000}
    params: Json = {"tools": [long, WEATHER], "tool_choice": {"name": "long"}}
    answer = await lab.lab.chat(user("hello"), **params)
    received = lab.received()
    whole = next(tool for tool in received.tools if tool["name"] == "long")["description"] == long["description"]
    assert whole == (not [warning for warning in answer.result["warnings"] if "description" in warning])
    chosen = received.knobs.get("tool_choice") == {"name": "long"}
    assert chosen == (not [warning for warning in answer.result["warnings"] if "tool_choice" in warning])
    if not (whole and chosen):
        assert (await lab.lab.chat(user("hello"), **params, strict=True)).error["kind"] == "unsupported"
    is_old = "2.1.197" in str(cli[1])
    assert (whole, chosen) == {"claude": (not is_old, True), "copilot": (True, False), "codex": (True, False)}[cli[0]]
