"""Real CLIs behind a daemon that is killed: nothing of them is left once another one has started."""

import signal
from pathlib import Path

import pytest

from runners.testing.apis.completions_api import text as copilot_text
from runners.testing.apis.messages_api import text as claude_text
from runners.testing.apis.stand_in import BaseReply
from runners.wire import ownership
from tests.live.claude_lab import claude_lab
from tests.live.copilot_lab import copilot_lab
from tests.live.lab import Lab
from tests.world import Wire, World, assistant, user

pytestmark = pytest.mark.live

CONVERSATION = [*user("Hi"), assistant("Hello"), *user("And now?")]


async def is_cleaned_up_after(lab: Lab, reply: BaseReply) -> None:
    """Kills the daemon in the middle of an answer by CLIs that cannot end by themselves, and starts another."""
    lab.api.script(reply)
    async with await Wire.connect(lab.world.socket) as lab.wire:
        await lab.chunks_until(await lab.begin(CONVERSATION), "so far")
        clis = lab.clis()
        assert clis
        for cli in clis:
            assert cli.environ()[ownership.VARIABLE].startswith(f"{lab.daemon.process.pid}-")
            cli.send_signal(signal.SIGSTOP)
        lab.daemon.signal(signal.SIGKILL)
        lab.daemon.wait()
    leases = lab.world.state / "runnerd" / "leases"
    [left] = leases.glob(f"{lab.daemon.process.pid}-*")
    assert lab.clis() == clis
    with lab.world.daemon(lab.world.root / "runners.yaml") as daemon:
        assert not left.exists()
        assert not set(lab.world.processes()) & set(clis)
        [own] = leases.glob(f"{daemon.process.pid}-*")
    assert not own.exists()


async def test_nothing_of_claude_is_left(world: World, claude: Path) -> None:
    async with claude_lab(world, claude, {"claude": {}}) as lab:
        await is_cleaned_up_after(lab, claude_text("so far", "never").broken("stall", after=1))


async def test_nothing_of_copilot_is_left(world: World, copilot: Path) -> None:
    async with copilot_lab(world, copilot, {"copilot": {}}) as lab:
        await is_cleaned_up_after(lab, copilot_text("so far", "never").broken("stall", after=1))
