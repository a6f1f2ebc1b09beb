"""A lab: a real daemon in a world of its own, real claude CLIs behind it, and a stand-in for their API.

Owns the daemon's runners.yaml and one connection to its socket. A CLI gets no variable of this machine, and of the
network only loopback.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.live.messages_api import MessagesApi
from tests.world import Daemon, Wire, World

Json = dict[str, Any]
Entries = Mapping[str, Json]

KEY = {"ANTHROPIC_API_KEY": "dummy"}
PLAN = {"CLAUDE_CODE_OAUTH_TOKEN": "dummy"}
NO_LOGIN: dict[str, str] = {}
RUNNER_ERROR = -32010
GONE_S = 10.0


@dataclass(frozen=True)
class Answer:
    """What a client saw of one chat: its chunks and its response."""

    chunks: list[Json]
    response: Json

    @property
    def result(self) -> Json:
        assert "result" in self.response, self.response
        result = self.response["result"]
        assert isinstance(result, dict)
        return result

    @property
    def error(self) -> Json:
        """The RunnerError. When chunks had started, the last of them must say the same."""
        assert "error" in self.response, self.response
        error = self.response["error"]
        assert error["code"] == RUNNER_ERROR
        data = error["data"]
        assert isinstance(data, dict)
        return data

    @property
    def kinds(self) -> list[str]:
        return [chunk["type"] for chunk in self.chunks]

    @property
    def text(self) -> str:
        return joined(self.chunks, "text")


def joined(chunks: list[Json], kind: str) -> str:
    """The pieces of all chunks of one type, `text` or `reasoning`."""
    return "".join(chunk["chunk"] for chunk in chunks if chunk["type"] == kind)


class Lab:
    """`api` is what the CLIs talk to, `wire` the test's connection to the daemon."""

    def __init__(self, world: World, api: MessagesApi, daemon: Daemon) -> None:
        self.world = world
        self.api = api
        self.daemon = daemon
        self.wire: Wire

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Lab"]:
        """The lab with a new connection. At the end no CLI may be left, and the API knows nothing any more."""
        try:
            async with await Wire.connect(self.world.socket) as self.wire:
                yield self
        finally:
            await self.no_cli_is_left()
            await asyncio.wait_for(self.api.forget(), GONE_S)

    async def begin(self, messages: list[Json], *, runner: str = "claude", **params: Any) -> int:
        """Sends a chat and returns its id."""
        return await self.wire.request("chat", model=runner, messages=messages, **params)

    async def chat(self, messages: list[Json], *, runner: str = "claude", **params: Any) -> Answer:
        """A whole chat."""
        return await self.rest(await self.begin(messages, runner=runner, **params))

    async def rest(self, request_id: int) -> Answer:
        """What is still to come of a chat."""
        return Answer(*await self.wire.read_until_response(request_id))

    async def chunks_until(self, request_id: int, text: str) -> list[Json]:
        """The chunks of a chat until the text of its answer so far is `text`."""
        chunks: list[Json] = []
        while joined(chunks, "text") != text:
            message = await self.wire.read()
            assert message.get("method") == "chat.chunk", message
            assert message["params"]["id"] == request_id
            chunks.append(message["params"]["chunk"])
        return chunks

    def clis(self) -> list[psutil.Process]:
        """The processes that run in this world beside the daemon."""
        return [process for process in self.world.processes() if process.pid != self.daemon.process.pid]

    async def no_cli_is_left(self) -> None:
        """Waits until the daemon is alone, and fails when it does not come to that."""
        try:
            async with asyncio.timeout(GONE_S):
                while self.clis():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"still there: {self.clis()}") from None


@asynccontextmanager
async def claude_lab(world: World, binary: Path, entries: Entries) -> AsyncIterator[Lab]:
    """A running lab. `entries` are those of runners.yaml, each less what all of them share."""
    async with MessagesApi() as api:
        runners = {name: _entry(binary, api.url, **entry) for name, entry in entries.items()}
        config = world.config(json.dumps({"daemon": {"drain_s": 5}, "runners": runners}))  # JSON is YAML
        with world.daemon(config) as daemon:
            yield Lab(world, api, daemon)


def _entry(binary: Path, url: str, *, env: Mapping[str, str] = KEY, **keys: Any) -> Json:
    return {"kind": "claude", "binary": str(binary), "env": {"ANTHROPIC_BASE_URL": url, **env}} | keys
