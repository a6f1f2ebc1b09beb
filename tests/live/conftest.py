from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.live.claude_lab import Entries, Lab, claude_lab
from tests.world import World


@pytest.fixture(scope="module")
def entries() -> Entries:
    """The entries of runners.yaml; a module that needs others has a fixture of this name."""
    return {"claude": {}}


@pytest.fixture(scope="module")
def module_world() -> Iterator[World]:
    """A world that a module's tests share."""
    made = World()
    yield made
    made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_lab(module_world: World, claude: Path, entries: Entries) -> AsyncIterator[Lab]:
    """A daemon that a module's tests share."""
    async with claude_lab(module_world, claude, entries) as lab:
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab(module_lab: Lab) -> AsyncIterator[Lab]:
    """The module's daemon, with a connection of the test's own."""
    async with module_lab.connected():
        yield module_lab
