"""Every fault of the table, tried once in its short form: `make faults` tries them many times and prints the table."""

import asyncio
import signal
import sys

import pytest

from tests.faults import FAULTS
from tests.faults.entries import echo
from tests.faults.fault import Fault, tried
from tests.faults.house import House
from tests.faults.soak import conversations, soak
from tests.faults.table import row


@pytest.mark.usefixtures("no_leaks")
# The soaks have a file of their own.
@pytest.mark.parametrize(
    "fault", [fault for fault in FAULTS if fault not in (soak, conversations)], ids=lambda fault: fault.name
)
async def test_a_fault_shows_its_client_what_it_should_and_leaves_nothing(fault: Fault) -> None:
    outcome = await tried(fault, 1, is_full=False)
    assert outcome.is_good, row(outcome) + "\n".join(outcome.left_behind)


async def test_what_a_try_leaves_behind_is_seen_and_taken_away() -> None:
    left_behind = []

    async def leaves(house: House) -> str:
        if house.is_full:
            (house.world.state / "litter").touch()
            argv = (sys.executable, "-c", "import time; time.sleep(3600)")
            left_behind.append(await asyncio.create_subprocess_exec(*argv, env=house.world.env))
        return await house.chat("echo")

    outcome = await tried(Fault("it leaves", "the whole answer", leaves, {"echo": echo()}), 1, is_full=True)
    assert [await process.wait() for process in left_behind] == [-signal.SIGKILL]
    assert not outcome.is_good
    [left] = outcome.left
    assert (len(left.processes), left.descriptors, left.tasks, left.files) == (1, 0, 0, ("state/litter",))
    assert "**1, 0, 0, 1**" in row(outcome)
