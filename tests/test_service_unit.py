"""What a systemd unit and a launchd agent of ours hold, and that their readers take it as it was meant."""

import plistlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.errors import DaemonError
from daemon.service_unit import agent, serve_command, service_environment, unit_text
from tests.unit_files import command_of, environment_of, settings_of, values
from tests.world import World

ODD = "a b%c;d#e é\u3000f"
ODDER = f'{ODD} "g" \'h \\i $j ${{k}}'
LOG = Path("/log")
WRITERS: dict[str, Callable[[list[str], dict[str, str]], object]] = {
    "unit": lambda command, environment: unit_text(command, environment, 30),
    "agent": lambda command, environment: agent(command, environment, 30, LOG),
}

writable = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]))
path = writable.map(lambda text: f"/{text}")


@settings(max_examples=200, deadline=None)
@given(path.filter(lambda text: not set(text) & set("\"'\\$")), st.lists(writable), path)
def test_systemd_reads_every_word_as_it_was_meant(program: str, arguments: list[str], entry: str) -> None:
    text = unit_text([program, *arguments], {"PATH": entry}, 30)
    assert command_of(text) == [program, *arguments]
    assert environment_of(text)["PATH"] == entry


@settings(max_examples=200, deadline=None)
@given(st.lists(writable, min_size=1), path)
def test_launchd_reads_every_word_as_it_was_meant(command: list[str], entry: str) -> None:
    document = plistlib.loads(agent(command, {"PATH": entry}, 30, LOG))
    assert document["ProgramArguments"] == command
    assert document["EnvironmentVariables"] == {"PATH": entry}


@pytest.mark.parametrize("bad", ["\n", "\x00", "\t", "\x1b", "\x7f", "\r", "\x85", "\udcff", "\uffff"], ids=ascii)
@pytest.mark.parametrize("where", ["command", "environment"])
@pytest.mark.parametrize("kind", WRITERS)
def test_what_no_file_can_hold_is_refused(bad: str, where: str, kind: str) -> None:
    command = ["/python", f"a{bad}b" if where == "command" else "a"]
    environment = {"PATH": f"/a{bad}b" if where == "environment" else "/a"}
    with pytest.raises(DaemonError, match="cannot stand in a service's file"):
        WRITERS[kind](command, environment)


@pytest.mark.parametrize("sign", ["$", '"', "'", "\\"])
def test_a_program_that_systemd_would_not_start_is_refused(sign: str) -> None:
    with pytest.raises(DaemonError, match="dollar sign"):
        unit_text([f"/opt/a{sign}b/python"], {}, 30)


def test_a_python_that_does_not_know_where_it_is_cannot_be_a_service() -> None:
    with pytest.raises(DaemonError, match="absolute path"):
        serve_command("", None, None)


def test_a_service_has_absolute_paths_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert serve_command("/venv/bin/python", Path("my.yaml"), Path("my.sock"))[4:] == [
        *["serve", "--config", str(tmp_path / "my.yaml"), "--socket", str(tmp_path / "my.sock")]
    ]
    ours = {"PATH": "bin:/a:.::/b:~/c", "XDG_STATE_HOME": "/state", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": ""}
    ours |= {"RUNNERD_CONFIG": "x.yaml", "RUNNERD_SOCKET": "", "ANTHROPIC_API_KEY": "secret", "HOME": "/home/me"}
    expected = {"PATH": "/a:/b", "XDG_STATE_HOME": "/state", "RUNNERD_CONFIG": str(tmp_path / "x.yaml")}
    assert service_environment(ours) == expected


@pytest.mark.parametrize(("drain_s", "limit_s"), [(0, 30), (30, 60), (0.2, 31), (3600, 3630), (float("inf"), 1000030)])
def test_a_manager_waits_longer_for_the_end_than_the_daemon_drains(drain_s: float, limit_s: int) -> None:
    assert values(unit_text(["/python"], {}, drain_s), "TimeoutStopSec") == [str(limit_s)]
    assert plistlib.loads(agent(["/python"], {}, drain_s, LOG))["ExitTimeOut"] == limit_s


def test_a_daemon_that_cannot_run_is_not_started_for_ever() -> None:
    read = dict(settings_of(unit_text(["/python"], {}, 30)))
    assert read["Restart"] == "on-failure"
    assert read["RestartPreventExitStatus"] == "78"
    # The first restarts come 2 s apart, also where a systemd knows no steps: the limit must be reached by then.
    assert int(read["StartLimitBurst"]) * 60 < int(read["StartLimitIntervalSec"])
    assert (read["Type"], read["NotifyAccess"], read["KillMode"]) == ("notify", "main", "mixed")
    assert (read["UMask"], read["WantedBy"]) == ("0077", "default.target")


def test_systemd_finds_nothing_wrong_with_a_unit_of_odd_paths(world: World) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze here")
    # It looks whether the program is there: so it has read its path as it was meant.
    (world.root / ODD).mkdir()
    program = world.program(f"{ODD}/python", "")
    file = world.root / "runnerd.service"
    command = serve_command(str(program), Path(f"/{ODDER}"), None)
    file.write_text(unit_text(command, {"PATH": f"/{ODDER}"}, 30), encoding="utf-8")
    done = subprocess.run(
        [analyze, "verify", "--user", file], env=world.env, capture_output=True, timeout=60, check=False
    )
    said = [line for line in done.stderr.decode().splitlines() if "Unknown key 'Restart" not in line]
    assert (done.returncode, said) == (0, [])
