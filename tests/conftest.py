import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from daemon import pool
from runners.providers.claude import provider as claude_provider
from runners.providers.codex import provider as codex_provider
from runners.providers.copilot import provider as copilot_provider
from runners.testing import leaves_nothing
from tests.live.install import binary, editor
from tests.programs import echo_daemon
from tests.theatre import Open, Theatre
from tests.world import Daemon, Wire, World

# The older ones serve the one-shot mode.
HEADLESS_COPILOTS = copilot_provider.TESTED_VERSIONS[1:]

NEWEST_CLAUDE = pytest.mark.parametrize("claude", claude_provider.TESTED_VERSIONS[-1:], indirect=True)
"""For tests of what does not hang on claude's version: the contract, the turns, the requests, the tools and the
recordings are those of each."""


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait, for a process, an answer or a deadline."""
    return 1 + (os.cpu_count() or 1)


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


@pytest.fixture
async def theatre(no_leaks: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """Opens pools whose sessions act; fails when one is left."""
    monkeypatch.setattr(pool, "_REFILL_AFTER_S", 0)
    async with AsyncExitStack() as stack:

        def opened(**settings: object) -> Theatre:
            made = Theatre(**settings)
            stack.push_async_callback(made.aclose)
            return made

        yield opened


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


@pytest.fixture(scope="session", params=claude_provider.TESTED_VERSIONS)
def claude(request: pytest.FixtureRequest) -> Path:
    """The real claude, in each pinned version."""
    return real_cli("claude", request.param)


@pytest.fixture(scope="session", params=HEADLESS_COPILOTS)
def copilot(request: pytest.FixtureRequest) -> Path:
    """The real copilot, in each pinned version whose headless server is used."""
    return real_cli("copilot", request.param)


@pytest.fixture(scope="session")
def codex() -> Path:
    """The real codex, in the newest pinned version: the contract runs the oldest too."""
    return real_cli("codex", codex_provider.TESTED_VERSIONS[-1])


def real_cli(cli: str, version: str) -> Path:
    """The pinned binary. Where it is missing the test is skipped, and fails where a skip would hide the hole."""
    return _installed(f"{cli} {version}", binary(cli, version))


def real_editor(name: str) -> Path:
    """The program `nvim` or `emacs`, as for a CLI."""
    return _installed(name, editor(name))


def _installed(name: str, found: Path | None) -> Path:
    if found is None:
        missing = f"the real {name} is NOT TESTED: run `make clis`"
        if os.environ.get("RUNNERD_REQUIRE_CLIS"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found
