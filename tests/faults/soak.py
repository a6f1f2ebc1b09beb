"""Soaks: many chats over 20 connections, some of them cancelled, some of them left by their client; and conversations,
20 at once, whose clients do all that clients do.
"""

import asyncio
import random
from collections import Counter

from tests.conversations import Tally, talk
from tests.faults.chat import error_in_words
from tests.faults.entries import claude, echo
from tests.faults.fault import fault
from tests.faults.house import House, soon
from tests.world import Wire, user

_CONNECTIONS = 20
_MEGABYTE = 1024 * 1024
_GROWTH = 10
_CONTINUED = 0.8
"""Less than all: on a busy machine a client may be slower than what is kept for it."""
_IDLE_TTL_S = 2


@fault(
    "2,000 chats over 20 connections with random cancels",
    sees="every chat answered in full, cancelled or left, and the daemon's memory ends where it began",
    runners={"echo": echo()},
    slow="2,000 processes",
    tries=1,
)
async def soak(house: House) -> str:
    return await soaked(house, house.sized(2_000, 150))


@fault(
    "500 conversations of 6 turns, 20 at once, with random cancels, edits, forks and disconnects",
    sees="every answer is that to its own conversation, and follow-ups go to the sessions that hold theirs",
    runners={
        name: claude(order={"digests": True}, max_running=48, idle_ttl_s=_IDLE_TTL_S) for name in ("one", "other")
    },
    slow="3,000 turns",
    tries=1,
)
async def conversations(house: House) -> str:
    return told_of(await conversed(house, house.sized(500, 30)))


async def conversed(house: House, number: int) -> Tally:
    """What came of so many conversations; every answer was right."""
    models = ["one:sonnet", "one:opus", "other"]
    return await talk(house.wire, models, number, _CONNECTIONS, rest_s=_IDLE_TTL_S)


def told_of(tally: Tally) -> str:
    """That in words, which are those of the table when enough follow-ups found their sessions."""
    where = f"{tally.continued:.0%} of the follow-ups" if tally.continued < _CONTINUED else "follow-ups"
    return f"every answer is that to its own conversation, and {where} go to the sessions that hold theirs"


async def soaked(house: House, chats: int) -> str:
    """What was seen of so many chats; with the seed of its randomness when that is not as it should be."""
    seed = random.randrange(2**32)
    # What the first chats make once, such as buffers. It comes to rest slowly: 10 MB in all, half of it by 400 chats.
    await _chats(house, random.Random(seed), max(2 * _CONNECTIONS, chats // 5))
    before = house.process.memory_info().rss
    seen = await _chats(house, random.Random(seed), chats)
    grown = -1

    async def back_to_before() -> bool:
        nonlocal grown
        grown = (house.process.memory_info().rss - before) // _MEGABYTE
        return grown < _GROWTH

    memory = "ends where it began" if await soon(back_to_before) else f"has grown by {grown} MB"
    strange = {what: count for what, count in seen.items() if what not in ("answered", "cancelled", "left")}
    assert seen.total() == chats
    assert not strange, f"seed {seed}: {strange}"
    return f"every chat answered in full, cancelled or left, and the daemon's memory {memory}"


async def _chats(house: House, randomness: random.Random, chats: int) -> Counter[str]:
    seeds = [randomness.random() for _ in range(_CONNECTIONS)]
    shares = [chats // _CONNECTIONS + (number < chats % _CONNECTIONS) for number in range(_CONNECTIONS)]
    clients = [_client(house, random.Random(seed), share) for seed, share in zip(seeds, shares, strict=True)]
    return sum(await asyncio.gather(*clients), Counter())


async def _client(house: House, randomness: random.Random, chats: int) -> Counter[str]:
    seen: Counter[str] = Counter()
    wire = await house.wire()
    for _ in range(chats):
        what = await _chat(wire, randomness)
        seen[what] += 1
        if what == "left":
            await wire.close()
            wire = await house.wire()
    await wire.close()
    return seen


async def _chat(wire: Wire, randomness: random.Random) -> str:
    """A chat that is read to its end, or cancelled or left behind some of its messages."""
    text = "word " * randomness.choice((1, 10, 1_000))
    end = randomness.choice(("answered", "answered", "cancelled", "left"))
    ends_behind = randomness.choice((0, 1, 2, 8, 100))
    request_id = await wire.request("chat", model="echo", messages=user(text))
    read = 0
    while True:
        if end != "answered" and read == ends_behind:
            if end == "left":
                return "left"
            await wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": request_id}})
        message = await wire.read()
        read += 1
        if message.get("id") == request_id:
            break
    if "result" in message:
        return "answered" if message["result"]["content"] == text else "another answer"
    return error_in_words(message["error"])
