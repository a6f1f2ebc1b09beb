"""Faults that must stay with whom they hit: others chat meanwhile, and are watched."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.chat import error_in_words, summed
from tests.faults.entries import echo, program
from tests.faults.fault import fault
from tests.faults.house import House
from tests.programs import BROKEN
from tests.world import user

_LOADING_CLIENTS = 4
_RELOADS = 5
_SAMPLES = 15
_SLOWER_AT_MOST = 5


@asynccontextmanager
async def load(house: House) -> AsyncIterator[Counter[str]]:
    """Clients that chat with `echo` all the time, and what they see."""
    seen: Counter[str] = Counter()
    is_over = False

    async def client() -> None:
        while not is_over:
            seen[await house.chat("echo")] += 1

    clients = [asyncio.create_task(client()) for _ in range(_LOADING_CLIENTS)]
    try:
        yield seen
    finally:
        is_over = True
        await asyncio.gather(*clients)


@fault(
    "reload under load with a good file",
    sees="each reload: ok, and its new runner: the whole answer; the load: the whole answer",
    runners={"echo": echo()},
)
async def good_reload(house: House) -> str:
    reloads = set()
    async with load(house) as seen, await house.wire() as wire:
        for number in range(_RELOADS):
            name = f"new{number}"
            house.configure({**house.entries, name: {"kind": "echo"}})
            answer = await wire.call("reload")
            said = "ok" if answer.get("result", {}).get("ok") else error_in_words(answer["error"])
            reloads.add(f"{said}, and its new runner: {await house.chat(name)}")
        house.configure(house.entries)
        await wire.call("reload")
    return f"each reload: {'; '.join(sorted(reloads))}; the load: {'; '.join(sorted(seen))}"


@fault(
    "reload under load with a bad file",
    sees="each reload: error -32010 config with key and line, and the old runner: the whole answer; "
    "the load: the whole answer",
    runners={"echo": echo()},
)
async def bad_reload(house: House) -> str:
    reloads = set()
    async with load(house) as seen, await house.wire() as wire:
        for _ in range(_RELOADS):
            house.world.config("runners:\n  echo: {kind: echo}\n  bad: {kind: echo, wram: 1}\n")
            error = (await wire.call("reload")).get("error", {})
            is_told = all(part in error.get("message", "") for part in ("runners.yaml:3:", "wram"))
            told = "with key and line" if is_told else f"({error.get('message')})"
            kind = error.get("data", {}).get("kind")
            old = await house.chat("echo")
            reloads.add(f"error {error.get('code')} {kind} {told}, and the old runner: {old}")
        house.configure(house.entries)
    return f"each reload: {'; '.join(sorted(reloads))}; the load: {'; '.join(sorted(seen))}"


@fault(
    "one runner's breaker is open while another's chats go on",
    sees="the ill one: 5 times error process_exited (exit code 1), then refused with the time to wait; "
    f"the other: the whole answer, at most {_SLOWER_AT_MOST} times slower",
    runners={
        "echo": echo(),
        "ill": program(BROKEN, breaker={"failures": 5, "open_s": 30}, retry={"attempts": 1}),
    },
)
async def open_breaker(house: House) -> str:
    alone_s, _ = await _timed_chats(house)
    failures = summed([await _with_the_ill_one(house) for _ in range(5)])
    is_over = False

    async def hammer() -> set[str]:
        seen = set()
        while not is_over:
            seen.add(await _with_the_ill_one(house))
        return seen

    hammering = [asyncio.create_task(hammer()) for _ in range(2)]
    beside_s, seen = await _timed_chats(house)
    is_over = True
    refusals = set().union(*await asyncio.gather(*hammering))
    await house.restart()  # with its breaker closed
    slower = beside_s / alone_s
    how = f"at most {_SLOWER_AT_MOST} times slower" if slower < _SLOWER_AT_MOST else f"{slower:.1f} times slower"
    return f"the ill one: {failures}, then {'; '.join(sorted(refusals))}; the other: {'; '.join(sorted(seen))}, {how}"


async def _with_the_ill_one(house: House) -> str:
    async with await house.wire() as wire:
        error = (await wire.call("chat", model="ill", messages=user("Hi")))["error"]
    is_refused = 0 < error["data"].get("retry_after_s", 0) <= 30
    return "refused with the time to wait" if is_refused else f"error {error_in_words(error)}"


async def _timed_chats(house: House) -> tuple[float, set[str]]:
    """The median duration of some chats with `echo` in seconds, and what was seen of them."""
    took_s, seen = [], set()
    for _ in range(_SAMPLES):
        began_s = time.monotonic()
        seen.add(await house.chat("echo"))
        took_s.append(time.monotonic() - began_s)
    return statistics.median(took_s), seen
