"""What monitors ask of a real daemon: whether it is there, who can answer, and the numbers."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.http_client import CHATS, COMPLETIONS, MESSAGES, RESPONSES, Http, ask, chat, http_socket
from tests.installed import Installed
from tests.programs import BROKEN, ECHO, HELD, KEEPS_NOTHING, entry
from tests.world import Daemon, Wire, World, until

LEAVES = f"{KEEPS_NOTHING}, retry: {{attempts: 1}}"


def claude(world: World, **order: Any) -> str:
    """The entry of a runner that stands for a model."""
    return f"  claude: {{kind: claude, binary: {Installed(world).claude(**order)}, {LEAVES}}}\n"


async def metrics(daemon: Daemon) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels, these by the labels' names."""
    answer = await ask(http_socket(daemon), "GET", "/metrics")
    assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            assert (sample.name, labels) not in found
            found[sample.name, labels] = sample.value
    return found


def counted(found: dict[tuple[str, tuple[str, ...]], float], name: str, **labels: str) -> dict[str, float]:
    """Of one runner, by the other label."""
    return {
        next((label for label in told if label not in labels.values()), ""): value
        for (family, told), value in found.items()
        if family == name and set(labels.values()) <= set(told)
    }


async def status(daemon: Daemon, runner: str) -> dict[str, Any]:
    async with await Wire.connect(daemon.world.socket) as wire:
        [row] = [row for row in (await wire.call("status"))["result"]["runners"] if row["name"] == runner]
    assert isinstance(row, dict)
    return row


async def test_healthz_says_which_daemon_it_is(daemon: Daemon) -> None:
    answer = await ask(http_socket(daemon), "GET", "/healthz")
    async with await Wire.connect(daemon.world.socket) as wire:
        version = (await wire.call("version"))["result"]
    assert (answer.status, answer.json | {"http": version["http"]}) == (200, {"ok": True, **version})


async def test_a_probe_may_ask_for_the_head_alone(daemon: Daemon) -> None:
    async with await Http.connect(http_socket(daemon)) as client:
        for path in ("/healthz", "/metrics", "/v1/models"):
            await client.send("HEAD", path)
            assert (await client.head())[0] == 200


async def test_readyz_is_what_health_says_of_each_runner(daemon: Daemon) -> None:
    # `broken` exits at once; an echo can answer, and is no model.
    for runner, code in (("echo", 200), ("broken", 503)):
        answer = await ask(http_socket(daemon), "GET", f"/readyz/{runner}")
        async with await Wire.connect(daemon.world.socket) as wire:
            health = (await wire.call("health", runner=runner))["result"]
        told = answer.json
        for row in (*health["runners"], *told["runners"]):
            assert row.pop("age_s") >= 0
            # Each look at one that does not answer is a new one, and a CLI that exits can be met in two ways.
            assert row.pop("detail")
        assert told == health
        assert answer.status == code
    whole = await ask(http_socket(daemon), "GET", "/readyz")
    assert (whole.status, whole.json["ok"]) == (503, False)
    assert [row["name"] for row in whole.json["runners"]] == ["echo", "held", "broken"]


@pytest.mark.parametrize("name", ["nobody", "%2e%2e", "a%20b", "%00", "%ff"])
async def test_a_runner_that_nobody_knows_is_not_found(daemon: Daemon, name: str) -> None:
    answer = await ask(http_socket(daemon), "GET", f"/readyz/{name}")
    assert (answer.status, answer.json["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("logged_in", [True, False])
async def test_readyz_is_503_when_nobody_can_serve(world: World, logged_in: bool) -> None:
    with world.daemon(world.config("runners:\n" + ECHO + claude(world, logged_in=logged_in))) as daemon:
        for path in ("/readyz", "/readyz/claude"):
            answer = await ask(http_socket(daemon), "GET", path)
            assert (answer.status, answer.json["ok"]) == (200 if logged_in else 503, logged_in)
        assert (await ask(http_socket(daemon), "GET", "/readyz/echo")).status == 200
        # It is there all the same.
        assert (await ask(http_socket(daemon), "GET", "/healthz")).status == 200
        state = counted(await metrics(daemon), "runnerd_runner_state", runner="claude")
        assert state == {name: float(name == ("ready" if logged_in else "unavailable")) for name in state}


async def test_the_metrics_are_those_of_the_chats_that_were(world: World) -> None:
    runners = ECHO + claude(world) + entry(world, "held", HELD)
    runners += entry(world, "broken", BROKEN, "retry: {attempts: 1}, breaker: {failures: 1000}")
    with world.daemon(world.config("runners:\n" + runners)) as daemon:
        before = await metrics(daemon)
        assert counted(before, "runnerd_chats_total", runner="claude") == {}
        for path in CHATS:
            for stream in (False, True):
                answer = await ask(http_socket(daemon), "POST", path, chat(path, model="claude", stream=stream))
                assert answer.status == 200
        for path in (COMPLETIONS, MESSAGES):
            answer = await ask(http_socket(daemon), "POST", path, chat(path, model="broken"))
            assert answer.status == 502
        for path in (COMPLETIONS, RESPONSES, MESSAGES):
            async with await Http.connect(http_socket(daemon)) as client:
                await client.send("POST", path, chat(path, model="held", stream=True))
                assert (await client.head())[0] == 200
        async with await Wire.connect(daemon.world.socket) as wire:
            assert "result" in await wire.call("chat", model="claude", messages=[{"role": "user", "content": "Hi"}])

        async def all_have_ended() -> bool:
            return counted(await metrics(daemon), "runnerd_chats_total", runner="held") == {"cancelled": 3}

        await until(all_have_ended)
        found = await metrics(daemon)
        chats = {name: counted(found, "runnerd_chats_total", runner=name) for name in ("claude", "broken", "echo")}
        assert chats == {"claude": {"end_turn": 7}, "broken": {"process_exited": 2}, "echo": {}}
        tokens = counted(found, "runnerd_tokens_total", runner="claude")
        assert (tokens["input"], tokens["cached_input"], tokens["output"]) == (7 * 130, 7 * 7, 7 * 42)
        assert counted(found, "runnerd_tokens_total", runner="held") == {}
        assert found["runnerd_cost_usd_total", ("claude",)] > 0
        assert sum(counted(found, "runnerd_served_total", runner="claude").values()) == 7
        assert found["runnerd_chat_seconds_total", ("claude",)] > 0
        assert found["runnerd_running_chats", ("held",)] == 0
        await the_same_in_status(daemon, found)


async def the_same_in_status(daemon: Daemon, found: dict[tuple[str, tuple[str, ...]], float]) -> None:
    for runner in ("claude", "broken", "held", "echo"):
        row = await status(daemon, runner)
        assert row["chats"] == counted(found, "runnerd_chats_total", runner=runner)
        cost = row["usage"].pop("cost_usd", 0)
        assert cost == found.get(("runnerd_cost_usd_total", (runner,)), 0)
        tokens = {name.removesuffix("_tokens"): count for name, count in row["usage"].items()}
        assert tokens == counted(found, "runnerd_tokens_total", runner=runner)
        assert row["duration_s"] == found["runnerd_chat_seconds_total", (runner,)]
        served = {way: tally["chats"] for way, tally in row["served"].items()}
        assert served == counted(found, "runnerd_served_total", runner=runner)


async def test_the_metrics_show_who_runs_and_who_waits(world: World) -> None:
    with world.daemon(world.config("runners:\n" + entry(world, "held", HELD, "max_running: 1"))) as daemon:
        async with (
            await Http.connect(http_socket(daemon)) as first,
            await Http.connect(http_socket(daemon)) as second,
        ):
            await first.send("POST", COMPLETIONS, chat(COMPLETIONS, model="held", stream=True))
            assert (await first.head())[0] == 200
            await second.send("POST", COMPLETIONS, chat(COMPLETIONS, model="held", stream=True))

            async def both_are_there() -> bool:
                found = await metrics(daemon)
                assert found["runnerd_running_chats", ("held",)] == 1
                assert found["runnerd_sessions", ("held", "busy")] == 1
                return found["runnerd_queued_chats", ("held",)] == 1

            await until(both_are_there)


async def test_the_counts_outlive_a_reload(world: World) -> None:
    runner = claude(world)
    with world.daemon(world.config("runners:\n" + runner)) as daemon:
        assert (await ask(http_socket(daemon), "POST", MESSAGES, chat(MESSAGES, model="claude"))).status == 200
        world.config("runners:\n" + ECHO + runner.replace("warm: 0", "warm: 0, max_running: 3"))
        assert world.runnerd("reload").returncode == 0
        assert (await ask(http_socket(daemon), "POST", MESSAGES, chat(MESSAGES, model="claude"))).status == 200
        found = await metrics(daemon)
        assert counted(found, "runnerd_chats_total", runner="claude") == {"end_turn": 2}
        assert counted(found, "runnerd_tokens_total", runner="claude")["output"] == 2 * 42
