"""`runnerd health` tells the truth about the real claude: installed, logged in, and what to do when it is not."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.live.claude_lab import NO_LOGIN, PLAN, claude_lab
from tests.live.lab import Entries, Json, Lab
from tests.world import World

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

UNABLE: Entries = {"missing": {"binary": "/nonexistent/claude"}, "no_login": {"env": NO_LOGIN}}


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {**UNABLE, "key": {}, "plan": {"env": PLAN}}


async def health(lab: Lab, *arguments: str) -> tuple[int, Json]:
    # In a thread: old asks the stand-in API, which runs in this loop, when it is asked for its login.
    done = await asyncio.to_thread(lab.world.runnerd, "health", *arguments, "--json")
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return done.returncode, answer


@pytest.mark.parametrize(("name", "method"), [("key", "api_key"), ("plan", "oauth_token")])
async def test_a_claude_with_a_login_is_ready(lab: Lab, claude: Path, name: str, method: str) -> None:
    code, answer = await health(lab, name)
    [row] = answer["runners"]
    assert (code, answer["ok"], row["ok"], row["state"], row["reason"]) == (0, True, True, "ready", None)
    assert f"claude-{row['version']}" in claude.parts
    assert row["authenticated"] is True
    assert method in row["detail"]
    assert row["age_s"] >= 0
    assert lab.api.requests == []


async def test_a_claude_that_is_not_there_is_not_installed(lab: Lab) -> None:
    code, answer = await health(lab, "missing")
    [row] = answer["runners"]
    assert (code, answer["ok"], row["state"], row["reason"]) == (1, False, "unavailable", "not_installed")
    assert "npm install" in row["hint"]
    assert "/nonexistent/claude" in row["detail"]
    assert row["version"] is None


async def test_a_claude_without_a_login_is_not_authenticated(lab: Lab, claude: Path) -> None:
    code, answer = await health(lab, "no_login")
    [row] = answer["runners"]
    assert (code, answer["ok"], row["state"], row["reason"]) == (1, False, "unavailable", "not_authenticated")
    assert row["authenticated"] is False
    assert "claude auth login" in row["hint"]
    assert f"claude-{row['version']}" in claude.parts


async def test_health_is_good_when_one_claude_of_several_can_serve(lab: Lab) -> None:
    code, answer = await health(lab)
    assert (code, answer["ok"]) == (0, True)
    assert {row["name"]: row["ok"] for row in answer["runners"]} == {
        "missing": False,
        "no_login": False,
        "key": True,
        "plan": True,
    }


async def test_health_is_bad_when_no_claude_can_serve(world: World, claude: Path) -> None:
    async with claude_lab(world, claude, UNABLE) as lab:
        code, answer = await health(lab)
    assert (code, answer["ok"]) == (1, False)
    assert [row["reason"] for row in answer["runners"]] == ["not_installed", "not_authenticated"]
