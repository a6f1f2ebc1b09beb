"""A kind that is no part of runnerd: the package in `example_kind`, installed beside it as its user would do it."""

import asyncio
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from daemon.config import load_config
from runners.errors import ConfigError
from runners.kinds import ENTRY_POINTS, known_kinds, provider_class
from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.testing import CONTRACTS, Contract, Received, Subject, leaves_nothing, request
from runners.translator import Translator
from tests.capability_matrix import README
from tests.world import Wire, World

PACKAGE = Path(__file__).parent / "example_kind"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed, without a network: it is built by what this environment has."""
    copy, target = tmp_path_factory.mktemp("source") / "parrot", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, copy)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--target", str(target)]
    done = subprocess.run([*pip, *options, str(copy)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, where this process finds it."""
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "runnerd_parrot"]:
        del sys.modules[name]


class Parrot(Subject):
    """The parrot, put to the contract."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.provider = self._made()

    def _made(self, **settings: Any) -> LlmProvider:
        made = provider_class("parrot")
        entry = {"kind": "parrot", "env": {"HOME": str(self._world.home)}, **settings}
        return made("parrot", made.settings_type.model_validate(entry), state_dir=self._world.state / "parrot")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request("for ever")

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        return Received("", [])

    def missing(self) -> LlmProvider:
        return self._made(binary="/nonexistent/python")

    def translator(self) -> Translator:
        made: Translator = importlib.import_module("runnerd_parrot").ParrotTranslator("parrot")
        return made


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_a_kind_of_ones_own_keeps_the_contract(contract: Contract, world: World) -> None:
    subject = Parrot(world)
    async with leaves_nothing():
        try:
            await contract(subject)
        finally:
            await subject.provider.aclose()


async def test_a_daemon_serves_a_kind_of_ones_own(site: Path, world: World) -> None:
    world.env["PYTHONPATH"] = str(site)
    config = world.config("runners:\n  polly: {kind: parrot, times: 2}\n")
    with world.daemon(config):
        done = await asyncio.to_thread(world.runnerd, "chat", "--no-start", "-m", "polly", "hello ")
        assert (done.returncode, done.stdout) == (0, b"hello hello ")
        async with await Wire.connect(world.socket) as wire:
            [row] = (await wire.call("health"))["result"]["runners"]
            assert (row["kind"], row["ok"], row["version"]) == ("parrot", True, "1.0.0")
            [row] = (await wire.call("runners"))["result"]["runners"]
            assert row["display_name"] == "Parrot"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("times: 10", "runners.polly.times: Input should be less than or equal to 9"),
        ("tims: 2", "runners.polly.tims: unknown key; did you mean times?"),
    ],
)
def test_its_settings_are_checked_as_those_of_every_kind(world: World, entry: str, message: str) -> None:
    path = world.config(f"runners:\n  polly:\n    kind: parrot\n    {entry}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}:4: {message}"


@pytest.mark.usefixtures("installed")
def test_it_is_one_of_the_known_kinds() -> None:
    assert "parrot" in known_kinds()
    assert provider_class("parrot").__module__ == "runnerd_parrot"
    [point] = entry_points(group=ENTRY_POINTS)
    assert point.name == "parrot"


def test_readme_shows_how_it_names_itself() -> None:
    section = README.read_text(encoding="utf-8").partition("### Kinds of your own\n")[2]
    shown = section.partition("```toml\n")[2].partition("```")[0]
    assert shown
    assert shown in (PACKAGE / "pyproject.toml").read_text(encoding="utf-8")


def broken(place: Path, source: str) -> None:
    """A package at a place, whose kind `broken` is what `source` makes of it."""
    info = place / "broken_kind-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-kind\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[runnerd.kinds]\nbroken = broken_kind:Broken\n")
    (place / "broken_kind.py").write_text(source)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
        ("x = 1", "has no attribute 'Broken'"),
        ("1 / 0", "division by zero"),
        ("raise SystemExit('not on this system')", "not on this system"),
        ("class Broken: pass", "is not an LlmProvider"),
        ("from runners.provider import LlmProvider\nclass Broken(LlmProvider): pass", "has no available_models, "),
    ],
)
def test_a_kind_whose_package_is_broken_is_refused_at_its_entry(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    broken(tmp_path, source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken_kind", raising=False)
    path = world.config("runners:\n  mine:\n    kind: broken\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    sys.modules.pop("broken_kind", None)
    assert str(caught.value).startswith(f"{path}:3: runners.mine.kind: kind 'broken'")
    assert why in str(caught.value)


def test_a_kind_that_is_broken_keeps_doctor_from_nothing_else(world: World, tmp_path: Path) -> None:
    broken(tmp_path, "1 / 0")
    world.env["PYTHONPATH"] = str(tmp_path)
    done = world.runnerd("doctor", "--json", "--config", str(world.config("runners:\n  echo: {kind: echo}\n")))
    assert done.stderr == b""
    rows = {row["name"]: row for row in json.loads(done.stdout)["runners"]}
    assert rows["echo"]["ok"]
    assert (rows["broken"]["state"], rows["broken"]["reason"]) == ("unavailable", "config")
    assert "division by zero" in rows["broken"]["detail"]
    done = world.runnerd("doctor", "--record", "--json", "echo", "broken")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [row["state"] for row in json.loads(done.stdout)["runners"]] == ["not recorded"] * 2
