"""Claude Code without the daemon: by hand, through its vendor's SDK, and as a process that we speak to ourselves."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from runners.providers.claude.provider import _ARGUMENTS, _ENVIRONMENT
from runners.wire.environment import child_environment
from tests.bench.house import calm
from tests.bench.reading import WAIT_S, Child, Json, Timing, lines
from tests.bench.sdk import Sdk, is_installed
from tests.bench.targets import BY_HAND, RAW
from tests.bench.way import TURNS, Subject, Way, prompt
from tests.world import World

MODEL = "sonnet"
_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}
_LOOPBACK_ONLY = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


class Claude(Subject):
    """A claude of one version, with a stand-in API."""

    kind = "claude"

    def entry(self) -> Json:
        return {"kind": "claude", "binary": str(self.binary), "model": MODEL, "env": self._env()}

    def _env(self) -> dict[str, str]:
        return {"ANTHROPIC_BASE_URL": self.api_url, "ANTHROPIC_API_KEY": "dummy", **_LOOPBACK_ONLY}

    def ways(self, *, sdk: bool) -> list[Way]:
        user = self.world.env | _QUIET | self._env()
        order = {"binary": str(self.binary), "model": MODEL}
        ways: list[Way] = [ByHand(self.world, self.binary, user), self.raw()]
        if sdk and is_installed("claude_agent_sdk"):
            ways.append(Sdk(self.world, "tests.bench.sdk_claude", user, order))
        return ways

    def raw(self) -> "RawClaude":
        """The process that the daemon would start."""
        env = child_environment(self.world.env, env={**_ENVIRONMENT, **self._env()}, env_pass=[])
        return RawClaude(self.world, [str(self.binary), *_ARGUMENTS, "--model", MODEL], env)


class ByHand:
    """`claude -p` as its user would type it, a process for each turn; a 6th turn resumes what five have left."""

    name = BY_HAND

    def __init__(self, world: World, binary: Path, env: dict[str, str]) -> None:
        self._binary = str(binary)
        self._env = env
        self._cwd = world.root / "by-hand"
        self._cwd.mkdir()
        self._session = ""
        for turn in range(1, TURNS):
            _, self._session = self._turn(turn, *(["--resume", self._session] if self._session else []))

    def prepare(self) -> None:
        """A process of a user's own begins from nothing."""

    def new(self) -> Timing:
        return self._turn(1)[0]

    def sixth(self) -> Timing:
        return self._turn(TURNS, "--resume", self._session, "--fork-session")[0]

    def _turn(self, turn: int, *options: str) -> tuple[Timing, str]:
        """Also the id of the session that it leaves."""
        streaming = ["--output-format", "stream-json", "--verbose", "--include-partial-messages"]
        argv = [self._binary, "-p", prompt(turn), *streaming, *options]
        began_s = time.monotonic()
        child = Child(argv, env=self._env, cwd=self._cwd, stdin=b"")
        timing, result = told(lines(child.output), began_s)
        child.process.wait(timeout=WAIT_S)
        child.end()
        return timing, str(result["session_id"])

    def close(self) -> None:
        """Nothing runs between turns."""


class RawClaude:
    """The process that the daemon would start, spoken to with lines of our own."""

    name = RAW

    def __init__(self, world: World, argv: list[str], env: dict[str, str]) -> None:
        self._world = world
        self._argv = argv
        self._env = env
        self._cwd = world.root / "raw"
        self._cwd.mkdir()
        self._begin()

    def _begin(self) -> None:
        """A blank, for the next chat: as the daemon's it has time to come to rest while others are measured."""
        self._child = Child(self._argv, env=self._env, cwd=self._cwd)
        self._lines = lines(self._child.output)

    def prepare(self) -> None:
        """The blank is there."""

    def new(self) -> Timing:
        began_s = time.monotonic()
        self._initialize()
        while json.loads(next(self._lines))["type"] != "control_response":
            pass
        return self._turn(1, began_s)

    def sixth(self) -> Timing:
        for turn in range(2, TURNS):
            self._turn(turn, time.monotonic())
        calm(self._world)
        timing = self._turn(TURNS, time.monotonic())
        self._child.end()
        self._begin()
        return timing

    def flood(self) -> tuple[str, float]:
        """The text of a first answer, and the seconds between its first and last piece. A new blank follows."""
        self._initialize()
        self._child.say(_line(1))
        first_s = last_s = 0.0
        found = []
        for line in self._lines:
            if b"text_delta" in line:
                last_s = time.monotonic()
                first_s = first_s or last_s
                found.append(line)
            elif b'"result"' in line and json.loads(line)["type"] == "result":
                break
        text = "".join(json.loads(line)["event"]["delta"]["text"] for line in found)
        self._child.end()
        self._begin()
        return text, last_s - first_s

    def _initialize(self) -> None:
        request = {"subtype": "initialize", "systemPrompt": [""]}
        self._child.say({"type": "control_request", "request_id": "r0", "request": request})

    def _turn(self, turn: int, began_s: float) -> Timing:
        self._child.say(_line(turn))
        return told(self._lines, began_s)[0]

    def close(self) -> None:
        self._child.end()


def _line(turn: int) -> Json:
    content = [{"type": "text", "text": prompt(turn)}]
    return {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None}


def told(events: Iterator[bytes], began_s: float) -> tuple[Timing, Json]:
    """Reads an answer: when its first text came, and when its end, which is the second."""
    first_s = 0.0
    for line in events:
        if not first_s and b"text_delta" in line:
            first_s = time.monotonic()
        elif b'"result"' in line:
            event = json.loads(line)
            if event["type"] == "result":
                assert first_s, event
                return Timing(first_s - began_s, time.monotonic() - began_s), event
    raise AssertionError("it ended without a result")
