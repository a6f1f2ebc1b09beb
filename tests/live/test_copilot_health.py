"""`runnerd health` tells the truth about the real copilot: installed, logged in, and what to do when it is not."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.live.copilot_lab import NO_LOGIN, copilot_lab
from tests.live.lab import Entries, Json, Lab
from tests.world import World

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

UNABLE: Entries = {
    "missing": {"binary": "/nonexistent/copilot"},
    "no_login": NO_LOGIN,
    "no_key": {"provider": {"api_key_env": "NOT_THERE"}},
}


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {**UNABLE, "own": {}}


@pytest.fixture
def lab(lab_of_copilot: Lab) -> Lab:
    return lab_of_copilot


async def health(lab: Lab, *arguments: str) -> tuple[int, Json]:
    done = await asyncio.to_thread(lab.world.runnerd, "health", *arguments, "--json")
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return done.returncode, answer


async def test_a_copilot_with_an_api_of_the_users_own_is_ready_and_asks_it_nothing(lab: Lab, copilot: Path) -> None:
    code, answer = await health(lab, "own")
    [row] = answer["runners"]
    assert (code, answer["ok"], row["ok"], row["state"], row["reason"]) == (0, True, True, "ready", None)
    assert f"copilot-{row['version']}" in copilot.parts
    assert row["authenticated"] is None  # only a chat proves the key
    assert lab.api.url in row["detail"]
    assert (lab.api.requests, lab.api.others) == ([], [])


async def test_a_copilot_that_is_not_there_is_not_installed(lab: Lab) -> None:
    code, answer = await health(lab, "missing")
    [row] = answer["runners"]
    assert (code, answer["ok"], row["state"], row["reason"]) == (1, False, "unavailable", "not_installed")
    assert "npm install" in row["hint"]
    assert "/nonexistent/copilot" in row["detail"]
    assert row["version"] is None


async def test_a_copilot_without_a_login_is_not_authenticated(lab: Lab) -> None:
    code, answer = await health(lab, "no_login")
    [row] = answer["runners"]
    assert (code, answer["ok"], row["state"], row["reason"]) == (1, False, "unavailable", "not_authenticated")
    assert row["authenticated"] is False
    assert row["hint"] == "copilot login"


async def test_a_key_that_is_nowhere_is_a_mistake_in_the_config(lab: Lab) -> None:
    code, answer = await health(lab, "no_key")
    [row] = answer["runners"]
    assert (code, answer["ok"], row["state"], row["reason"]) == (1, False, "unavailable", "config")
    assert "NOT_THERE" in row["detail"]


async def test_health_is_good_when_one_copilot_of_several_can_serve(lab: Lab) -> None:
    code, answer = await health(lab)
    assert (code, answer["ok"]) == (0, True)
    rows = {row["name"]: row["ok"] for row in answer["runners"]}
    assert rows == {"missing": False, "no_login": False, "no_key": False, "own": True}


async def test_a_deep_look_is_an_answer_of_the_api(lab: Lab) -> None:
    code, answer = await health(lab, "own", "--deep")
    assert (code, answer["ok"]) == (0, True)
    assert len(lab.api.requests) == 1


async def test_health_is_bad_when_no_copilot_can_serve(world: World, copilot: Path) -> None:
    async with copilot_lab(world, copilot, UNABLE) as lab:
        code, answer = await health(lab)
    assert (code, answer["ok"]) == (1, False)
    assert [row["reason"] for row in answer["runners"]] == ["not_installed", "not_authenticated", "config"]
