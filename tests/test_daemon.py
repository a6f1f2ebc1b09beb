"""The daemon's life: how it starts, that it is one, how it drains and ends, what it leaves, what it logs."""

import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

from tests.programs import ECHO, HELD, TALKATIVE, entry
from tests.world import END_S, Daemon, Wire, World, until, user

BIG = "x" * 8_000_000
"""More than all the buffers on an answer's way hold: its chat lasts until somebody reads it."""


@pytest.fixture
async def daemon(world: World) -> AsyncIterator[Daemon]:
    """A daemon whose runner `held` never ends an answer."""
    with world.daemon(world.config("runners:\n" + ECHO + entry(world, "held", HELD))) as served:
        yield served


async def holding(world: World, model: str = "held", text: str = "Hi") -> Wire:
    """A client with a chat (its id is 1) that has begun."""
    client = await Wire.connect(world.socket)
    await client.request("chat", model=model, messages=user(text))
    while (await client.read())["params"]["chunk"]["type"] != "text":
        pass
    return client


def reader(world: World) -> socket.socket:
    """A client that has asked for a big answer and does not read it yet."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(world.socket))
    client.settimeout(END_S)
    params = {"model": "echo", "messages": user(BIG)}
    client.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "chat", "params": params}).encode() + b"\n")
    return client


def read_to_end(client: socket.socket) -> list[dict[str, Any]]:
    with client, client.makefile("rb") as lines:
        return [json.loads(line) for line in lines]


async def is_running(wire: Wire) -> bool:
    rows = (await wire.call("status"))["result"]["runners"]
    return any(worker["state"] == "busy" for row in rows for worker in row["workers"])


async def test_it_writes_one_json_event_a_line_from_ready_to_ended(world: World) -> None:
    config = world.config("runners:\n" + ECHO)
    with world.daemon(config) as daemon:
        ready = daemon.wait_for("daemon.ready")
    assert ready["socket"] == str(world.socket)
    assert ready["config"] == str(config)
    assert ready["runners"] == ["echo"]
    assert all({"event", "level", "timestamp"} <= set(event) for event in daemon.log)
    assert daemon.log[-1]["event"] == "daemon.ended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_daemon_ends_at_once_with_0_and_takes_its_socket_with_it(
    world: World, daemon: Daemon, number: signal.Signals
) -> None:
    daemon.signal(number)
    assert daemon.wait() == 0
    assert not world.socket.exists()


async def test_shutdown_is_answered_and_ends_the_daemon(world: World, daemon: Daemon) -> None:
    async with await Wire.connect(world.socket) as wire:
        assert (await wire.call("shutdown"))["result"] == {"ok": True}
        assert await wire.reader.read() == b""
    assert daemon.wait() == 0


async def test_a_second_daemon_is_refused_and_told_the_first_one_s_pid(world: World, daemon: Daemon) -> None:
    second = world.runnerd("serve", "--config", str(world.root / "runners.yaml"))
    assert second.returncode == 1
    assert f"pid {daemon.process.pid}" in second.stderr.decode()
    assert b"Traceback" not in second.stderr
    async with await Wire.connect(world.socket) as wire:
        assert (await wire.call("version"))["result"]["pid"] == daemon.process.pid


async def test_a_second_daemon_may_serve_another_socket(world: World, daemon: Daemon) -> None:
    other = world.socket.with_name("other.sock")
    with world.daemon(world.root / "runners.yaml", "--socket", str(other)) as second:
        async with await Wire.connect(other) as wire:
            assert (await wire.call("version"))["result"]["pid"] == second.process.pid != daemon.process.pid


async def test_after_a_kill_the_next_daemon_takes_over_the_socket_and_nothing_is_left(world: World) -> None:
    config = world.config("runners:\n" + ECHO + entry(world, "held", HELD))
    with world.daemon(config) as killed:
        client = await holding(world)
        killed.signal(signal.SIGKILL)
        killed.wait()
        await client.close()
    assert world.socket.exists()
    with world.daemon(config) as daemon:
        async with await Wire.connect(world.socket) as wire:
            answer = await wire.call("chat", model="echo", messages=user("Hi"))
        assert answer["result"]["content"] == "Hi"

        async def only_the_daemon() -> bool:
            return [process.pid for process in world.processes()] == [daemon.process.pid]

        assert await until(only_the_daemon)


async def test_while_a_daemon_drains_its_chats_go_on_and_new_ones_are_refused(world: World, daemon: Daemon) -> None:
    client = reader(world)
    async with await Wire.connect(world.socket) as other:
        await until(lambda: is_running(other))
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("daemon.draining")
        error = (await other.call("chat", model="echo", messages=user("Hi")))["error"]
        assert (error["code"], error["data"]["kind"]) == (-32010, "cancelled")
        assert "shutting down" in error["message"]
        assert "result" in await other.call("status")
        # Asked again, and not by a second signal: what runs is not cut.
        assert (await other.call("shutdown"))["result"] == {"ok": True}
        messages = read_to_end(client)
    assert messages[-1]["result"]["content"] == BIG
    assert daemon.wait() == 0


@pytest.mark.parametrize(
    ("stream", "size"),
    [(True, 8_000_000), (False, 8_000_000), (False, 240_000)],
    ids=["streamed", "not streamed", "nearly all of it in the kernel's buffer"],
)
async def test_a_chat_runs_until_its_client_has_read_its_answer(
    world: World, daemon: Daemon, stream: bool, size: int
) -> None:
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(world.socket))
        slow.settimeout(END_S)
        params = {"model": "echo", "messages": user("x" * size), "stream": stream}
        slow.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "chat", "params": params}).encode() + b"\n")
        received = bytearray()
        while stream and b'"type":"done"' not in received:
            received += slow.recv(65536)
        daemon.wait_for("chat.ended")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("daemon.draining")
        # The client has `drain_s` for that, half a minute: the daemon must not go before.
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(timeout=2)
        while data := slow.recv(65536):
            received += data
    assert len(json.loads(received.splitlines()[-1])["result"]["content"]) == size
    assert daemon.wait() == 0


@pytest.mark.parametrize("way", ["drain_s is over", "a second signal"])
async def test_a_chat_that_does_not_end_is_cut_and_its_client_told(world: World, way: str) -> None:
    drain_s = 0.2 if way == "drain_s is over" else 3 * END_S
    config = world.config(f"daemon: {{drain_s: {drain_s}}}\nrunners:\n" + ECHO + entry(world, "held", HELD))
    with world.daemon(config) as daemon:
        async with await holding(world) as client:
            daemon.signal(signal.SIGTERM)
            daemon.wait_for("daemon.draining")
            if way == "a second signal":
                daemon.signal(signal.SIGTERM)
            last = await client.read()
            assert (last["id"], last["error"]["data"]["kind"]) == (1, "cancelled")
            assert await client.reader.read() == b""
        assert daemon.wait() == 0
        daemon.wait_for("daemon.cut_chats")
        assert world.processes() == []


async def test_a_client_that_does_not_read_cannot_keep_a_daemon_from_ending(world: World) -> None:
    config = world.config("daemon: {drain_s: 0.2}\nrunners:\n" + ECHO)
    with world.daemon(config) as daemon:
        client = reader(world)
        async with await Wire.connect(world.socket) as wire:
            await until(lambda: is_running(wire))
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert world.processes() == []
        client.close()


async def test_neither_prompts_nor_answers_are_ever_logged(world: World) -> None:
    secret = "a-very-secret-marker"
    runners = ECHO + entry(world, "talkative", TALKATIVE)
    with world.daemon(world.config("runners:\n" + runners), "--log-level", "debug") as daemon:
        async with await Wire.connect(world.socket) as wire:
            told = [{"role": "system", "content": secret}, *user(secret)]
            echoed = await wire.call("chat", model="echo", messages=told)
            assert echoed["result"]["content"] == secret
            assert (await wire.call("chat", model="talkative", messages=told))["result"]["content"] == "done"
            parts = [{"type": "text", "text": secret, secret: secret}]
            await wire.call("chat", model="echo", messages=[{"role": "user", "content": parts}], extra=secret)
            await wire.call("chat", model="echo", messages=told, strict=True, extra=secret)
            await wire.call("chat", model="nobody", messages=told)
            await wire.call("chat", messages=[{"role": secret, "content": [secret]}], stop=[{secret: 1}])
            await wire.call("chat", model="echo", messages=[*told, {"role": "assistant", "content": secret}])
            for line in (f'{{"id": 1, "{secret}', f'["{secret}"]', f'"{secret}"', f'{{"params": "{secret}"}}'):
                await wire.send(line.encode() + b"\n")
                assert "error" in await wire.read()
    assert len([event for event in daemon.log if event["event"] == "chat.ended"]) >= 3
    assert any("no JSON object" in event["event"] for event in daemon.log)
    assert secret not in json.dumps(daemon.log)


async def test_a_daemon_keeps_no_more_files_open_after_many_chats(world: World, daemon: Daemon) -> None:
    process = psutil.Process(daemon.process.pid)
    async with await Wire.connect(world.socket) as wire:
        await wire.call("chat", model="echo", messages=user("Hi"))
        before = process.num_fds()
        for _ in range(10):
            await wire.call("chat", model="echo", messages=user("Hi"))

        async def back_to_before() -> bool:
            return process.num_fds() <= before and not process.children()

        assert await until(back_to_before)
