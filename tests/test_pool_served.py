"""Kept sessions in a real daemon: what its clients see of them, and what is left of them."""

import asyncio
import json
import signal
from typing import Any

import psutil
import pytest

from tests.installed import Installed
from tests.world import Daemon, Wire, World, assistant, system, until, user

Row = dict[str, Any]
ECHO = "runners: {echo: {kind: echo}}\n"
KEPT = "runners: {echo: {kind: echo, warm: 0}}\n"


async def row(wire: Wire, name: str = "echo") -> Row:
    """What `status` has of a runner."""
    rows = (await wire.call("status"))["result"]["runners"]
    found: list[Row] = [row for row in rows if row["name"] == name]
    return found[0]


async def workers(wire: Wire, *states: str, name: str = "echo") -> list[Row]:
    """The workers of a runner, as soon as they are in these states."""

    async def are() -> list[Row] | bool | None:
        found = (await row(wire, name))["workers"]
        return (found or True) if sorted(worker["state"] for worker in found) == sorted(states) else None

    seen = await until(are)
    return seen if isinstance(seen, list) else []


async def asked(wire: Wire, messages: list[Row], model: str = "echo:request", **fields: Any) -> Row:
    """The result of a chat; what `echo:request` was sent is under `told`, as (role, text)."""
    chunks, response = await wire.read_until_response(
        await wire.request("chat", model=model, messages=messages, **fields)
    )
    result: Row = response["result"]
    [start] = [chunk for chunk in chunks if chunk["type"] == "start"]
    assert (start["served"], start["session_s"]) == (result["served"], result["session_s"])
    assert result["session_s"] >= 0
    if model == "echo:request":
        told = json.loads(result["content"])
        texts = [(m["role"], "".join(part["text"] for part in m["content"]).strip()) for m in told["messages"]]
        result |= {"system": told["system"], "told": texts}
    return result


def after(messages: list[Row], answer: Row, text: str) -> list[Row]:
    """The conversation with its answer, as an editor keeps it, and one more question."""
    return [*messages, assistant(answer["content"] + "\n"), *user(text)]


def read(messages: list[Row]) -> list[tuple[str, str]]:
    """What a model is to have read of them, in the end."""
    texts = [(message["role"], message["content"]) for message in messages if message["role"] != "system"]
    return [(role, text.strip()) for role, text in texts]


async def test_a_follow_up_goes_on_in_the_same_process_which_has_read_each_message_once(world: World) -> None:
    with world.daemon(world.config(ECHO)):
        async with await Wire.connect(world.socket) as wire:
            messages = [*system("Be brief."), *user("one")]
            answers = []
            for text in ("two", "three", ""):
                answer = await asked(wire, messages)
                assert (answer["told"], answer["system"]) == (read(messages), "Be brief.")
                answers.append(answer)
                messages = after(messages, answer, text)
            assert [answer["served"] for answer in answers] == ["cold", "continued", "continued"]
            [kept] = [worker for worker in await workers(wire, "idle", "idle") if worker["turns"]]
            assert (kept["model"], kept["turns"]) == ("request", 3)
            served = (await row(wire))["served"]
            assert {how: tally["chats"] for how, tally in served.items()} == {"cold": 1, "continued": 2}
            assert all(tally["session_s"] >= 0 for tally in served.values())


async def test_the_second_new_chat_finds_a_process_that_waits_for_it(world: World) -> None:
    with world.daemon(world.config(ECHO)):
        async with await Wire.connect(world.socket) as wire:
            assert (await asked(wire, user("one")))["served"] == "cold"
            pids = {worker["pid"] for worker in await workers(wire, "idle", "idle")}
            # Whatever the system prompt: nothing was said to it yet.
            answer = await asked(wire, [*system("Be brief."), *user("two")])
            assert (answer["served"], answer["told"], answer["system"]) == ("warm", [("user", "two")], "Be brief.")
            assert pids < {worker["pid"] for worker in await workers(wire, "idle", "idle", "idle")}


async def test_clients_that_ask_the_same_at_once_have_a_process_each_and_read_nothing_of_each_other(
    world: World,
) -> None:
    with world.daemon(world.config(KEPT)):
        async with await Wire.connect(world.socket) as wire:
            first = await asked(wire, user("one"))
            clients = [await Wire.connect(world.socket) for _ in range(4)]
            again = after(user("one"), first, "two")
            answers = await asyncio.gather(*(asked(client, again) for client in clients))
            assert [answer["told"] for answer in answers] == [read(again)] * 4
            assert sorted(answer["served"] for answer in answers) == ["cold", "cold", "cold", "continued"]
            last = [after(again, answer, f"three {number}") for number, answer in enumerate(answers)]
            ends = await asyncio.gather(*(asked(c, m) for c, m in zip(clients, last, strict=True)))
            assert [end["told"] for end in ends] == [read(messages) for messages in last]
            assert [end["served"] for end in ends] == ["continued"] * 4
            for client in clients:
                await client.close()


@pytest.mark.parametrize("edit", ["question", "answer", "system", "cut"])
async def test_who_edits_its_history_is_answered_by_who_has_read_that_alone(world: World, edit: str) -> None:
    with world.daemon(world.config(KEPT)):
        async with await Wire.connect(world.socket) as wire:
            messages = after(user("one"), await asked(wire, user("one")), "two")
            edited = {
                "question": [*user("1"), *messages[1:]],
                "answer": [messages[0], assistant("No."), messages[2]],
                "system": [*system("Be brief."), *messages],
                "cut": messages[2:],
            }[edit]
            answer = await asked(wire, edited)
            assert (answer["served"], answer["told"]) == ("cold", read(edited))
            # Who did not edit finds its own.
            answer = await asked(wire, messages)
            assert (answer["served"], answer["told"]) == ("continued", read(messages))


async def test_who_leaves_in_the_middle_leaves_nothing_to_the_next_chat(world: World) -> None:
    with world.daemon(world.config(KEPT)):
        async with await Wire.connect(world.socket) as wire:
            leaving = await Wire.connect(world.socket)
            await leaving.request("chat", model="echo", messages=user("secret " * 1_000_000))
            while (await leaving.read())["params"]["chunk"]["type"] != "text":
                pass
            await leaving.close()
            await workers(wire)
            assert (await asked(wire, user("Hi")))["told"] == [("user", "Hi")]


@pytest.mark.parametrize("warm", [0, 1])
async def test_a_cli_that_was_killed_between_turns_is_replaced_and_told_everything(world: World, warm: int) -> None:
    with world.daemon(world.config(f"runners: {{echo: {{kind: echo, warm: {warm}}}}}\n")):
        async with await Wire.connect(world.socket) as wire:
            messages = after(user("one"), await asked(wire, user("one")), "two")
            kept = await workers(wire, *["idle"] * (1 + warm))
            [used] = [worker for worker in kept if worker["turns"]]
            psutil.Process(used["pid"]).kill()
            await workers(wire, *["idle"] * warm)
            answer = await asked(wire, messages)
            assert (answer["served"], answer["told"]) == ("warm" if warm else "cold", read(messages))


async def test_a_cli_that_is_killed_as_its_follow_up_comes_costs_no_answer(world: World) -> None:
    with world.daemon(world.config(KEPT)):
        async with await Wire.connect(world.socket) as wire:
            messages = user("one")
            for number in range(5):
                answer = await asked(wire, messages)
                assert answer["told"] == read(messages)
                messages = after(messages, answer, str(number))
                for worker in (await row(wire))["workers"]:
                    psutil.Process(worker["pid"]).kill()


async def test_a_reload_ends_what_is_kept_of_changed_and_removed_runners_and_of_no_other(world: World) -> None:
    def runners(**others: str) -> str:
        entries = {"same": "kind: echo, warm: 0", **others}
        return "runners: {" + ", ".join(f"{name}: {{{entry}}}" for name, entry in entries.items()) + "}\n"

    with world.daemon(world.config(runners(changed="kind: echo", removed="kind: echo"))):
        async with await Wire.connect(world.socket) as wire:
            first = {name: await asked(wire, user(name), name) for name in ("same", "changed", "removed")}
            gone = [await workers(wire, "idle", "idle", name=name) for name in ("changed", "removed")]
            processes = [psutil.Process(worker["pid"]) for found in gone for worker in found]
            world.config(runners(changed="kind: echo, max_running: 2"))
            await wire.call("reload")

            async def are_gone() -> bool:
                return not any(process.is_running() for process in processes)

            await until(are_gone)
            served = {
                name: (await asked(wire, after(user(name), first[name], "more"), name))["served"]
                for name in ("same", "changed")
            }
            assert served == {"same": "continued", "changed": "cold"}


async def test_a_smaller_limit_of_memory_holds_as_soon_as_it_is_read(world: World) -> None:
    with world.daemon(world.config(KEPT)):
        async with await Wire.connect(world.socket) as wire:
            await asked(wire, user("one"))
            await workers(wire, "idle")
            world.config("daemon: {max_cli_memory: 1MB}\n" + KEPT)
            await wire.call("reload")
            assert (await wire.call("status"))["result"]["max_cli_memory_bytes"] == 10**6
            await workers(wire)
            # Where nobody else runs a chat is answered however little there is.
            assert (await asked(wire, user("one")))["told"] == [("user", "one")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_daemon_that_ends_leaves_nothing_of_what_it_kept(world: World, number: signal.Signals) -> None:
    with world.daemon(world.config(ECHO)) as daemon:
        async with await Wire.connect(world.socket) as wire:
            await asked(wire, user("one"))
            kept = await workers(wire, "idle", "idle")
            assert all(psutil.pid_exists(worker["pid"]) for worker in kept)
        daemon.signal(number)
        daemon.wait()

        async def nobody_is_left() -> bool:
            return not world.processes()

        await until(nobody_is_left)


# Who is warm before anybody asks


async def warmed(wire: Wire, name: str) -> Row:
    [worker] = await workers(wire, "idle", name=name)
    return worker


@pytest.mark.parametrize(("top", "warm"), [("", "first"), ("default: second\n", "second")])
async def test_who_answers_by_default_is_ready_before_anybody_asks_and_no_other(
    world: World, top: str, warm: str
) -> None:
    Installed(world).claude()
    entries = "runners: {first: {kind: claude}, second: {kind: claude}, echo: {kind: echo}}\n"
    with world.daemon(world.config(top + entries)):
        async with await Wire.connect(world.socket) as wire:
            assert (await warmed(wire, warm))["turns"] == 0
            response = await wire.call("chat", messages=user("Hi"))
            assert (response["result"]["runner"], response["result"]["served"]) == (warm, "warm")
            for other in {"first", "second", "echo"} - {warm}:
                assert (await row(wire, other))["workers"] == []


async def test_after_a_reload_the_new_default_is_ready_and_the_old_one_no_more(world: World) -> None:
    Installed(world).claude()
    entries = "runners: {a: {kind: claude, idle_ttl_s: 0.1}, b: {kind: claude}}\n"
    with world.daemon(world.config("default: a\n" + entries)):
        async with await Wire.connect(world.socket) as wire:
            await warmed(wire, "a")
            world.config("default: b\n" + entries)
            await wire.call("reload")
            await warmed(wire, "b")
            await workers(wire, name="a")


async def test_a_default_that_is_not_there_is_not_started(world: World) -> None:
    Installed(world)
    with world.daemon(world.config("default: a\nrunners: {a: {kind: claude}}\n")) as daemon:
        async with await Wire.connect(world.socket) as wire:
            health = await wire.call("health", runner="a")
            assert health["result"]["runners"][0]["reason"] == "not_installed"
            assert (await row(wire, "a"))["workers"] == []
        assert said(daemon, "worker.not_started") == []


def said(daemon: Daemon, event: str) -> list[Row]:
    return [entry for entry in daemon.log if entry["event"] == event]
