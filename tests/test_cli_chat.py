"""`runnerd chat`: the prompt's way in, the answer's way out, and what becomes of a chat that is broken off."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from tests.programs import HELD, entry
from tests.world import END_S, Daemon, Wire, World, until

FIVE_MEGABYTES = (b"0123456789abcdef" * 4096 + b"\n") * 80


@contextmanager
def running(
    daemon: Daemon, *arguments: str, stdin: int | None = None, stdout: int = subprocess.PIPE
) -> Iterator["subprocess.Popen[bytes]"]:
    """A `runnerd` command that the test reads from, or sends a signal."""
    command = [sys.executable, "-m", "runnerd", *arguments]
    stdin = subprocess.DEVNULL if stdin is None else stdin
    with subprocess.Popen(command, env=daemon.world.env, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def some(pipe: IO[bytes] | None, length: int) -> bytes:
    assert pipe is not None
    return pipe.read(length)


async def nothing_runs(wire: Wire) -> bool:
    rows = (await wire.call("status"))["result"]["runners"]
    return all(row["running"] == 0 and not row["workers"] for row in rows)


@pytest.mark.parametrize(
    "prompt",
    ["Hi", "two\nlines\n", "", " ", "naïve 👍🏽 \u2028", "-", "-x", "--help", "--", "serve", "@/etc/passwd", "/clear"],
    ids=repr,
)
def test_a_prompt_is_an_argument_or_stdin_and_comes_back_byte_for_byte(daemon: Daemon, prompt: str) -> None:
    for done in (
        daemon.world.runnerd("chat", "-m", "echo", "--", prompt),
        daemon.world.runnerd("chat", "--model=echo", stdin=prompt.encode()),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, prompt.encode(), b"")


def test_five_megabytes_of_stdin_come_back_byte_for_byte(daemon: Daemon) -> None:
    done = daemon.world.runnerd("chat", "-m", "echo", stdin=FIVE_MEGABYTES)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == FIVE_MEGABYTES


def test_bytes_that_are_no_utf_8_do_no_harm(daemon: Daemon) -> None:
    done = daemon.world.runnerd("chat", "-m", "echo", stdin=b"a\xffb")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "a\ufffdb"


def test_json_prints_the_whole_answer_as_one_object(daemon: Daemon) -> None:
    done = daemon.world.runnerd("chat", "-m", "echo", "--json", "Hi 👍")
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads(done.stdout)
    assert (answer["content"], answer["runner"], answer["stop_reason"]) == ("Hi 👍", "echo", "end_turn")


@pytest.mark.parametrize("option", ["-s", "--system"])
def test_a_system_prompt_goes_along(daemon: Daemon, option: str) -> None:
    done = daemon.world.runnerd("chat", "-m", "echo:request", option, "Be brief.", "Hi")
    told = json.loads(done.stdout)
    assert told["system"] == "Be brief."
    assert told["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


def test_on_a_terminal_an_answer_gets_a_line_of_its_own(daemon: Daemon) -> None:
    ours, theirs = pty.openpty()
    with running(daemon, "chat", "-m", "echo", "Hi", stdout=theirs) as process:
        assert process.wait(timeout=END_S) == 0
        assert os.read(ours, 100) == b"Hi\r\n"
    os.close(ours)
    os.close(theirs)


def test_on_a_terminal_a_missing_prompt_is_wrong_usage(daemon: Daemon) -> None:
    ours, theirs = pty.openpty()
    with running(daemon, "chat", "-m", "echo", stdin=theirs) as process:
        assert process.wait(timeout=END_S) == 2
        assert b"give a PROMPT, or pipe one in" in some(process.stderr, -1)
    os.close(ours)
    os.close(theirs)


def test_a_closed_stdin_is_wrong_usage(daemon: Daemon) -> None:
    shell = ["/bin/sh", "-c", f"exec {sys.executable} -m runnerd chat -m echo <&-"]
    done = subprocess.run(shell, env=daemon.world.env, capture_output=True, timeout=END_S, check=False)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 2


def test_an_unknown_model_exits_with_1_and_names_the_nearest(daemon: Daemon) -> None:
    done = daemon.world.runnerd("chat", "-m", "ecco", "Hi")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().startswith("runnerd: nobody serves the model 'ecco' (did you mean ")
    done = daemon.world.runnerd("chat", "-m", "ecco", "Hi", "--json")
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["error"]["kind"] == "model_not_found"


def test_without_a_model_and_without_a_default_it_says_so(daemon: Daemon) -> None:
    done = daemon.world.runnerd("chat", "Hi")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no runner may be a default" in done.stderr


def test_what_may_go_better_later_exits_with_75_and_the_cli_s_last_words_are_shown(daemon: Daemon) -> None:
    done = daemon.world.runnerd("chat", "-m", "broken", "Hi")
    assert (done.returncode, done.stdout) == (75, b"")
    message = done.stderr.decode()
    assert message.startswith("runnerd: the CLI exited with code 1: ")
    assert message.endswith("the CLI's last words:\nthese are my last words\n")
    done = daemon.world.runnerd("chat", "-m", "broken", "Hi", "--json")
    assert (done.returncode, done.stderr) == (75, b"")
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["retryable"], error["exit_code"]) == ("process_exited", True, 1)


async def test_text_is_shown_as_it_comes_and_ctrl_c_exits_with_130_and_cancels_the_chat(
    daemon: Daemon, wire: Wire
) -> None:
    with running(daemon, "chat", "-m", "held", "Hi") as process:
        assert some(process.stdout, len(b"so far")) == b"so far"
        assert not await nothing_runs(wire)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=END_S)
    assert (process.returncode, rest, errors) == (130, b"", b"")
    assert await until(lambda: nothing_runs(wire))


async def test_ctrl_c_exits_with_130_while_the_answer_is_awaited_as_json(daemon: Daemon, wire: Wire) -> None:
    async def something_runs() -> bool:
        return not await nothing_runs(wire)

    with running(daemon, "chat", "-m", "held", "Hi", "--json") as process:
        await until(something_runs)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=END_S)
    assert (process.returncode, rest, errors) == (130, b"", b"")
    assert await until(lambda: nothing_runs(wire))


def test_ctrl_c_exits_with_130_while_the_prompt_is_read(daemon: Daemon) -> None:
    with running(daemon, "chat", "-m", "echo", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * 1_000_000)  # more than a pipe holds: once written, the command reads
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=END_S)
    assert (process.returncode, rest, errors) == (130, b"", b"")


async def test_a_reader_that_has_seen_enough_ends_the_chat_without_a_word(daemon: Daemon, wire: Wire) -> None:
    with running(daemon, "chat", "-m", "echo", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(FIVE_MEGABYTES)
        process.stdin.close()
        assert some(process.stdout, 10) == FIVE_MEGABYTES[:10]
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=END_S) == 1
        assert some(process.stderr, -1) == b""
    assert await until(lambda: nothing_runs(wire))


@pytest.mark.parametrize("command", [["chat", "-m", "echo", "--json"], ["models"], ["models", "--json"]], ids=" ".join)
def test_a_closed_stdout_is_no_reason_for_a_traceback(daemon: Daemon, command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with running(daemon, *command, stdin=subprocess.DEVNULL, stdout=writing) as process:
        os.close(writing)
        assert process.wait(timeout=END_S) == 1
        assert some(process.stderr, -1) == b""


@pytest.mark.parametrize("length", [200_000, 5_000_000])
def test_a_prompt_over_the_daemon_s_cap_is_told_so(world: World, length: int) -> None:
    config = world.config("daemon: {parse_cap_bytes: 100000}\nrunners: {echo: {kind: echo}}\n")
    with world.daemon(config):
        done = world.runnerd("chat", "-m", "echo", stdin=b"x" * length)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"passes the cap of 100000 bytes" in done.stderr


async def test_a_daemon_that_goes_away_in_the_middle_is_told_so(world: World) -> None:
    with world.daemon(world.config("runners:\n" + entry(world, "held", HELD))) as killed:
        with running(killed, "chat", "-m", "held", "Hi") as process:
            assert some(process.stdout, len(b"so far")) == b"so far"
            killed.process.kill()
            killed.wait()
            rest, errors = process.communicate(timeout=END_S)

        async def nothing_is_left() -> bool:
            return not world.processes()

        assert await until(nothing_is_left)
    assert (process.returncode, rest) == (1, b"")
    assert errors.decode().startswith("runnerd: the daemon went away")
