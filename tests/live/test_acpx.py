"""`runnerd acp` driven by acpx, a headless ACP client that is not ours."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import real_cli
from tests.live.install import ACPX_VERSION
from tests.programs import ECHO, HELD, entry
from tests.world import World

pytestmark = pytest.mark.live

AGENT = f"{sys.executable} -m runnerd acp -m echo"


class Acpx:
    """The client in a world. Between its commands it keeps a process of its own, which `close` ends."""

    def __init__(self, world: World, program: Path) -> None:
        self._world = world
        node = shutil.which("node")
        assert node is not None
        self._command = [node, str(program), "--cwd", str(world.root), "--format", "json", "--agent", AGENT]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._command, *arguments],
            env=self._world.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        """The lines that a command prints, to its good end."""
        with self.start(*arguments) as process:
            printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, printed
        return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def acpx(world: World) -> Iterator[Acpx]:
    program = real_cli("acpx", ACPX_VERSION)
    with world.daemon(world.config("runners:\n" + ECHO + entry(world, "held", HELD))):
        client = Acpx(world, program)
        client.run("sessions", "new")
        yield client
        client.run("sessions", "close")


def answer(messages: list[dict[str, Any]]) -> str:
    updates = [message["params"]["update"] for message in messages if message.get("method") == "session/update"]
    return "".join(one["content"]["text"] for one in updates if one["sessionUpdate"] == "agent_message_chunk")


def test_two_turns_a_change_of_model_and_a_cancel(acpx: Acpx) -> None:
    first = acpx.run("prompt", "one two")
    assert (answer(first), first[-1]["result"]["stopReason"]) == ("one two", "end_turn")
    acpx.run("set", "model", "echo:request")
    told = json.loads(answer(acpx.run("prompt", "three")))["messages"]
    assert [message["content"][0]["text"] for message in told] == ["one two", "one two", "three"]
    acpx.run("set", "model", "held")
    with acpx.start("prompt", "hold") as held:
        assert held.stdout is not None
        assert any("so far" in line for line in held.stdout)
        acpx.run("cancel")
        rest, _ = held.communicate(timeout=60)
    assert json.loads(rest.splitlines()[-1])["result"]["stopReason"] == "cancelled"
