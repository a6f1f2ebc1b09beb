"""The provider contract, for every runner: one test, no branch for any of them."""

import pytest

from runners.testing import CONTRACTS, Contract, leaves_nothing
from tests.conftest import real_cli
from tests.subjects import REAL, STANDING_IN, STARTED_ONCE, MakeSubject
from tests.world import World

PINNED = [(cli, version) for cli, (_, versions) in REAL.items() for version in versions if cli not in STARTED_ONCE]
IN_ONE_PROCESS = [(cli, version) for cli in STARTED_ONCE for version in REAL[cli][1]]


@pytest.fixture(
    params=[
        *STANDING_IN,
        *(pytest.param(pin, id="-".join(pin), marks=pytest.mark.live) for pin in PINNED),
    ]
)
def make_subject(request: pytest.FixtureRequest) -> MakeSubject:
    if request.param in STANDING_IN:
        return STANDING_IN[request.param]
    cli, version = request.param
    make, _ = REAL[cli]
    binary = real_cli(cli.split()[0], version)
    return lambda world: make(world, binary)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
async def test_every_runner_keeps_the_contract(contract: Contract, make_subject: MakeSubject, world: World) -> None:
    async with make_subject(world) as subject, leaves_nothing():
        try:
            await contract(subject)
        finally:
            await subject.provider.aclose()


@pytest.mark.live
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("cli", "version"), IN_ONE_PROCESS, ids=map("-".join, IN_ONE_PROCESS))
async def test_a_cli_that_starts_slowly_keeps_the_contract_in_one_process(cli: str, version: str, world: World) -> None:
    make, _ = REAL[cli]
    async with make(world, real_cli(cli, version)) as subject:
        for contract in CONTRACTS:
            try:
                async with leaves_nothing():
                    await contract(subject)
            except Exception as error:
                error.add_note(f"in {contract.__name__}")
                raise
        await subject.provider.aclose()
