"""The agent of README, as it stands there, over every runner that has tools: each behind a real daemon."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runners.testing import Received, calling
from tests.capability_matrix import README
from tests.conftest import real_cli
from tests.live.lab import Json
from tests.live.tool_lab import CLIS, tool_lab
from tests.subjects import ollama
from tests.world import END_S, World

RUNNERS = [
    *(pytest.param(cli, id="-".join(cli), marks=pytest.mark.live) for cli in CLIS),
    pytest.param(("ollama", "stand-in"), id="ollama-stand-in"),
]
QUESTION = calling(("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rööm"}), text="Let me see. ")
SUNNY = "18 degrees and sunny in "


def the_agent() -> str:
    """The program in README."""
    [program] = re.findall(r"<!-- agent: [^\n]*\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert isinstance(program, str)
    return program


def test_it_has_no_more_than_thirty_lines() -> None:
    assert len([line for line in the_agent().split("\n") if line]) <= 30


class Model:
    """What the model API received."""

    def __init__(self) -> None:
        self.received: list[Received] = []


@asynccontextmanager
async def daemon_with(world: World, cli: str, version: str) -> AsyncIterator[Model]:
    """A daemon with a runner of this CLI's name, whose model does what it is told."""
    model = Model()
    if cli == "ollama":
        subject = ollama.FakeOllama(world)
        entry: Json = {"kind": "ollama", "binary": str(subject.binary), "host": subject.host, "model": ollama.MODEL}
        entry["env"] = {"FAKE_OLLAMA": json.dumps(subject.order)}
        with world.daemon(world.config(json.dumps({"runners": {"ollama": entry}}))):
            yield model
        model.received += map(ollama.received, subject.chats())
    else:
        async with tool_lab(world, cli, real_cli(cli, version), {cli: {}}) as lab:
            lab.obey()
            yield model
            model.received += [lab.read(request.body) for request in lab.lab.api.requests]


@pytest.mark.parametrize("runner", RUNNERS)
async def test_the_loop_runs_as_it_stands_over_every_runner_that_has_tools(
    world: World, runner: tuple[str, str]
) -> None:
    async with daemon_with(world, *runner) as model:
        command = [sys.executable, "-I", "-c", the_agent(), runner[0], QUESTION]
        process = await asyncio.create_subprocess_exec(
            *command, env=world.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(END_S * 2):
            stdout, stderr = await process.communicate()
    assert (process.returncode, stderr.decode()) == (0, "")
    # The model repeats the result that comes last, and claude 2.1.197 hands them on as they come to an end.
    assert stdout.decode() in [f"Let me see. {SUNNY}{city}\n" for city in ("Paris", "Rööm")]
    first, second = model.received
    assert first.messages == [("user", QUESTION)]
    assert [tool["name"] for tool in first.tools] == [tool["name"] for tool in second.tools] == ["get_weather"]
    assert second.messages[:2] == [("user", QUESTION), ("assistant", "Let me see. ")]
    cities = {call_id: arguments["city"] for call_id, _, arguments in second.calls}
    assert {cities[call_id]: text for call_id, text, _ in second.results} == {
        "Paris": f"{SUNNY}Paris",
        "Rööm": f"{SUNNY}Rööm",
    }
    assert len(second.messages) == 4
