"""What a quick command loads, and what it does not: laziness is law here."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.programs import echo_daemon
from tests.world import Daemon, World

HEAVY = {"pydantic", "pydantic_core", "aiohttp", "structlog", "asyncio", "yaml", "psutil", "orjson"}


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with echo_daemon() as served:
        yield served


def recording(world: World, work: str) -> str:
    """A Python program that does some work, and at its end writes down every module that was loaded."""
    write = f"json.dump(list(sys.modules), open({str(world.root / 'modules.json')!r}, 'w'))"
    return f"import atexit, json, sys\natexit.register(lambda: {write})\n{work}"


def recorded(world: World) -> set[str]:
    """The modules that the last such program had loaded."""
    return set(json.loads((world.root / "modules.json").read_text()))


RUNNERD = "sys.argv[0] = 'runnerd'; import runnerd; runnerd.main()"


def loaded(world: World, work: str, *arguments: str) -> set[str]:
    """Every module that some work loads."""
    command = [sys.executable, "-c", recording(world, work), *arguments]
    subprocess.run(command, env=world.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return recorded(world)


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["chat", "--help"],
        ["serve", "--help"],
        ["acp", "--help"],
        ["service", "--help"],
        ["chat", "-m", "echo", "Hi"],
        ["chat", "-m", "echo", "Hi", "--json"],
        ["chat", "-m", "nobody", "Hi"],
        ["health"],
        ["health", "--json"],
        ["models"],
        ["runners"],
        ["status"],
    ],
    ids=" ".join,
)
def test_a_quick_command_loads_nothing_heavy(daemon: Daemon, arguments: list[str]) -> None:
    modules = loaded(daemon.world, RUNNERD, *arguments)
    assert "daemon.cli" in modules
    assert packages(modules) & HEAVY == set()
    assert {module for module in modules if module.split(".")[0] == "runners"} == set()


@pytest.mark.parametrize(
    "arguments", [["chat", "-m", "echo", "Hi"], ["health", "--json"], ["status", "--json"]], ids=" ".join
)
def test_what_nobody_looks_at_is_printed_without_rich(daemon: Daemon, arguments: list[str]) -> None:
    assert "rich" not in packages(loaded(daemon.world, RUNNERD, *arguments))


def test_a_command_without_a_daemon_loads_nothing_heavy_either(world: World) -> None:
    assert packages(loaded(world, RUNNERD, "chat", "Hi", "--no-start")) & HEAVY == set()


def test_a_command_that_starts_a_daemon_loads_nothing_heavy_either(world: World) -> None:
    world.env["RUNNERD_CONFIG"] = str(world.config("runners: {echo: {kind: echo}}\n"))
    modules = loaded(world, RUNNERD, "chat", "-m", "echo", "Hi")
    assert world.runnerd("stop").returncode == 0
    assert "subprocess" in modules
    assert packages(modules) & {*HEAVY, "runners", "rich"} == set()


def test_only_a_chat_loads_what_starts_a_daemon_and_a_process_only_where_it_starts_one(daemon: Daemon) -> None:
    assert "daemon.autostart" not in loaded(daemon.world, RUNNERD, "status", "--json")
    modules = loaded(daemon.world, RUNNERD, "chat", "-m", "echo", "Hi")
    assert "daemon.autostart" in modules
    assert "subprocess" not in modules


def test_the_client_is_the_standard_library_alone(world: World) -> None:
    modules = loaded(world, "import daemon.client")
    ours = {module for module in modules if module.split(".")[0] in ("daemon", "runners")}
    assert ours == {"daemon", "daemon.client", "daemon.errors"}
    assert packages(modules) & {*HEAVY, "click", "rich", "platformdirs"} == set()


LOAD = "from pathlib import Path; import daemon.app, daemon.config, daemon.registry as r; "
BUILD = LOAD + "r.Registry(daemon.config.load_config(Path({path!r})), Path({state!r}))"


@pytest.mark.parametrize(("kind", "other"), [("echo", "claude"), ("claude", "echo")])
def test_a_provider_is_loaded_when_an_entry_needs_it(world: World, kind: str, other: str) -> None:
    path = world.config(f"runners: {{x: {{kind: {kind}}}}}\n")
    modules = loaded(world, BUILD.format(path=str(path), state=str(world.state)))
    assert f"runners.providers.{kind}" in modules
    assert not any(module.startswith(f"runners.providers.{other}") for module in modules)


def test_a_daemon_loads_the_providers_of_its_entries_alone(world: World) -> None:
    path = world.config("runners: {echo: {kind: echo}}\n")
    daemon = Daemon(world, [sys.executable, "-c", recording(world, RUNNERD), "serve", "--config", str(path)])
    try:
        daemon.wait_for("daemon.ready")
        assert world.runnerd("chat", "-m", "echo", "Hi").stdout == b"Hi"
    finally:
        daemon.end()
    modules = recorded(world)
    assert "runners.providers.echo" in modules
    assert "runners.providers.claude" not in modules
    assert packages(modules) & {"aiohttp", "pexpect", "pyte"} == set()
