import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runners.providers.claude.provider import TESTED_VERSIONS
from runners.testing import leaves_nothing
from tests.live.install import claude_binary
from tests.programs import echo_daemon
from tests.world import Daemon, Wire, World


@pytest.fixture
def world() -> Iterator[World]:
    """A private place for the test's processes and files; fails when a process is left in it."""
    made = World()
    yield made
    made.close()


@pytest.fixture
async def no_leaks() -> AsyncIterator[None]:
    """Fails when the test leaves a task, a file descriptor or a child process behind."""
    async with leaves_nothing():
        yield


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A daemon with echo runners, well and ill, that a module's tests share."""
    with echo_daemon() as served:
        yield served


@pytest.fixture
async def wire(daemon: Daemon) -> AsyncIterator[Wire]:
    """A connection to it."""
    async with await Wire.connect(daemon.world.socket) as connected:
        yield connected


@pytest.fixture(scope="session", params=TESTED_VERSIONS)
def claude(request: pytest.FixtureRequest) -> Path:
    """The real claude, in each pinned version."""
    return real_claude(request.param)


def real_claude(version: str) -> Path:
    """The pinned binary. Where it is missing the test is skipped, and fails where a skip would hide the hole."""
    binary = claude_binary(version)
    if binary is None:
        missing = f"the real claude {version} is NOT TESTED: run `make clis`"
        if os.environ.get("RUNNERD_REQUIRE_CLIS"):
            pytest.fail(missing)
        pytest.skip(missing)
    return binary
