"""What goes over the wires in the 6th turn: to the API, and from us to the CLI, with and without a pool."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.api import Api
from tests.bench.fakes import TEE, with_value
from tests.bench.figures import Row
from tests.bench.house import House, open_house, open_world, unrouted
from tests.bench.reading import Json
from tests.bench.size import Size
from tests.bench.subjects import real_clis
from tests.bench.targets import UNROUTED
from tests.bench.way import TURNS, prompt
from tests.world import assistant, user

GROUP = "sent"

_WORDS = "It is said that long conversations hold many words. " * 20


class Sent(NamedTuple):
    """The bytes of a 6th turn."""

    to_api: int
    to_cli: int
    served: str


def measure(size: Size) -> Iterator[Row]:
    for kind, version, path in real_clis(size, "claude", "copilot", "codex"):
        with open_world() as world, Api(world, kind.kind) as api:
            subject = kind(world, path, version, api.url)
            if not subject.is_live:
                continue
            tees = {name: world.program(name, with_value(TEE, "BINARY", str(path))) for name in ("routed", "unrouted")}
            routed = subject.entry() | {"binary": str(tees["routed"])}
            entries = {"routed": routed, "unrouted": unrouted(routed | {"binary": str(tees["unrouted"])})}
            to_api = Row(GROUP, f"{kind.kind} {version}", "6th turn, bytes to the API", UNROUTED, "bytes")
            to_cli = Row(GROUP, f"{kind.kind} {version}", "6th turn, bytes to the CLI", UNROUTED, "bytes")
            with open_house(world, entries) as house:
                for _ in size.rounds(2):
                    ours, theirs = (_sixth(house, api, name, tees[name]) for name in entries)
                    to_api.add(ours.to_api, theirs.to_api, ours.served)
                    to_cli.add(ours.to_cli, theirs.to_cli, ours.served)
            yield from (to_api, to_cli)


def _sixth(house: House, api: Api, runner: str, tee: Path) -> Sent:
    history: list[Json] = []
    log = tee.with_name(f"{tee.name}.sizes")
    if runner == "routed":
        house.ready(runner)
    with house.client() as client:
        for turn in range(1, TURNS + 1):
            history += user(f"{prompt(turn)} {_WORDS}")
            api.taken()
            before = _written(log)
            told = client.chat(history, model=runner)
            [request] = api.taken()
            _assert_each_once(request["body"], history)
            history.append(assistant(told.text))
        return Sent(request["bytes"], _written(log) - before, told.served)


def _assert_each_once(body: Json, history: list[Json]) -> None:
    """No message is lost on its way, and none is sent twice."""
    received = json.dumps(body.get("messages") or body["input"])
    for message in history:
        times = received.count(message["content"].strip())
        assert times == 1, f"the API received {times} times: {message}"


def _written(log: Path) -> int:
    return sum(map(int, log.read_text().split())) if log.exists() else 0
