"""A call that its client takes two minutes for: every CLI waits for it, all of them at once."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from runners.testing import calling
from tests.conftest import real_cli
from tests.live.tool_lab import CLIS, going_on, tool_lab
from tests.world import Wire, World, user

pytestmark = [pytest.mark.live, pytest.mark.timeout(240)]

HELD_S = 120


async def test_a_call_is_held_open_for_two_minutes_and_its_result_is_taken_as_any_other() -> None:
    asked = user(calling(("get_weather", {"city": "Paris"})))
    async with AsyncExitStack() as stack:
        labs = []
        for cli, version in CLIS:
            world = World()
            stack.callback(world.close)
            lab = await stack.enter_async_context(tool_lab(world, cli, real_cli(cli, version), {cli: {}}))
            lab.obey()
            lab.lab.wire = await stack.enter_async_context(await Wire.connect(world.socket))
            labs.append(lab)
        first = [await lab.chat(asked) for lab in labs]
        await asyncio.sleep(HELD_S)  # what is tested is this time itself
        for lab, answer in zip(labs, first, strict=True):
            late = await lab.chat(going_on(asked, answer, "18 degrees"))
            assert (late.result["served"], late.result["content"]) == ("resumed", "18 degrees")
            assert lab.model_calls == 2
