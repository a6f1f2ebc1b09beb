"""`runnerd chat` where no daemon runs, or one of another version: who starts one, with what, and what becomes of it."""

import fcntl
import json
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from daemon.client import Client
from daemon.errors import DaemonError
from tests.programs import ECHO, HELD, RECORDING, entry, record
from tests.world import END_S, Daemon, Wire, World, until

CHAT = ["chat", "-m", "echo", "Hi"]
OLD = "import sys, daemon; daemon.__version__ = '0.0.9'; sys.argv[0] = 'runnerd'; import runnerd; runnerd.main()"
HASTY = "import sys, daemon.autostart as a; a.START_S = 2; sys.argv[0] = 'runnerd'; import runnerd; runnerd.main()"


@pytest.fixture
def place(world: World) -> Iterator[World]:
    """A world whose runners.yaml has an echo. The daemon that its test has left running is stopped."""
    world.env["RUNNERD_CONFIG"] = str(world.config(f"runners:\n{ECHO}"))
    yield world
    assert world.runnerd("stop").returncode in (0, 69)


def told(world: World, *command: str) -> Any:
    """What a command prints as JSON."""
    done = world.runnerd(*command, "--json")
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def daemon_of(world: World) -> psutil.Process:
    return psutil.Process(told(world, "status")["pid"])


def log_of(world: World) -> Path:
    return world.state / "runnerd" / "runnerd.log"


def logged(world: World, event: str) -> int:
    """How often the daemons have logged an event."""
    return log_of(world).read_text().count(f'"event": "{event}"')


async def has_logged(world: World, event: str) -> bool:
    return logged(world, event) > 0


async def is_starting(world: World) -> bool:
    """Whether a command is about to start a daemon: none but it may."""
    with world.socket.with_name("autostart.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def begun(world: World, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that runs."""
    command = [sys.executable, "-m", "runnerd", *arguments]
    with subprocess.Popen(command, env=world.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def is_answered(done: "subprocess.CompletedProcess[bytes]") -> bool:
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Hi", b"")
    return True


def test_the_first_chat_starts_a_daemon_and_the_next_one_uses_it(place: World) -> None:
    assert is_answered(place.runnerd(*CHAT))
    first = daemon_of(place)
    assert is_answered(place.runnerd(*CHAT))
    assert daemon_of(place) == first
    assert told(place, "status")["autostarted"] is True


def test_a_whole_answer_in_json_starts_one_too(place: World) -> None:
    assert told(place, *CHAT)["content"] == "Hi"


def test_ten_chats_at_once_start_one_daemon(place: World) -> None:
    with ThreadPoolExecutor(10) as threads:
        assert all(threads.map(lambda _: is_answered(place.runnerd(*CHAT)), range(10)))
    assert logged(place, "daemon.ready") == 1
    assert [process.pid for process in place.processes()] == [daemon_of(place).pid]


def test_it_leads_a_session_of_its_own_at_the_root_and_holds_no_terminal(place: World) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "runnerd", *CHAT]
    done = subprocess.run(command, env=place.env, stdin=theirs, stdout=theirs, stderr=theirs, timeout=60, check=False)
    os.close(theirs)
    assert done.returncode == 0
    daemon = daemon_of(place)
    assert (daemon.cwd(), os.getsid(daemon.pid), daemon.terminal()) == ("/", daemon.pid, None)
    if sys.platform == "linux":
        opened = {str(link.readlink()) for link in Path(f"/proc/{daemon.pid}/fd").iterdir()}
        assert not [path for path in opened if path.startswith("/dev/pts")]
        assert str(place.socket.with_name("autostart.lock")) not in opened
    os.close(ours)


def test_its_environment_holds_what_is_allowed_and_what_the_configuration_names(place: World) -> None:
    copilot = "{type: openai, base_url: 'http://127.0.0.1:1', api_key_env: MY_KEY}"
    place.config(
        "runners:\n"
        + entry(place, "recording", RECORDING).replace("}\n", ", env_pass: [NAMED]}\n")
        + f"  mine: {{kind: copilot, model: m, provider: {copilot}}}\n"
        + "  ollama: {kind: ollama}\n"
    )
    allowed = {"NAMED": "1", "MY_KEY": "2", "OLLAMA_HOST": "127.0.0.1:1", "TZ": "UTC"}
    refused = {"SECRET": "3", "ANTHROPIC_API_KEY": "4", "RUNNERD_OWNER": "5", "PYTHONUNBUFFERED": "1"}
    place.env |= allowed | refused | {"PATH": f".:{place.env['PATH']}"}
    assert told(place, "chat", "-m", "recording", "Hi")["content"] == "Hi"
    names = ("HOME", "LANG", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "RUNNERD_CONFIG")
    expected = allowed | {name: place.env[name] for name in names} | {"PATH": place.env["PATH"].removeprefix(".:")}
    environment = daemon_of(place).environ()
    for name in ("LC_CTYPE", "__CF_USER_TEXT_ENCODING"):  # the systems' own
        environment.pop(name, None)
    assert environment == expected
    seen = record(place, "recording")["env"]
    assert seen["NAMED"] == "1"
    assert not {"MY_KEY", *refused.keys() - {"RUNNERD_OWNER"}} & set(seen)


def test_its_log_is_its_owner_s_alone(place: World) -> None:
    assert is_answered(place.runnerd(*CHAT))
    assert stat.S_IMODE(log_of(place).stat().st_mode) == 0o600
    assert all(json.loads(line) for line in log_of(place).read_text().splitlines())


def test_relative_paths_mean_the_directory_of_the_command(place: World) -> None:
    place.env["RUNNERD_CONFIG"] = "runners.yaml"
    for option, variable in ((["--socket", "own/a.sock"], {}), ([], {"RUNNERD_SOCKET": "own/b.sock"})):
        place.env |= variable
        assert is_answered(place.runnerd(*CHAT, *option, cwd=place.root))
        environment = psutil.Process(told_in_root(place, *option)["pid"]).environ()
        assert all(Path(environment[name]).is_absolute() for name in ("RUNNERD_CONFIG", *variable))
        assert place.runnerd("stop", *option, cwd=place.root).returncode == 0
    place.env["RUNNERD_SOCKET"] = str(place.socket)
    assert (place.root / "own" / "autostart.lock").exists()


def told_in_root(world: World, *option: str) -> Any:
    return json.loads(world.runnerd("status", "--json", *option, cwd=world.root).stdout)


def test_no_start_forbids_it(place: World) -> None:
    done = place.runnerd(*CHAT, "--no-start")
    assert (done.returncode, done.stdout) == (69, b"")
    assert b"no daemon answers on" in done.stderr
    assert place.processes() == []
    assert not place.socket.parent.exists()


@pytest.mark.parametrize("as_json", [False, True], ids=["", "--json"])
def test_a_wrong_configuration_is_told_as_serve_tells_it(place: World, as_json: bool) -> None:
    path = place.config("runners:\n  echo:\n    kind: echo\n    modle: x\n")
    done = place.runnerd(*CHAT, *["--json"] * as_json)
    assert done.returncode == 78
    message = f"{path}:4: runners.echo.modle: unknown key; did you mean model?"
    if as_json:
        assert (json.loads(done.stdout), done.stderr) == ({"error": {"message": message}}, b"")
    else:
        assert (done.stdout, done.stderr.decode()) == (b"", message + "\n")


@pytest.mark.parametrize("place_in_the_way", ["socket", "state"])
def test_a_directory_that_is_open_to_others_is_told(place: World, place_in_the_way: str) -> None:
    unsafe = place.socket.parent if place_in_the_way == "socket" else place.state / "runnerd"
    unsafe.mkdir()
    unsafe.chmod(0o755)
    done = place.runnerd(*CHAT)
    unsafe.chmod(0o700)
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"runnerd: {unsafe} is open to others" in done.stderr.decode()


def test_what_a_daemon_says_as_it_fails_is_told_with_the_place_of_its_log(place: World) -> None:
    place.socket.parent.mkdir(mode=0o700)
    place.socket.write_text("precious")
    done = place.runnerd(*CHAT)
    place.socket.unlink()
    assert (done.returncode, done.stdout) == (1, b"")
    said = done.stderr.decode()
    assert f"ended with code 1; its log is {log_of(place)}\n" in said
    assert f"{place.socket} is in the way: it is no socket" in said


def test_a_daemon_that_is_not_ready_in_time_is_ended(place: World) -> None:
    command = [sys.executable, "-c", HASTY, *CHAT]
    leases = place.state / "runnerd" / "leases"
    leases.mkdir(mode=0o700, parents=True)
    leases.parent.chmod(0o700)
    with (leases / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # a start waits for it, longer than this one may take
        done = subprocess.run(
            command, env=place.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"was not ready in 2 s" in done.stderr
    assert place.processes() == []


async def test_after_a_kill_the_next_chat_starts_a_new_daemon(place: World) -> None:
    assert is_answered(place.runnerd(*CHAT))
    killed = daemon_of(place)
    killed.kill()
    psutil.wait_procs([killed], timeout=END_S)
    assert is_answered(place.runnerd(*CHAT))
    assert daemon_of(place) != killed


async def test_a_chat_whose_daemon_was_killed_is_not_asked_again(place: World) -> None:
    place.config("runners:\n" + entry(place, "held", HELD))
    with begun(place, "chat", "-m", "held", "Hi", "--json") as process:

        async def busy() -> bool:
            done = place.runnerd("status", "--json")
            return done.returncode == 0 and json.loads(done.stdout)["runners"][0]["running"] == 1

        await until(busy)
        daemon_of(place).kill()
        printed, _ = process.communicate(timeout=END_S)

    async def nothing_is_left() -> bool:
        return not place.processes()

    assert process.returncode == 1
    assert "went away" in json.loads(printed)["error"]["message"]
    assert await until(nothing_is_left)


async def test_a_chat_that_meets_a_daemon_as_it_ends_waits_and_starts_a_new_one(place: World) -> None:
    place.config("daemon: {drain_s: 60}\nrunners:\n" + ECHO + entry(place, "held", HELD))
    assert is_answered(place.runnerd(*CHAT))
    ending = daemon_of(place)
    async with await Wire.connect(place.socket) as client:
        await client.request("chat", model="held", messages=[{"role": "user", "content": "Hi"}])
        await client.read()
        ending.send_signal(signal.SIGTERM)
        await until(lambda: has_logged(place, "daemon.draining"))
        with begun(place, *CHAT) as process:
            await until(lambda: is_starting(place))
            assert ending.is_running()
            await client.close()
            printed, _ = process.communicate(timeout=END_S)
    assert (process.returncode, printed) == (0, b"Hi")
    assert daemon_of(place) != ending


@pytest.mark.parametrize("no_start", [False, True], ids=["", "--no-start"])
def test_a_daemon_of_another_version_that_a_user_started_is_warned_of(place: World, no_start: bool) -> None:
    daemon = Daemon(place, [sys.executable, "-c", OLD, "serve"])
    try:
        daemon.wait_for("daemon.ready")
        done = place.runnerd(*CHAT, *["--no-start"] * no_start)
        assert daemon_of(place).pid == daemon.process.pid
    finally:
        daemon.end()
    assert (done.returncode, done.stdout) == (0, b"Hi")
    [warning] = done.stderr.decode().splitlines()
    assert all(word in warning for word in ("0.0.9", told_version(place), "restart it"))


def told_version(world: World) -> str:
    return world.runnerd("--version").stdout.decode().split()[-1]


def test_an_autostarted_daemon_of_another_version_is_replaced(place: World) -> None:
    old = subprocess.Popen(
        [sys.executable, "-c", OLD, "serve", "--autostarted", "--ready-fd", "1"],
        env=place.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with old:
        assert old.stdout is not None
        assert old.stdout.read() == b"ready\n"
        kept = place.runnerd(*CHAT, "--no-start")
        assert (kept.returncode, kept.stdout) == (0, b"Hi")
        assert b"restart it" in kept.stderr
        assert is_answered(place.runnerd(*CHAT))
        assert old.wait(timeout=END_S) == 0
    assert told(place, "status")["version"] == told_version(place)


def test_a_serve_that_is_marked_as_a_cli_of_another_daemon_starts_anew_without_the_mark(place: World) -> None:
    place.env |= {"RUNNERD_OWNER": "somebody", "SECRET": "3"}
    with place.daemon() as daemon:
        environment = daemon_of(place).environ()
        assert daemon_of(place).pid == daemon.process.pid
    assert not {"RUNNERD_OWNER", "SECRET"} & set(environment)
    assert environment["RUNNERD_CONFIG"] == place.env["RUNNERD_CONFIG"]


async def test_a_daemon_that_is_started_on_purpose_takes_the_place_of_an_autostarted_one(place: World) -> None:
    assert is_answered(place.runnerd(*CHAT))
    first = daemon_of(place)
    with place.daemon() as daemon:

        async def alone() -> bool:
            return [process.pid for process in place.processes()] == [daemon.process.pid]

        assert first.pid != daemon.process.pid
        await until(alone)
        assert daemon_of(place).pid == daemon.process.pid
        assert is_answered(place.runnerd(*CHAT))
        second = place.runnerd("serve")
        assert (second.returncode, f"pid {daemon.process.pid}" in second.stderr.decode()) == (1, True)


def test_chats_and_a_daemon_that_is_started_in_the_same_moment_do_not_hinder_each_other(place: World) -> None:
    for _ in range(3):
        with ThreadPoolExecutor(3) as threads:
            chats = [threads.submit(place.runnerd, *CHAT) for _ in range(2)]
            with place.daemon() as daemon:
                assert all(is_answered(chat.result()) for chat in chats)
                assert is_answered(place.runnerd(*CHAT))
                assert daemon_of(place).pid == daemon.process.pid


def test_a_daemon_that_was_stopped_is_waited_for_for_a_time_only(place: World) -> None:
    with place.daemon() as daemon:
        daemon.signal(signal.SIGSTOP)
        with Client(place.socket) as client, pytest.raises(DaemonError, match="has not answered for 0 s"):
            client.call_within(0.2, "version")
        daemon.signal(signal.SIGCONT)
