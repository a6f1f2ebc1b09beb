"""claude put to the contract: the real CLI, and the provider on a recording."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.claude.events import ClaudeTranslator
from runners.providers.claude.provider import ClaudeProvider
from runners.settings import ClaudeSettings
from runners.testing import Received, Subject, request
from runners.translator import Translator
from tests.live.claude_body import our_messages, our_system
from tests.live.messages_api import MessagesApi, Reply, text
from tests.live.stand_in import Json
from tests.subjects.on_api import HOLD, OnApi
from tests.world import World

FAKE_CLAUDE = Path(__file__).parents[1] / "fakes" / "fake_claude.py"
TRANSCRIPTS = Path(__file__).parents[1] / "transcripts" / "claude"


def received_by_api(body: dict[str, Any]) -> Received:
    """What the stand-in received, in the contract's terms."""
    thinks = body.get("thinking", {}).get("type") in ("adaptive", "enabled")
    knobs = {
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "stop": body.get("stop_sequences"),
        "max_tokens": body.get("max_tokens"),
        "reasoning_effort": body.get("output_config", {}).get("effort") if thinks else None,
    }
    messages = our_messages(body)
    images = [part["source"]["data"] for m in messages for part in m["content"] if part["type"] == "image"]
    texts = [(m["role"], "".join(part.get("text", "") for part in m["content"])) for m in messages]
    return Received("".join(our_system(body)), texts, knobs, images)


class RealClaude(OnApi):
    """The real CLI against the stand-in API."""

    def __init__(self, world: World, binary: Path, api: MessagesApi) -> None:
        self._env = {"HOME": str(world.home), "ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "dummy"}
        self._state = world.state / "claude"
        super().__init__(api, self._made(str(binary)))

    def _made(self, binary: str) -> ClaudeProvider:
        return ClaudeProvider("claude", ClaudeSettings(binary=binary, env=self._env), state_dir=self._state)

    def read(self, body: Json) -> Received:
        return received_by_api(body)

    def text(self, *pieces: str) -> Reply:
        return text(*pieces)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/claude")

    def translator(self) -> Translator:
        return ClaudeTranslator("claude")


class ReplayedClaude(Subject):
    """The claude provider on the fake CLI, which replays a recording and keeps what it was sent."""

    def __init__(self, world: World, **order: Any) -> None:
        self.log = world.root / "fake.log"
        self._world = world
        self._order = {"transcript": str(TRANSCRIPTS / "2.1.329" / "interrupt.jsonl"), "log": str(self.log), **order}
        self.fake = world.root / "claude"
        self.fake.write_text(f"#!{sys.executable} -IS\n" + FAKE_CLAUDE.read_text(encoding="utf-8"), encoding="utf-8")
        self.fake.chmod(0o755)
        self.provider = self.made(str(self.fake))

    def made(self, binary: str, **settings: Any) -> ClaudeProvider:
        """A provider on another binary or with other settings."""
        env = {"HOME": str(self._world.home), "FAKE_CLI": json.dumps(self._order)}
        made = ClaudeSettings(binary=binary, env=env, **settings)
        return ClaudeProvider("claude", made, state_dir=self._world.state / "claude")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        self.log.write_text("")
        await self.provider.complete(request)
        return self.received()

    def received(self) -> Received:
        """What the fake was sent since the log began, as the real CLI would pass it on."""
        body: dict[str, Any] = {"system": [], "messages": []}
        for line in self.log.read_text(encoding="utf-8").split("\n")[:-1]:
            sent = json.loads(line)
            control = sent.get("request", {})
            if sent["type"] in ("user", "assistant"):
                body["messages"].append({"role": sent["type"], "content": _without_white_blocks(sent["message"])})
            elif control["subtype"] == "initialize":
                body["system"] += [{"type": "text", "text": prompt} for prompt in control["systemPrompt"]]
            elif control["subtype"] == "apply_flag_settings":
                flags = control["settings"]["env"]
                body |= json.loads(flags.get("CLAUDE_CODE_EXTRA_BODY") or "{}")
                if flags.get("CLAUDE_CODE_MAX_OUTPUT_TOKENS"):
                    body["max_tokens"] = int(flags["CLAUDE_CODE_MAX_OUTPUT_TOKENS"])
                if "CLAUDE_CODE_EFFORT_LEVEL" in flags:
                    body["thinking"] = {"type": "adaptive"}
                    body["output_config"] = {"effort": flags["CLAUDE_CODE_EFFORT_LEVEL"]}
        return received_by_api(body)

    def missing(self) -> LlmProvider:
        return self.made("/nonexistent/claude")

    def translator(self) -> Translator:
        return ClaudeTranslator("claude")


@asynccontextmanager
async def real_claude(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with MessagesApi() as api:
        yield RealClaude(world, binary, api)


@asynccontextmanager
async def replayed_claude(world: World) -> AsyncIterator[Subject]:
    yield ReplayedClaude(world)


def _without_white_blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [block for block in message["content"] if block.get("text", "x").strip()]
