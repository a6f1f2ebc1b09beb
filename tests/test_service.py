"""The daemon as a service: the files that are written, and what the service manager is asked to do."""

import json
import os
import plistlib
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.service_manager import Launchd
from daemon.service_unit import HEADER, serve_command
from tests.unit_files import command_of, environment_of
from tests.world import Daemon, World

ECHO = "runners: {echo: {kind: echo}}\n"

SYSTEMCTL = """
import pathlib, sys

place = pathlib.Path(sys.argv[0]).parent
with (place / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
if (place / "offline").exists():
    sys.exit("Failed to connect to bus: No medium found")
state = place / "state"
words = state.read_text().split() if state.exists() else ["disabled", "inactive"]
match sys.argv[2:]:
    case ["is-enabled", _]:
        print(words[0])
        sys.exit(words[0] != "enabled")
    case ["is-active", _]:
        print(words[1])
        sys.exit(words[1] != "active")
    case ["enable" | "restart", *_] if (place / "broken").exists():
        sys.exit("Job for runnerd.service failed.")
    case ["enable", "--now", _]:
        state.write_text("enabled active")
    case ["disable", "--now", _]:
        state.write_text("disabled inactive")
    case ["daemon-reload"] | ["reset-failed", _] | ["enable", _] | ["restart", _]:
        pass
    case other:
        sys.exit(f"unexpected: {other}")
"""

LAUNCHCTL = """
import pathlib, sys

place = pathlib.Path(sys.argv[0]).parent
with (place / "calls").open("a") as calls:
    print(*sys.argv[1:], file=calls)
loaded = place / "loaded"
match sys.argv[1:]:
    case ["print", target] if target.endswith("/runnerd"):
        if not loaded.exists():
            sys.exit("Could not find service")
        print("\\tstate = running")
        if loaded.read_text() == "ending":
            loaded.unlink()
    case ["bootstrap", _, path]:
        loaded.write_text(path)
    case ["bootout", _]:
        loaded.write_text("ending")
"""


@pytest.fixture
def unit(world: World) -> Path:
    """Where the unit belongs, in a world whose `systemctl` writes down what it is asked."""
    (world.root / "bin").mkdir()
    world.program("bin/systemctl", SYSTEMCTL)
    world.env["PATH"] = f"{world.root / 'bin'}:{world.env['PATH']}"
    return world.home / ".config" / "systemd" / "user" / "runnerd.service"


def calls(world: World) -> list[str]:
    """What `systemctl --user` was asked since the last look."""
    path = world.root / "bin" / "calls"
    asked = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    assert all(call.startswith("--user ") for call in asked)
    return [call.removeprefix("--user ") for call in asked]


def succeeded(world: World, *arguments: str) -> str:
    done = world.runnerd("service", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def status(world: World, *arguments: str) -> tuple[int, dict[str, object]]:
    done = world.runnerd("service", "status", "--json", *arguments)
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout)


def test_it_is_installed_and_known_as_such_and_removed(world: World, unit: Path) -> None:
    config = world.config(ECHO)
    assert status(world)[0] == 1
    calls(world)
    output = succeeded(world, "install", "--config", str(config))
    assert output == f"{unit}: written\nthe service runs\n"
    assert calls(world) == [
        "daemon-reload",
        "reset-failed runnerd.service",
        "enable --now runnerd.service",
    ]
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644
    assert command_of(unit.read_text()) == serve_command(sys.executable, config, None)
    assert environment_of(unit.read_text())["PATH"] == world.env["PATH"]
    expected = {"path": str(unit), "installed": True, "current": True, "enabled": "enabled", "active": "active"}
    assert status(world, "--config", str(config)) == (0, expected)
    assert re.search(r"^active +active$", succeeded(world, "status"), re.MULTILINE)
    calls(world)
    assert succeeded(world, "uninstall") == f"{unit}: removed\n"
    assert calls(world) == ["daemon-reload", "disable --now runnerd.service", "daemon-reload"]
    assert list(unit.parent.iterdir()) == []
    assert status(world, "--config", str(config)) == (
        1,
        expected | {"installed": False, "current": False, "enabled": "disabled", "active": "inactive"},
    )
    calls(world)
    assert succeeded(world, "uninstall") == f"{unit}: there is none\n"
    assert calls(world) == []


def test_what_is_installed_starts_and_serves_with_nothing_but_its_own_environment(world: World, unit: Path) -> None:
    succeeded(world, "install", "--config", str(world.config(ECHO)))
    text = unit.read_text()
    manager = {name: world.env[name] for name in ("HOME", "LANG", "XDG_RUNTIME_DIR")}
    served, world.env = world.env, manager | environment_of(text)
    elsewhere = "import os, sys; os.chdir('/'); os.execv(sys.argv[1], sys.argv[1:])"
    daemon = Daemon(world, [sys.executable, "-c", elsewhere, *command_of(text)])
    try:
        daemon.wait_for("daemon.ready")
        world.env = served
        assert world.runnerd("chat", "-m", "echo", "Hi").stdout == b"Hi"
    finally:
        daemon.end()


def test_installed_again_it_is_started_again_when_its_file_has_changed(world: World, unit: Path) -> None:
    config = world.config(ECHO)
    succeeded(world, "install", "--config", str(config))
    before = unit.read_text()
    calls(world)
    assert "unchanged" in succeeded(world, "install", "--config", str(config))
    assert calls(world)[2:] == ["enable --now runnerd.service"]
    world.config("daemon: {drain_s: 300}\n" + ECHO)
    assert status(world, "--config", str(config))[1]["current"] is False
    calls(world)
    assert "written" in succeeded(world, "install", "--config", str(config))
    assert calls(world)[2:] == ["enable runnerd.service", "restart runnerd.service"]
    assert unit.read_text() == before.replace("TimeoutStopSec=60", "TimeoutStopSec=330") != before


@pytest.mark.parametrize("missing", ["systemctl", "a manager that answers"])
def test_where_no_manager_answers_the_file_stands_and_the_commands_are_told(
    world: World, unit: Path, missing: str
) -> None:
    if missing == "systemctl":
        # Only what `runnerd` itself needs is on PATH.
        world.env["PATH"] = str(Path(sys.executable).parent)
    else:
        (world.root / "bin" / "offline").touch()
    output = succeeded(world, "install")
    assert output.splitlines()[2:] == [
        "  systemctl --user daemon-reload",
        "  systemctl --user enable --now runnerd.service",
    ]
    assert HEADER in unit.read_text()
    code, answer = status(world)
    assert (code, answer["installed"], answer["current"], answer["active"]) == (1, True, True, None)
    # What a manager had made before it went away.
    link = unit.parent / "default.target.wants" / unit.name
    link.parent.mkdir()
    link.symlink_to(unit)
    assert "  systemctl --user stop runnerd.service" in succeeded(world, "uninstall")
    assert not unit.exists()
    assert not link.is_symlink()


def test_a_service_that_does_not_start_is_told(world: World, unit: Path) -> None:
    (world.root / "bin" / "broken").touch()
    done = world.runnerd("service", "install")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "runnerd: `systemctl --user enable --now runnerd.service` failed: Job for runnerd.service failed.\n"
    )


@pytest.mark.parametrize("command", ["install", "uninstall", "status"])
@pytest.mark.parametrize("kind", ["a file", "a link to nothing that is ours"])
def test_a_unit_that_is_not_ours_is_left_alone(world: World, unit: Path, command: str, kind: str) -> None:
    unit.parent.mkdir(parents=True)
    if kind == "a file":
        unit.write_text("[Service]\nExecStart=/precious\n")
    else:
        unit.symlink_to("/dev/null")  # as `systemctl mask` leaves it
    done = world.runnerd("service", command)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"runnerd: {unit} is not runnerd's own: move it out of the way first\n"
    assert unit.read_text() in ("[Service]\nExecStart=/precious\n", "")
    assert calls(world) == []


def test_with_a_wrong_configuration_nothing_is_written(world: World, unit: Path) -> None:
    config = world.config("runners:\n  echo:\n    kind: echo\n    modle: x\n")
    done = world.runnerd("service", "install", "--config", str(config))
    assert (done.returncode, done.stdout) == (78, b"")
    assert done.stderr.decode() == f"{config}:4: runners.echo.modle: unknown key; did you mean model?\n"
    assert not unit.exists()
    assert calls(world) == []


def test_status_and_uninstall_need_no_right_configuration(world: World, unit: Path) -> None:
    succeeded(world, "install", "--config", str(world.config(ECHO)))
    config = world.config("nonsense")
    code, answer = status(world, "--config", str(config))
    assert (code, answer["installed"], answer["current"]) == (0, True, False)
    succeeded(world, "uninstall")
    assert not unit.exists()


def test_a_path_that_no_unit_can_hold_is_told_and_nothing_is_written(world: World, unit: Path) -> None:
    world.env["PATH"] += ":/new\nline"
    done = world.runnerd("service", "install")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"control characters" in done.stderr
    assert not unit.exists()


def test_the_unit_goes_where_the_configuration_directory_is(world: World, unit: Path) -> None:
    world.env["XDG_CONFIG_HOME"] = str(world.root / "config")
    succeeded(world, "install")
    assert not unit.exists()
    text = (world.root / "config" / "systemd" / "user" / "runnerd.service").read_text()
    assert environment_of(text)["XDG_CONFIG_HOME"] == world.env["XDG_CONFIG_HOME"]


@pytest.fixture
def launchd(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Launchd, Callable[[], list[str]]]:
    """A launchd with a `launchctl` that writes down what it is asked to change."""
    program = world.program("launchctl", LAUNCHCTL)
    monkeypatch.setenv("HOME", str(world.home))
    monkeypatch.setenv("XDG_STATE_HOME", str(world.state))
    monkeypatch.setenv("PATH", str(program.parent))

    def changes() -> list[str]:
        asked = (world.root / "calls").read_text().splitlines()
        (world.root / "calls").unlink()
        return [call for call in asked if not call.startswith("print ")]

    return Launchd(), changes


def test_an_agent_is_what_launchd_needs(world: World, launchd: tuple[Launchd, Callable[[], list[str]]]) -> None:
    manager, _ = launchd
    command = serve_command("/venv/bin/python", None, None)
    content = manager.content(command, {"PATH": "/a"}, 30)
    assert HEADER.encode() in content
    document = plistlib.loads(content)
    assert document["ProgramArguments"] == command
    assert document["EnvironmentVariables"] == {"PATH": "/a"}
    assert document["RunAtLoad"] is True
    assert document["KeepAlive"] == {"SuccessfulExit": False}
    assert Path(document["StandardErrorPath"]).parent.is_dir()
    assert manager.path == world.home / "Library" / "LaunchAgents" / f"{document['Label']}.plist"


def test_an_agent_begins_is_replaced_and_ends(launchd: tuple[Launchd, Callable[[], list[str]]]) -> None:
    manager, changes = launchd
    domain = f"gui/{os.getuid()}"
    begins, ends = f"bootstrap {domain} {manager.path}", f"bootout {domain}/runnerd"
    assert manager.answers()
    assert (manager.enabled(), manager.active()) == ("disabled", "inactive")
    manager.write(b"x")
    manager.start(replaced=False)
    assert (manager.enabled(), manager.active()) == ("enabled", "active")
    assert changes() == [begins]
    manager.start(replaced=False)
    assert changes() == []
    manager.start(replaced=True)
    assert changes() == [ends, begins]
    manager.stop()
    manager.stop()
    assert changes() == [ends]
    manager.remove()
    assert list(manager.path.parent.iterdir()) == []
