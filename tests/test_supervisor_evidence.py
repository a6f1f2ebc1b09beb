"""What real chats show of a runner's health, and what a probe can and cannot refute."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from daemon.config import load_config
from daemon.registry import Registry
from daemon.service import Service
from daemon.supervisor import STALE_S, Supervisor
from runners.errors import (
    AuthExpiredError,
    ContextOverflowError,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    NetworkError,
    NotAuthenticatedError,
    NotInstalledError,
    OverloadedError,
    ProcessExitedError,
    ProtocolError,
    QuotaExhaustedError,
    RateLimitedError,
    RunnerError,
    VendorError,
)
from runners.provider import Health
from runners.settings import RetrySettings, RunnerSettings, Timeouts
from runners.stream import ChatChunk, Failed, Start, Text
from runners.testing import ScriptedProvider, request
from tests.installed import Installed
from tests.world import Wire, World, until, user

READY = Health("ready", version="1.2.3", authenticated=True, detail="logged in by token")
ONCE = RunnerSettings(
    kind="scripted",
    retry=RetrySettings(attempts=1),
    timeouts=Timeouts(spawn_s=1, first_chunk_s=1, silence_s=1, turn_s=1),
)
LOGGED_OUT = Health("unavailable", "not_authenticated", authenticated=False, detail="not logged in", hint="log in")

SHAKING: list[RunnerError] = [
    ProcessExitedError("the CLI died of SIGKILL", exit_code=-9, hint="look at its log"),
    ProtocolError("it ended its answer without the last line"),
    DeadlineExceededError("silent", deadline="silence_s", limit_s=1),
    DeadlineExceededError("no content", deadline="first_chunk_s", limit_s=1),
    DeadlineExceededError("no end", deadline="spawn_s", limit_s=1),
    OverloadedError("no capacity"),
    VendorError("broken"),
]
HARMLESS: list[RunnerError] = [
    InvalidRequestError("no sense"),
    ModelNotFoundError("no such model"),
    ContextOverflowError("too long"),
    RateLimitedError("slow down"),
    QuotaExhaustedError("used up"),
    DeadlineExceededError("a slow client", deadline="turn_s", limit_s=1),
]


def named(error: RunnerError) -> str:
    return f"{error.kind}-{error.deadline}" if isinstance(error, DeadlineExceededError) else error.kind


class Probed(ScriptedProvider):
    """Its probe finds `found`, once `may_answer` is set."""

    def __init__(self, *replies: str | list[ChatChunk] | RunnerError) -> None:
        super().__init__(*replies, settings=ONCE)
        self.found = READY
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.probes = 0

    async def probe(self) -> Health:
        self.probes += 1
        await self.may_answer.wait()
        return self.found


class House:
    """A service and a supervisor of one runner, on a clock that the test turns."""

    def __init__(self, directory: Path, *replies: str | list[ChatChunk] | RunnerError) -> None:
        path = directory / "runners.yaml"
        path.write_text("runners: {}\n")
        self.now_s = 1000.0
        self.runner = Probed(*replies)
        registry = Registry(load_config(path), directory)
        registry.runners[self.runner.name] = self.runner
        registry.eligible.append(self.runner)
        self.supervisor = Supervisor(registry, lambda: self.now_s)
        self.service = Service(registry, self.supervisor)

    async def chat(self) -> str:
        """The type of the last chunk, or the kind of the error that is raised."""
        try:
            async with await self.service.chat(request("Hi", model="scripted")) as stream:
                return [chunk.type async for chunk in stream][-1]
        except RunnerError as error:
            return error.kind

    async def health(self) -> dict[str, Any]:
        """The row of `health`, which must agree with what `runners` and `status` say."""
        answer = await self.service.health("scripted")
        [row] = answer["runners"]
        assert isinstance(row, dict)
        [runner], [status] = self.service.runners()["runners"], (await self.service.status())["runners"]
        assert runner["state"] == status["state"] == row["state"]
        assert answer["ok"] == row["ok"]
        return row


@pytest.fixture
async def houses(tmp_path: Path, no_leaks: None) -> AsyncIterator[type[House]]:
    made: list[House] = []

    class Closed(House):
        def __init__(self, *replies: str | list[ChatChunk] | RunnerError) -> None:
            super().__init__(tmp_path, *replies)
            made.append(self)

    yield Closed
    for house in made:
        await house.supervisor.aclose()


def broken(error: RunnerError) -> list[ChatChunk]:
    """An answer that breaks off behind its first words."""
    return [Start("1", "scripted", "script"), Text("so far"), Failed(error)]


@pytest.mark.parametrize("started", [True, False], ids=["in its answer", "before its answer"])
@pytest.mark.parametrize("error", SHAKING, ids=named)
async def test_a_chat_that_breaks_makes_its_runner_degraded_with_the_reason(
    houses: Any, error: RunnerError, started: bool
) -> None:
    house = houses(broken(error) if started else error)
    assert (await house.health())["state"] == "ready"
    assert await house.chat() == ("error" if started else error.kind)
    row = await house.health()
    assert (row["state"], row["ok"], row["reason"]) == ("degraded", True, error.kind)
    assert (row["detail"], row["hint"]) == (error.message, error.hint)
    # What the probe knew stands.
    assert (row["version"], row["authenticated"]) == ("1.2.3", True)


@pytest.mark.parametrize("error", SHAKING, ids=named)
async def test_a_probe_does_not_wash_that_off_and_an_answered_chat_does(houses: Any, error: RunnerError) -> None:
    house = houses(error, "fine")
    await house.health()
    await house.chat()

    async def has_looked_by_itself() -> bool:
        return bool(house.runner.probes == 2)

    await until(has_looked_by_itself)
    for _ in range(3):
        house.now_s += 2 * STALE_S
        probes = house.runner.probes
        assert ((await house.health())["state"], house.runner.probes) == ("degraded", probes + 1)
    assert (await house.health())["reason"] == error.kind
    assert await house.chat() == "done"
    row = await house.health()
    assert (row["state"], row["reason"], row["hint"]) == ("ready", None, None)
    assert (row["version"], row["authenticated"]) == ("1.2.3", True)


@pytest.mark.parametrize("error", HARMLESS, ids=named)
async def test_what_says_nothing_of_the_runner_leaves_it_ready(houses: Any, error: RunnerError) -> None:
    house = houses(error, broken(error))
    await house.health()
    assert await house.chat() == error.kind
    assert await house.chat() == "error"
    row = await house.health()
    assert (row["state"], row["reason"], row["detail"]) == ("ready", None, "logged in by token")


async def test_a_turn_whose_client_was_slow_leaves_a_runner_that_was_shaken_as_it_was(houses: Any) -> None:
    house = houses(ProtocolError("broken"), DeadlineExceededError("slow", deadline="turn_s", limit_s=1))
    await house.health()
    await house.chat()
    assert await house.chat() == "timeout"
    assert (await house.health())["reason"] == "protocol"


async def test_the_last_of_several_reasons_is_told(houses: Any) -> None:
    house = houses(ProtocolError("first"), VendorError("second"))
    await house.health()
    await house.chat()
    await house.chat()
    row = await house.health()
    assert (row["reason"], row["detail"]) == ("vendor_error", "second")


async def test_the_evidence_is_as_old_as_the_chat_that_showed_it(houses: Any) -> None:
    house = houses(ProtocolError("broken"))
    await house.health()
    house.now_s += 100
    await house.chat()
    house.now_s += 7
    assert (await house.health())["age_s"] == 7


async def test_a_chat_that_breaks_before_anything_is_known_counts_and_the_first_probe_does_not_refute_it(
    houses: Any,
) -> None:
    house = houses(ProtocolError("broken"))
    house.runner.may_answer.clear()
    house.supervisor.start()
    assert await house.chat() == "protocol"
    house.runner.may_answer.set()
    assert (await house.health())["reason"] == "protocol"


@pytest.mark.parametrize(("found", "version"), [(READY, "1.2.3"), (LOGGED_OUT, None)], ids=["well", "logged out"])
async def test_a_probe_that_was_under_way_does_not_overrule_what_a_chat_has_shown_since(
    houses: Any, found: Health, version: str | None
) -> None:
    house = houses("fine")
    house.runner.found = found
    house.runner.may_answer.clear()
    house.supervisor.start()
    assert await house.chat() == "done"
    house.runner.may_answer.set()

    async def has_ended() -> bool:
        return not [task for task in asyncio.all_tasks() if task.get_name() == "probe-scripted"]

    await until(has_ended)
    row = await house.health()
    # What no chat can tell of the CLI is known from the probe all the same.
    assert (row["state"], row.get("version")) == ("ready", version)


async def test_an_expired_login_that_a_chat_found_stays_whatever_a_probe_or_a_broken_chat_says(houses: Any) -> None:
    house = houses(AuthExpiredError("expired", hint="log in again"), ProcessExitedError("gone"), "fine")
    await house.health()
    assert await house.chat() == "auth_expired"
    for _ in range(2):
        row = await house.health()
        assert (row["state"], row["reason"], row["hint"]) == ("unavailable", "auth_expired", "log in again")
        assert (row["version"], row["authenticated"]) == ("1.2.3", False)
        house.now_s += 2 * STALE_S
    assert await house.chat() == "process_exited"
    assert (await house.health())["reason"] == "auth_expired"
    # The chat is the probe.
    assert await house.chat() == "done"
    row = await house.health()
    assert (row["state"], row["reason"], row["authenticated"]) == ("ready", None, True)


@pytest.mark.parametrize("error", [NotAuthenticatedError("out"), NotInstalledError("gone")], ids=named)
async def test_a_login_or_a_program_that_a_chat_missed_is_back_when_a_probe_sees_it(
    houses: Any, error: RunnerError
) -> None:
    house = houses(error)
    await house.health()
    house.runner.found = LOGGED_OUT
    await house.chat()
    assert (await house.health())["state"] == "unavailable"
    house.runner.found = READY
    assert (await house.health())["state"] == "ready"


async def test_a_login_that_a_probe_missed_is_not_hidden_by_a_chat_that_broke(houses: Any) -> None:
    house = houses(ProcessExitedError("gone"))
    house.runner.found = LOGGED_OUT
    await house.health()
    await house.chat()
    row = await house.health()
    assert (row["state"], row["reason"], row["hint"]) == ("unavailable", "not_authenticated", "log in")


async def test_a_shaken_runner_whose_probe_fails_is_unavailable_for_the_probe_s_reason(houses: Any) -> None:
    house = houses(ProtocolError("broken"))
    await house.health()
    await house.chat()
    house.runner.found = LOGGED_OUT
    assert (await house.health())["reason"] == "not_authenticated"


async def test_a_cancelled_chat_says_nothing_of_its_runner(houses: Any) -> None:
    house = houses([Start("1", "scripted", "script"), Text("so far"), Text("more")])
    await house.health()
    async with await house.service.chat(request("Hi", model="scripted")) as stream:
        await anext(stream)
    assert (await house.health())["state"] == "ready"


async def test_a_shaken_runner_still_answers_who_names_nobody(houses: Any) -> None:
    house = houses(ProtocolError("broken"), "fine")
    await house.health()
    await house.chat()
    async with await house.service.chat(request("Hi")) as stream:
        assert [chunk.type async for chunk in stream][-1] == "done"


async def test_a_network_that_broke_says_nothing_of_the_cli(houses: Any) -> None:
    house = houses(NetworkError("no route"))
    await house.health()
    await house.chat()
    assert (await house.health())["state"] == "ready"


async def test_a_deep_health_that_breaks_shakes_the_runner_too(houses: Any) -> None:
    house = houses(ProtocolError("broken"), "OK.")
    await house.health()
    [row] = (await house.service.health("scripted", deep=True))["runners"]
    assert (row["ok"], row["reason"]) == (False, "protocol")
    assert (await house.health())["state"] == "degraded"
    [row] = (await house.service.health("scripted", deep=True))["runners"]
    assert (row["ok"], row["state"]) == (True, "ready")


async def test_an_ollama_killed_in_a_chat_is_degraded_everywhere_until_a_chat_is_answered(world: World) -> None:
    Installed(world).ollama(child=True)
    with world.daemon(world.config("runners: {ollama: {kind: ollama}}\n")) as daemon:
        async with await Wire.connect(world.socket) as wire, await Wire.connect(world.socket) as other:
            assert (await wire.call("health"))["result"]["runners"][0]["state"] == "ready"
            chat = await wire.request("chat", messages=user("[hold]"))
            while (await wire.read())["params"]["chunk"]["type"] != "text":
                pass
            [status] = (await other.call("status"))["result"]["runners"]
            [worker] = [worker for worker in status["workers"] if worker["state"] == "busy"]
            assert (status["running"], worker["state"]) == (1, "busy")
            assert psutil.Process(worker["pid"]).ppid() == daemon.process.pid
            psutil.Process(worker["pid"]).send_signal(signal.SIGKILL)
            chunks, response = await wire.read_until_response(chat)
            assert chunks[-1]["error"]["kind"] == response["error"]["data"]["kind"] == "process_exited"
            assert response["error"]["data"]["exit_code"] == -signal.SIGKILL

            async def states() -> tuple[set[str], str | None]:
                [health] = (await other.call("health"))["result"]["runners"]
                [runner] = (await other.call("runners"))["result"]["runners"]
                [row] = (await other.call("status"))["result"]["runners"]
                assert row["running"] == 0
                return {health["state"], runner["state"], row["state"]}, health["reason"]

            # Each `health` probes, and the probe finds a new server that is well.
            for _ in range(2):
                assert await states() == ({"degraded"}, "process_exited")
            done = world.runnerd("health", "--json")
            assert (done.returncode, json.loads(done.stdout)["runners"][0]["reason"]) == (0, "process_exited")
            assert (await wire.call("chat", messages=user("again")))["result"]["content"] == "again"
            assert await states() == ({"ready"}, None)
    told = [event["state"] for event in daemon.log if event["event"] == "runner.health"]
    assert told == ["ready", "degraded", "ready"]


async def test_a_user_s_ollama_is_untouched_and_ours_is_gone_when_the_daemon_ends(world: World) -> None:
    Installed(world).ollama(child=True)
    with world.daemon(world.config("runners: {ollama: {kind: ollama}}\n")) as daemon:
        async with await Wire.connect(world.socket) as wire:
            assert (await wire.call("chat", messages=user("Hi")))["result"]["content"] == "Hi"
        assert len(world.processes()) == 3
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0

        async def all_gone() -> bool:
            return world.processes() == []

        await until(all_gone)
