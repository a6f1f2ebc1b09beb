"""What a daemon that was killed leaves, who removes that, and what nobody may touch."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from daemon import reaper
from daemon.reaper import sweep
from runners.wire import ownership
from tests.fakes import fake_copilot
from tests.installed import Installed
from tests.programs import GATED, HELD_FAMILY, entry
from tests.subjects.copilot import TRANSCRIPTS
from tests.world import END_S, Daemon, Wire, World, until, user

ECHO = "runners: {echo: {kind: echo}}\n"
DEAD = "4194304-0123abcd"
IDLE = "import time; time.sleep(3600)"


def leases(world: World) -> Path:
    return world.state / "runnerd" / "leases"


def living(world: World) -> list[str]:
    return sorted(path.name for path in leases(world).iterdir() if path.is_dir())


def zombies_of(daemon: Daemon) -> list[int]:
    children = psutil.Process(daemon.process.pid).children()
    return [child.pid for child in children if _is_zombie(child)]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False  # it has been reaped meanwhile


def runners(world: World) -> str:
    """One of every kind of CLI, all of which hold a chat that says `[hold]`."""
    installed = Installed(world)
    installed.claude()
    installed.ollama(child=True)
    order = json.dumps({"transcript": str(TRANSCRIPTS / "headless-basic.jsonl")})
    copilot = installed.program("copilot", Path(fake_copilot.__file__).read_text(encoding="utf-8"))
    return (
        "runners:\n  claude: {kind: claude}\n  ollama: {kind: ollama}\n"
        f"  copilot: {{kind: copilot, binary: {copilot}, model: m, env: {{FAKE_CLI: '{order}'}}}}\n"
        + entry(world, "family", HELD_FAMILY)
    )


async def hold(stack: AsyncExitStack, socket: Path, model: str, text: str = "[hold]") -> Wire:
    """A client with a chat (its id is 1) that has begun."""
    wire = await stack.enter_async_context(await Wire.connect(socket))
    await wire.request("chat", model=model, messages=[*user("Hi"), {"role": "assistant", "content": "Ho"}, *user(text)])
    while (message := await wire.read()).get("params", {}).get("chunk", {}).get("type") != "text":
        assert "error" not in message, message
    return wire


async def only(world: World, *daemons: Daemon) -> None:
    """Waits until nothing but these daemons lives."""

    async def are_left() -> bool:
        return {process.pid for process in world.processes()} == {daemon.process.pid for daemon in daemons}

    assert await until(are_left)


async def test_a_daemon_killed_with_chats_leaves_nothing_once_any_other_of_its_state_directory_starts(
    world: World,
) -> None:
    text = runners(world)
    async with AsyncExitStack() as stack:
        with world.daemon(world.config(text)) as killed:
            for model in ("claude", "claude", "copilot", "ollama", "family", "family"):
                await hold(stack, world.socket, model)
            [lease] = living(world)
            files = [path.name for path in (leases(world) / lease).rglob("*")]
            assert {"lock", "tmp", "conversations"} <= set(files)
            # Six chats on five CLIs and a server with its child, two of them with a child and a daemon.
            assert len(world.processes()) >= 11
            killed.signal(signal.SIGKILL)
            killed.wait()
    assert living(world) == [lease]
    with world.daemon(world.config(ECHO), "--socket", str(world.root / "other.sock")) as daemon:
        swept = daemon.wait_for("reaper.swept")
        assert swept["owner"] == lease
        assert swept["killed"] >= 2
        await only(world, daemon)
        [mine] = living(world)
        assert mine != lease
    assert living(world) == []
    left = {path.name for path in world.state.rglob("*")}
    assert not left & {"conversations", "tmp", lease}


async def test_a_daemon_that_lives_on_another_socket_is_not_touched(world: World) -> None:
    text = "runners:\n" + entry(world, "family", HELD_FAMILY) + entry(world, "gated", GATED)
    async with AsyncExitStack() as stack:
        with world.daemon(world.config(text)) as first:
            await hold(stack, world.socket, "family")
            gated = await hold(stack, world.socket, "gated")

            async def are_only_those_that_stay() -> bool:
                return len(world.processes()) == 5  # and no probe: the daemon, the family of three, the gated one

            assert await until(are_only_those_that_stay)
            before = {process.pid for process in world.processes()}
            with world.daemon(world.config(ECHO), "--socket", str(world.root / "other.sock")) as second:
                assert len(living(world)) == 2
                assert {process.pid for process in world.processes()} > before
            assert not [event for event in second.log if event["event"].startswith("reaper.")]
            assert len(living(world)) == 1
            assert {process.pid for process in world.processes()} == before
            (world.root / "gated.open").touch()
            assert (await gated.read_until_response(1))[1]["result"]["content"] == "so far, so good"
            first.signal(signal.SIGTERM)
            first.wait_for("daemon.draining")
            first.signal(signal.SIGTERM)
            assert first.wait() == 0
    assert world.processes() == []


async def test_what_a_cli_that_died_had_started_dies_with_its_chat_and_is_no_zombie(world: World) -> None:
    with world.daemon(world.config("runners:\n" + entry(world, "family", HELD_FAMILY))) as daemon:
        async with AsyncExitStack() as stack:
            wire = await hold(stack, world.socket, "family")
            [row] = (await wire.call("status"))["result"]["runners"]
            [pid] = [worker["pid"] for worker in row["workers"] if worker["state"] == "busy"]  # else it is a probe's
            psutil.Process(pid).kill()
            assert (await wire.read_until_response(1))[1]["error"]["data"]["kind"] == "process_exited"
            await only(world, daemon)

            async def is_alone() -> bool:
                return not psutil.Process(daemon.process.pid).children(recursive=True)

            assert await until(is_alone)


async def test_orphans_of_a_cli_that_runs_do_not_stay_zombies_of_the_daemon(world: World) -> None:
    source = HELD_FAMILY.replace("time.sleep(3600)", "pass")
    with world.daemon(world.config("runners:\n" + entry(world, "family", source))) as daemon:
        async with AsyncExitStack() as stack:
            await hold(stack, world.socket, "family")

            async def are_gone() -> bool:
                return not zombies_of(daemon)

            assert await until(are_gone)


def test_odd_names_are_left_alone(world: World) -> None:
    names = ["abc", "12-ABCDEF01", "12-0123456789", "-01234567", "x12-01234567", ".12-01234567"]
    for name in names:
        (leases(world) / name).mkdir(parents=True)
        (leases(world) / name / "lock").touch()
    env = {**world.env, ownership.VARIABLE: "abc/1"}
    with subprocess.Popen([sys.executable, "-c", IDLE], env=env) as process:
        with capture_logs() as logged:
            sweep(world.state / "runnerd")
        assert (living(world), logged, process.poll()) == (sorted(names), [], None)
        process.kill()


def test_a_lease_that_cannot_be_swept_is_told_and_keeps_no_other_from_it(world: World) -> None:
    places = leases(world)
    places.mkdir(parents=True)
    kept = world.root / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (places / "1-00000000").write_text("no directory")
    (places / "2-00000000").symlink_to(kept)
    (places / DEAD).mkdir()
    (places / DEAD / "lock").touch()
    with capture_logs() as logged:
        sweep(world.state / "runnerd")
    told = {(event["event"], Path(event.get("lease", event.get("owner", ""))).name) for event in logged}
    assert told == {("reaper.failed", "1-00000000"), ("reaper.swept", DEAD)}
    assert (kept / "file").exists()
    assert not (places / DEAD).exists()


def test_a_lease_without_its_lock_proves_nothing_and_nobody_is_killed_for_it(world: World) -> None:
    (leases(world) / DEAD).mkdir(parents=True)
    env = {**world.env, ownership.VARIABLE: f"{DEAD}/1"}
    with subprocess.Popen([sys.executable, "-c", IDLE], env=env) as process:
        sweep(world.state / "runnerd")
        assert process.poll() is None
        (leases(world) / DEAD / "lock").touch()
        sweep(world.state / "runnerd")
        assert process.wait(END_S) == -signal.SIGKILL
    assert living(world) == []


def test_a_process_that_was_stopped_while_it_swept_holds_up_nobody_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "_LOCKED_AT_MOST_S", 0.2)
    lock = world.state / "leases" / "lock"
    lock.parent.mkdir(mode=0o700)
    with lock.open("w") as held, capture_logs() as told:
        fcntl.flock(held, fcntl.LOCK_EX)
        sweep(world.state)
        with pytest.raises(TimeoutError, match="lock is held by another process"):
            reaper.Lease(world.state)
    assert [event["event"] for event in told] == ["reaper.failed"]


def test_a_state_directory_without_leases_is_clean(world: World) -> None:
    with capture_logs() as logged:
        sweep(world.state / "runnerd")
        sweep(world.state / "runnerd" / "nowhere")
    assert logged == []
    assert list(world.state.iterdir()) == []


def spoiled(world: World, how: str) -> None:
    places = leases(world)
    places.parent.mkdir(mode=0o700)
    match how:
        case "a file":
            places.touch()
        case "a lock that is a directory":
            (places / "lock").mkdir(parents=True)
            places.chmod(0o700)
        case "open to others":
            places.mkdir(mode=0o755)
            places.chmod(0o755)


@pytest.mark.parametrize("how", ["a file", "a lock that is a directory", "open to others"])
async def test_a_daemon_that_can_have_no_lease_says_so_and_serves(world: World, how: str) -> None:
    spoiled(world, how)
    with world.daemon(world.config(ECHO)) as daemon:
        failed = daemon.wait_for("lease.failed")
        assert failed["level"] == "warning"
        assert str(world.state / "runnerd") in failed["error"]
        async with await Wire.connect(world.socket) as wire:
            assert (await wire.call("chat", model="echo", messages=user("Hi")))["result"]["content"] == "Hi"
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    await only(world)


@pytest.mark.parametrize("what", ["its lease", "all leases", "the state directory"])
async def test_a_daemon_whose_lease_was_removed_ends_well(world: World, what: str) -> None:
    with world.daemon(world.config(ECHO)) as daemon:
        [lease] = living(world)
        gone = {"its lease": leases(world) / lease, "all leases": leases(world)}.get(what, world.state / "runnerd")
        shutil.rmtree(gone)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
        assert not [event for event in daemon.log if event["event"] == "not JSON"]
