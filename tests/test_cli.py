"""The commands that ask a daemon, but for `chat`: what they print, and their exit codes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world import Daemon, World

ASKING = [["chat", "Hi", "--no-start"], ["health"], ["models"], ["runners"], ["status"], ["stop"]]


@pytest.mark.parametrize("command", ASKING, ids=lambda command: command[0])
def test_without_a_daemon_a_command_exits_with_69_and_says_how_to_start_one(world: World, command: list[str]) -> None:
    done = world.runnerd(*command)
    assert (done.returncode, done.stdout) == (69, b"")
    message = (
        f"runnerd: no daemon answers on {world.socket} (No such file or directory): start one with `runnerd serve`"
    )
    assert done.stderr.decode() == message + "\n"


@pytest.mark.parametrize("command", ASKING, ids=lambda command: command[0])
def test_without_a_daemon_a_command_says_so_in_json_too(world: World, command: list[str]) -> None:
    done = world.runnerd(*command, "--json")
    assert (done.returncode, done.stderr) == (69, b"")
    assert "runnerd serve" in json.loads(done.stdout)["error"]["message"]


def test_a_socket_that_nobody_answers_on_any_more_is_no_daemon(world: World) -> None:
    with world.daemon(world.config("runners: {echo: {kind: echo}}\n")) as served:
        served.process.kill()
        served.wait()
        assert world.socket.exists()
        assert world.runnerd("status").returncode == 69


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["health", "one", "two"],
        ["chat", "-m"],
        ["serve", "--log-level", "x"],
        ["config"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(world: World, arguments: list[str]) -> None:
    done = world.runnerd(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith((b"Usage: ", b"Error: "))


def test_health_exits_with_1_when_no_runner_but_an_echo_is_well(daemon: Daemon) -> None:
    done = daemon.world.runnerd("health")
    assert (done.returncode, done.stderr) == (1, b"")
    header, *rows = done.stdout.decode().splitlines()
    assert header.split() == ["name", "state", "version", "detail", "hint", "age"]
    states = {row.split()[0]: row.split()[1] for row in rows}
    assert states == {"echo": "ready", "held": "ready", "broken": "unavailable"}


@pytest.mark.parametrize(("runner", "code"), [("echo", 0), ("broken", 1)])
def test_health_of_a_runner_exits_with_its_own_state(daemon: Daemon, runner: str, code: int) -> None:
    assert daemon.world.runnerd("health", runner).returncode == code
    assert daemon.world.runnerd("health", runner, "--deep").returncode == code
    done = daemon.world.runnerd("health", runner, "--json")
    assert (done.returncode, done.stderr) == (code, b"")
    answer = json.loads(done.stdout)
    assert answer["ok"] is (code == 0)
    assert [row["name"] for row in answer["runners"]] == [runner]


def test_health_of_an_unknown_runner_exits_with_1_and_names_those_there_are(daemon: Daemon) -> None:
    done = daemon.world.runnerd("health", "ecco")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"runnerd: there is no runner 'ecco' (there are echo, held, broken)\n"
    done = daemon.world.runnerd("health", "ecco", "--json")
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["error"]["kind"] == "model_not_found"


def test_models_prints_a_table_or_json(daemon: Daemon) -> None:
    done = daemon.world.runnerd("models")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split()[0] for line in done.stdout.decode().splitlines()][:3] == ["id", "echo:echo", "echo:request"]
    done = daemon.world.runnerd("models", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["models"][0]["id"] == "echo:echo"


def test_runners_prints_a_table_or_json(daemon: Daemon) -> None:
    done = daemon.world.runnerd("runners")
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(r"^echo +echo +ready +echo +streaming, .*exact text", done.stdout.decode(), re.MULTILINE)
    done = daemon.world.runnerd("runners", "--json")
    assert done.returncode == 0
    assert [row["name"] for row in json.loads(done.stdout)["runners"]] == ["echo", "held", "broken"]


def test_status_prints_a_table_or_json(daemon: Daemon) -> None:
    done = daemon.world.runnerd("status")
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"pid {daemon.process.pid}, up " in done.stdout.decode()
    done = daemon.world.runnerd("status", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["pid"] == daemon.process.pid


def test_a_table_is_not_cut_behind_a_pipe(daemon: Daemon) -> None:
    output = daemon.world.runnerd("health").stdout.decode()
    assert re.search(
        "the CLI exited with code 1: it (closed its output before its answer was whole|no longer reads)", output
    )


def test_the_option_socket_names_the_daemon_to_ask(daemon: Daemon, world: World) -> None:
    assert world.runnerd("status", "--socket", str(daemon.world.socket)).returncode == 0
    assert world.runnerd("status").returncode == 69


@pytest.mark.parametrize("as_json", [False, True], ids=["", "--json"])
def test_stop_returns_when_the_daemon_has_ended(world: World, as_json: bool) -> None:
    with world.daemon(world.config("runners: {echo: {kind: echo}}\n")) as served:
        done = world.runnerd("stop", *["--json"] * as_json)
        assert (done.returncode, done.stderr) == (0, b"")
        assert not world.socket.exists()
        assert served.wait() == 0
    if as_json:
        assert json.loads(done.stdout) == {"ok": True}
    else:
        assert done.stdout == b""


@pytest.mark.parametrize("command", [["serve"], ["config", "check"]], ids=" ".join)
def test_a_wrong_configuration_exits_with_78_and_names_its_line(world: World, command: list[str]) -> None:
    config = world.config("runners:\n  echo:\n    kind: echo\n    modle: x\n")
    done = world.runnerd(*command, "--config", str(config))
    assert (done.returncode, done.stdout) == (78, b"")
    assert done.stderr.decode() == f"{config}:4: runners.echo.modle: unknown key; did you mean model?\n"


@pytest.mark.parametrize("command", [["serve"], ["config", "check"], ["config", "path"]], ids=" ".join)
def test_a_configuration_that_is_not_there_exits_with_78(world: World, command: list[str]) -> None:
    done = world.runnerd(*command, "--config", "/no/such/file")
    assert (done.returncode, done.stdout) == (78, b"")
    assert done.stderr == b"/no/such/file: no such file\n"


def test_config_check_says_what_is_right(world: World) -> None:
    config = world.config("runners: {echo: {kind: echo}}\n")
    done = world.runnerd("config", "check", "--config", str(config))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{config}: right; its runners: echo\n"


OPTIONS = {
    "serve": ["--config", "--socket", "--log-level", "debug|info|warning|error"],
    "chat": ["-m, --model", "-s, --system", "--no-start", "--json", "--socket", "[PROMPT]"],
    "health": ["--deep", "--json", "--socket", "[RUNNER]"],
    "models": ["--json", "--socket"],
    "runners": ["--json", "--socket"],
    "status": ["--json", "--socket"],
    "stop": ["--json", "--socket"],
    "config": ["check", "path"],
    "service": ["install", "status", "uninstall"],
    "service install": ["--config", "--socket"],
    "service status": ["--config", "--socket", "--json"],
    "service uninstall": [],
    "config check": ["--config"],
    "config path": ["--config"],
    "": ["Exit codes", "69", "75", "78", "--version", *["serve", "chat", "health", "models", "runners", "status"]],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_mentions_every_option(world: World, command: str) -> None:
    for option in ("--help", "-h"):
        done = world.runnerd(*command.split(), option)
        assert (done.returncode, done.stderr) == (0, b"")
        assert all(expected in done.stdout.decode() for expected in OPTIONS[command])


def test_version_prints_the_daemon_s_version(daemon: Daemon) -> None:
    version = json.loads(daemon.world.runnerd("status", "--json").stdout)["version"]
    assert daemon.world.runnerd("--version").stdout.decode() == f"runnerd, version {version}\n"


def test_it_refuses_to_run_on_a_package_daemon_that_is_another_project_s(world: World) -> None:
    other = world.root / "site" / "daemon"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("class DaemonContext: ...\n")
    script = Path(sys.executable).with_name("runnerd")
    environment = world.env | {"PYTHONPATH": str(other.parent)}
    done = subprocess.run(
        [script, "status"], env=environment, cwd=world.root, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"")
    message = done.stderr.decode()
    assert f"the package `daemon` at {other / '__init__.py'} is another project's" in message
    assert "pipx install runnerd" in message
