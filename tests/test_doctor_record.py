"""`runnerd doctor --record` where no real CLI is: what it says of each, and that it ends well."""

import json
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from runners.kinds import known_kinds
from runners.providers.claude.provider import TESTED_VERSIONS
from runners.testing.recording import UNRECORDED, VENDORS
from tests.installed import Installed
from tests.world import END_S, World


@pytest.fixture
def installed(world: World) -> Installed:
    return Installed(world)


def recorded(world: World, *arguments: str, code: int) -> list[dict[str, Any]]:
    """The rows of `runnerd doctor --record --json`, which must exit with `code` and leave no process and no file."""
    done = world.runnerd("doctor", "--record", "--json", *arguments)
    assert (done.returncode, done.stderr) == (code, b""), done
    assert world.processes() == []
    assert [path.name for path in (world.state / "runnerd").rglob("*")] == ["leases", "lock"]
    rows = json.loads(done.stdout)["runners"]
    assert isinstance(rows, list)
    return rows


def test_what_is_not_installed_is_said_and_is_no_drift(world: World, installed: Installed) -> None:
    rows = recorded(world, code=0)
    assert [row["kind"] for row in rows] == known_kinds()
    for row in rows:
        is_known = row["kind"] in VENDORS
        assert row["state"] == ("not installed" if is_known else "not recorded")
        assert row["detail"] == (f"{row['kind']} was not found on PATH" if is_known else UNRECORDED[row["kind"]])
        assert (row["version"], row["drift"], row["failed"]) == (None, [], {})


def test_a_person_is_told_that_no_model_was_asked_and_a_line_for_each_kind_that_was_named(
    world: World, installed: Installed
) -> None:
    done = world.runnerd("doctor", "--record", "echo", "claude")
    assert (done.returncode, done.stderr) == (0, b"")
    first, empty, head, *lines = done.stdout.decode().splitlines()
    assert "no model was asked" in first
    assert not empty
    assert head.split() == ["kind", "state", "version", "recorded", "binary", "detail"]
    assert [line.split()[0] for line in lines] == ["echo", "claude"]
    assert "not installed" in lines[1]


def test_a_cli_whose_answers_are_not_the_model_s_has_failed_with_the_scenario_and_why(
    world: World, installed: Installed
) -> None:
    binary = installed.claude()  # it asks no model, and answers with what it was sent
    done = world.runnerd("doctor", "--record", "claude")
    assert (done.returncode, done.stderr) == (1, b"")
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    recorded_from = [f"{version}," for version in TESTED_VERSIONS[:-1]] + [TESTED_VERSIONS[-1]]
    assert ["claude", "failed", "2.1.329", *recorded_from, str(binary), "-"] in lines
    assert ["claude", "2.1.329", "a", "short", "text", "text:", "'Hello?'", "in", "place", "of", "'Hello.'"] in lines
    assert ["claude", "2.1.329", "missing", "system/init", "mcp_servers[]", "object", "-"] in lines


@pytest.mark.parametrize(
    ("source", "why"),
    [("import sys\n\nsys.exit(3)\n", "exits with 3"), ("print('another program 1.0')\n", "does not answer like")],
    ids=["that crashes", "of another project"],
)
def test_a_program_of_that_name_that_is_broken_has_failed(
    world: World, installed: Installed, source: str, why: str
) -> None:
    installed.program("claude", source)
    [row] = recorded(world, "claude", code=1)
    assert row["state"] == "failed"
    assert why in row["failed"]["its start"]


def test_one_that_is_older_than_what_was_recorded_is_said_and_is_no_drift(world: World, installed: Installed) -> None:
    installed.claude(version="2.0.76 (Claude Code)")
    [row] = recorded(world, "claude", code=0)
    assert (row["state"], row["version"]) == ("not recorded", "2.0.76")
    assert row["detail"].startswith("2.0.76 is older than ")


def test_each_binary_that_the_configuration_names_has_a_row(world: World, installed: Installed) -> None:
    old = installed.claude(version="2.0.76 (Claude Code)").rename(world.root / "old")
    runners = {
        "work": {"kind": "claude", "binary": str(old)},
        "home": {"kind": "claude", "binary": str(old)},
        "none": {"kind": "claude"},
    }
    config = world.config(json.dumps({"runners": runners}))
    rows = recorded(world, "--config", str(config), "claude", code=0)
    assert [(row["binary"], row["state"]) for row in rows] == [(str(old), "not recorded"), (None, "not installed")]


@pytest.mark.parametrize("arguments", [("claude",), ("--record", "nobody")])
def test_kinds_are_for_a_recording_and_must_be_known(
    world: World, installed: Installed, arguments: tuple[str, ...]
) -> None:
    done = world.runnerd("doctor", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_ends_it_is_left_with_nothing(world: World, installed: Installed, number: signal.Signals) -> None:
    asked = world.root / "asked"
    installed.program("claude", f"import pathlib, time\n\npathlib.Path({str(asked)!r}).touch()\ntime.sleep(3600)\n")
    command = [sys.executable, "-m", "runnerd", "doctor", "--record"]
    with subprocess.Popen(command, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        ends_s = time.monotonic() + END_S
        while not asked.exists():
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate(timeout=END_S)
    assert (process.returncode, output) == (1 if number is signal.SIGTERM else 130, b"")
    assert world.processes() == []
    assert [path.name for path in (world.state / "runnerd" / "leases").iterdir()] == ["lock"]
