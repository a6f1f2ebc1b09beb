"""Memory, descriptors, tasks and processes of a daemon end where they began, however many chats it served; and however
many conversations it has at once, none of them is mixed with another.

`RUNNERD_SOAK` is how many chats, and for four of them there is a conversation: `make soak` says 2,000.
"""

import os

import pytest

from tests.faults.house import NOTHING, open_house
from tests.faults.soak import conversations, conversed, soak, soaked, told_of

_CHATS = int(os.environ.get("RUNNERD_SOAK", "120"))


@pytest.mark.usefixtures("no_leaks")
async def test_many_chats_with_random_cancels_leave_the_daemon_as_it_was() -> None:
    async with open_house(soak.runners, soak.settings) as house:
        await house.chat("echo")
        await house.settle()
        assert await soaked(house, _CHATS) == soak.sees
        assert await house.left() == NOTHING


@pytest.mark.usefixtures("no_leaks")
async def test_no_conversation_is_mixed_with_another_whatever_their_clients_do() -> None:
    async with open_house(conversations.runners, conversations.settings) as house:
        await house.settle()
        tally = await conversed(house, _CHATS // 4)
        print(tally)
        assert told_of(tally) == conversations.sees
        assert await house.left() == NOTHING
