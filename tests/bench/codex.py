"""Codex without the daemon: `codex exec` by hand, and its app-server that we speak to."""

import json
import shutil
import time
from collections.abc import Iterator

from runners.providers.codex.arguments import API_KEY_VARIABLE, arguments
from runners.providers.codex.catalog import tool_less
from runners.wire.environment import child_environment
from tests.bench.house import calm
from tests.bench.reading import WAIT_S, Child, Json, Timing, lines
from tests.bench.targets import BY_HAND, RAW
from tests.bench.way import TURNS, Subject, Way, prompt
from tests.live.codex_lab import ENV, MODEL
from tests.world import World

_EVENTS = {"experimentalApi": True, "optOutNotificationMethods": ["item/started", "thread/status/changed"]}


class Codex(Subject):
    """A codex of one version, with a stand-in API as a server of the user's own."""

    kind = "codex"

    def entry(self) -> Json:
        own = {"model": MODEL, "base_url": self.api_url, "api_key_env": "KEY"}
        return {"kind": "codex", "binary": str(self.binary), "env": ENV} | own

    def ways(self, *, sdk: bool) -> list[Way]:  # noqa: ARG002 its vendor's SDK runs the same command by hand
        return [self._by_hand(), self._raw()]

    def _by_hand(self) -> "ByHand":
        server = f'{{name="x", base_url="{self.api_url}", wire_api="responses", env_key="KEY"}}'
        own = ["-c", "model_provider=x", "-c", f"model_providers.x={server}", "-c", "analytics.enabled=false"]
        return ByHand(self.world, [str(self.binary), "exec", "--json", "--skip-git-repo-check", *own, "-m", MODEL])

    def _raw(self) -> "RawCodex":
        home = self.world.root / "raw-home"
        home.mkdir()
        catalog = home / "models.json"
        catalog.write_text(json.dumps(tool_less(None)), encoding="utf-8")
        env = child_environment(self.world.env, env=ENV | {"CODEX_HOME": str(home)}, env_pass=[])
        argv = [str(self.binary), *arguments(catalog, base_url=self.api_url, has_key=True)]
        return RawCodex(self.world, argv, env | {API_KEY_VARIABLE: ENV["KEY"]})


class ByHand:
    """`codex exec`, its prompt on stdin: whole items. A 6th turn continues what five have left in codex's home."""

    name = BY_HAND

    def __init__(self, world: World, argv: list[str]) -> None:
        self._argv = argv
        self._env = world.env | ENV
        self._cwd = world.root / "by-hand"
        self._cwd.mkdir()
        self._root = world.root
        self._five = world.root / "home-of-five-turns"
        for turn in range(1, TURNS):
            self._turn(turn, "home-of-five-turns", *(["resume", "--last"] if turn > 1 else []))

    def prepare(self) -> None:
        """A process of a user's own begins from nothing."""

    def new(self) -> Timing:
        return self._turn(1, "home-of-none")

    def sixth(self) -> Timing:
        # Its sixth each time: the turn stays in the home.
        home = self._root / "home-of-six-turns"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self._five, home)
        return self._turn(TURNS, home.name, "resume", "--last")

    def _turn(self, turn: int, home: str, *more: str) -> Timing:
        path = self._root / home
        path.mkdir(exist_ok=True)
        began_s = time.monotonic()
        env = self._env | {"CODEX_HOME": str(path)}
        child = Child([*self._argv, *more, "-"], env=env, cwd=self._cwd, stdin=prompt(turn).encode())
        timing = _told(lines(child.output), b'"agent_message"', b'"turn.completed"', began_s)
        child.process.wait(timeout=WAIT_S)
        child.end()
        return timing

    def close(self) -> None:
        """Nothing runs between turns."""


class RawCodex:
    """The process that the daemon would start, spoken to with calls of our own: one thread for a chat."""

    name = RAW

    def __init__(self, world: World, argv: list[str], env: dict[str, str]) -> None:
        self._world = world
        self._cwd = world.root / "raw"
        self._cwd.mkdir()
        self._calls = 0
        self._thread = ""
        self._child = Child(argv, env=env, cwd=self._cwd)
        self._lines = lines(self._child.output)
        self._call("initialize", {"clientInfo": {"name": "bench", "version": "1"}, "capabilities": _EVENTS})

    def prepare(self) -> None:
        """The process waits; its last thread goes."""
        if self._thread:
            self._call("thread/unsubscribe", {"threadId": self._thread})

    def new(self) -> Timing:
        began_s = time.monotonic()
        plain = {"ephemeral": True, "environments": [], "approvalPolicy": "never", "baseInstructions": ""}
        started = self._call("thread/start", plain | {"model": MODEL, "cwd": str(self._cwd)})
        self._thread = started["thread"]["id"]
        return self._turn(1, began_s)

    def sixth(self) -> Timing:
        for turn in range(2, TURNS):
            self._turn(turn, time.monotonic())
        calm(self._world)
        return self._turn(TURNS, time.monotonic())

    def _turn(self, turn: int, began_s: float) -> Timing:
        self._write("turn/start", {"threadId": self._thread, "input": [{"type": "text", "text": prompt(turn)}]})
        return _told(self._lines, b'"item/agentMessage/delta"', b'"turn/completed"', began_s)

    def _call(self, method: str, params: Json) -> Json:
        called = self._write(method, params)
        for line in self._lines:
            message = json.loads(line)
            if message.get("id") == called and "method" not in message:
                assert "result" in message, message
                return message["result"] or {}
        raise AssertionError(f"no answer to {method}")

    def _write(self, method: str, params: Json) -> int:
        self._calls += 1
        self._child.say({"id": self._calls, "method": method, "params": params})
        return self._calls

    def close(self) -> None:
        self._child.end()


def _told(events: Iterator[bytes], begins: bytes, ends: bytes, began_s: float) -> Timing:
    """Reads events to the one that ends an answer."""
    first_s = 0.0
    for event in events:
        if not first_s and begins in event:
            first_s = time.monotonic()
        elif ends in event:
            assert first_s, event
            return Timing(first_s - began_s, time.monotonic() - began_s)
    raise AssertionError(f"it ended without {ends!r}")
