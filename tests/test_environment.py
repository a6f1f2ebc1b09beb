"""What a CLI is given: a clean environment, a private directory, a session of its own, and nothing else of ours."""

import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.programs import RECORDING, entry, record
from tests.world import Wire, World, user

SECRET = "a-prompt-that-must-not-show"


async def seen_by_the_cli(world: World, extra: str = "") -> dict[str, Any]:
    """What the CLI of a chat was given. `extra` are further keys of its entry."""
    config = world.config("runners:\n" + entry(world, "recording", RECORDING).replace("}\n", f"{extra}}}\n"))
    with world.daemon(config) as daemon:
        daemon.wait_for("runner.health")
        (world.root / "recording.json").unlink()
        async with await Wire.connect(world.socket) as wire:
            answer = await wire.call("chat", model="recording", messages=user(SECRET))
        assert answer["result"]["content"] == SECRET
        return record(world, "recording") | {"daemon": daemon.process.pid}


async def test_a_cli_sees_only_the_allowed_part_of_the_daemon_s_environment(world: World) -> None:
    allowed = {"USER": "me", "LC_ALL": "C.UTF-8", "TZ": "UTC", "HTTPS_PROXY": "http://localhost:1", "XDG_FOO": "foo"}
    refused = {
        "ANTHROPIC_API_KEY": "secret",
        "ANTHROPIC_BASE_URL": "http://localhost:1",
        "OPENAI_API_KEY": "secret",
        "FOO": "1",
        "NODE_OPTIONS": "--inspect",
        "RUNNERD_CONFIG": "/nowhere",
        "PYTHONUNBUFFERED": "1",
    }
    expected = {name: world.env[name] for name in ("HOME", "LANG", "PATH", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")}
    world.env |= allowed | refused
    seen = (await seen_by_the_cli(world))["env"]
    # The owner's mark is the daemon's own, see design section 4; the other two are the systems'.
    for name in ("RUNNERD_OWNER", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"):
        seen.pop(name, None)
    assert seen == expected | allowed


async def test_env_pass_lets_a_variable_through_and_env_sets_one(world: World) -> None:
    world.env |= {"ANTHROPIC_API_KEY": "secret", "FOO": "1", "BAR": "2", "LANG": "C.UTF-8"}
    extra = ", env_pass: [FOO, MISSING, BAR], env: {LANG: C, BAR: mine, NEW: new}"
    seen = (await seen_by_the_cli(world, extra))["env"]
    assert (seen["FOO"], seen["BAR"], seen["NEW"], seen["LANG"]) == ("1", "mine", "new", "C")
    assert not {"MISSING", "ANTHROPIC_API_KEY"} & set(seen)


async def test_relative_entries_of_path_are_dropped(world: World) -> None:
    absolute = world.env["PATH"]
    world.env["PATH"] = f"bin:./x:{absolute}:../y:~/z::."
    assert (await seen_by_the_cli(world))["env"]["PATH"] == absolute


async def test_a_cli_runs_in_an_empty_private_directory_of_its_runner_the_same_each_time(world: World) -> None:
    seen = await seen_by_the_cli(world)
    assert (await seen_by_the_cli(world))["cwd"] == seen["cwd"]
    directory = Path(seen["cwd"])
    assert directory.is_relative_to(world.state / "runnerd")
    assert "recording" in directory.parts
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


async def test_a_cli_has_a_session_of_its_own_and_no_open_file_but_its_three_channels(world: World) -> None:
    seen = await seen_by_the_cli(world)
    assert seen["leads_its_session"]
    # A pipe; asyncio of Python 3.11 makes it a pair of sockets.
    assert seen["stdin_is_a_channel"]
    assert seen["open"] == [0, 1, 2]


async def test_a_prompt_never_stands_in_the_arguments(world: World) -> None:
    seen = await seen_by_the_cli(world, ", args: [--more]")
    assert seen["argv"][:2] == ["-I", "-S"]
    assert seen["argv"][2].endswith("echo_cli.py")
    assert seen["argv"][3:] == ["--more"]


async def test_a_binary_is_looked_up_on_the_path_of_the_cli(world: World) -> None:
    world.program("my-python", f"import os, sys\nos.execv({sys.executable!r}, ['python', *sys.argv[1:]])\n")
    world.env["PATH"] += f":{world.root}"
    with world.daemon(world.config("runners: {mine: {kind: echo, binary: my-python}}\n")):
        async with await Wire.connect(world.socket) as wire:
            assert (await wire.call("chat", model="mine", messages=user("Hi")))["result"]["content"] == "Hi"


@pytest.mark.parametrize("binary", ["no-such-program", "/no/such/program", "~/no-such-program"])
async def test_a_binary_that_is_not_there_is_told_by_health_and_by_the_chat(world: World, binary: str) -> None:
    with world.daemon(world.config(f"runners: {{mine: {{kind: echo, binary: {binary}}}}}\n")):
        async with await Wire.connect(world.socket) as wire:
            [row] = (await wire.call("health", runner="mine"))["result"]["runners"]
            error = (await wire.call("chat", model="mine", messages=user("Hi")))["error"]
    assert (row["state"], row["reason"]) == ("unavailable", "not_installed")
    assert row["hint"]
    assert (error["data"]["kind"], error["data"]["hint"]) == ("not_installed", row["hint"])
    assert binary in error["message"]


async def test_a_program_found_in_the_home_directory_may_be_named_with_a_tilde(world: World) -> None:
    world.program("home/python", f"import os, sys\nos.execv({sys.executable!r}, ['python', *sys.argv[1:]])\n")
    with world.daemon(world.config("runners: {mine: {kind: echo, binary: ~/python}}\n")) as daemon:
        async with await Wire.connect(world.socket) as wire:
            assert (await wire.call("chat", model="mine", messages=user("Hi")))["result"]["content"] == "Hi"
        assert psutil.pid_exists(daemon.process.pid)
