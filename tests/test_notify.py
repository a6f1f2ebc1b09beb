"""What a service manager is told, over a real datagram socket."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.notify import Notifier
from tests.programs import RECORDING, entry, record
from tests.world import END_S, World

ECHO = "runners: {echo: {kind: echo}}\n"


@pytest.fixture
def manager(world: World) -> Iterator[socket.socket]:
    """A manager's end; the world's programs are told its name."""
    with listening(world.root / "notify") as made:
        world.env["NOTIFY_SOCKET"] = str(world.root / "notify")
        yield made


def listening(address: Path | str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(address))
    made.settimeout(END_S)
    return made


def told(manager: socket.socket) -> dict[str, str]:
    """The next message."""
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().split("\n"))


def told_until(manager: socket.socket, name: str) -> dict[str, str]:
    """The next message that says something; others are passed over."""
    while name not in (message := told(manager)):
        pass
    return message


def test_a_daemon_tells_when_it_is_ready_that_its_loop_turns_and_that_it_ends(
    world: World, manager: socket.socket
) -> None:
    world.env["WATCHDOG_USEC"] = "100000"
    with world.daemon(world.config(ECHO)) as daemon:
        assert told_until(manager, "READY") == {"READY": "1", "STATUS": f"serves {world.socket}"}
        for _ in range(3):
            assert told(manager) == {"WATCHDOG": "1"}
        daemon.signal(signal.SIGTERM)
        assert told_until(manager, "STOPPING") == {"STOPPING": "1"}
        assert daemon.wait() == 0


def test_a_daemon_whose_manager_went_away_serves_and_ends_well(world: World, manager: socket.socket) -> None:
    world.env["WATCHDOG_USEC"] = "20000"
    with world.daemon(world.config(ECHO)) as daemon:
        told_until(manager, "READY")
        manager.close()
        assert daemon.wait_for("notify.failed")["told"] == "WATCHDOG=1"
        assert world.runnerd("chat", "-m", "echo", "Hi").stdout == b"Hi"
    assert [event["event"] for event in daemon.log].count("notify.failed") == 1


def test_a_cli_is_not_told_of_the_manager(world: World, manager: socket.socket) -> None:
    world.env |= {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}
    with world.daemon(world.config("runners:\n" + entry(world, "recording", RECORDING))) as daemon:
        daemon.wait_for("runner.health")
        seen = record(world, "recording")["env"]
    assert {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(seen) == set()
    assert "HOME" in seen


def test_a_reload_is_told_with_its_time_and_then_readiness_again(world: World, manager: socket.socket) -> None:
    before_us = time.monotonic_ns() // 1000
    with Notifier(world.env) as notifier:
        notifier.reloading()
        notifier.ready("serves\nagain")
    message = told(manager)
    assert message.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert message["RELOADING"] == "1"
    assert before_us <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert told(manager) == {"READY": "1", "STATUS": "serves again"}


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
def test_a_manager_may_listen_on_an_abstract_address(world: World) -> None:
    name = f"runnerd-{world.root.name}"
    with listening(f"\0{name}") as manager, Notifier({"NOTIFY_SOCKET": f"@{name}"}) as notifier:
        notifier.stopping()
        assert told(manager) == {"STOPPING": "1"}


async def test_without_a_manager_nothing_is_done(no_leaks: None) -> None:
    with capture_logs() as logged, Notifier({"WATCHDOG_USEC": "1000"}) as notifier:
        notifier.ready("serves")
        notifier.reloading()
        notifier.stopping()
        await notifier.watchdog()
    assert logged == []


@pytest.mark.parametrize(
    "watched", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}]
)
async def test_the_watchdog_is_silent_where_nobody_waits_for_this_process(
    world: World, manager: socket.socket, watched: dict[str, str]
) -> None:
    with Notifier(world.env | watched) as notifier:
        await notifier.watchdog()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(1)


async def test_the_watchdog_speaks_for_this_process_until_it_is_cancelled(
    world: World, manager: socket.socket, no_leaks: None
) -> None:
    watched = {"WATCHDOG_USEC": "10000", "WATCHDOG_PID": str(os.getpid())}
    with Notifier(world.env | watched) as notifier:
        task = asyncio.create_task(notifier.watchdog())
        for _ in range(3):
            assert await asyncio.to_thread(told, manager) == {"WATCHDOG": "1"}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("address", ["/no/such/socket", "relative", "vsock:2:1", "/" + "x" * 200])
def test_what_cannot_be_told_is_logged_once(address: str) -> None:
    with capture_logs() as logged, Notifier({"NOTIFY_SOCKET": address}) as notifier:
        notifier.ready("serves")
        notifier.stopping()
    assert [(entry["event"], entry["log_level"], entry["told"]) for entry in logged] == [
        ("notify.failed", "warning", "READY=1")
    ]


def test_a_manager_that_reads_nothing_holds_nobody_up(world: World, manager: socket.socket) -> None:
    with capture_logs() as logged, Notifier(world.env) as notifier:
        while not logged:
            notifier.stopping()
    assert re.search("timed out|temporarily unavailable|No buffer space", logged[0]["error"])
