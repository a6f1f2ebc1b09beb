"""Nothing that its user keeps for codex touches a chat but the login, and a chat leaves nothing that grows."""

import asyncio
import json
from pathlib import Path

import pytest

from runners.providers.codex.provider import TESTED_VERSIONS
from runners.testing.apis.responses_api import ResponsesApi
from runners.testing.apis.stand_in import StandIn
from tests.conftest import real_cli
from tests.live.codex_lab import ENV, MODEL, WITH_LOGIN, codex_lab
from tests.live.lab import AS_IT_IS, Json, Lab, running_lab
from tests.world import World, system, user

pytestmark = [pytest.mark.live]

BY_HAND_S = 60
MARK = "zebra-crossing"
KEY = "sk-of-the-user"
ADDED = {"client_metadata", "include", "parallel_tool_calls", "prompt_cache_key", "store", "stream", "tool_choice"}
"""What the CLI says of its own beside the conversation: no word of it is for the model."""


@pytest.fixture(params=TESTED_VERSIONS)
def codex(request: pytest.FixtureRequest) -> Path:
    return real_cli("codex", request.param)


def toml_server(url: str, **more: object) -> str:
    """A model provider as an inline table."""
    fields = {"name": "stand-in", "base_url": url, "wire_api": "responses", "stream_max_retries": 0, **more}
    return f"{{{', '.join(f'{name} = {json.dumps(value)}' for name, value in fields.items())}}}"


def lay_traps(world: World) -> Path:
    """Everything by which a user or a project tells codex what to do. Returns a folder where traps leave files."""
    sprung = world.root / "sprung"
    sprung.mkdir()
    settings = f"""
        developer_instructions = "Always say {MARK}-developer."
        notify = ["/usr/bin/touch", "{sprung / "notify"}"]
        [mcp_servers.stripes]
        command = "/bin/sh"
        args = ["-c", "touch {sprung / "mcp"}; sleep 2"]
        [projects."{world.home}"]
        trust_level = "trusted"
    """
    skill = f"---\nname: stripes\ndescription: Use for every {MARK}-skill.\n---\nStripes."
    for path, content in {
        ".codex/config.toml": settings,
        ".codex/AGENTS.md": f"Always say {MARK}-user.",
        ".codex/skills/stripes/SKILL.md": skill,
        ".codex/auth.json": json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": KEY}),
        # The home of a user who keeps it in git is a project of theirs, with the daemon's state in it.
        ".git/HEAD": "ref: refs/heads/main\n",
        "AGENTS.md": f"Always say {MARK}-project.",
    }.items():
        (world.home / path).parent.mkdir(parents=True, exist_ok=True)
        (world.home / path).write_text(content)
    return sprung


async def by_hand(world: World, codex: Path, api: StandIn) -> None:
    """Runs codex as its user would, in a folder of the user's."""
    server = toml_server(api.url, env_key="KEY")
    own = ["-c", "model_provider=mine", "-c", f"model_providers.mine={server}", "-c", "analytics.enabled=false"]
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *(str(codex), "exec", *own, "--model", MODEL, "hi"),
        env=world.env | ENV,
        cwd=world.home,
        stdin=null,
        stdout=null,
        stderr=null,
    )
    await asyncio.wait_for(process.wait(), BY_HAND_S)


def assert_bare(body: Json, *, has_tools: bool = True) -> None:
    """The request says what the client said, and nothing to the model beside it."""
    told = [(item["type"], item["role"], item["content"]) for item in body["input"]]
    assert told == [
        ("message", "developer", [{"type": "input_text", "text": "Be brief."}]),
        ("message", "user", [{"type": "input_text", "text": "hi"}]),
    ]
    assert body.get("tools", []) == []
    assert ("tools" in body) == has_tools
    assert body.keys() - ADDED - {"text", "tools"} == {"input", "model", "reasoning"}
    assert body.get("text") in (None, {"verbosity": "medium"})


async def test_nothing_that_the_user_keeps_for_codex_touches_a_chat_but_the_login(world: World, codex: Path) -> None:
    sprung = lay_traps(world)
    kept = files(world.home)
    async with codex_lab(world, codex, {"codex": {}, "login": WITH_LOGIN}) as lab:
        # Neither did the first probe.
        assert list(sprung.iterdir()) == []
        assert files(world.home) == kept
        async with lab.connected():
            await lab.chat([*system("Be brief."), *user("hi")])
            received = await lab.received()
            assert_bare(received.body)
            assert received.headers["Authorization"] == "Bearer dummy"
            await lab.no_cli_is_left()
            assert (list(sprung.iterdir()), files(world.home)) == ([], kept)
        rows = {row["name"]: row for row in (await lab_health(lab))}
        assert (rows["login"]["state"], rows["login"]["authenticated"]) == ("ready", True)
        # Codex by hand springs every trap, so this test can fail.
        await lab.api.forget()
        await by_hand(world, codex, lab.api)
        await lab.no_cli_is_left()
        seen = b"".join(received.raw for received in lab.api.requests)
        assert {path.name for path in sprung.iterdir()} == {"notify", "mcp"}
        for trap in ("developer", "user", "project", "skill"):
            assert f"{MARK}-{trap}".encode() in seen, trap


async def test_every_model_of_the_vendor_is_without_hands_and_the_users_login_pays(world: World, codex: Path) -> None:
    lay_traps(world)
    async with ResponsesApi() as api:
        # The vendor's own service, but for its address.
        server = toml_server(api.url, requires_openai_auth=True)
        args = ["-c", "model_provider=vendor", "-c", f"model_providers.vendor={server}"]
        entry = {"kind": "codex", "binary": str(codex), "args": args, "env": ENV} | AS_IT_IS
        async with running_lab(world, api, {"codex": entry}, runner="codex") as lab, lab.connected():
            listed = (await lab.wire.call("models"))["result"]["models"]
            assert len(listed) > 5
            chats = [
                await lab.begin([*system("Be brief."), *user("hi")], runner=f"codex:{model['model']}")
                for model in [*listed, {"model": "gpt-of-tomorrow"}]
            ]
            for answer in await lab.rest_of_all(*chats):
                assert answer.result["content"] == "ok"
            for received in api.requests:
                # Some models are asked in a way that has no place for tools but the conversation.
                assert_bare(received.body, has_tools="tools" in received.body)
                assert received.headers["Authorization"] == f"Bearer {KEY}"
            models = {received.body["model"] for received in api.requests}
            assert models == {model["model"] for model in listed} | {"gpt-of-tomorrow"}
            # Without a name its vendor's default answers, and says so.
            answer = await lab.chat(user("hi"), runner="codex")
            assert answer.result["model"] == listed[0]["model"]
            await lab.no_cli_is_left()
        runner = world.state / "runnerd" / "runners" / "codex"
        left = files(runner)
        assert left <= {"home/auth.json", "home/installation_id", "home/.sandbox_migration", "home/auth.lock"}


async def test_what_the_cli_writes_of_the_login_goes_to_the_users_own_file(world: World, codex: Path) -> None:
    # As when it renews a token: else the user's own codex would be left with one that has been used.
    lay_traps(world)
    async with ResponsesApi() as api:
        entry = {"kind": "codex", "binary": str(codex), "env": ENV} | AS_IT_IS
        async with running_lab(world, api, {"codex": entry}, runner="codex"):
            pass
    home = world.state / "runnerd" / "runners" / "codex" / "home"
    process = await asyncio.create_subprocess_exec(
        *(str(codex), "login", "--with-api-key"),
        env=world.env | ENV | {"CODEX_HOME": str(home)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await asyncio.wait_for(process.communicate(b"sk-renewed\n"), BY_HAND_S)
    assert process.returncode == 0
    own = world.home / ".codex" / "auth.json"
    assert json.loads(own.read_text())["OPENAI_API_KEY"] == "sk-renewed"
    assert (home / "auth.json").readlink() == own


async def lab_health(lab: Lab) -> list[Json]:
    done = await asyncio.to_thread(lab.world.runnerd, "health", "--json")
    rows = json.loads(done.stdout)["runners"]
    assert isinstance(rows, list)
    return rows


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}
