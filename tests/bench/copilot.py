"""GitHub Copilot without the daemon: one-shot by hand, through its vendor's SDK, and as a server that we speak to."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from runners.providers.copilot.oneshot import ARGUMENTS
from runners.providers.copilot.provider import _HEADLESS, HEADLESS_SINCE
from runners.wire.environment import child_environment
from tests.bench.house import calm
from tests.bench.reading import WAIT_S, Child, Json, Timing, frames, lines
from tests.bench.sdk import Sdk, is_installed
from tests.bench.targets import BY_HAND, RAW
from tests.bench.way import TURNS, Subject, Way, prompt
from tests.live.copilot_lab import ENV, MODEL
from tests.world import World

# A chat and no more, as the daemon asks for it too: else the model is sent tools and pages of instructions.
_PLAIN: Json = {
    "streaming": True,
    "availableTools": [],
    "toolFilterPrecedence": "excluded",
    "requestPermission": False,
    "infiniteSessions": {"enabled": False},
    "memory": {"enabled": False},
    "skipEmbeddingRetrieval": True,
    "customAgentsLocalOnly": True,
    "enableSkills": False,
    "enableSessionStore": False,
    "enableFileHooks": False,
    "enableHostGitOperations": False,
    "enableConfigDiscovery": False,
    "enableOnDemandInstructionDiscovery": False,
    "enableSessionTelemetry": False,
    "envValueMode": "direct",
    "hooks": True,  # else it trims the user's text and dates it
}


class Copilot(Subject):
    """A copilot of one version, with a stand-in API as a provider of the user's own."""

    kind = "copilot"

    def entry(self) -> Json:
        provider = {"base_url": self.api_url, "api_key_env": "KEY"}
        return {"kind": "copilot", "binary": str(self.binary), "model": MODEL, "provider": provider, "env": ENV}

    @property
    def is_live(self) -> bool:
        return tuple(map(int, self.version.split("."))) >= HEADLESS_SINCE

    def ways(self, *, sdk: bool) -> list[Way]:
        ways: list[Way] = [self._by_hand()]
        ways += [self._raw()] if self.is_live else []
        ways += [self._sdk()] if self.is_live and sdk and is_installed("copilot") else []
        return ways

    def _by_hand(self) -> "ByHand":
        provider = {
            "COPILOT_PROVIDER_TYPE": "openai",
            "COPILOT_PROVIDER_BASE_URL": self.api_url,
            "COPILOT_PROVIDER_API_KEY": ENV["KEY"],
        }
        env = self.world.env | ENV | provider | {"COPILOT_AUTO_UPDATE": "false"}
        return ByHand(self.world, [str(self.binary), *ARGUMENTS, "--model", MODEL], env)

    def _sdk(self) -> Sdk:
        home = self.world.root / "sdk-home"
        env = self.world.env | ENV | {"COPILOT_AUTO_UPDATE": "false", "COPILOT_HOME": str(home)}
        provider = {"type": "openai", "base_url": self.api_url, "api_key": ENV["KEY"]}
        order = {"binary": str(self.binary), "model": MODEL, "provider": provider}
        return Sdk(self.world, "tests.bench.sdk_copilot", env, order)

    def _raw(self) -> "RawCopilot":
        env = child_environment(self.world.env, env={"COPILOT_AUTO_UPDATE": "false", **ENV}, env_pass=[])
        argv = [str(self.binary), *_HEADLESS, "--no-auto-login", "--log-dir", str(self.world.root / "tmp")]
        provider = {"type": "openai", "baseUrl": self.api_url, "apiKey": ENV["KEY"]}
        return RawCopilot(self.world, argv, env, {"model": MODEL, "provider": provider})


class ByHand:
    """The one-shot mode, its prompt on stdin; a 6th turn continues what five have left in copilot's home."""

    name = BY_HAND

    def __init__(self, world: World, argv: list[str], env: dict[str, str]) -> None:
        self._argv = argv
        self._env = env
        self._cwd = world.root / "by-hand"
        self._cwd.mkdir()
        self._root = world.root
        self._five = world.root / "home-of-five-turns"
        for turn in range(1, TURNS):
            self._turn(turn, self._five, *(["--continue"] if turn > 1 else []))

    def prepare(self) -> None:
        """A process of a user's own begins from nothing."""

    def new(self) -> Timing:
        return self._turn(1, self._root / "home-of-none")

    def sixth(self) -> Timing:
        # Its sixth each time: the turn stays in the home.
        home = self._root / "home-of-six-turns"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self._five, home)
        return self._turn(TURNS, home, "--continue")

    def _turn(self, turn: int, home: Path, *options: str) -> Timing:
        env = self._env | {"COPILOT_HOME": str(home)}
        began_s = time.monotonic()
        child = Child([*self._argv, *options], env=env, cwd=self._cwd, stdin=prompt(turn).encode())
        timing = _told(lines(child.output), "result", began_s)
        child.process.wait(timeout=WAIT_S)
        child.end()
        return timing

    def close(self) -> None:
        """Nothing runs between turns."""


class RawCopilot:
    """The headless server that the daemon would start, spoken to with calls of our own: one session for a chat."""

    name = RAW

    def __init__(self, world: World, argv: list[str], env: dict[str, str], settings: Json) -> None:
        self._world = world
        self._settings = settings
        self._cwd = world.root / "raw"
        self._cwd.mkdir()
        self._calls = 0
        self._session = ""
        self._child = Child(argv, env=env | {"COPILOT_HOME": str(world.root / "raw-home")}, cwd=self._cwd)
        self._frames = frames(self._child.output)
        self._call("connect", {"supportedTaskKinds": []})

    def prepare(self) -> None:
        """The server waits; its last session goes."""
        if self._session:
            self._call("session.destroy", {"sessionId": self._session})

    def new(self) -> Timing:
        began_s = time.monotonic()
        place = {"workingDirectory": str(self._cwd), "systemMessage": {"mode": "replace", "content": ""}}
        self._session = self._call("session.create", _PLAIN | self._settings | place)["sessionId"]
        return self._turn(1, began_s)

    def sixth(self) -> Timing:
        for turn in range(2, TURNS):
            self._turn(turn, time.monotonic())
        calm(self._world)
        return self._turn(TURNS, time.monotonic())

    def _turn(self, turn: int, began_s: float) -> Timing:
        self._write("session.send", {"sessionId": self._session, "prompt": prompt(turn)})
        return _told(self._hooked(prompt(turn)), "session.idle", began_s)

    def _hooked(self, text: str) -> Iterator[bytes]:
        """The frames, less what the server asks us: it is to send the text as it is."""
        for frame in self._frames:
            if b'"hooks.invoke"' in frame:
                self._send({"id": json.loads(frame)["id"], "result": {"output": {"modifiedTransformedPrompt": text}}})
            else:
                yield frame

    def _call(self, method: str, params: Json) -> Json:
        called = self._write(method, params)
        for frame in self._frames:
            message = json.loads(frame)
            if message.get("id") == called and "method" not in message:
                assert "result" in message, message
                return message["result"] or {}
        raise AssertionError(f"no answer to {method}")

    def _write(self, method: str, params: Json) -> int:
        self._calls += 1
        self._send({"id": self._calls, "method": method, "params": params})
        return self._calls

    def _send(self, message: Json) -> None:
        body = json.dumps({"jsonrpc": "2.0"} | message).encode()
        self._child.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def close(self) -> None:
        self._child.end()


def _told(events: Iterator[bytes], end: str, began_s: float) -> Timing:
    """Reads events to the one that ends an answer."""
    first_s = 0.0
    ends = f'"{end}"'.encode()
    for event in events:
        if not first_s and b'"assistant.message_delta"' in event:
            first_s = time.monotonic()
        elif ends in event:
            assert first_s, event
            return Timing(first_s - began_s, time.monotonic() - began_s)
    raise AssertionError(f"it ended without {end}")
