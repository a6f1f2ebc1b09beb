"""echo put to the contract."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.echo import EchoProvider, EchoSettings, EchoTranslator
from runners.testing import Received, Subject, request
from runners.translator import Translator
from tests.world import World


class Echo(Subject):
    """The echo runner."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.provider = self._made(None)

    def _made(self, binary: str | None) -> EchoProvider:
        settings = EchoSettings(binary=binary, env={"HOME": str(self._world.home)})
        return EchoProvider("echo", settings, state_dir=self._world.state / "echo")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        # More than every pipe and buffer on the way holds.
        return request("word " * 2_000_000)

    async def deliver(self, request: ChatRequest) -> Received:
        told = json.loads((await self.provider.complete(request.model_copy(update={"model": "request"}))).content)
        texts = [(m["role"], "".join(part.get("text", "") for part in m["content"])) for m in told["messages"]]
        images = [part["data"] for m in told["messages"] for part in m["content"] if part["type"] == "image"]
        return Received(told["system"], texts, {}, images)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/python")

    def translator(self) -> Translator:
        return EchoTranslator("echo")


@asynccontextmanager
async def echo(world: World) -> AsyncIterator[Subject]:
    yield Echo(world)
