"""How many chats of a runner run and wait in a real daemon, and who of several clients is served."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from tests.programs import GATED, HELD, entry
from tests.world import END_S, Wire, World, until, user

ECHO = "  echo: {kind: echo}\n"
Limited = Callable[[int, int], None]
BIG = "x" * 8_000_000
"""More than all the buffers on an answer's way hold: its chat stops until somebody reads it."""


@pytest.fixture
async def wire(world: World) -> AsyncIterator[Wire]:
    """A connection to a daemon with one place and one more to wait for it, at a runner that can be opened."""
    settings = "max_running: 1, max_queued: 2"
    with world.daemon(world.config("runners:\n" + entry(world, "gated", GATED, settings) + ECHO)):
        async with await Wire.connect(world.socket) as connected:
            yield connected


def open_gate(world: World) -> None:
    (world.root / "gated.open").touch()


async def load(wire: Wire, name: str = "gated") -> tuple[int, int]:
    [row] = [row for row in (await wire.call("status"))["result"]["runners"] if row["name"] == name]
    return row["running"], row["queued"]


async def loaded(wire: Wire, running: int, queued: int, name: str = "gated") -> None:
    async def is_so() -> bool:
        return await load(wire, name) == (running, queued)

    assert await until(is_so)


async def chat(wire: Wire, model: str = "gated") -> int:
    return await wire.request("chat", model=model, messages=user("Hi"), stream=False)


async def test_status_shows_who_runs_and_who_waits_and_all_are_answered(world: World, wire: Wire) -> None:
    async with await Wire.connect(world.socket) as other:
        assert await load(other) == (0, 0)
        chats = [await chat(wire) for _ in range(3)]
        await loaded(other, 1, 2)
        table = world.runnerd("status").stdout.decode().splitlines()
        assert next(line for line in table if line.startswith("gated")).split()[2:4] == ["1", "2"]
        open_gate(world)
        for number in chats:
            assert (await wire.read_until_response(number))[1]["result"]["content"] == "so far, so good"
        await loaded(other, 0, 0)


async def test_a_full_queue_refuses_at_once_and_says_to_come_later(world: World, wire: Wire) -> None:
    async with await Wire.connect(world.socket) as other:
        for _ in range(3):
            await chat(wire)
        await loaded(other, 1, 2)
        error = (await wire.read_until_response(await chat(wire)))[1]["error"]
        assert (error["code"], error["data"]["kind"], error["data"]["retryable"]) == (-32010, "queue_full", True)
        assert error["data"]["runner"] == "gated"
        # Those that wait are of one client: another one's chat takes the newest one's place. A third has no claim.
        taker = await chat(other)
        await loaded(wire, 1, 2)
        done = await asyncio.to_thread(world.runnerd, "chat", "-m", "gated", "Hi")
        assert (done.returncode, done.stdout) == (75, b"")
        assert b"no more may" in done.stderr
        # A runner with room is not concerned.
        assert (await wire.call("chat", model="echo", messages=user("Hi")))["result"]["content"] == "Hi"
        open_gate(world)
        assert (await other.read_until_response(taker))[1]["result"]["content"] == "so far, so good"


async def test_a_single_chat_of_another_client_is_served_next_however_many_one_has_waiting(world: World) -> None:
    entry_ = entry(world, "gated", GATED, "max_running: 1, max_queued: 50")
    with world.daemon(world.config("runners:\n" + entry_)):
        async with await Wire.connect(world.socket) as flood, await Wire.connect(world.socket) as other:
            chats = [await chat(flood) for _ in range(10)]
            await loaded(other, 1, 9)
            single = await chat(other)
            await loaded(flood, 1, 10)
            open_gate(world)
            order = []

            async def note(wire: Wire, number: int, name: str) -> None:
                await wire.read_until_response(number)
                order.append(name)

            async def all_of_the_flood() -> None:
                for number in chats:
                    await note(flood, number, "flood")

            await asyncio.gather(all_of_the_flood(), note(other, single, "other"))
            # It was not first (one ran), and had at most one of the flood before it in the queue.
            assert order.index("other") <= 2


async def test_a_waiting_chat_that_is_cancelled_leaves_the_queue(world: World, wire: Wire) -> None:
    async with await Wire.connect(world.socket) as other:
        await chat(wire)
        waiting = await chat(wire)
        await loaded(other, 1, 1)
        await wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": waiting}})
        assert (await wire.read_until_response(waiting))[1]["error"]["data"]["kind"] == "cancelled"
        assert await load(other) == (1, 0)


async def test_a_client_that_goes_takes_its_chats_out_of_the_queue_and_frees_its_place(world: World) -> None:
    with world.daemon(world.config("runners:\n" + entry(world, "held", HELD, "max_running: 1"))):
        async with await Wire.connect(world.socket) as other:
            gone = await Wire.connect(world.socket)
            for _ in range(3):
                await chat(gone, "held")
            await loaded(other, 1, 2, "held")
            await chat(other, "held")
            await loaded(other, 1, 3, "held")
            await gone.close()
            await loaded(other, 1, 0, "held")


async def test_who_waits_too_long_is_told_which_deadline_it_was(world: World, wire: Wire) -> None:
    await chat(wire)
    async with await Wire.connect(world.socket) as other:
        await loaded(other, 1, 0)
        answer = await other.call("chat", model="gated", messages=user("Hi"), timeouts={"turn_s": 0.2})
        assert answer["error"]["data"]["kind"] == "timeout"
        assert "waiting behind other chats" in answer["error"]["message"]
        assert "turn_s" in answer["error"]["message"]
        assert await load(other) == (1, 0)
        [row] = (await other.call("health", runner="gated"))["result"]["runners"]
        assert row["state"] == "ready"


async def test_a_client_that_does_not_read_gives_its_place_to_another_one_and_to_no_chat_of_its_own(
    world: World,
) -> None:
    with world.daemon(world.config("runners:\n  echo: {kind: echo, max_running: 1}\n")):
        params = {"model": "echo", "messages": user(BIG)}
        lines = [json.dumps({"jsonrpc": "2.0", "id": n, "method": "chat", "params": params}) + "\n" for n in (1, 2)]
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.settimeout(END_S)
            deaf.connect(str(world.socket))
            async with await Wire.connect(world.socket) as other:
                await asyncio.to_thread(deaf.sendall, "".join(lines).encode())
                await loaded(other, 1, 1, "echo")
                # It waits until the other one has not read for some seconds; then it is served, and again.
                for _ in range(2):
                    answer = await other.call("chat", model="echo", messages=user("Hi"))
                    assert answer["result"]["content"] == "Hi"
                assert await load(other, "echo") == (1, 1)
                await asyncio.to_thread(_read_both, deaf)
                await loaded(other, 0, 0, "echo")


def _read_both(deaf: socket.socket) -> None:
    with deaf.makefile("rb") as lines:
        results = 0
        while results < 2:
            message = json.loads(lines.readline())
            results += message.get("result", {}).get("content") == BIG
