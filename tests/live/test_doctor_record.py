"""`runnerd doctor --record` on the real CLIs: one that is as it was recorded, and one that tells other events."""

import json
import subprocess
import sys

import pytest

from runners.providers.claude.provider import TESTED_VERSIONS
from runners.providers.codex.provider import TESTED_VERSIONS as CODEXES
from tests.conftest import HEADLESS_COPILOTS, real_cli
from tests.installed import Installed
from tests.live.install import COPILOT_CACHE
from tests.world import World

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

# What a next version might do: a key of another name, one more, one less, another type, another event. And what comes
# by chance, in one process alone.
_ANOTHER = """
import json, os, subprocess, sys

command = [{real!r}, *sys.argv[1:]]
if "-p" not in command:
    os.execv(command[0], command)
cli = subprocess.Popen(command, stdout=subprocess.PIPE)
for line in cli.stdout:
    event = json.loads(line)
    if event["type"] == "result":
        event["mood"] = {{"is_good": True}}
        event["duration_ms"] = str(event["duration_ms"])
        del event["usage"]["service_tier"]
        print(json.dumps({{"type": "system", "subtype": "farewell", "words": []}}))
    elif event.get("subtype") == "init":
        event["outputStyle"] = event.pop("output_style")
        if not os.path.exists({once!r}):
            open({once!r}, "x").close()
            event["chance"] = 1
    elif event["type"] == "assistant" and event.get("error"):
        del event["error"]
    print(json.dumps(event), flush=True)
"""


@pytest.fixture
def installed(world: World) -> Installed:
    made = Installed(world)
    world.env["XDG_CACHE_HOME"] = str(COPILOT_CACHE)
    return made


def recorded(world: World, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """It takes as long as the CLIs do, and leaves nothing."""
    command = [sys.executable, "-m", "runnerd", "doctor", "--record", *arguments]
    done = subprocess.run(command, env=world.env, capture_output=True, timeout=240, check=False)
    assert done.stderr == b""
    assert world.processes() == []
    assert list(world.home.iterdir()) == []
    assert [path.name for path in (world.state / "runnerd").rglob("*")] == ["leases", "lock"]
    return done


def test_pinned_versions_tell_what_was_recorded(world: World, installed: Installed) -> None:
    pinned = {"codex": CODEXES, "copilot": HEADLESS_COPILOTS}
    binaries = {cli: installed.real(cli, real_cli(cli, versions[-1])) for cli, versions in pinned.items()}
    done = recorded(world)
    lines = {line.split()[0]: line for line in done.stdout.decode().splitlines() if line}
    assert done.returncode == 0, done.stdout.decode()
    for cli, versions in pinned.items():
        told = f"{cli} as recorded {versions[-1]} {', '.join(versions)} {binaries[cli]} -"
        assert lines[cli].split() == told.split()
    assert "not installed" in lines["claude"]


def test_where_a_cli_tells_other_events_each_place_is_named(world: World, installed: Installed) -> None:
    version = TESTED_VERSIONS[-1]
    installed.program("claude", _ANOTHER.format(real=str(real_cli("claude", version)), once=str(world.root / "once")))
    done = recorded(world, "--json", "claude")
    [row] = json.loads(done.stdout)["runners"]
    assert done.returncode == 1
    assert (row["state"], row["version"], row["recorded"]) == ("drifted", version, ", ".join(TESTED_VERSIONS))
    assert row["failed"] == {}
    assert (world.root / "once").exists()
    assert [tuple(one.values()) for one in row["drift"]] == [
        ("missing", "assistant", "error", "string", None),
        ("changed", "result/success", "duration_ms", "number", "string"),
        ("new", "result/success", "mood", None, "object"),
        ("missing", "result/success", "usage.service_tier", "string", None),
        ("new", "system/farewell", None, None, None),
        ("new", "system/init", "outputStyle", None, "string"),
        ("missing", "system/init", "output_style", "string", None),
    ]
