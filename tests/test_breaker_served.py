"""The breaker in a real daemon: what a client is told, what health says, and whom it does not concern."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.installed import Installed
from tests.programs import BROKEN, HELD, entry
from tests.world import Wire, World, user

ECHO = "  echo: {kind: echo}\n"
ONCE = "retry: {attempts: 1}"


@pytest.fixture
async def wire(world: World) -> AsyncIterator[Wire]:
    """A connection to a daemon with a claude that exits before each answer."""
    Installed(world).claude(fault="exit_before")
    with world.daemon(world.config(f"runners:\n  claude: {{kind: claude, {ONCE}}}\n" + ECHO)):
        async with await Wire.connect(world.socket) as connected:
            yield connected


async def failure(wire: Wire, model: str | None = "claude", **fields: Any) -> dict[str, Any]:
    error = (await wire.call("chat", model=model, messages=user("Hi"), **fields))["error"]
    assert error["code"] == -32010
    return dict(error["data"])


async def rows(wire: Wire, name: str) -> list[dict[str, Any]]:
    """What `health`, `runners` and `status` say of a runner."""
    found = [(await wire.call(method))["result"]["runners"] for method in ("health", "runners", "status")]
    return [next(row for row in part if row["name"] == name) for part in found]


async def test_five_failures_in_a_row_refuse_the_next_chat_with_their_kind_and_a_time(wire: Wire) -> None:
    for _ in range(5):
        failed = await failure(wire)
        assert (failed["kind"], failed.get("retry_after_s")) == ("process_exited", None)
        assert failed["stderr_tail"]
    refused = await failure(wire)
    assert (refused["kind"], refused["runner"], refused["retryable"]) == ("process_exited", "claude", True)
    assert 0 < refused["retry_after_s"] <= 30
    assert "5 times in a row" in refused["message"]
    assert not refused.get("stderr_tail")


async def test_everybody_is_told_that_it_is_unavailable_and_why(world: World, wire: Wire) -> None:
    assert (await rows(wire, "claude"))[0]["state"] == "ready"
    for _ in range(5):
        await failure(wire)
    health, runner, status = await rows(wire, "claude")
    assert {row["state"] for row in (health, runner, status)} == {"unavailable"}
    assert (health["ok"], health["reason"]) == (False, "process_exited")
    assert "5 times in a row" in health["detail"]
    # An echo is no model: nobody else can answer.
    done = world.runnerd("health", "--json")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)
    assert world.runnerd("health", "echo").returncode == 0
    done = world.runnerd("chat", "-m", "claude", "Hi")
    assert done.returncode == 75


async def test_a_time_that_the_client_set_below_the_runner_s_own_does_not_count(world: World) -> None:
    held = entry(world, "held", HELD, f"{ONCE}, breaker: {{failures: 2}}, timeouts: {{first_chunk_s: 100}}")
    with world.daemon(world.config("runners:\n" + held)):
        async with await Wire.connect(world.socket) as wire:
            for deadline in ("silence_s", "turn_s", "silence_s", "turn_s"):
                failed = await failure(wire, "held", timeouts={deadline: 0.2})
                assert failed["kind"] == "timeout"
            assert {row["state"] for row in await rows(wire, "held")} == {"ready"}


async def test_a_time_of_the_runner_s_own_counts(world: World) -> None:
    held = entry(world, "held", HELD, f"{ONCE}, breaker: {{failures: 2}}, timeouts: {{silence_s: 0.2}}")
    with world.daemon(world.config("runners:\n" + held)):
        async with await Wire.connect(world.socket) as wire:
            for _ in range(2):
                failed = await failure(wire, "held")
                assert (failed["kind"], failed.get("retry_after_s")) == ("timeout", None)
            assert (await failure(wire, "held"))["retry_after_s"] > 0


async def test_a_missing_login_never_refuses_a_chat(world: World) -> None:
    Installed(world).claude(logged_in=False)
    config = world.config(f"runners: {{claude: {{kind: claude, {ONCE}, breaker: {{failures: 1}}}}}}\n")
    with world.daemon(config):
        async with await Wire.connect(world.socket) as wire:
            [row] = (await wire.call("health"))["result"]["runners"]
            assert (row["state"], row["reason"]) == ("unavailable", "not_authenticated")
            for _ in range(3):
                assert (await wire.call("chat", model="claude", messages=user("Hi")))["result"]["content"] == "Hi"


async def test_one_runner_s_open_breaker_is_no_business_of_another_s_chats(world: World) -> None:
    broken = entry(world, "broken", BROKEN, f"{ONCE}, breaker: {{failures: 1}}")
    held = entry(world, "held", HELD)
    with world.daemon(world.config("runners:\n" + broken + held + ECHO)):
        async with await Wire.connect(world.socket) as wire, await Wire.connect(world.socket) as other:
            await other.request("chat", model="held", messages=user("Hi"))
            while (await other.read())["params"]["chunk"]["type"] != "text":
                pass
            await failure(wire, "broken")
            assert (await failure(wire, "broken"))["retry_after_s"] > 0
            assert (await wire.call("chat", model="echo", messages=user("Hi")))["result"]["content"] == "Hi"
            states = {row["name"]: row["running"] for row in (await wire.call("status"))["result"]["runners"]}
            assert states == {"broken": 0, "held": 1, "echo": 0}


async def test_a_cli_that_was_not_installed_is_tried_again_as_soon_as_a_probe_sees_it(world: World) -> None:
    installed = Installed(world)
    config = world.config(f"runners: {{claude: {{kind: claude, {ONCE}, breaker: {{failures: 1, open_s: 600}}}}}}\n")
    with world.daemon(config):
        async with await Wire.connect(world.socket) as wire:
            assert (await failure(wire))["kind"] == "not_installed"
            refused = await failure(wire)
            assert (refused["kind"], refused["retry_after_s"] > 500) == ("not_installed", True)
            installed.claude()
            [row] = (await wire.call("health"))["result"]["runners"]
            assert row["state"] == "ready"
            assert (await wire.call("chat", model="claude", messages=user("Hi")))["result"]["content"] == "Hi"
