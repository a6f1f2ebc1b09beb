"""ollama put to the contract: a server that runs already, and one that the runner starts and supervises.

Both are the same stand-in program: no registry carries the real one.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.ollama.events import OllamaTranslator
from runners.providers.ollama.provider import OllamaProvider
from runners.providers.ollama.settings import OllamaSettings
from runners.testing import Received, Subject, request
from runners.translator import Translator
from tests.subjects.on_api import offered
from tests.world import World

HOLD = "[hold]"
MODEL = "gemma3:4b"
MODELS = {
    MODEL: {"capabilities": ["completion", "tools", "vision", "thinking"], "context_length": 8192},
    "llama3.2:latest": {"capabilities": ["completion"], "context_length": 131072},
    "nomic-embed-text:latest": {"capabilities": ["embedding"], "context_length": 2048},
}
_FAKE = Path(__file__).parents[1] / "fakes" / "fake_ollama.py"


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert isinstance(port, int)
    return port


class FakeOllama(Subject):
    """The runner on the stand-in. `order` is told to the stand-in, see `fake_ollama`."""

    is_free_in_arguments = False

    def __init__(self, world: World, *, host: str | None = None, **order: Any) -> None:
        self.log = world.root / "ollama.log"
        self.order = {"log": str(self.log), "models": MODELS, **order}
        self.host = host or f"127.0.0.1:{free_port()}"
        self._world = world
        self.binary = world.program("ollama", _FAKE.read_text(encoding="utf-8"))
        self.provider = self.made()

    def made(self, binary: str | None = None, **settings: Any) -> OllamaProvider:
        """A provider on this stand-in, or with another binary and other settings."""
        env = {"HOME": str(self._world.home), "FAKE_OLLAMA": json.dumps(self.order)}
        wanted = {"binary": str(self.binary), "host": self.host, "model": MODEL, "env": env} | settings
        if binary is not None:
            wanted["binary"] = binary
        made = OllamaSettings.model_validate(wanted)
        return OllamaProvider("ollama", made, state_dir=self._world.state / "ollama")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        return self.received()

    def received(self) -> Received:
        return received(self.chats()[-1])

    def model_calls(self) -> int:
        return len(self.chats())

    def chats(self) -> list[dict[str, Any]]:
        """The bodies of the chats that the stand-in received."""
        lines = self.log.read_text(encoding="utf-8").split("\n")[:-1]
        logged = [json.loads(line) for line in lines]
        return [entry["body"] for entry in logged if entry["path"] == "/api/chat" and entry["method"] == "POST"]

    def missing(self) -> LlmProvider:
        return self.made("/nonexistent/ollama", host=f"127.0.0.1:{free_port()}")

    def translator(self) -> Translator:
        return OllamaTranslator("ollama", "1")


def received(body: dict[str, Any]) -> Received:
    """What the stand-in received, in the contract's terms."""
    options, shape = body.get("options", {}), body.get("format")
    knobs = {
        "temperature": options.get("temperature"),
        "top_p": options.get("top_p"),
        "stop": options.get("stop"),
        "max_tokens": options.get("num_predict"),
        "reasoning_effort": body.get("think"),
        "response_format": shape and {"type": "json_schema", "json_schema": {"name": "n", "schema": shape}},
    }
    tools = [
        {"name": f["name"], "description": f.get("description") or "", "parameters": f.get("parameters") or {}}
        for f in (tool["function"] for tool in body.get("tools") or [])
    ]
    system = "".join(message["content"] for message in body["messages"] if message["role"] == "system")
    said = [message for message in body["messages"] if message["role"] != "system"]
    calls = [call for message in said for call in message.get("tool_calls") or []]
    return Received(
        system,
        [(message["role"], message["content"]) for message in said],
        knobs | offered(tools),
        images=[image for message in said for image in message.get("images", [])],
        calls=[(call.get("id", ""), call["function"]["name"], call["function"]["arguments"]) for call in calls],
        results=[(m.get("tool_call_id", ""), m["content"], None) for m in said if m["role"] == "tool"],
        tools=tools,
    )


@asynccontextmanager
async def spawned_ollama(world: World) -> AsyncIterator[Subject]:
    """Nobody serves at the host: the runner starts the program."""
    yield FakeOllama(world)


@asynccontextmanager
async def serving_ollama(world: World) -> AsyncIterator[Subject]:
    """The user's own server runs already, and goes on behind the test."""
    subject = FakeOllama(world)
    async with server(subject, world):
        yield subject


@asynccontextmanager
async def server(subject: FakeOllama, world: World) -> AsyncIterator[asyncio.subprocess.Process]:
    """The stand-in as a server of the user's own at the subject's host; at the end it must still run."""
    env = world.env | {"OLLAMA_HOST": subject.host, "FAKE_OLLAMA": json.dumps(subject.order)}
    process = await asyncio.create_subprocess_exec(
        subject.binary, "serve", env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    while b"Listening" not in await process.stderr.readline():
        assert process.returncode is None
    try:
        yield process
        assert process.returncode is None, "the user's own server was stopped"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
