"""The program that runs is codex itself and not the script that npm puts on PATH: killed, that leaves codex behind."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from runners.providers.codex.provider import CodexProvider
from runners.providers.codex.settings import CodexSettings
from runners.stream import Text
from runners.testing import request
from runners.testing.apis.responses_api import ResponsesApi, text
from tests.live.codex_lab import ENV, MODEL
from tests.world import World, command, until

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
def script(codex: Path) -> Path:
    """The script of npm's package."""
    [package] = [parent for parent in codex.parents if parent.name == "node_modules"]
    if shutil.which("node") is None:
        pytest.skip("the script of codex is NOT TESTED: there is no node")
    return package / "@openai" / "codex" / "bin" / "codex.js"


def of_codex(world: World) -> list[psutil.Process]:
    return [process for process in world.processes() if "app-server" in command(process)]


async def test_the_script_by_hand_leaves_codex_behind(world: World, script: Path) -> None:
    # So the next test can fail.
    process = await asyncio.create_subprocess_exec(
        str(script),
        "app-server",
        env=world.env,
        cwd=world.home,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def both() -> list[psutil.Process] | None:
        found = of_codex(world)
        return found if len(found) == 2 else None

    await until(both)
    process.kill()
    await process.wait()
    [left] = of_codex(world)
    left.kill()

    async def gone() -> bool:
        return not of_codex(world)

    await until(gone)
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize("how", ["named", "on PATH"])
async def test_codex_is_found_behind_its_script_and_nothing_of_it_is_left(world: World, script: Path, how: str) -> None:
    on_path = world.root / "bin"
    on_path.mkdir()
    (on_path / "codex").symlink_to(script)
    env = ENV | {"HOME": str(world.home), "PATH": f"{on_path}{os.pathsep}{world.env['PATH']}"}
    binary = str(script) if how == "named" else str(on_path / "codex")
    async with ResponsesApi() as api:
        api.script(text("Hel", "lo").broken("stall", after=1))
        settings = CodexSettings(binary=binary, model=MODEL, base_url=api.url, api_key_env="KEY", env=env)
        provider = CodexProvider("codex", settings, state_dir=world.state / "codex")
        async with provider.complete_stream(request("hi")) as stream:
            while not isinstance(await anext(stream), Text):
                pass
            [process] = of_codex(world)
            assert process.pid == next(iter(provider.processes())).pid
            assert Path(process.exe()).name == "codex"
            os.kill(process.pid, signal.SIGKILL)
            assert [chunk async for chunk in stream][-1].type == "error"
        assert of_codex(world) == []
        await provider.aclose()


async def test_a_script_that_is_not_known_is_run_and_what_it_started_ends_with_it(world: World, codex: Path) -> None:
    script = world.root / "codex"
    script.write_text(f'#!/bin/sh\n"{codex}" "$@"\nexit $?\n')
    script.chmod(0o755)
    async with ResponsesApi() as api:
        api.script(text("Hel", "lo").broken("stall", after=1))
        env = ENV | {"HOME": str(world.home)}
        settings = CodexSettings(binary=str(script), model=MODEL, base_url=api.url, api_key_env="KEY", env=env)
        provider = CodexProvider("codex", settings, state_dir=world.state / "codex")
        async with provider.complete_stream(request("hi")) as stream:
            while not isinstance(await anext(stream), Text):
                pass
            assert len(of_codex(world)) == 2
            assert "script" in str((await provider.health_check()).detail)
            next(process for process in of_codex(world) if process.pid == next(iter(provider.processes())).pid).kill()
            assert [chunk async for chunk in stream][-1].type == "error"
        assert of_codex(world) == []
        await provider.aclose()
