"""The provider contract, for every runner: one test, no branch for any of them."""

import pytest

from runners.providers.claude.provider import TESTED_VERSIONS
from runners.testing import CONTRACTS, Contract, leaves_nothing
from tests.conftest import real_claude
from tests.subjects import MakeSubject, echo, real_claude_subject, replayed_claude
from tests.world import World

REAL = [f"claude-{version}" for version in TESTED_VERSIONS]


@pytest.fixture(params=["echo", "claude-replayed", *(pytest.param(name, marks=pytest.mark.live) for name in REAL)])
def make_subject(request: pytest.FixtureRequest) -> MakeSubject:
    if request.param in REAL:
        return real_claude_subject(real_claude(request.param.removeprefix("claude-")))
    return {"echo": echo, "claude-replayed": replayed_claude}[request.param]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_every_runner_keeps_the_contract(contract: Contract, make_subject: MakeSubject, world: World) -> None:
    async with make_subject(world) as subject, leaves_nothing():
        await contract(subject)
