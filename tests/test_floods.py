"""CLIs that say much at once: what they say arrives whole and in order, and keeps nobody else from their turn."""

import json
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.programs import ENDLESS, FLOOD, HELD, entry
from tests.world import END_S, Daemon, Wire, World, until, user


@pytest.fixture
def flooding(world: World) -> Iterator[Daemon]:
    runners = (
        entry(world, "flood", FLOOD)
        + entry(world, "endless", ENDLESS, "max_running: 1")
        + entry(world, "held", HELD)
        + "  echo: {kind: echo}\n"
    )
    with world.daemon(world.config(f"daemon: {{parse_cap_bytes: 4096}}\nrunners:\n{runners}")) as daemon:
        yield daemon


@pytest.fixture
async def wire(flooding: Daemon) -> AsyncIterator[Wire]:
    async with await Wire.connect(flooding.world.socket) as connected:
        yield connected


async def test_thousands_of_chunks_arrive_one_by_one_in_their_order_and_before_their_response(wire: Wire) -> None:
    chunks, response = await wire.read_until_response(await wire.request("chat", model="flood", messages=user("Hi")))
    texts = [chunk["chunk"] for chunk in chunks if chunk["type"] == "text"]
    assert texts == ["so far", *(f" {number}" for number in range(5_000))]
    assert [chunks[0]["type"], chunks[-1]["type"]] == ["start", "done"]
    assert response["result"]["content"] == "".join(texts)


async def test_a_chunk_that_comes_alone_waits_for_no_other(wire: Wire) -> None:
    await wire.request("chat", model="held", messages=user("Hi"))
    assert [(await wire.read())["params"]["chunk"]["type"] for _ in range(2)] == ["start", "text"]


async def test_a_flood_leaves_other_requests_their_turn_on_its_connection_and_on_others(
    flooding: Daemon, wire: Wire
) -> None:
    flood = await wire.request("chat", model="endless", messages=user("Hi"))
    assert (await wire.read())["method"] == "chat.chunk"
    chat = await wire.request("chat", model="echo", messages=user("Hi"), stream=False)
    assert (await wire.read_until_response(chat))[1]["result"]["content"] == "Hi"
    await wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": flood}})
    chunks, response = await wire.read_until_response(flood)
    assert response["error"]["data"]["kind"] == "cancelled"
    assert {chunk["type"] for chunk in chunks} <= {"text"}


async def test_a_client_that_stops_reading_a_flood_gives_its_place_to_another_one(flooding: Daemon, wire: Wire) -> None:
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "chat",
        "params": {"model": "endless", "messages": user("Hi")},
    }
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.settimeout(END_S)
        deaf.connect(str(flooding.world.socket))
        deaf.sendall(json.dumps(request).encode() + b"\n")

        async def runs() -> bool:
            rows = (await wire.call("status"))["result"]["runners"]
            return any(row["name"] == "endless" and row["running"] for row in rows)

        assert await until(runs)
        await wire.request("chat", model="endless", messages=user("Hi"))
        assert (await wire.read())["params"]["chunk"]["type"] == "start"


async def test_a_client_that_was_refused_in_the_middle_of_a_flood_gets_the_reason_and_no_bug_is_logged(
    flooding: Daemon, wire: Wire
) -> None:
    async with await Wire.connect(flooding.world.socket) as refused:
        flood = await refused.request("chat", model="endless", messages=user("Hi"))
        assert (await refused.read())["method"] == "chat.chunk"
        await refused.send(b"x" * 5_000)
        while (message := await refused.read()).get("method") == "chat.chunk":
            assert message["params"]["id"] == flood
        assert message["error"]["data"]["kind"] == "line_too_long"
        with pytest.raises(ConnectionError):
            await refused.read()
    assert "result" in await wire.call("version")
    assert {entry["level"] for entry in flooding.log if "level" in entry} <= {"info", "warning"}
