"""Faults in the daemon's own life: how it ends, is killed and starts again, and who else wants its place.

Each try ends with a daemon that runs, as it began.
"""

import asyncio
import signal
import socket

from tests.faults.chat import Chat, summed
from tests.faults.entries import claude, copilot, echo, program
from tests.faults.fault import fault
from tests.faults.house import House
from tests.programs import GATED, HELD
from tests.world import Daemon, assistant, until, user

_CHATS = 4


@fault(
    "daemon gets SIGTERM with 4 chats running, which end in time",
    sees="4 times the answer 'so far, so good'; the daemon exits with 0",
    runners={"gated": program(GATED)},
)
async def terminated(house: House) -> str:
    gate = house.world.root / "gated.open"
    chats = [await house.begun("gated") for _ in range(_CHATS)]
    house.daemon.signal(signal.SIGTERM)
    await asyncio.to_thread(house.daemon.wait_for, "daemon.draining")
    gate.touch()
    seen = await _seen_by_all(chats)
    ended = await house.ends()
    gate.unlink()
    await house.start()
    return f"{seen}; {ended}"


@fault(
    "daemon gets SIGTERM twice with 4 chats running, which do not end",
    sees="4 times error cancelled behind 1 text chunk; the daemon exits with 0",
    runners={"held": program(HELD)},
)
async def terminated_twice(house: House) -> str:
    chats = [await house.begun("held") for _ in range(_CHATS)]
    house.daemon.signal(signal.SIGTERM)
    await asyncio.to_thread(house.daemon.wait_for, "daemon.draining")
    house.daemon.signal(signal.SIGTERM)
    seen = await _seen_by_all(chats)
    ended = await house.ends()
    await house.start()
    return f"{seen}; {ended}"


@fault(
    "daemon killed with SIGKILL and 8 chats running, then started again",
    sees="8 times the connection closes behind 1 text chunk; from the new daemon: the whole answer",
    runners={
        "echo": echo(),
        "held": program(HELD),
        "deaf": claude("ignore_term"),
        "deserted": claude("grandchild_of_its_own_and_ignore_term"),
        "seeded": copilot(private_home=True),
    },
)
async def killed(house: House) -> str:
    history = [*user("Hi"), assistant("Hello")]
    chats = [await house.begun(name) for name in ("held", "deaf", "deserted") for _ in range(2)]
    chats += [await house.begun("seeded", history=history) for _ in range(2)]
    await house.kill()
    seen = await _seen_by_all(chats)
    await house.start()
    return f"{seen}; from the new daemon: {await house.chat('echo')}"


@fault(
    "two daemons start at once on one socket",
    sees="one serves: the whole answer; the other exits with 1 and names it",
    runners={"echo": echo()},
)
async def two_at_once(house: House) -> str:
    await house.stop()
    daemons = [house.begin(), house.begin()]
    loser = await _first_to_end(daemons)
    [winner] = [daemon for daemon in daemons if daemon is not loser]
    house.daemon = winner
    await asyncio.to_thread(winner.wait_for, "daemon.ready")
    code = await asyncio.to_thread(loser.wait)
    said = str(loser.log)
    names = "names it" if f"(pid {winner.process.pid}) serves" in said else f"says {said[:200]}"
    return f"one serves: {await house.chat('echo')}; the other exits with {code} and {names}"


async def _first_to_end(daemons: list[Daemon]) -> Daemon:
    async def ended() -> Daemon | None:
        return next((daemon for daemon in daemons if daemon.process.poll() is not None), None)

    return await until(ended)


@fault(
    "a stale socket file and lock are in the way, of a daemon that was killed",
    sees="the whole answer",
    runners={"echo": echo()},
)
async def stale_of_a_daemon(house: House) -> str:
    await house.kill()
    assert house.world.socket.exists()
    await house.start()
    return await house.chat("echo")


@fault("a stale socket file is in the way, of nobody", sees="the whole answer", runners={"echo": echo()})
async def stale(house: House) -> str:
    await house.stop()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(house.world.socket))
    await house.start()
    return await house.chat("echo")


async def _seen_by_all(chats: list[Chat]) -> str:
    seen = await asyncio.gather(*(chat.seen() for chat in chats))
    for chat in chats:
        await chat.hang_up()
    return summed(seen)
