"""Memory, descriptors, tasks and processes of a daemon end where they began, however many chats it served.

`RUNNERD_SOAK` is how many: `make soak` says 2,000.
"""

import os

import pytest

from tests.faults.house import NOTHING, open_house
from tests.faults.soak import soak, soaked


@pytest.mark.usefixtures("no_leaks")
async def test_many_chats_with_random_cancels_leave_the_daemon_as_it_was() -> None:
    async with open_house(soak.runners, soak.settings) as house:
        await house.chat("echo")
        await house.settle()
        assert await soaked(house, int(os.environ.get("RUNNERD_SOAK", "150"))) == soak.sees
        assert await house.left() == NOTHING
