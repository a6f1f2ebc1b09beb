"""Who connects over TCP and shows no token: few at a time, not for long, and in nobody's way."""

import asyncio
import signal
import socket
from contextlib import AsyncExitStack

import pytest

from daemon.frontends.strangers import Strangers
from tests.http_client import MESSAGES, ON_TCP, RUNNERS, Http, ask, bearer, http_socket, tcp
from tests.world import END_S, Daemon, World

MORE_THAN_MAY = 70


class Connected(asyncio.Protocol):
    """A connection that was accepted; tells its beginning and its end."""

    def __init__(self, began: "asyncio.Queue[Connected]") -> None:
        self._began = began
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._began.put_nowait(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 asyncio calls it so
        self.ended.set()


@pytest.fixture
def began() -> "asyncio.Queue[Connected]":
    return asyncio.Queue()


async def accepting(
    stack: AsyncExitStack, began: "asyncio.Queue[Connected]", *, patience_s: float
) -> tuple[Strangers, tuple[str, int]]:
    """Two strangers at most, and where they come."""

    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    strangers = Strangers(lambda: Connected(began), at_most=2, patience_s=patience_s)
    task = asyncio.create_task(strangers.accept(listening))

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        strangers.aclose()
        while not began.empty():
            began.get_nowait()

    stack.push_async_callback(end)
    return strangers, listening.getsockname()


async def next_of(began: "asyncio.Queue[Connected]") -> Connected:
    return await asyncio.wait_for(began.get(), END_S)


async def test_one_that_stays_a_stranger_is_ended_and_one_that_is_known_is_not(
    no_leaks: None, began: "asyncio.Queue[Connected]"
) -> None:
    async with AsyncExitStack() as stack:
        strangers, place = await accepting(stack, began, patience_s=0.2)
        known, stranger = await Http.connect(place), await Http.connect(place)
        stack.push_async_callback(known.close)
        stack.push_async_callback(stranger.close)
        first, second = await next_of(began), await next_of(began)
        strangers.is_known(first.transport)
        await asyncio.wait_for(second.ended.wait(), END_S)
        assert not first.ended.is_set()
        await known.close()
        await asyncio.wait_for(first.ended.wait(), END_S)


async def test_who_finds_no_room_waits_until_another_is_known_or_gone(
    no_leaks: None, began: "asyncio.Queue[Connected]"
) -> None:
    async with AsyncExitStack() as stack:
        strangers, place = await accepting(stack, began, patience_s=60)
        clients = [await Http.connect(place) for _ in range(4)]
        for client in clients:
            stack.push_async_callback(client.close)
        first, second = await next_of(began), await next_of(began)
        assert began.empty()
        strangers.is_known(first.transport)
        await next_of(began)
        assert began.empty()
        await clients[1].close()
        await next_of(began)
        assert second.ended.is_set()
        for client in clients:
            await client.close()


async def test_many_strangers_take_nothing_from_those_on_the_sockets(world: World) -> None:
    with world.daemon(world.config(ON_TCP + RUNNERS)) as daemon:
        async with AsyncExitStack() as stack:
            for _ in range(MORE_THAN_MAY):
                await stack.enter_async_context(await Http.connect(tcp(daemon)))
            answer = await ask(http_socket(daemon), "GET", "/healthz")
            assert answer.status == 200
        assert (await ask(tcp(daemon), "GET", "/healthz", headers=bearer(daemon))).status == 200


async def test_a_body_that_does_not_come_does_not_hold_up_the_end(world: World) -> None:
    def ended(daemon: Daemon) -> int:
        daemon.signal(signal.SIGTERM)
        return daemon.wait()

    with world.daemon(world.config("daemon: {drain_s: 60}\n" + RUNNERS)) as daemon:
        async with await Http.connect(http_socket(daemon)) as client:
            await ask(http_socket(daemon), "GET", "/healthz")
            await client.write(f"POST {MESSAGES} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{{".encode())
            assert await asyncio.to_thread(ended, daemon) == 0


async def test_a_token_that_was_changed_holds_from_the_next_reload_on(world: World) -> None:
    with world.daemon(world.config(ON_TCP + RUNNERS)) as daemon:
        old, path = bearer(daemon), world.state / "runnerd" / "token"
        path.write_text("another-token-of-mine\n", encoding="ascii")
        assert (await ask(tcp(daemon), "GET", "/healthz", headers=old)).status == 200
        assert world.runnerd("reload").returncode == 0
        assert (await ask(tcp(daemon), "GET", "/healthz", headers=old)).status == 401
        assert (await ask(tcp(daemon), "GET", "/healthz", headers=bearer(daemon))).status == 200
        path.chmod(0o644)
        refused = world.runnerd("reload")
        assert refused.returncode == 78
        assert b"must be a file of yours alone" in refused.stderr
        assert (await ask(tcp(daemon), "GET", "/healthz", headers=bearer(daemon))).status == 200
