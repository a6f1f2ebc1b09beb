from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conftest import real_cli
from tests.live.claude_lab import claude_lab
from tests.live.codex_lab import codex_lab
from tests.live.copilot_lab import copilot_lab
from tests.live.lab import Entries, Lab
from tests.live.tool_lab import CLIS, ToolLab, tool_lab
from tests.world import World


@pytest.fixture(scope="module")
def entries() -> Entries | None:
    """The entries of runners.yaml; None stands for one by the vendor's name. A module may have its own fixture."""
    return None


@pytest.fixture(scope="module")
def module_world() -> Iterator[World]:
    """A world that a module's tests share."""
    made = World()
    yield made
    made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_lab(module_world: World, claude: Path, entries: Entries | None) -> AsyncIterator[Lab]:
    """A daemon with claude that a module's tests share."""
    async with claude_lab(module_world, claude, entries or {"claude": {}}) as lab:
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab(module_lab: Lab) -> AsyncIterator[Lab]:
    """The module's daemon with claude, with a connection of the test's own."""
    async with module_lab.connected():
        yield module_lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_copilot_lab(module_world: World, copilot: Path, entries: Entries | None) -> AsyncIterator[Lab]:
    """A daemon with copilot that a module's tests share."""
    async with copilot_lab(module_world, copilot, entries or {"copilot": {}}) as lab:
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab_of_copilot(module_copilot_lab: Lab) -> AsyncIterator[Lab]:
    """The module's daemon with copilot, with a connection of the test's own."""
    async with module_copilot_lab.connected():
        yield module_copilot_lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_codex_lab(module_world: World, codex: Path, entries: Entries | None) -> AsyncIterator[Lab]:
    """A daemon with codex that a module's tests share."""
    async with codex_lab(module_world, codex, entries or {"codex": {}}) as lab:
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab_of_codex(module_codex_lab: Lab) -> AsyncIterator[Lab]:
    """The module's daemon with codex, with a connection of the test's own."""
    async with module_codex_lab.connected():
        yield module_codex_lab


@pytest.fixture(scope="module", params=CLIS, ids="-".join)
def cli(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A real CLI whose sessions wait for the results of tools, by its name: each, in each pinned version."""
    name, version = request.param
    return name, real_cli(name, version)


@pytest.fixture(scope="module")
def cli_world(cli: tuple[str, Path]) -> Iterator[World]:
    """A world that a module's tests of one CLI share."""
    made = World()
    yield made
    made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_tool_lab(cli: tuple[str, Path], cli_world: World, entries: Entries | None) -> AsyncIterator[ToolLab]:
    """A daemon with one CLI that a module's tests share."""
    name, binary = cli
    async with tool_lab(cli_world, name, binary, {name: {}, **(entries or {})}) as lab:
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab_with_tools(module_tool_lab: ToolLab) -> AsyncIterator[ToolLab]:
    """The module's daemon, with a connection of the test's own and a model that obeys; at the end no CLI is left."""
    async with module_tool_lab.lab.connected():
        module_tool_lab.obey()
        yield module_tool_lab
