"""The HTTP doors of a real daemon: loaded when first used, many at once, and what becomes of who leaves or is left."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.frontends import exchange
from daemon.frontends.guard import Guard
from daemon.frontends.http import HttpFrontend
from tests.http_client import (
    CHATS,
    COMPLETIONS,
    MESSAGES,
    NO_HEADERS,
    ON_TCP,
    RESPONSES,
    RUNNERS,
    Headers,
    Http,
    Place,
    ask,
    bearer,
    chat,
    http_socket,
    tcp,
    text_of,
)
from tests.programs import ECHO, ENDLESS, GATED, HELD, entry
from tests.routing import Routed
from tests.stage import Stage
from tests.test_idle_exit import LONG_S, autostarted, ends, stays
from tests.test_laziness import RUNNERD, packages, recorded, recording
from tests.world import END_S, Daemon, Wire, World, until


def maps(daemon: Daemon) -> str:
    """What the daemon has in its memory: the compiled parts of its packages have names there."""
    return Path(f"/proc/{daemon.process.pid}/maps").read_text()


async def begun(
    daemon: Daemon, path: str, model: str, place: Place | None = None, headers: Headers = NO_HEADERS
) -> Http:
    """A client whose answer has begun: its head was read."""
    client = await Http.connect(place or http_socket(daemon))
    await client.send("POST", path, chat(path, model=model, stream=True), headers)
    status, told = await client.head()
    assert (status, told["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return client


async def words(client: Http, path: str) -> tuple[str, bool]:
    """The text of the rest of a stream, and whether it ended well."""
    text, is_whole = "", False
    async for event in client.events():
        data = event.data
        if path == COMPLETIONS:
            is_whole = data == "[DONE]"
            text += (
                data["choices"][0]["delta"].get("content", "") if isinstance(data, dict) and "choices" in data else ""
            )
        elif path == MESSAGES:
            is_whole = event.name == "message_stop"
            text += data["delta"]["text"] if event.name == "content_block_delta" else ""
        else:
            is_whole = event.name == "response.completed"
            text += data["delta"] if event.name == "response.output_text.delta" else ""
    return text, is_whole


async def is_idle(daemon: Daemon, runner: str) -> bool:
    """Whether nobody is served by a runner, and none of its CLIs is there."""
    async with await Wire.connect(daemon.world.socket) as wire:
        [row] = [row for row in (await wire.call("status"))["result"]["runners"] if row["name"] == runner]
    return (row["running"], row["queued"], row["workers"]) == (0, 0, [])


async def only_the_daemon_is_left(daemon: Daemon) -> bool:
    return [process.pid for process in daemon.world.processes()] == [daemon.process.pid]


# At first use


def test_what_serves_http_is_loaded_when_the_first_client_comes(world: World) -> None:
    path = world.config(ON_TCP + RUNNERS)
    daemon = Daemon(world, [sys.executable, "-c", recording(world, RUNNERD), "serve", "--config", str(path)])
    try:
        daemon.wait_for("daemon.ready")
        assert world.runnerd("chat", "-m", "echo", "Hi").stdout == b"Hi"
        assert world.runnerd("status").returncode == 0
    finally:
        daemon.end()
    assert packages(recorded(world)) & {"aiohttp", "yarl", "multidict", "prometheus_client"} == set()
    assert not [module for module in recorded(world) if module.startswith("daemon.frontends.http")]


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has in its memory only Linux tells")
async def test_a_daemon_that_runs_loads_it_at_the_first_request_and_answers_that(world: World) -> None:
    with world.daemon(world.config(ON_TCP + RUNNERS)) as daemon:
        assert world.runnerd("chat", "-m", "echo", "Hi").stdout == b"Hi"
        assert "aiohttp" not in maps(daemon)
        answer = await ask(http_socket(daemon), "POST", COMPLETIONS, chat(COMPLETIONS))
        assert text_of(COMPLETIONS, answer.json) == "Hi"
        assert "aiohttp" in maps(daemon)
        assert len([entry for entry in daemon.log if entry["event"] == "http.opened"]) == 1


async def test_all_that_come_at_the_first_moment_are_answered(world: World) -> None:
    with world.daemon(world.config(ON_TCP + RUNNERS)) as daemon:
        asked = [
            ask(place, "GET", "/healthz", headers=bearer(daemon))
            for place in (http_socket(daemon), tcp(daemon))
            for _ in range(20)
        ]
        assert [answer.status for answer in await asyncio.gather(*asked)] == [200] * 40
        assert len([entry for entry in daemon.log if entry["event"] == "http.opened"]) == 1


async def test_a_daemon_that_ends_in_that_moment_ends_well(world: World) -> None:
    with world.daemon(world.config(RUNNERS)) as daemon:
        async with await Http.connect(http_socket(daemon)):
            daemon.signal(signal.SIGTERM)
            assert await asyncio.to_thread(daemon.wait) == 0
    assert not http_socket(daemon).exists()


# At the end


@pytest.mark.parametrize("path", CHATS)
async def test_a_daemon_that_drains_ends_what_runs_and_refuses_what_comes(world: World, path: str) -> None:
    with world.daemon(world.config("runners:\n" + ECHO + entry(world, "gated", GATED))) as daemon:
        streaming = await begun(daemon, path, "gated")
        whole, late = [await Http.connect(http_socket(daemon)) for _ in range(2)]
        await whole.send("POST", path, chat(path, model="gated"))

        async def both_run() -> bool:
            async with await Wire.connect(world.socket) as wire:
                rows = (await wire.call("status"))["result"]["runners"]
            return [row["running"] for row in rows] == [0, 2]

        await until(both_run)
        assert (await late.ask("GET", "/healthz")).status == 200
        daemon.signal(signal.SIGTERM)
        await asyncio.to_thread(daemon.wait_for, "daemon.draining")
        refused = await late.ask("POST", path, chat(path))
        assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
        assert "shutting down" in refused.json["error"]["message"]
        (world.root / "gated.open").touch()
        assert await words(streaming, path) == ("so far, so good", True)
        assert text_of(path, (await whole.answer()).json) == "so far, so good"
        assert await asyncio.to_thread(daemon.wait) == 0
        for client in (streaming, whole, late):
            await client.close()


@pytest.mark.parametrize("path", CHATS)
async def test_what_still_runs_when_the_time_is_over_is_cut_and_told_so(world: World, path: str) -> None:
    config = world.config("daemon: {drain_s: 0.2}\nrunners:\n" + entry(world, "held", HELD))
    with world.daemon(config) as daemon:
        streaming = await begun(daemon, path, "held")
        whole = await Http.connect(http_socket(daemon))
        await whole.send("POST", path, chat(path, model="held"))
        daemon.signal(signal.SIGTERM)
        events = [event async for event in streaming.events()]
        assert "the daemon ends" in json.dumps(events[-1].data)
        assert events[-1].name == {COMPLETIONS: None, RESPONSES: "response.failed", MESSAGES: "error"}[path]
        told = await whole.answer()
        assert (told.status, "the daemon" in told.json["error"]["message"]) == (503, True)
        assert await asyncio.to_thread(daemon.wait) == 0
        for client in (streaming, whole):
            await client.close()
    assert daemon.wait_for("daemon.cut_chats")["requests"] >= 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_answers_that_are_on_their_way_arrive_before_the_daemon_ends(world: World, stream: bool) -> None:
    # All but the last fit nearly into the buffers on the way: it is only the daemon that has what does not.
    texts = ["x" * size for size in (*range(216_000, 270_000, 6_000), *([] if stream else [5_000_000]))]
    with world.daemon(world.config("runners:\n  echo: {kind: echo, max_running: 20}\n")) as daemon:
        async with AsyncExitStack() as stack:
            clients = []
            for text in texts:
                client = await stack.enter_async_context(await Http.connect(http_socket(daemon)))
                client.is_deaf(True)
                await client.send("POST", MESSAGES, chat(MESSAGES, text, stream=stream))
                clients.append(client)

            async def all_are_heard() -> bool:
                async with await Wire.connect(world.socket) as wire:
                    [row] = (await wire.call("status"))["result"]["runners"]
                return bool(row["running"] + sum(row["chats"].values()) == len(texts))

            await until(all_are_heard)
            daemon.signal(signal.SIGTERM)
            await asyncio.to_thread(daemon.wait_for, "daemon.draining")
            with pytest.raises(subprocess.TimeoutExpired):
                await asyncio.to_thread(daemon.process.wait, LONG_S)
            for client, text in zip(clients, texts, strict=True):
                client.is_deaf(False)
                if stream:
                    await client.head()
                    assert await words(client, MESSAGES) == (text, True)
                else:
                    assert text_of(MESSAGES, (await client.answer()).json) == text


async def test_connections_that_ask_nothing_do_not_hold_the_daemon_up(world: World) -> None:
    with world.daemon(world.config(RUNNERS)) as daemon:
        async with await Http.connect(http_socket(daemon)) as used, await Http.connect(http_socket(daemon)) as half:
            assert (await used.ask("GET", "/healthz")).status == 200
            await half.write(b"POST /v1/mess")
            daemon.signal(signal.SIGTERM)
            assert await asyncio.to_thread(daemon.wait) == 0


# Idleness


@pytest.fixture
def place(world: World) -> Iterator[World]:
    world.env["RUNNERD_CONFIG"] = str(world.config("runners:\n" + ECHO + entry(world, "held", HELD)))
    yield world
    assert world.runnerd("stop").returncode in (0, 69)


async def test_a_request_over_http_is_use_and_a_connection_that_asks_nothing_is_none(place: World) -> None:
    path = place.socket.with_name("http.sock")
    with autostarted(place) as daemon:
        async with await Http.connect(path) as client:
            await client.send("POST", COMPLETIONS, chat(COMPLETIONS, model="held", stream=True))
            assert (await client.head())[0] == 200
            assert await stays(daemon)
        async with await Http.connect(path) as client:
            assert ends(daemon)


async def test_a_body_that_does_not_come_is_no_use(place: World) -> None:
    with autostarted(place) as daemon:
        async with await Http.connect(place.socket.with_name("http.sock")) as client:
            await client.write(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            assert ends(daemon)


# Who leaves, and who does not read


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_leaves_cancels_its_turn(world: World, path: str, stream: bool) -> None:
    with world.daemon(world.config("runners:\n" + entry(world, "held", HELD))) as daemon:
        async with await Http.connect(http_socket(daemon)) as client:
            await client.send("POST", path, chat(path, model="held", stream=stream))
            if stream:
                await client.head()

            async def runs() -> bool:
                return not await is_idle(daemon, "held")

            await until(runs)
        assert await until(lambda: is_idle(daemon, "held"))
        assert await until(lambda: only_the_daemon_is_left(daemon))
        assert daemon.wait_for("chat.ended")["outcome"] == "cancelled"
        assert not [entry for entry in daemon.log if entry.get("level") == "error"]


async def test_a_client_that_does_not_read_stops_its_own_cli_and_nobody_else(world: World) -> None:
    with world.daemon(world.config("runners:\n" + ECHO + entry(world, "endless", ENDLESS))) as daemon:
        deaf = await begun(daemon, COMPLETIONS, "endless")
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for path in CHATS:
            for stream in (False, True):
                answer = await ask(http_socket(daemon), "POST", path, chat(path, stream=stream))
                assert answer.status == 200
        assert not await is_idle(daemon, "endless")
        await deaf.close()
        assert await until(lambda: is_idle(daemon, "endless"))
        assert await until(lambda: only_the_daemon_is_left(daemon))


# Many, and again


async def test_fifty_streams_at_once_over_both_sockets_are_all_whole(world: World) -> None:
    settings = "max_running: 50, max_queued: 50"
    with world.daemon(world.config(ON_TCP + "runners:\n" + entry(world, "gated", GATED, settings))) as daemon:
        places: list[Place] = [http_socket(daemon), tcp(daemon)]
        async with AsyncExitStack() as stack:
            clients = []
            for number in range(50):
                path = CHATS[number % 3]
                place = places[number % 2]
                client = await begun(daemon, path, "gated", place, bearer(daemon))
                clients.append((await stack.enter_async_context(client), path))
            (world.root / "gated.open").touch()
            told = await asyncio.gather(*(words(client, path) for client, path in clients))
        assert told == [("so far, so good", True)] * 50
        assert await until(lambda: only_the_daemon_is_left(daemon))


async def test_a_connection_serves_one_request_after_the_other(daemon: Daemon) -> None:
    async with await Http.connect(http_socket(daemon)) as client:
        for path in CHATS * 2:
            for stream in (False, True):
                answer = await client.ask("POST", path, chat(path, stream=stream))
                assert answer.status == 200
            assert (await client.ask("POST", path, b"{")).status == 400
            assert (await client.ask("GET", path)).status == 405
            assert (await client.ask("GET", "/nowhere")).status == 404
            assert (await client.ask("GET", "/healthz")).status == 200


async def test_requests_that_are_sent_ahead_are_answered_in_order(daemon: Daemon) -> None:
    async with await Http.connect(http_socket(daemon)) as client:
        for number in range(10):
            await client.send("POST", COMPLETIONS, chat(COMPLETIONS, f"number {number}"))
        for number in range(10):
            assert text_of(COMPLETIONS, (await client.answer()).json) == f"number {number}"


@pytest.mark.parametrize("path", CHATS)
async def test_curl_is_answered(daemon: Daemon, path: str) -> None:
    body = json.dumps(chat(path, "x" * 2_000_000))  # so long that it asks first whether it may
    command = ["curl", "-sS", "--fail-with-body", "--unix-socket", str(http_socket(daemon)), "-d", "@-"]
    done = await asyncio.to_thread(
        subprocess.run, [*command, f"http://localhost{path}"], input=body.encode(), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert text_of(path, json.loads(done.stdout)) == "x" * 2_000_000


# In the test's own loop


@contextmanager
def listening(path: Path) -> Iterator[Any]:
    import socket

    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(str(path))
        bound.listen()
        yield bound


@pytest.mark.parametrize("path", CHATS)
async def test_where_the_model_is_silent_pings_tell_that_somebody_is_there(
    no_leaks: None, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(exchange, "_PING_S", 0.05)
    stage = Stage("a", warm=0)
    routed = Routed(tmp_path, a=stage)
    http = HttpFrontend(routed.service, Guard(None), body_cap_bytes=1_000_000)
    with listening(world.root / "http.sock") as bound:
        await http.start([bound])
        try:
            async with asyncio.timeout(END_S), await Http.connect(world.root / "http.sock") as client:
                await client.send("POST", path, chat(path, "hold", model="a", stream=True))
                await client.head()
                pings, events = 0, []
                async for event in client.events():
                    is_ping = event.data is None or event.name in ("ping", "keepalive")
                    pings += is_ping
                    events += [] if is_ping else [event]
                    if pings == 3:
                        stage.may_end.set()
                assert pings >= 3
                assert events[-1].data == "[DONE]" or events[-1].name in ("response.completed", "message_stop")
        finally:
            await http.aclose()
            await routed.supervisor.aclose()
