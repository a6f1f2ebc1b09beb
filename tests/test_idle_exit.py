"""The daemon that a command has started: when it ends by itself, and what it logs to."""

import asyncio
import json
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from daemon.unix_socket import Instance
from tests.programs import HELD, entry
from tests.world import END_S, Wire, World, user

ECHO = "runners:\n  echo: {kind: echo}\n"
IDLE_S = 0.3
# Several times as long as a daemon may be idle, and that is all it has to be.
LONG_S = 2.0


@pytest.fixture
def place(world: World) -> Iterator[World]:
    world.env["RUNNERD_CONFIG"] = str(world.config(ECHO + entry(world, "held", HELD)))
    yield world
    assert world.runnerd("stop").returncode in (0, 69)


@contextmanager
def autostarted(world: World, idle_exit_s: float = IDLE_S) -> Iterator["subprocess.Popen[bytes]"]:
    """A daemon as a command starts it, ready, but for the time that it may be idle."""
    command = [sys.executable, "-m", "runnerd", "serve", "--autostarted", "--ready-fd", "1"]
    with subprocess.Popen(
        [*command, "--idle-exit-s", str(idle_exit_s)], env=world.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as daemon:
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.read() == b"ready\n"
            yield daemon
        finally:
            daemon.terminate()


def ends(daemon: "subprocess.Popen[bytes]") -> bool:
    return daemon.wait(timeout=END_S) == 0


async def stays(daemon: "subprocess.Popen[bytes]") -> bool:
    await asyncio.sleep(LONG_S)
    return daemon.poll() is None


def test_without_use_it_ends_as_sigterm_ends_it(place: World) -> None:
    with autostarted(place) as daemon:
        assert ends(daemon)
    assert not place.socket.exists()
    events = [json.loads(line)["event"] for line in (place.state / "runnerd" / "runnerd.log").read_text().splitlines()]
    assert [event for event in events if event.startswith("daemon.")] == [
        "daemon.ready",
        "daemon.unused",
        "daemon.draining",
        "daemon.ended",
    ]


def test_a_daemon_that_a_user_has_started_never_does(place: World) -> None:
    with place.daemon(None, "--idle-exit-s", "0.1") as daemon, pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(timeout=LONG_S)


async def test_a_chat_that_runs_is_use(place: World) -> None:
    with autostarted(place) as daemon:
        async with await Wire.connect(place.socket) as client:
            await client.request("chat", model="held", messages=user("Hi"))
            assert (await client.read())["method"] == "chat.chunk"
            assert await stays(daemon)
        assert ends(daemon)


async def test_a_client_that_has_asked_something_and_is_still_there_is_use(place: World) -> None:
    with autostarted(place) as daemon:
        async with await Wire.connect(place.socket) as client:
            assert (await client.call("version"))["result"]["autostarted"] is True
            assert await stays(daemon)
        assert ends(daemon)


async def test_a_connection_that_asks_nothing_is_no_use(place: World) -> None:
    with autostarted(place) as daemon:
        async with await Wire.connect(place.socket) as client:
            await client.send(b"\n")
            assert ends(daemon)


@pytest.mark.parametrize("ended_well", [True, False], ids=["ended", "was killed"])
def test_what_a_daemon_closed_without_an_answer_is_asked_again_only_if_it_ended_well(
    place: World, ended_well: bool
) -> None:
    place.socket.parent.mkdir(mode=0o700)
    version = place.runnerd("--version").stdout.decode().split()[-1]

    def go_away_at_the_second_request() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(place.socket))
            listening.listen()
            may_ask.set()
            listening.settimeout(END_S)
            client = listening.accept()[0]
            with client, client.makefile("rwb") as lines:
                asked = json.loads(lines.readline())
                told = {"version": version, "pid": 1, "autostarted": True}
                lines.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": told}).encode() + b"\n")
                lines.flush()
                assert json.loads(lines.readline())["method"] == "chat"
                listening.close()
                if ended_well:
                    place.socket.unlink()

    may_ask = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        gone = threads.submit(go_away_at_the_second_request)
        assert may_ask.wait(END_S)
        done = place.runnerd("chat", "-m", "echo", "Hi")
        gone.result()
    assert (done.returncode, done.stdout) == ((0, b"Hi") if ended_well else (1, b""))
    assert (b"went away" in done.stderr) is not ended_well


def test_no_chat_is_lost_to_a_daemon_that_ends(place: World) -> None:
    with autostarted(place, 0.05) as daemon, ThreadPoolExecutor(4) as threads:
        chat = ("chat", "-m", "echo", "Hi")
        done = list(threads.map(lambda _: place.runnerd(*chat), range(12)))
        assert {(one.returncode, one.stdout, one.stderr) for one in done} == {(0, b"Hi", b"")}
        assert ends(daemon)


async def test_who_comes_before_a_daemon_is_ready_waits_and_is_not_refused(world: World) -> None:
    with Instance(world.socket):
        async with await Wire.connect(world.socket) as client:
            await client.request("version")


LOGGING = """
import logging, sys
from pathlib import Path
from daemon import logs

logs.configure(file=Path(sys.argv[1]))
for number in range(30_000):
    logging.getLogger("test").info("%06d %s", number, "x" * 200)
print("the last words", file=sys.stderr)
"""


def test_the_log_is_rotated_and_always_0600_and_stderr_follows_it(world: World) -> None:
    log = world.root / "logs" / "runnerd.log"
    log.parent.mkdir()
    command = [sys.executable, "-c", LOGGING, str(log)]
    done = subprocess.run(command, env=world.env, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    files = {path.name: path.stat() for path in log.parent.iterdir()}
    assert sorted(files) == ["runnerd.log", *(f"runnerd.log.{number}" for number in (1, 2, 3))]
    assert all(stat.S_IMODE(found.st_mode) == 0o600 and found.st_size <= 1024 * 1024 + 100 for found in files.values())
    assert log.read_text().endswith("the last words\n")


def test_a_file_that_is_not_a_log_of_ours_is_not_written_to(place: World) -> None:
    precious = place.root / "precious"
    precious.write_text("precious")
    log = place.state / "runnerd" / "runnerd.log"
    log.parent.mkdir(mode=0o700)
    log.symlink_to(precious)
    done = place.runnerd("chat", "-m", "echo", "Hi")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"{log} cannot be written" in done.stderr.decode()
    assert precious.read_text() == "precious"
