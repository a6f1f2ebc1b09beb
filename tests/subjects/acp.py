"""ACP agents put to the contract: a fake one, and real ones that are nobody's kind."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.acp.events import AcpTranslator
from runners.providers.acp.provider import AcpProvider
from runners.providers.acp.settings import AcpSettings
from runners.testing import Received, Subject, request
from runners.testing.apis import messages_api, responses_api
from runners.testing.apis.stand_in import Json, StandIn
from runners.translator import Translator
from tests.subjects.on_api import HOLD, OnApi
from tests.world import World

FAKE_ACP = Path(__file__).parents[1] / "fakes" / "fake_acp.py"


class FakeAgent(Subject):
    """The acp provider on the fake agent. `order` is told to it, see `fake_acp`."""

    def __init__(self, world: World, **order: Any) -> None:
        self.log = world.root / "acp.log"
        self._world = world
        self._order = {"log": str(self.log), **order}
        self.fake = world.program("agent", FAKE_ACP.read_text(encoding="utf-8"))
        self.provider: AcpProvider = self.made()

    def made(self, binary: str | None = None, **settings: Any) -> AcpProvider:
        """A provider on this agent, or with another binary and other settings."""
        env = {"HOME": str(self._world.home), "FAKE_ACP": json.dumps(self._order)}
        made = AcpSettings.model_validate({"binary": binary or str(self.fake), "env": env, "agent": True, **settings})
        return AcpProvider("agent", made, state_dir=self._world.state / "agent")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        blocks = self.logged("session/prompt")[-1]["prompt"]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        images = [block["data"] for block in blocks if block["type"] == "image"]
        return Received("", [("user", text)], images=images)

    def logged(self, method: str) -> list[dict[str, Any]]:
        """The params of every message of a method that the fake received."""
        lines = self.log.read_text(encoding="utf-8").split("\n")[:-1]
        received = [entry["received"] for entry in map(json.loads, lines) if "received" in entry]
        return [message["params"] for message in received if message.get("method") == method]

    def missing(self) -> LlmProvider:
        return self.made("/nonexistent/agent")

    def translator(self) -> Translator:
        return AcpTranslator("agent", "default")


@asynccontextmanager
async def fake_agent(world: World) -> AsyncIterator[Subject]:
    yield FakeAgent(world)


class RealAgent(OnApi):
    """A real agent against a stand-in API."""

    def __init__(self, world: World, binary: Path, api: StandIn, args: list[str], env: dict[str, str]) -> None:
        self._args = args
        self._env = {"HOME": str(world.home), **env}
        self._state = world.state / "agent"
        super().__init__(api, self._made(str(binary)))

    def _made(self, binary: str) -> AcpProvider:
        settings = AcpSettings(binary=binary, args=self._args, env=self._env, agent=True)
        return AcpProvider("agent", settings, state_dir=self._state)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/agent")

    def translator(self) -> Translator:
        return AcpTranslator("agent", "default")


class RealClaudeAgent(RealAgent):
    """claude-agent-acp, of Zed's, which runs Claude Code."""

    def read(self, body: Json) -> Received:
        messages = [(message["role"], _blocks(message["content"])) for message in body["messages"]]
        images = [block["source"]["data"] for _, blocks in messages for block in blocks if block["type"] == "image"]
        texts = [(role, "".join(block.get("text", "") for block in blocks)) for role, blocks in messages]
        return Received("", texts, images=images)

    def text(self, *pieces: str) -> messages_api.Reply:
        return messages_api.text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> messages_api.Reply:
        return messages_api.tool_calls(*calls, text=text)


class RealCodexAgent(RealAgent):
    """codex-acp, of Zed's, which is Codex."""

    def read(self, body: Json) -> Received:
        messages = [item for item in body["input"] if item.get("type") == "message"]
        parts = [part for message in messages for part in message["content"]]
        images = [part["image_url"].partition(",")[2] for part in parts if part["type"] == "input_image"]
        texts = [(m["role"], "".join(part.get("text", "") for part in m["content"])) for m in messages]
        return Received("", texts, images=images)

    def text(self, *pieces: str) -> responses_api.Reply:
        return responses_api.text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> responses_api.Reply:
        return responses_api.tool_calls(*calls, text=text)


def _blocks(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


CLAUDE_AGENT_ENV = {
    "ANTHROPIC_API_KEY": "dummy",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
}


def codex_arguments(url: str) -> list[str]:
    """What has codex-acp call an API without a login. Of a model that it does not know it says so in its answers."""
    provider = f'model_providers.stand_in={{name="stand-in",base_url="{url}",wire_api="responses"}}'
    settings = (provider, "model_provider=stand_in", "model=gpt-5.5", "analytics.enabled=false")
    return [argument for setting in settings for argument in ("-c", setting)]


@asynccontextmanager
async def real_claude_agent(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with messages_api.MessagesApi() as api:
        yield RealClaudeAgent(world, binary, api, [], {**CLAUDE_AGENT_ENV, "ANTHROPIC_BASE_URL": api.url})


@asynccontextmanager
async def real_codex_agent(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with responses_api.ResponsesApi() as api:
        yield RealCodexAgent(world, binary, api, codex_arguments(api.url), {})
