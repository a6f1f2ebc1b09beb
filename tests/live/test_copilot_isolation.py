"""Nothing that its user keeps for copilot touches a chat, and a chat leaves nothing behind."""

import asyncio
import json
from pathlib import Path

import pytest

from runners.testing.apis.completions_api import text
from runners.testing.apis.stand_in import StandIn
from tests.live.copilot_lab import ENV, MODEL, copilot_lab
from tests.live.lab import Entries, Json, Lab
from tests.world import World, user

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

BY_HAND_S = 60
MARK = "zebra-crossing"


@pytest.fixture(scope="module")
def entries() -> Entries:
    return {"copilot": {}}


@pytest.fixture
def lab(lab_of_copilot: Lab) -> Lab:
    return lab_of_copilot


def lay_traps(world: World) -> Path:
    """Everything by which a user or a project tells copilot what to do. Returns a folder where traps leave files."""
    sprung = world.root / "sprung"
    sprung.mkdir()
    dot_copilot = world.home / ".copilot"

    def put(path: Path, content: str | Json) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    hooks = {
        event: [{"type": "command", "bash": f"touch {sprung / event}"}]
        for event in ("sessionStart", "userPromptSubmitted", "sessionEnd")
    }
    # One that waits for ever would hold a chat up for ever.
    command = f"touch {sprung / 'mcp'}; sleep 2"
    server = {"type": "local", "command": "/bin/sh", "args": ["-c", command], "tools": ["*"], "env": {}}
    put(dot_copilot / "mcp-config.json", {"mcpServers": {"stripes": server}})
    put(dot_copilot / "hooks" / "stripes.json", {"version": 1, "hooks": hooks})
    put(dot_copilot / "settings.json", {"model": f"{MARK}-model", "hooks": hooks})
    put(dot_copilot / "copilot-instructions.md", f"Always say {MARK}-user.")
    put(dot_copilot / "AGENTS.md", f"Always say {MARK}-home.")
    put(dot_copilot / "agents" / "stripes.agent.md", f"---\nname: stripes\ndescription: {MARK}-agent\n---\nStripes.")
    skill = f"---\nname: stripes\ndescription: Use for every {MARK}-skill.\n---\nStripes."
    put(dot_copilot / "skills" / "stripes" / "SKILL.md", skill)
    for directory in (world.root, world.root / "project"):
        put(directory / "AGENTS.md", f"Always say {MARK}-project.")
        put(directory / ".github" / "copilot-instructions.md", f"Always say {MARK}-github.")
        put(directory / ".git" / "HEAD", "ref: refs/heads/main\n")
    return sprung


async def by_hand(world: World, copilot: Path, api: StandIn) -> None:
    """Runs copilot as its user would, in a folder of a project."""
    own = {"TYPE": "openai", "BASE_URL": api.url, "API_KEY": "dummy"}
    env = world.env | ENV | {f"COPILOT_PROVIDER_{name}": value for name, value in own.items()}
    command = [str(copilot), "-p", "hi", "--model", MODEL, "--no-auto-update"]
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, env=env, cwd=world.root / "project", stdin=null, stdout=null, stderr=null
    )
    await asyncio.wait_for(process.wait(), BY_HAND_S)


async def test_nothing_that_the_user_keeps_for_copilot_touches_a_chat(world: World, copilot: Path) -> None:
    sprung = lay_traps(world)
    async with copilot_lab(world, copilot, {"copilot": {}}) as lab:
        # Neither did the first probe.
        assert list(sprung.iterdir()) == []
        # Copilot by hand springs every trap, so this test can fail.
        await by_hand(world, copilot, lab.api)
        await lab.no_cli_is_left()
        seen = b"".join(received.raw for received in lab.api.requests)
        assert {path.name for path in sprung.iterdir()} == {"sessionStart", "userPromptSubmitted", "sessionEnd", "mcp"}
        for trap in ("user", "project", "github", "skill", "agent"):
            assert f"{MARK}-{trap}".encode() in seen, trap
        for path in sprung.iterdir():
            path.unlink()
        await lab.api.forget()

        async with lab.connected():
            await lab.chat([{"role": "system", "content": "Be brief."}, *user("hi")])
            received = await lab.received()
            assert MARK.encode() not in received.raw
            assert received.body["messages"] == [{"role": "system", "content": "Be brief."}, *user("hi")]
            assert "tools" not in received.body
            await lab.no_cli_is_left()
            assert list(sprung.iterdir()) == []


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


async def test_chats_leave_nothing_but_the_clis_configuration(lab: Lab) -> None:
    lab.api.script(text("Hel", "lo"), text("never").broken("stall"), text("cut", finish_reason="length"))
    await lab.chat(user(MARK))
    chat = await lab.begin(user(MARK))
    await lab.received(2)
    await lab.wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": chat}})
    await lab.rest(chat)
    await lab.chat(user(MARK))
    await lab.no_cli_is_left()
    left = files(lab.world.home)
    assert left <= {".copilot/config.json", ".copilot/settings.json.lock"}
    runner = lab.world.state / "runnerd" / "runners" / "copilot"
    assert files(runner) == set()
    for directory in runner.iterdir():
        assert list(directory.iterdir()) == [], directory
