"""The socket's protocol as a client sees it: chats, concurrency, ids, and the shapes of all answers."""

import asyncio
import json
from typing import Any

import pytest

from tests.world import Daemon, Wire, user


def row(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """The row of one runner in a result."""
    found = next(row for row in answer["result"]["runners"] if row["name"] == name)
    assert isinstance(found, dict)
    return found


async def test_a_chat_streams_its_chunks_and_ends_with_the_whole_answer(wire: Wire) -> None:
    await wire.send(
        {"jsonrpc": "2.0", "id": 7, "method": "chat", "params": {"model": "echo", "messages": user("Hi ho")}}
    )
    messages = [await wire.read() for _ in range(6)]

    def chunk(**fields: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": "chat.chunk", "params": {"id": 7, "chunk": fields}}

    start, usage = messages[0]["params"]["chunk"], messages[3]["params"]["chunk"]["usage"]
    assert messages == [
        chunk(
            type="start", message_id="echo-1", runner="echo", model="echo", served="cold", session_s=start["session_s"]
        ),
        chunk(type="text", chunk="Hi "),
        chunk(type="text", chunk="ho"),
        chunk(type="usage", usage=usage),
        chunk(type="done", stop_reason="end_turn", raw="end"),
        {
            "jsonrpc": "2.0",
            "id": 7,
            "result": {
                "id": "echo-1",
                "runner": "echo",
                "model": "echo",
                "content": "Hi ho",
                "reasoning": None,
                "tool_calls": [],
                "stop_reason": "end_turn",
                "usage": usage,
                "warnings": [],
                "served": "cold",
                "session_s": start["session_s"],
            },
        },
    ]
    unsaid = (
        "cached_input_tokens",
        "cache_creation_input_tokens",
        "reasoning_tokens",
        "cost_usd",
        "duration_s",
        "load_s",
    )
    assert usage == {"input_tokens": usage["input_tokens"], "output_tokens": 1} | dict.fromkeys(unsaid)
    assert usage["input_tokens"] > 0
    assert start["session_s"] > 0


async def test_a_chat_that_does_not_want_a_stream_gets_its_answer_alone(wire: Wire) -> None:
    request_id = await wire.request("chat", model="echo", messages=user("Hi"), stream=False)
    first = await wire.read()
    assert (first["id"], first["result"]["content"]) == (request_id, "Hi")


async def test_two_clients_at_once_get_each_its_own_answer(daemon: Daemon) -> None:
    async def ask(text: str) -> str:
        async with await Wire.connect(daemon.world.socket) as client:
            answer = await client.call("chat", model="echo", messages=user(text))
            return str(answer["result"]["content"])

    answers = await asyncio.gather(*map(ask, ("from the one", "from the other")))
    assert answers == ["from the one", "from the other"]


async def test_twenty_requests_at_once_on_one_connection_get_each_its_own_answer(wire: Wire) -> None:
    ids = [await wire.request("chat", model="echo", messages=user(f"This is number {n}")) for n in range(20)]
    streamed: dict[int, str] = dict.fromkeys(ids, "")
    answered: dict[int, str] = {}
    while len(answered) < 20:
        message = await wire.read()
        if "method" in message:
            chunk = message["params"]["chunk"]
            streamed[message["params"]["id"]] += chunk["chunk"] if chunk["type"] == "text" else ""
        else:
            assert message["id"] not in answered
            answered[message["id"]] = message["result"]["content"]
    assert streamed == answered == {request_id: f"This is number {n}" for n, request_id in enumerate(ids)}


async def test_a_request_is_answered_while_an_earlier_one_on_its_connection_still_runs(wire: Wire) -> None:
    held = await wire.request("chat", model="held", messages=user("Hi"))
    assert (await wire.call("chat", model="echo", messages=user("Me first")))["result"]["content"] == "Me first"
    await wire.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": held}})
    await wire.read_until_response(held)


@pytest.mark.parametrize("request_id", [0, -1, "", "seven", "\u2028", "\ud83d", 2**63, 2**64, 2**70, -(2**70)])
async def test_an_answer_bears_the_id_of_its_request(wire: Wire, request_id: int | str) -> None:
    await wire.send({"jsonrpc": "2.0", "id": request_id, "method": "version"})
    answer = await wire.read()
    assert answer["id"] == request_id
    assert type(answer["id"]) is type(request_id)
    assert "result" in answer


async def test_a_number_and_the_same_digits_as_text_are_two_ids(wire: Wire) -> None:
    for request_id, text in ((1, "number"), ("1", "text")):
        params = {"model": "echo", "messages": user(text), "stream": False}
        await wire.send({"jsonrpc": "2.0", "id": request_id, "method": "chat", "params": params})
    answers = [await wire.read(), await wire.read()]
    contents = {answer["id"]: answer["result"]["content"] for answer in answers}
    assert contents == {1: "number", "1": "text"}


async def test_an_id_is_free_again_once_it_was_answered(wire: Wire) -> None:
    for text in ("first", "second"):
        params = {"model": "echo", "messages": user(text), "stream": False}
        await wire.send({"jsonrpc": "2.0", "id": 1, "method": "chat", "params": params})
        assert (await wire.read())["result"]["content"] == text


async def test_health_tells_each_runner_s_state_and_an_echo_does_not_count(wire: Wire) -> None:
    answer = await wire.call("health")
    assert answer["result"]["ok"] is False  # no runner but echoes
    healthy = row(answer, "echo")
    assert healthy == healthy | {"kind": "echo", "ok": True, "state": "ready", "reason": None, "authenticated": None}
    keys = ["name", "kind", "ok", "state", "reason", "version", "authenticated", "detail", "hint", "age_s"]
    assert list(healthy) == keys
    assert healthy["age_s"] >= 0
    sick = row(answer, "broken")
    assert (sick["ok"], sick["state"], sick["reason"]) == (False, "unavailable", "process_exited")


async def test_health_of_one_runner_is_about_it_alone_and_an_echo_counts_there(wire: Wire) -> None:
    answer = await wire.call("health", runner="echo")
    assert answer["result"]["ok"] is True
    assert [found["name"] for found in answer["result"]["runners"]] == ["echo"]
    assert (await wire.call("health", runner="broken"))["result"]["ok"] is False


async def test_deep_health_asks_for_a_real_answer(wire: Wire) -> None:
    answer = await wire.call("health", runner="echo", deep=True)
    assert (answer["result"]["ok"], row(answer, "echo")["state"]) == (True, "ready")
    assert row(await wire.call("health", runner="broken", deep=True), "broken")["reason"] == "process_exited"


async def test_health_of_an_unknown_runner_names_those_there_are(wire: Wire) -> None:
    error = (await wire.call("health", runner="ecco"))["error"]
    assert (error["code"], error["data"]["kind"]) == (-32010, "model_not_found")
    assert "echo" in error["data"]["hint"]


async def test_models_lists_every_model_by_the_name_that_a_request_uses(wire: Wire) -> None:
    models = (await wire.call("models"))["result"]["models"]
    assert models[0] == {
        "id": "echo:echo",
        "runner": "echo",
        "model": "echo",
        "context_window": None,
        "max_output_tokens": None,
        "images": None,
        "tools": None,
        "reasoning": None,
    }
    assert [model["id"] for model in models if model["runner"] == "echo"] == ["echo:echo", "echo:request"]
    answer = await wire.call("chat", model=models[1]["id"], messages=user("Hi"))
    assert answer["result"]["model"] == "request"


async def test_runners_tells_what_each_can_do(wire: Wire) -> None:
    await wire.call("health")  # its first probe has ended
    echo = row(await wire.call("runners"), "echo")
    assert list(echo) == ["name", "kind", "display_name", "default_model", "capabilities", "state"]
    assert (echo["kind"], echo["default_model"], echo["state"]) == ("echo", "echo", "ready")
    capabilities = echo["capabilities"]
    assert (capabilities["streaming"], capabilities["tools"], capabilities["history"]) == (True, False, "native")
    design = (
        "streaming reasoning tools parallel_tools tool_choice system_prompt history images response_format temperature "
        "top_p stop max_tokens reasoning_effort interrupt usage exact_text sessions_per_process"
    )
    assert list(capabilities) == design.split()


async def test_status_shows_the_daemon_and_the_chats_that_run(daemon: Daemon, wire: Wire) -> None:
    before = (await wire.call("status"))["result"]
    named = ["version", "pid", "autostarted", "uptime_s", "runners", "memory_bytes"]
    assert list(before) == [*named, "max_cli_memory_bytes", "tasks", "descriptors"]
    assert before["pid"] == daemon.process.pid
    assert before["uptime_s"] > 0
    async with await Wire.connect(daemon.world.socket) as other:
        request_id = await other.request("chat", model="held", messages=user("Hi"))
        while (await other.read())["params"]["chunk"] != {"type": "text", "chunk": "so far"}:
            pass
        during = await wire.call("status")
        await other.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": request_id}})
        await other.read_until_response(request_id)
    held = row(during, "held")
    assert list(held) == ["name", "state", "running", "queued", "served", "chats", "usage", "duration_s", "workers"]
    assert (held["running"], held["queued"]) == (1, 0)
    [worker] = held["workers"]
    assert list(worker) == ["state", "model", "pid", "age_s", "turns", "memory_bytes"]
    assert (worker["state"], worker["model"], worker["turns"]) == ("busy", "echo", 1)
    assert during["result"]["memory_bytes"] > worker["memory_bytes"] > 0
    echo = row(during, "echo")
    assert (echo["state"], echo["running"], echo["queued"]) == ("ready", 0, 0)
    assert all(how["chats"] > 0 < how["session_s"] for how in echo["served"].values())


async def test_version_names_the_daemon(daemon: Daemon, wire: Wire) -> None:
    version = (await wire.call("version"))["result"]
    http = [str(daemon.world.socket.with_name("http.sock"))]
    assert version == {"version": version["version"], "pid": daemon.process.pid, "autostarted": False, "http": http}
    assert json.dumps(version["version"]).strip('"')[0].isdigit()


@pytest.mark.parametrize(
    ("model", "who"), [("echo", ("echo", "echo")), ("echo:request", ("echo", "request")), ("held:x", ("held", "x"))]
)
async def test_who_would_answer_is_told_and_nobody_is_asked(wire: Wire, model: str, who: tuple[str, str]) -> None:
    result = (await wire.call("resolve", model=model))["result"]
    assert (result["runner"], result["model"]) == who
    assert result["capabilities"]["streaming"] is True


async def test_a_name_that_nobody_has_is_resolved_to_an_error_with_near_ones(wire: Wire) -> None:
    error = (await wire.call("resolve", model="ecko:request"))["error"]
    assert (error["code"], error["data"]["kind"]) == (-32010, "model_not_found")
    assert "did you mean echo:request" in error["data"]["hint"]
    assert (await wire.call("resolve", model=5))["error"]["code"] == -32602
