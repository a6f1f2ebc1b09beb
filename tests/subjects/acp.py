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
from runners.translator import Translator
from tests.world import World

FAKE_ACP = Path(__file__).parents[1] / "fakes" / "fake_acp.py"
HOLD = "[hold]"


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
