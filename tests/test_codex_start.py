"""The start of codex's process, and of a conversation in it, with a program in its place that can do no more."""

import asyncio
from pathlib import Path

import psutil
import pytest

from runners.errors import RunnerError
from runners.providers.codex.provider import CodexProvider
from runners.providers.codex.server import CodexServer
from runners.providers.codex.settings import CodexSettings
from tests.world import World

pytestmark = pytest.mark.usefixtures("no_leaks")

PROGRAM = """
import json, sys

if sys.argv[1:] == ["--version"]:
    print("codex-cli 0.171.0")
elif sys.argv[1:] == ["debug", "models"]:
    print(json.dumps({"models": []}))
else:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            print(json.dumps({"id": message["id"], "result": {}}), flush=True)
"""


class Dying(CodexProvider):
    """Its process dies as soon as it has told its login."""

    async def _login(self, server: CodexServer) -> str:
        gone = asyncio.Event()
        server.when_retired.add(gone.set)
        psutil.Process(server.process.pid).kill()
        await gone.wait()
        return "logged in"


def made(world: World, kind: type[CodexProvider], base_url: str | None = None) -> CodexProvider:
    binary = str(world.program("codex", PROGRAM))
    settings = CodexSettings(binary=binary, model="m", base_url=base_url, env={"HOME": str(world.home)})
    return kind("codex", settings, state_dir=world.state / "codex")


async def test_a_process_that_dies_behind_the_answer_on_its_login_is_no_session(world: World) -> None:
    provider = made(world, Dying)
    with pytest.raises(RunnerError, match="SIGKILL"):
        await provider.open()
    assert not provider.sessions
    assert not world.processes()


async def test_a_start_that_has_no_place_leaves_no_files(world: World) -> None:
    provider = made(world, CodexProvider, "http://127.0.0.1:1/v1")
    await provider.discover()
    place: Path = provider.directory("cwd")
    place.rmdir()
    place.write_text("in the way")
    with pytest.raises(RunnerError, match="cannot be made"):
        await provider.open()
    assert not list(provider.run_directory("tmp").iterdir())
