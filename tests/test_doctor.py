"""`runnerd doctor`: what it finds of the CLIs in a world where nothing else is, and that it leaves nothing behind."""

import json
import signal
import stat
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.installed import Installed
from tests.subjects.ollama import FakeOllama, server
from tests.world import END_S, World

KINDS = ["claude", "copilot", "codex", "gemini", "opencode", "ollama", "echo"]
"""Those of the configuration that runnerd has by itself, and then what that leaves out."""
NOBODY = "import sys\n\nsys.exit('Segmentation fault')\n"
ANOTHER = "print('another program 1.0')\n"
DEAF = "import time\n\ntime.sleep(3600)\n"


@pytest.fixture
def installed(world: World) -> Installed:
    return Installed(world)


def doctor(world: World, *arguments: str, code: int) -> dict[str, dict[str, Any]]:
    """The rows of `runnerd doctor --json` by name. It must exit with `code` and leave no process."""
    before = {process.pid for process in world.processes()}
    done = world.runnerd("doctor", "--json", *arguments)
    assert (done.returncode, done.stderr) == (code, b""), done
    assert {process.pid for process in world.processes()} <= before
    return {row["name"]: row for row in json.loads(done.stdout)["runners"]}


def shown(world: World, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    done = world.runnerd("doctor", *arguments)
    assert done.stderr == b""
    return done


def line_of(output: bytes, name: str) -> str:
    [line] = [line for line in output.decode().splitlines() if line.split()[:1] == [name]]
    return line


def test_where_nothing_is_installed_it_says_of_each_how_to_get_it_and_exits_with_1(
    world: World, installed: Installed
) -> None:
    rows = doctor(world, code=1)
    assert list(rows) == KINDS
    for name in ("claude", "copilot", "codex", "ollama"):
        row = rows[name]
        assert (row["ok"], row["state"], row["reason"]) == (False, "unavailable", "not_installed")
        assert (row["binary"], row["version"], row["authenticated"]) == (None, None, None)
        assert row["hint"]
        assert name in row["detail"]
        assert row["is_configured"]
    # An echo is no model.
    assert (rows["echo"]["ok"], rows["echo"]["by_name_only"]) == (True, True)


def test_its_table_shows_the_configuration_the_daemon_and_a_line_for_each_runner(
    world: World, installed: Installed
) -> None:
    ollama = installed.ollama()
    done = shown(world)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[0].startswith("configuration  /")
    assert lines[0].endswith("/runners.yaml")
    assert lines[1:3] == ["daemon         does not run: runnerd serve", f"socket         {world.socket}"]
    assert lines[3:5] == [f"http           {world.socket.with_name('http.sock')}", ""]
    assert lines[5].split() == ["name", "state", "version", "login", "binary", "detail", "hint"]
    assert [line.split()[0] for line in lines[6:]] == KINDS
    assert line_of(done.stdout, "ollama").split()[1:5] == ["ready", "0.32.15", "-", str(ollama)]
    assert line_of(done.stdout, "claude").split()[1:5] == ["unavailable", "-", "-", "-"]


def test_an_ollama_that_does_not_run_is_started_for_the_look_and_ended_again(
    world: World, installed: Installed
) -> None:
    binary = installed.ollama(child=True)
    row = doctor(world, code=0)["ollama"]
    assert (row["ok"], row["state"], row["reason"]) == (True, "ready", None)
    assert (row["binary"], row["version"], row["authenticated"]) == (str(binary), "0.32.15", None)
    assert row["detail"].startswith("its own server at http://127.0.0.1:")
    assert world.processes() == []


async def test_an_ollama_that_runs_is_asked_and_not_stopped_even_where_the_program_is_not_on_path(
    world: World, installed: Installed
) -> None:
    async with server(FakeOllama(world, host=installed.host), world):
        row = doctor(world, code=0)["ollama"]
    assert (row["ok"], row["binary"], row["version"]) == (True, None, "0.32.15")
    assert row["detail"].startswith(f"the server at http://{installed.host}")


def test_an_ollama_without_models_may_answer_and_the_hint_pulls_one(world: World, installed: Installed) -> None:
    installed.ollama(models={})
    row = doctor(world, code=0)["ollama"]
    assert (row["state"], row["reason"], row["hint"]) == ("degraded", "model_not_found", "ollama pull llama3.2")


@pytest.mark.parametrize("logged_in", [True, False])
def test_claude_s_login_is_told_and_what_mends_it(world: World, installed: Installed, logged_in: bool) -> None:
    binary = installed.claude(logged_in=logged_in)
    row = doctor(world, code=0 if logged_in else 1)["claude"]
    assert (row["ok"], row["authenticated"]) == (logged_in, logged_in)
    assert (row["binary"], row["version"]) == (str(binary), "2.1.329")
    assert (row["reason"], row["hint"]) == ((None, None) if logged_in else ("not_authenticated", "claude auth login"))
    line = line_of(shown(world).stdout, "claude")
    assert line.split()[3] == ("yes" if logged_in else "no")


@pytest.mark.parametrize("logged_in", [True, False])
def test_copilot_s_login_is_told_and_what_mends_it(world: World, installed: Installed, logged_in: bool) -> None:
    binary = installed.copilot(logged_in=logged_in)
    row = doctor(world, code=0 if logged_in else 1)["copilot"]
    assert (row["ok"], row["authenticated"]) == (logged_in, logged_in)
    assert (row["binary"], row["version"]) == (str(binary), "1.0.102")
    assert bool(row["hint"]) is not logged_in


def test_an_old_claude_is_found_and_told_how_to_update(world: World, installed: Installed) -> None:
    installed.claude(version="2.0.76 (Claude Code)")
    row = doctor(world, code=0)["claude"]
    assert (row["state"], row["version"], row["ok"]) == ("degraded", "2.0.76", True)
    assert row["hint"]


@pytest.mark.parametrize("source", [NOBODY, ANOTHER], ids=["that crashes", "of another project"])
@pytest.mark.parametrize("name", ["claude", "copilot", "codex", "ollama"])
def test_a_program_of_that_name_that_is_broken_is_found_and_not_ok(
    world: World, installed: Installed, name: str, source: str
) -> None:
    binary = installed.program(name, source)
    row = doctor(world, code=1)[name]
    assert (row["ok"], row["state"], row["binary"], row["version"]) == (False, "unavailable", str(binary), None)
    assert row["reason"] in ("not_installed", "process_exited")
    assert row["detail"]


def test_a_program_that_cannot_be_executed_is_not_installed(world: World, installed: Installed) -> None:
    installed.claude().chmod(stat.S_IRUSR)
    row = doctor(world, code=1)["claude"]
    assert (row["reason"], row["binary"]) == ("not_installed", None)


def test_programs_that_never_answer_cost_one_deadline_together_and_are_ended(
    world: World, installed: Installed
) -> None:
    for name in ("claude", "copilot", "codex", "ollama"):
        installed.program(name, DEAF)
    rows = doctor(world, code=0)
    assert {rows[name]["reason"] for name in ("claude", "copilot", "codex", "ollama")} == {"timeout"}
    assert world.processes() == []


def test_a_daemon_that_runs_is_told_and_goes_on_with_what_it_has(world: World, installed: Installed) -> None:
    installed.ollama()
    with world.daemon() as daemon:
        assert world.runnerd("chat", "Hi").stdout == b"Hi"
        serves = {process.pid for process in world.processes()} - {daemon.process.pid}
        assert len(serves) == 1
        done = world.runnerd("doctor", "--json")
        told = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, b"")
        assert told["daemon"]["pid"] == daemon.process.pid
        assert told["daemon"]["version"]
        assert told["socket"] == str(world.socket)
        assert f" runs, pid {daemon.process.pid}" in shown(world).stdout.decode()
        assert {process.pid for process in world.processes()} == {daemon.process.pid, *serves}
        assert world.runnerd("chat", "Hi").stdout == b"Hi"


def test_without_a_daemon_it_says_so_and_starts_none(world: World, installed: Installed) -> None:
    told = json.loads(world.runnerd("doctor", "--json").stdout)
    assert (told["daemon"], told["socket"]) == (None, str(world.socket))
    assert told["config"].endswith("/runners.yaml")
    assert not world.socket.exists()
    assert world.processes() == []


def test_a_socket_that_nobody_answers_on_any_more_is_no_daemon(world: World, installed: Installed) -> None:
    with world.daemon() as daemon:
        daemon.signal(signal.SIGKILL)
        daemon.wait()
    assert world.socket.exists()
    assert json.loads(world.runnerd("doctor", "--json").stdout)["daemon"] is None


def test_what_the_configuration_leaves_out_is_shown_with_the_line_to_add_and_does_not_count(
    world: World, installed: Installed
) -> None:
    installed.ollama()
    config = world.config("runners: {mine: {kind: claude}}\n")
    rows = doctor(world, "--config", str(config), code=1)
    assert next(iter(rows)) == "mine"
    assert set(rows) == {"mine", *KINDS} - {"claude"}
    assert (rows["mine"]["is_configured"], rows["mine"]["kind"]) == (True, "claude")
    left_out = rows["ollama"]
    assert (left_out["is_configured"], left_out["ok"], left_out["version"]) == (False, True, "0.32.15")
    assert left_out["hint"] == f"add `ollama: {{kind: ollama}}` under runners: in {config}"
    # What mends it first is to install it.
    assert (rows["copilot"]["is_configured"], rows["copilot"]["reason"]) == (False, "not_installed")
    assert "npm install" in rows["copilot"]["hint"]
    done = shown(world, "--config", str(config))
    assert done.returncode == 1
    assert "configuration  " + str(config) in done.stdout.decode()
    assert "add `ollama: {kind: ollama}` under runners:" in line_of(done.stdout, "ollama")


def test_every_entry_of_a_configuration_has_a_row_of_its_own(world: World, installed: Installed) -> None:
    installed.claude()
    broken = installed.program("other-claude", NOBODY)
    entries = {"work": {"kind": "claude"}, "home": {"kind": "claude", "binary": str(broken)}}
    rows = doctor(world, "--config", str(world.config(json.dumps({"runners": entries}))), code=0)
    assert (rows["work"]["ok"], rows["home"]["ok"]) == (True, False)
    assert rows["home"]["binary"] == str(broken)


def test_a_configured_binary_that_is_not_there_is_told(world: World, installed: Installed) -> None:
    installed.claude()
    config = world.config("runners: {claude: {kind: claude, binary: /no/such/claude}}\n")
    row = doctor(world, "--config", str(config), code=1)["claude"]
    assert (row["reason"], row["binary"]) == ("not_installed", None)
    assert "/no/such/claude" in row["detail"]


def test_an_entry_whose_key_is_missing_is_told_and_the_others_are_looked_at(world: World, installed: Installed) -> None:
    installed.claude()
    installed.copilot(logged_in=True)
    provider = {"base_url": "http://127.0.0.1:1", "api_key_env": "NO_SUCH_KEY"}
    entries = {"claude": {"kind": "claude"}, "copilot": {"kind": "copilot", "model": "m", "provider": provider}}
    rows = doctor(world, "--config", str(world.config(json.dumps({"runners": entries}))), code=0)
    assert (rows["copilot"]["ok"], rows["copilot"]["reason"]) == (False, "config")
    assert "NO_SUCH_KEY" in rows["copilot"]["detail"]
    assert rows["claude"]["ok"]


@pytest.mark.parametrize("host", ["nowhere.invalid:x", "127.0.0.1:99999"])
def test_a_wrong_ollama_host_is_told_and_nothing_breaks(world: World, installed: Installed, host: str) -> None:
    installed.ollama()
    world.env["OLLAMA_HOST"] = host
    row = doctor(world, code=1)["ollama"]
    assert (row["ok"], row["reason"]) == (False, "config")
    assert host in row["detail"]


@pytest.mark.parametrize("as_json", [False, True], ids=["", "--json"])
def test_a_wrong_configuration_exits_with_78_and_names_its_line(
    world: World, installed: Installed, as_json: bool
) -> None:
    config = world.config("runners:\n  claude:\n    kind: claude\n    modle: x\n")
    done = world.runnerd("doctor", "--config", str(config), *["--json"] * as_json)
    assert (done.returncode, done.stdout) == (78, b"")
    assert done.stderr.decode() == f"{config}:4: runners.claude.modle: unknown key; did you mean model?\n"


def test_a_configuration_that_is_not_there_exits_with_78(world: World, installed: Installed) -> None:
    done = world.runnerd("doctor", "--config", "/no/such/file")
    assert (done.returncode, done.stdout, done.stderr) == (78, b"", b"/no/such/file: no such file\n")


def test_wrong_usage_exits_with_2_and_help_with_0(world: World, installed: Installed) -> None:
    assert world.runnerd("doctor", "--nonsense").returncode == 2
    assert world.runnerd("doctor", "claude").returncode == 2
    done = world.runnerd("doctor", "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(option in done.stdout for option in (b"--config", b"--json"))


def test_a_state_directory_of_somebody_else_s_is_refused_in_one_line(world: World, installed: Installed) -> None:
    (world.state / "runnerd").symlink_to(world.home)
    done = world.runnerd("doctor")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"runnerd: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_ends_it_before_it_has_looked_at_everything_is_left_with_nothing(
    world: World, installed: Installed, number: signal.Signals
) -> None:
    installed.program("claude", f"import pathlib\npathlib.Path({str(world.root / 'asked')!r}).touch()\n" + DEAF)
    installed.ollama(child=True)
    command = [sys.executable, "-m", "runnerd", "doctor"]
    with subprocess.Popen(command, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        ends_s = time.monotonic() + END_S
        while not (world.root / "asked").exists() or len(world.processes()) < 3:  # it, claude, ollama
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        process.send_signal(number)
        output, said = process.communicate(timeout=END_S)
    assert (process.returncode, output) == (1, b"")
    assert said == b"runnerd: ended by a signal before everything was looked at\n"
    assert world.processes() == []
    assert [path.name for path in (world.state / "runnerd" / "leases").iterdir()] == ["lock"]
