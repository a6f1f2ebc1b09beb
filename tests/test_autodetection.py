"""`runnerd serve` without a configuration: who answers is who is installed."""

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.installed import Installed
from tests.subjects.ollama import FakeOllama, server
from tests.world import Wire, World, user

MODELS = {
    "qwen3:8b": {"capabilities": ["completion", "tools", "thinking"], "context_length": 40960},
    "llama3.2:latest": {"capabilities": ["completion", "tools"], "context_length": 131072},
    "nomic-embed-text:latest": {"capabilities": ["embedding"], "context_length": 2048},
}

QWEN = MODELS["qwen3:8b"]


@pytest.fixture
def installed(world: World) -> Installed:
    return Installed(world)


async def asked(world: World, **params: Any) -> dict[str, Any]:
    """The result of a chat at a daemon that runs, or its error's data and message."""
    async with await Wire.connect(world.socket) as wire:
        answer = await wire.call("chat", messages=user("Hi"), **params)
    if "result" in answer:
        assert answer["result"]["content"] == "Hi"
    return (
        answer["result"] if "result" in answer else {"message": answer["error"]["message"], **answer["error"]["data"]}
    )


async def test_where_only_ollama_is_installed_a_chat_that_names_nobody_is_answered_by_its_newest_model(
    world: World, installed: Installed
) -> None:
    installed.ollama(models=MODELS)
    with world.daemon():
        # At once, with every first look still under way.
        answer = await asked(world)
        assert (answer["runner"], answer["model"]) == ("ollama", "qwen3:8b")
        assert world.runnerd("chat", "Hi").stdout == b"Hi"
        assert world.runnerd("health").returncode == 0


async def test_where_only_the_user_s_ollama_server_runs_it_answers(world: World, installed: Installed) -> None:
    async with server(FakeOllama(world, host=installed.host), world):
        with world.daemon():
            assert (await asked(world))["runner"] == "ollama"


async def test_where_only_claude_is_installed_it_answers(world: World, installed: Installed) -> None:
    installed.claude()
    with world.daemon():
        assert (await asked(world))["runner"] == "claude"


async def test_of_several_the_first_of_the_configuration_answers(world: World, installed: Installed) -> None:
    installed.claude()
    installed.ollama(models=MODELS)
    with world.daemon():
        assert (await asked(world))["runner"] == "claude"
        assert (await asked(world, model="ollama"))["runner"] == "ollama"


async def test_who_is_logged_out_is_passed_over(world: World, installed: Installed) -> None:
    installed.claude(logged_in=False)
    installed.copilot(logged_in=False)
    installed.ollama(models=MODELS)
    with world.daemon():
        assert (await asked(world))["runner"] == "ollama"


async def test_who_is_broken_is_passed_over(world: World, installed: Installed) -> None:
    installed.program("claude", "raise SystemExit('broken')\n")
    installed.program("copilot", "raise SystemExit('broken')\n")
    installed.ollama(models=MODELS)
    with world.daemon():
        assert (await asked(world))["runner"] == "ollama"


async def test_where_nothing_is_installed_the_error_says_what_is_missing_and_what_to_do(
    world: World, installed: Installed
) -> None:
    with world.daemon():
        error = await asked(world)
        assert (error["kind"], error["retryable"]) == ("not_installed", False)
        assert error["hint"]
        done = world.runnerd("chat", "Hi")
        assert (done.returncode, done.stdout) == (1, b"")
        assert error["message"] in done.stderr.decode()
        assert error["hint"] in done.stderr.decode()
        assert b"Traceback" not in done.stderr
        assert world.runnerd("health").returncode == 1
        # The way to a model is open nevertheless.
        assert (await asked(world, model="echo"))["runner"] == "echo"


async def test_where_ollama_alone_is_installed_and_has_no_model_the_hint_pulls_one(
    world: World, installed: Installed
) -> None:
    installed.ollama(models={})
    with world.daemon():
        error = await asked(world)
        assert (error["kind"], error["runner"], error["hint"]) == ("model_not_found", "ollama", "ollama pull llama3.2")


@pytest.mark.parametrize("name", ["claude", "ollama"])
async def test_what_is_installed_while_the_daemon_runs_answers_the_next_chat_that_names_nobody(
    world: World, installed: Installed, name: str
) -> None:
    with world.daemon():
        assert (await asked(world))["kind"] == "not_installed"
        assert world.runnerd("health").returncode == 1
        getattr(installed, name)()
        answer = await asked(world)
        assert answer.get("runner") == name, answer


@pytest.mark.parametrize("name", ["qwen3:8b", "llama3.2:latest", "llama3.2"])
async def test_a_bare_name_that_only_ollama_offers_is_found_right_after_the_start(
    world: World, installed: Installed, name: str
) -> None:
    installed.claude()
    installed.ollama(models=MODELS, slow_start=1)
    with world.daemon():
        answer = await asked(world, model=name)
        assert (answer.get("runner"), answer.get("model")) == ("ollama", name), answer


async def test_a_bare_name_that_was_pulled_after_the_first_look_is_found(world: World, installed: Installed) -> None:
    subject = FakeOllama(world, host=installed.host, models={"old:1b": QWEN})
    with world.daemon():
        async with server(subject, world):
            assert (await asked(world, model="old:1b"))["model"] == "old:1b"
            assert (await asked(world, model="new:1b"))["kind"] == "model_not_found"
        subject.order["models"] = {"new:1b": QWEN, **subject.order["models"]}
        async with server(subject, world):
            answer = await asked(world, model="new:1b")
            assert (answer["runner"], answer["model"]) == ("ollama", "new:1b")


async def test_a_default_model_that_was_removed_gives_way_to_one_that_is_left(
    world: World, installed: Installed
) -> None:
    subject = FakeOllama(world, host=installed.host, models=dict.fromkeys(("a:1b", "b:1b"), QWEN))
    async with server(subject, world), AsyncExitStack() as daemon:
        daemon.enter_context(world.daemon())
        assert (await asked(world))["model"] == "a:1b"
        kept = daemon.pop_all()
    subject.order["models"] = {"b:1b": QWEN}
    async with kept, server(subject, world):
        answer = await asked(world)
        assert answer.get("model") == "b:1b", answer


async def test_a_name_that_nobody_offers_is_told_with_those_that_are_near(world: World, installed: Installed) -> None:
    installed.ollama(models=MODELS)
    with world.daemon():
        error = await asked(world, model="qwen3:4b")
        assert error["kind"] == "model_not_found"
        assert "ollama:qwen3:8b" in error["hint"]


async def test_a_model_of_ollama_s_that_is_not_pulled_is_told_with_how_to_pull_it(
    world: World, installed: Installed
) -> None:
    installed.ollama(models=MODELS)
    with world.daemon():
        error = await asked(world, model="ollama:mistral:7b")
        assert (error["kind"], error["hint"]) == ("model_not_found", "ollama pull mistral:7b")


def test_models_lists_ollama_s_with_what_is_known_of_them(world: World, installed: Installed) -> None:
    installed.ollama(models=MODELS)
    with world.daemon():
        done = world.runnerd("models", "--json")
        assert (done.returncode, done.stderr) == (0, b"")
        rows = {row["id"]: row for row in json.loads(done.stdout)["models"] if row["runner"] == "ollama"}
        known = ("model", "context_window", "max_output_tokens", "images", "tools", "reasoning")
        assert {name: tuple(row[key] for key in known) for name, row in rows.items()} == {
            "ollama:qwen3:8b": ("qwen3:8b", 40960, None, False, True, True),
            "ollama:llama3.2:latest": ("llama3.2:latest", 131072, None, False, True, False),
        }
        table = world.runnerd("models").stdout.decode().splitlines()
        assert [line.split()[1] for line in table if line.startswith("ollama:qwen3:8b ")] == ["40960"]


def test_runners_and_status_tell_of_ollama_what_is_true(world: World, installed: Installed) -> None:
    installed.ollama(models=MODELS)
    with world.daemon() as daemon:
        assert world.runnerd("chat", "Hi").stdout == b"Hi"
        [row] = [
            row for row in json.loads(world.runnerd("runners", "--json").stdout)["runners"] if row["name"] == "ollama"
        ]
        assert (row["kind"], row["state"], row["default_model"]) == ("ollama", "ready", "qwen3:8b")
        status = json.loads(world.runnerd("status", "--json").stdout)
        [row] = [row for row in status["runners"] if row["name"] == "ollama"]
        assert (row["state"], row["running"]) == ("ready", 0)
        assert {worker["state"] for worker in row["workers"]} == {"idle"}
        # The memory is that of its server too, which stays without a worker.
        [serve] = [process for process in world.processes() if process.pid != daemon.process.pid]
        assert status["memory_bytes"] > serve.memory_info().rss
