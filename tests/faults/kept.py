"""Faults of what is kept between turns, and of what is ready before anybody asks.

The CLIs answer with the digest of all that they were told: an answer is whole when its CLI had the whole conversation.
"""

import asyncio
import signal
from typing import Any

import psutil

from tests.fakes.fake_claude import digest
from tests.faults.chat import WHOLE, Chat, summed
from tests.faults.entries import Entry, claude
from tests.faults.fault import fault
from tests.faults.house import House, soon
from tests.world import assistant, until, user

_ANEW = "the whole answer in a new session"
_CONTINUED = "the whole answer in the same session"
_RELOADS = 5
_MANY = 30
_MEGABYTE = 1024 * 1024
_LIMIT_MB = 40


def proving(kind_of_fault: str = "", **settings: Any) -> Entry:
    """The fake claude that answers with digests."""
    return claude(kind_of_fault, order={"digests": True}, **settings)


class Talk:
    """A client's conversation with `runner`."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._history: list[dict[str, Any]] = []

    async def ask(self, text: str) -> Chat:
        """Asks, on a new connection."""
        wire = await self._house.wire()
        return await Chat.ask(wire, "runner", text, history=self._history, right=self._right(text))

    async def say(self, text: str) -> str:
        """What is seen of a turn, and whether it went to the session of the one before."""
        chat = await self.ask(text)
        async with chat:
            saw = await chat.seen()
        if saw != WHOLE:
            return saw
        self._history += [*user(text), assistant(self._right(text))]
        return _CONTINUED if chat.served == "continued" else _ANEW

    def _right(self, text: str) -> str:
        asked = [*self._history, *user(text)]
        return digest("", [(message["role"], message["content"]) for message in asked])


async def begun(house: House) -> tuple[Talk, psutil.Process]:
    """A conversation of one turn, and the CLI that is kept for it."""
    talk = Talk(house)
    assert await talk.say("hello world") == _ANEW
    [kept] = [worker for worker in await house.workers("idle") if worker["turns"]]
    return talk, psutil.Process(kept["pid"])


@fault("a kept CLI is killed between turns", sees=_ANEW, runners={"runner": proving(retry={"attempts": 2})})
async def killed(house: House) -> str:
    talk, cli = await begun(house)
    cli.kill()
    return await talk.say("and now?")


@fault("a kept CLI exits by itself between turns", sees=_ANEW, runners={"runner": proving("exit_between")})
async def exits(house: House) -> str:
    before = _died(house)
    talk, _ = await begun(house)

    async def noticed() -> bool:
        return _died(house) > before

    await until(noticed)
    return await talk.say("and now?")


def _died(house: House) -> int:
    return sum(event.get("event") == "worker.died" for event in house.daemon.log)


@fault(
    "a kept CLI is stopped (SIGSTOP) between turns",
    sees=f"error timeout (first_chunk_s), and it is gone; the next one: {_ANEW}",
    runners={"runner": proving(timeouts={"first_chunk_s": 1})},
)
async def stopped(house: House) -> str:
    talk, cli = await begun(house)
    cli.send_signal(signal.SIGSTOP)
    saw = await talk.say("and now?")

    async def gone() -> bool:
        return not cli.is_running()

    await until(gone)
    return f"{saw}, and it is gone; the next one: {await talk.say('and now?')}"


@fault("a blank CLI is killed before its first chat", sees=_ANEW, runners={"runner": proving(retry={"attempts": 2})})
async def blank_killed(house: House) -> str:
    await begun(house)
    psutil.Process((await blank(house))["pid"]).kill()
    return await Talk(house).say("hello world")


@fault(
    "reload while a blank is kept of a runner that is no longer the default",
    sees="ok, and the blank goes",
    runners={"runner": proving()},
)
async def default_before(house: House) -> str:
    async with await house.wire() as wire:
        house.configure(house.entries, default="runner")
        await wire.call("reload")
        cli = psutil.Process((await blank(house))["pid"])
        house.configure(house.entries)
        said = "ok" if (await wire.call("reload")).get("result", {}).get("ok") else "not ok"

    async def gone() -> bool:
        return not cli.is_running()

    return f"{said}, and the blank {'goes' if await soon(gone) else 'stays'}"


async def blank(house: House) -> dict[str, Any]:
    """The blank that is ready."""

    async def ready() -> dict[str, Any] | None:
        return next((worker for worker in await house.workers("idle") if not worker["turns"]), None)

    return await until(ready)


@fault(
    "the client of a continued conversation disconnects mid-stream",
    sees=f"the next turn: {_ANEW}; and the one behind it: {_CONTINUED}",
    runners={"runner": proving()},
)
async def disconnects(house: House) -> str:
    talk, _ = await begun(house)
    chat = await talk.ask("[hold]")
    await chat.begins()
    await chat.hang_up()
    saw = await talk.say("and now?")
    return f"the next turn: {saw}; and the one behind it: {await talk.say('and then?')}"


@fault(
    "daemon killed with SIGKILL while it keeps sessions and a blank, then started again",
    sees=f"from the new daemon: {_ANEW}",
    runners={"runner": proving()},
)
async def daemon_killed(house: House) -> str:
    talk = (await _several(house))[0]
    await blank(house)
    await house.kill()
    await house.start()
    return f"from the new daemon: {await talk.say('and now?')}"


@fault(
    "daemon gets SIGTERM while it keeps sessions and a blank",
    sees="the daemon exits with 0",
    runners={"runner": proving()},
)
async def daemon_terminated(house: House) -> str:
    await _several(house)
    await blank(house)
    house.daemon.signal(signal.SIGTERM)
    ended = await house.ends()
    await house.start()
    return ended


async def _several(house: House) -> list[Talk]:
    talks = [Talk(house) for _ in range(4)]
    seen = await asyncio.gather(*(talk.say(f"hello {number}") for number, talk in enumerate(talks)))
    assert set(seen) == {_ANEW}
    return talks


@fault(
    "reload under load with a changed entry while conversations go on",
    sees="each reload: ok; every turn: the whole answer; behind the last: the whole answer in the same session",
    runners={"runner": proving()},
)
async def reloaded(house: House) -> str:
    talks = await _several(house)
    seen: set[str] = set()
    is_over = False

    async def client(talk: Talk) -> None:
        turn = 0
        while not is_over:
            seen.add((await talk.say(f"turn {(turn := turn + 1)}")).removesuffix(" in a new session"))

    clients = [asyncio.create_task(client(talk)) for talk in talks]
    reloads = set()
    async with await house.wire() as wire:
        for number in range(_RELOADS):
            house.configure({"runner": house.entries["runner"] | {"max_queued": 40 + number}})
            answer = await wire.call("reload")
            reloads.add("ok" if answer.get("result", {}).get("ok") else str(answer))
            await asyncio.sleep(0.2)
        is_over = True
        await asyncio.gather(*clients)
        # Their sessions may be those of the runner before.
        await asyncio.gather(*(talk.say("and the new one?") for talk in talks))
        behind = await asyncio.gather(*(talk.say("and now?") for talk in talks))
        house.configure(house.entries)
        await wire.call("reload")
    every = {saw.removesuffix(" in the same session") for saw in seen}
    last = "; ".join(sorted(set(behind)))
    return f"each reload: {'; '.join(sorted(reloads))}; every turn: {'; '.join(sorted(every))}; behind the last: {last}"


@fault(
    f"{_MANY} conversations at once of a runner that runs 4",
    sees=f"{3 * _MANY} times the whole answer",
    runners={"runner": proving(max_running=4)},
)
async def many_at_once(house: House) -> str:
    async def turns(number: int) -> list[str]:
        talk = Talk(house)
        return [(await talk.say(f"{number}, {turn}")).partition(" in ")[0] for turn in range(3)]

    return summed([saw for seen in await asyncio.gather(*map(turns, range(_MANY))) for saw in seen])


@fault(
    f"more conversations than fit into the memory of all CLIs ({_LIMIT_MB} MB)",
    sees="every one: the whole answer; they come to fit, and those that stay were used last",
    runners={"runner": proving(idle_ttl_s=6, max_running=16)},
    settings={"max_cli_memory": f"{_LIMIT_MB}MB"},
)
async def memory(house: House) -> str:
    seen, pids = set(), []
    for number in range(12):
        seen.add(await Talk(house).say(f"hello {number}"))
        kept = [worker["pid"] for worker in await house.workers("idle") if worker["turns"]]
        pids += [pid for pid in kept if pid not in pids]
    left: list[int] = []

    async def fits() -> bool:
        workers = await house.workers()
        left[:] = [worker["pid"] for worker in workers if worker["state"] == "idle" and worker["turns"]]
        used = sum(worker["memory_bytes"] or 0 for worker in workers)
        return used <= _LIMIT_MB * _MEGABYTE

    await until(fits)
    stay = "those that stay were used last" if left and left == pids[-len(left) :] else f"{left} of {pids} stay"
    return f"every one: {'; '.join(sorted(seen)).removesuffix(' in a new session')}; they come to fit, and {stay}"
