"""A new runners.yaml while the daemon runs: what changes, what goes on as it began, what a bad file does."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.programs import ECHO, GATED, KEEPS_NOTHING, entry
from tests.world import END_S, Daemon, Wire, World, until, user


def write(world: World, *entries: str, top: str = "") -> Path:
    return world.config(f"{top}runners:\n" + "".join(entries))


async def begun(world: World, model: str = "gated") -> Wire:
    """A client with a chat (its id is 1) that has begun."""
    wire = await Wire.connect(world.socket)
    await wire.request("chat", model=model, messages=user("Hi"))
    while (await wire.read())["params"]["chunk"]["type"] != "text":
        pass
    return wire


async def reload(wire: Wire) -> dict[str, Any]:
    result = (await wire.call("reload"))["result"]
    assert isinstance(result, dict)
    return result


async def names(wire: Wire) -> list[str]:
    return [row["name"] for row in (await wire.call("runners"))["result"]["runners"]]


def events(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    return [event for event in daemon.log if event["event"] == name]


async def test_what_was_added_changed_and_removed_is_told_and_served(world: World) -> None:
    config = write(world, ECHO, "  old: {kind: echo}\n", "  other: {kind: echo}\n", top="aliases: {a: echo}\n")
    with world.daemon(config) as daemon:
        async with await Wire.connect(world.socket) as wire:
            write(
                world,
                "  new: {kind: echo}\n",
                "  other: {kind: echo, model: request}\n",
                ECHO,
                top="aliases: {b: new}\n",
            )
            assert await reload(wire) == {
                "ok": True,
                "config": str(config),
                "added": ["new"],
                "changed": ["other"],
                "removed": ["old"],
                "needs_restart": [],
            }
            assert daemon.wait_for("daemon.reloaded")["changed"] == ["other"]
            assert await names(wire) == ["new", "other", "echo"]
            assert (await wire.call("chat", model="b", messages=user("Hi")))["result"]["runner"] == "new"
            assert (await wire.call("chat", model="other", messages=user("Hi")))["result"]["model"] == "request"
            for gone in ("old", "a"):
                assert (await wire.call("chat", model=gone, messages=user("Hi")))["error"]["data"]["kind"] == (
                    "model_not_found"
                )
            done = world.runnerd("reload")
            assert (done.returncode, done.stdout.decode()) == (0, f"{config}: no runner has changed\n")
            again = json.loads(world.runnerd("reload", "--json").stdout)
            assert (again["added"], again["changed"], again["removed"]) == ([], [], [])


async def test_chats_of_runners_that_change_or_go_end_as_they_began_and_then_their_processes(world: World) -> None:
    gated = entry(world, "gated", GATED)
    config = write(world, ECHO, gated, gated.replace("gated: ", "removed: "))
    with world.daemon(config) as daemon:
        chats = [await begun(world, model) for model in ("gated", "removed")]
        async with await Wire.connect(world.socket) as wire:
            write(world, ECHO, f"  gated: {{kind: echo, model: request, {KEEPS_NOTHING}}}\n")
            result = await reload(wire)
            assert (result["changed"], result["removed"]) == (["gated"], ["removed"])
            # Who asks now is served by the new settings, while the old ones hold a chat.
            assert (await wire.call("chat", model="gated", messages=user("Hi")))["result"]["model"] == "request"
            (world.root / "gated.open").touch()
            for chat in chats:
                assert (await chat.read_until_response(1))[1]["result"]["content"] == "so far, so good"
                await chat.close()

            async def only_the_daemon() -> bool:
                return [process.pid for process in world.processes()] == [daemon.process.pid]

            assert await until(only_the_daemon)
            assert (await wire.call("chat", model="gated", messages=user("Hi")))["result"]["model"] == "request"


async def test_a_runner_whose_entry_has_not_changed_keeps_its_processes_and_what_is_known_of_it(world: World) -> None:
    gated = entry(world, "gated", GATED)
    with world.daemon(write(world, gated, ECHO)) as daemon:
        chat = await begun(world)
        async with await Wire.connect(world.socket) as wire:

            async def worker() -> dict[str, Any]:
                [row] = [row for row in (await wire.call("status"))["result"]["runners"] if row["name"] == "gated"]
                [busy] = [worker for worker in row["workers"] if worker["state"] == "busy"]
                return {"pid": busy["pid"], "running": row["running"], "state": row["state"]}

            await wire.call("health")
            before = await worker()
            write(world, "  new: {kind: echo}\n", gated)
            await reload(wire)
            assert await worker() == before
            assert before["running"] == 1
            (world.root / "gated.open").touch()
            assert (await chat.read_until_response(1))[1]["result"]["content"] == "so far, so good"
            await chat.close()
    assert len([e for e in events(daemon, "runner.health") if e["runner"] == "gated"]) == 1


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("runners:\n  echo: {kind: echo}\n  new: {kind: nonsense}\n", ":3: runners.new.kind"),
        ("runners:\n  echo: {kind: echo, wrong: 1}\n", ":2: runners.echo.wrong"),
        ("runners: [\n", ":2: not YAML"),
        ("fallback: [nobody]\nrunners: {echo: {kind: echo}}\n", ":1: fallback[0]"),
        (None, ": no such file"),
    ],
    ids=["kind", "key", "no YAML", "reference", "no file"],
)
async def test_a_bad_file_changes_nothing_and_its_mistake_is_named(
    world: World, text: str | None, mistake: str
) -> None:
    config = write(world, ECHO, "  kept: {kind: echo}\n")
    with world.daemon(config) as daemon:
        config.unlink()
        if text is not None:
            config.write_text(text)
        async with await Wire.connect(world.socket) as wire:
            error = (await wire.call("reload"))["error"]
            assert (error["code"], error["data"]["kind"]) == (-32010, "config")
            assert f"{config}{mistake}" in error["message"]
            assert f"{config}{mistake}" in daemon.wait_for("daemon.kept_configuration")["error"]
            done = world.runnerd("reload")
            assert (done.returncode, done.stdout) == (78, b"")
            assert f"{config}{mistake}" in done.stderr.decode()
            assert await names(wire) == ["echo", "kept"]
            assert (await wire.call("chat", model="kept", messages=user("Hi")))["result"]["content"] == "Hi"
            write(world, ECHO)
            assert (await reload(wire))["removed"] == ["kept"]


async def test_sighup_reloads_too_and_a_bad_file_is_told_in_the_log(world: World) -> None:
    config = write(world, ECHO)
    with world.daemon(config) as daemon:
        config.write_text("runners: []\n")
        daemon.signal(signal.SIGHUP)
        assert f"{config}:1: runners" in daemon.wait_for("daemon.kept_configuration")["error"]
        write(world, ECHO, "  new: {kind: echo}\n")
        daemon.signal(signal.SIGHUP)
        assert daemon.wait_for("daemon.reloaded")["added"] == ["new"]
        async with await Wire.connect(world.socket) as wire:
            assert await names(wire) == ["echo", "new"]


async def test_a_storm_of_sighups_with_chats_and_changing_files_harms_nothing(world: World) -> None:
    busy = f"  busy: {{kind: echo, {KEEPS_NOTHING}, max_tokens: "
    texts = [f"runners:\n{ECHO}{busy}{number}}}\n" for number in range(1, 4)] + ["runners: [\n"]
    config = world.config(texts[0])
    with world.daemon(config) as daemon:
        async with await Wire.connect(world.socket) as wire:
            for number in range(40):
                # In one step: a half-written file would be a bad one.
                part = config.with_suffix(".part")
                part.write_text(texts[number % 4])
                part.replace(config)
                daemon.signal(signal.SIGHUP)
                if number % 4 == 0:
                    answer = await wire.call("chat", model="busy", messages=user("Hi"))
                    assert answer["result"]["content"] == "Hi"
            config.write_text(texts[0])
            await reload(wire)
            assert await names(wire) == ["echo", "busy"]
            process = psutil.Process(daemon.process.pid)

            async def has_no_child() -> bool:
                return not process.children(recursive=True)

            assert await until(has_no_child)
        daemon.signal(signal.SIGHUP)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0
    assert not events(daemon, "not JSON")
    assert [event for event in daemon.log if event["level"] not in ("info", "error")] == []
    assert {event["event"] for event in daemon.log if event["level"] == "error"} <= {"daemon.kept_configuration"}


async def test_a_daemon_that_drains_reloads_no_more(world: World) -> None:
    gated = entry(world, "gated", GATED)
    with world.daemon(write(world, gated, ECHO)) as daemon:
        chat = await begun(world)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("daemon.draining")
        write(world, ECHO, "  new: {kind: echo}\n")
        daemon.signal(signal.SIGHUP)
        async with await Wire.connect(world.socket) as wire:
            assert await names(wire) == ["gated", "echo"]
        (world.root / "gated.open").touch()
        assert (await chat.read_until_response(1))[1]["result"]["content"] == "so far, so good"
        await chat.close()
        assert daemon.wait() == 0
    assert world.processes() == []


async def test_a_socket_that_changed_takes_a_restart_and_that_is_told(world: World) -> None:
    with world.daemon(write(world, ECHO)):
        write(world, ECHO, top=f"daemon: {{socket: {world.root / 'other.sock'}}}\n")
        done = world.runnerd("reload")
        assert (done.returncode, done.stderr) == (0, b"daemon.socket has changed, and takes a restart (runnerd stop)\n")
        async with await Wire.connect(world.socket) as wire:
            assert (await reload(wire))["needs_restart"] == []
        assert not (world.root / "other.sock").exists()


async def test_a_new_longest_line_holds_for_connections_that_come_later(world: World) -> None:
    with world.daemon(write(world, ECHO)):
        async with await Wire.connect(world.socket) as early:
            write(world, ECHO, top="daemon: {parse_cap_bytes: 2048}\n")
            await reload(early)
            long = user("x" * 4000)
            assert (await early.call("chat", model="echo", messages=long))["result"]["content"] == "x" * 4000
            async with await Wire.connect(world.socket) as late:
                assert (await late.call("chat", model="echo", messages=user("Hi")))["result"]["content"] == "Hi"
                await late.request("chat", model="echo", messages=long)
                assert (await late.read())["error"]["data"]["kind"] == "line_too_long"


async def test_the_service_manager_is_told_of_a_reload_and_of_its_end_also_of_a_bad_one(world: World) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(world.root / "notify"))
        manager.settimeout(END_S)
        world.env["NOTIFY_SOCKET"] = str(world.root / "notify")
        config = write(world, ECHO)

        def told() -> str:
            return manager.recv(4096).decode().partition("\n")[0]

        with world.daemon(config) as daemon:
            assert told() == "READY=1"
            for text in ("runners: [\n", f"runners:\n{ECHO}"):
                config.write_text(text)
                daemon.signal(signal.SIGHUP)
                assert [told(), told()] == ["RELOADING=1", "READY=1"]


async def test_a_chat_that_waits_in_the_queue_of_a_runner_that_changes_is_answered_by_the_old_one(world: World) -> None:
    gated = entry(world, "gated", GATED, "max_running: 1")
    with world.daemon(write(world, gated)):
        first = await begun(world)
        async with await Wire.connect(world.socket) as second, await Wire.connect(world.socket) as wire:
            waiting = await second.request("chat", model="gated", messages=user("Hi"))

            async def is_queued() -> bool:
                return bool((await wire.call("status"))["result"]["runners"][0]["queued"])

            assert await until(is_queued)
            write(world, ECHO)
            assert (await reload(wire))["removed"] == ["gated"]
            (world.root / "gated.open").touch()
            assert (await first.read_until_response(1))[1]["result"]["content"] == "so far, so good"
            assert (await second.read_until_response(waiting))[1]["result"]["content"] == "so far, so good"
            await first.close()


async def test_chats_that_a_reload_leaves_as_they_were_count_against_the_new_limit(world: World) -> None:
    with world.daemon(write(world, entry(world, "gated", GATED, "max_running: 2"))):
        first = await begun(world)
        async with await Wire.connect(world.socket) as wire, await Wire.connect(world.socket) as second:
            for attempts in range(1, 4):
                write(world, entry(world, "gated", GATED, f"max_running: 1, retry: {{attempts: {attempts}}}"))
                assert (await reload(wire))["changed"] == ["gated"]
            waiting = await second.request("chat", model="gated", messages=user("Hi"))

            async def load() -> tuple[int, int, int]:
                [row] = (await wire.call("status"))["result"]["runners"]
                return row["running"], row["queued"], len(row["workers"])

            async def one_waits() -> bool:
                return await load() == (1, 1, 1)

            assert await until(one_waits)
            (world.root / "gated.open").touch()
            assert (await first.read_until_response(1))[1]["result"]["content"] == "so far, so good"
            assert (await second.read_until_response(waiting))[1]["result"]["content"] == "so far, so good"
            await first.close()
