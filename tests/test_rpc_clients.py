"""Clients that cancel, hang up, do not read, or vanish: what becomes of their chats and of everybody else's."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from tests.programs import ECHO, HELD, entry
from tests.world import END_S, Daemon, Wire, World, until, user

BIG = "x" * 8_000_000
"""More than all the buffers on an answer's way hold: its chat lasts until somebody reads it."""


@contextmanager
def raw(daemon: Daemon) -> Iterator[socket.socket]:
    """A client of which nothing reads unless the test does."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(daemon.world.socket))
        client.settimeout(END_S)
        yield client


def chat(request_id: int, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "chat", "params": params}).encode() + b"\n"


def cancel(request_id: int) -> bytes:
    message = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": request_id}}
    return json.dumps(message).encode() + b"\n"


async def workers(wire: Wire) -> list[dict[str, Any]]:
    """The sessions of all runners."""
    rows = (await wire.call("status"))["result"]["runners"]
    return [worker for row in rows for worker in row["workers"]]


async def busy_worker(wire: Wire) -> dict[str, Any] | None:
    """The session that is in the middle of its turn, when there is one."""
    return next((worker for worker in await workers(wire) if worker["state"] == "busy" and worker["pid"]), None)


async def nothing_runs(wire: Wire) -> bool:
    rows = (await wire.call("status"))["result"]["runners"]
    return all(row["running"] == 0 and not row["workers"] for row in rows)


async def first_text(wire: Wire) -> None:
    """Reads on until an answer shows its first text."""
    while (await wire.read())["params"]["chunk"]["type"] != "text":
        pass


async def test_a_client_that_only_ended_its_sending_still_gets_its_answers(daemon: Daemon) -> None:
    async with await Wire.connect(daemon.world.socket) as client:
        await client.send(chat(1, model="echo", messages=user("Hi"), stream=False))
        await client.send(chat(2, model="echo", messages=user("Ho"), stream=False))
        client.writer.write_eof()
        answers = [json.loads(line) for line in (await client.reader.read()).splitlines()]
    assert {answer["id"]: answer["result"]["content"] for answer in answers} == {1: "Hi", 2: "Ho"}


async def test_a_last_line_needs_no_line_feed(daemon: Daemon) -> None:
    async with await Wire.connect(daemon.world.socket) as client:
        await client.send(chat(1, model="echo", messages=user("Hi"), stream=False).rstrip())
        client.writer.write_eof()
        assert (await client.read())["result"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("model", "text"), [("echo", BIG), ("held", "Hi")], ids=["while it is sent its answer", "while its CLI is silent"]
)
@pytest.mark.parametrize("half_closed", [False, True], ids=["", "after it had ended its sending"])
async def test_a_client_that_disappears_takes_its_chat_and_the_cli_process_with_it(
    daemon: Daemon, wire: Wire, model: str, text: str, half_closed: bool
) -> None:
    with raw(daemon) as client:
        client.sendall(chat(1, model=model, messages=user(text)))
        if half_closed:
            client.shutdown(socket.SHUT_WR)
        worker = await until(lambda: busy_worker(wire))
        assert psutil.pid_exists(worker["pid"])
    assert await until(lambda: nothing_runs(wire))
    assert not psutil.pid_exists(worker["pid"])


async def test_clients_that_disappear_in_the_middle_of_reading_leave_no_session(world: World) -> None:
    with world.daemon(world.config("runners:\n" + ECHO)) as daemon:
        # With so many words the daemon is mostly in the middle of writing when they do.
        for _ in range(10):
            with raw(daemon) as client:
                client.sendall(chat(1, model="echo", messages=user("word " * 20_000)))
                received = 0
                while received < 100_000:
                    received += len(client.recv(1_000_000))
        async with await Wire.connect(world.socket) as wire:
            assert await until(lambda: nothing_runs(wire))
    assert {event["level"] for event in daemon.log} == {"info"}


async def test_a_client_that_disappears_after_it_had_ended_its_sending_takes_all_of_its_chats_with_it(
    world: World,
) -> None:
    runners = "runners:\n" + ECHO + entry(world, "held", HELD)
    with world.daemon(world.config(runners)) as daemon, raw(daemon) as client:
        client.sendall(
            chat(1, model="held", messages=user("Hi")) + chat(2, model="echo", messages=user("word " * 20_000))
        )
        client.shutdown(socket.SHUT_WR)
        received = 0
        while received < 100_000:
            received += len(client.recv(1_000_000))
        client.close()
        async with await Wire.connect(world.socket) as wire:
            assert await until(lambda: nothing_runs(wire))
    assert {event["level"] for event in daemon.log} == {"info"}


async def test_two_hundred_clients_that_connect_and_vanish_leave_nothing(daemon: Daemon, wire: Wire) -> None:
    process = psutil.Process(daemon.process.pid)
    assert await until(lambda: nothing_runs(wire))
    before = process.num_fds()
    sent = [b"", b"\n", b'{"jsonrpc": "2.0", "id"', b'{"jsonrpc":"2.0","id":1,"method":"status"}\n', b"nonsense\n"]
    for number in range(200):
        with raw(daemon) as client:
            client.sendall(sent[number % len(sent)])

    async def back_to_before() -> bool:
        return process.num_fds() <= before

    assert await until(back_to_before)
    assert (await wire.call("chat", model="echo", messages=user("Hi")))["result"]["content"] == "Hi"


async def send_chats(client: socket.socket, count: int) -> None:
    client.setblocking(False)
    for number in range(count):
        line = chat(number, model="echo", messages=user("x" * 2_000_000))
        await asyncio.get_running_loop().sock_sendall(client, line)


async def test_a_client_that_never_reads_disturbs_nobody_and_takes_little_memory(world: World) -> None:
    with world.daemon(world.config("runners:\n" + ECHO)) as daemon, raw(daemon) as silent:
        process = psutil.Process(daemon.process.pid)
        async with await Wire.connect(world.socket) as wire:
            await wire.call("chat", model="echo", messages=user("x" * 2_000_000))
            before = most = process.memory_info().rss
            # A daemon may stop taking what it is sent: then this never ends.
            sending = asyncio.create_task(send_chats(silent, 20))
            await asyncio.wait([sending], timeout=END_S / 2)
            for number in range(10):
                answer = await wire.call("chat", model="echo", messages=user(f"This is {number}"))
                assert answer["result"]["content"] == f"This is {number}"
                most = max(most, process.memory_info().rss)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            silent.close()
            assert await until(lambda: nothing_runs(wire))
    assert most - before < 100_000_000


async def test_a_cancelled_chat_ends_with_the_kind_cancelled_and_its_connection_goes_on(wire: Wire) -> None:
    request_id = await wire.request("chat", model="held", messages=user("Hi"))
    await first_text(wire)
    await wire.send(cancel(request_id))
    answer = await wire.read()
    assert (answer["id"], answer["error"]["code"], answer["error"]["data"]["kind"]) == (request_id, -32010, "cancelled")
    assert await until(lambda: nothing_runs(wire))
    assert (await wire.call("chat", model="echo", messages=user("Hi")))["result"]["content"] == "Hi"


async def test_a_chat_whose_answer_nobody_reads_can_be_cancelled(daemon: Daemon, wire: Wire) -> None:
    with raw(daemon) as client:
        client.sendall(chat(1, model="echo", messages=user(BIG)))
        await until(lambda: busy_worker(wire))
        client.sendall(cancel(1))
        assert await until(lambda: nothing_runs(wire))
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as lines:
            last = json.loads(list(lines)[-1])
    assert last["error"]["data"]["kind"] == "cancelled"


async def responses(wire: Wire, request_id: int) -> list[dict[str, Any]]:
    """The responses that a request has got, once everything on its connection was answered."""
    wire.writer.write_eof()
    messages = [json.loads(line) for line in (await wire.reader.read()).splitlines()]
    return [message for message in messages if message.get("id") == request_id]


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "not streamed"])
async def test_a_cancel_in_the_same_packet_as_its_request_cancels_it(daemon: Daemon, stream: bool) -> None:
    async with await Wire.connect(daemon.world.socket) as client:
        await client.send(chat(1, model="held", messages=user("Hi"), stream=stream) + cancel(1))
        [response] = await responses(client, 1)
    assert response["error"]["data"]["kind"] == "cancelled"


@pytest.mark.parametrize("read", range(6))
@pytest.mark.parametrize("times", [1, 3], ids=["once", "three times"])
async def test_a_cancel_that_races_with_its_chat_leaves_exactly_one_response(
    daemon: Daemon, read: int, times: int
) -> None:
    async with await Wire.connect(daemon.world.socket) as client:
        await client.send(chat(1, model="echo", messages=user("Hi ho")))
        seen = [await client.read() for _ in range(read)]
        await client.send(cancel(1) * times)
        [response] = [message for message in seen if "id" in message] + await responses(client, 1)
    assert "result" in response or response["error"]["data"]["kind"] == "cancelled"


async def test_an_id_can_be_used_again_after_its_request_was_cancelled(wire: Wire) -> None:
    await wire.send(chat(1, model="held", messages=user("Hi")))
    await first_text(wire)
    await wire.send(cancel(1))
    assert (await wire.read())["error"]["data"]["kind"] == "cancelled"
    await wire.send(chat(1, model="echo", messages=user("Hi"), stream=False))
    assert (await wire.read())["result"]["content"] == "Hi"


async def test_a_cancel_reaches_the_requests_of_its_own_connection_only(daemon: Daemon, wire: Wire) -> None:
    async with await Wire.connect(daemon.world.socket) as other:
        await other.send(chat(1, model="held", messages=user("Hi")))
        await first_text(other)
        await wire.send(cancel(1))
        await wire.call("version")
        assert await busy_worker(wire)
        await other.send(cancel(1))
        assert (await other.read())["error"]["data"]["kind"] == "cancelled"


@pytest.mark.parametrize("lookalike", [True, 1.0, "1"], ids=repr)
async def test_a_cancel_means_the_very_id(wire: Wire, lookalike: Any) -> None:
    await wire.send(chat(1, model="held", messages=user("Hi")))
    await first_text(wire)
    await wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": lookalike}})
    await wire.send({"jsonrpc": "2.0", "id": 2, "method": "version"})
    assert (await wire.read())["id"] == 2
    await wire.send(cancel(1))
    assert (await wire.read())["id"] == 1
