"""SIGHUP from a terminal that was closed: the end of a daemon that was started in it, unless it was to stay."""

import os
import pty
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.world import Daemon, Wire, World, user

IN_A_TERMINAL = """
import fcntl, os, signal, sys, termios

fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.close(int(sys.argv[1]))
if sys.argv[2] == "nohup":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "runnerd", "serve", "--config", sys.argv[3]])
"""


@contextmanager
def in_a_terminal(world: World, how: str) -> Iterator[tuple[Daemon, int]]:
    """A daemon that leads the session of a terminal, and the terminal's other end."""
    master, slave = pty.openpty()
    config = world.config("runners: {echo: {kind: echo}}\n")
    command = [sys.executable, "-c", IN_A_TERMINAL, str(slave), how, str(config)]
    daemon = Daemon(world, command, pass_fds=[slave], start_new_session=True)
    os.close(slave)
    try:
        daemon.wait_for("daemon.ready")
        yield daemon, master
    finally:
        daemon.end()


def test_a_daemon_whose_terminal_is_closed_ends_well(world: World) -> None:
    with in_a_terminal(world, "plainly") as (daemon, master):
        os.close(master)
        assert daemon.wait() == 0
    assert daemon.log[-1]["event"] == "daemon.ended"
    assert not [event for event in daemon.log if event["event"] == "daemon.reloaded"]


def test_sighup_without_the_loss_of_the_terminal_is_a_reload(world: World) -> None:
    with in_a_terminal(world, "plainly") as (daemon, master):
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("daemon.reloaded")
        os.close(master)
        assert daemon.wait() == 0


@pytest.mark.parametrize("how", ["nohup"])
async def test_a_daemon_that_was_to_stay_stays(world: World, how: str) -> None:
    with in_a_terminal(world, how) as (daemon, master):
        os.close(master)
        # The kernel's SIGHUP, or this one, whichever comes first.
        daemon.signal(signal.SIGHUP)
        daemon.wait_for("daemon.reloaded")
        async with await Wire.connect(world.socket) as wire:
            assert (await wire.call("chat", model="echo", messages=user("Hi")))["result"]["content"] == "Hi"
        assert daemon.process.poll() is None
