"""copilot put to the contract, on its headless server and in its one-shot mode: the real CLI, and recordings."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.copilot.events import CopilotTranslator
from runners.providers.copilot.provider import CopilotProvider
from runners.providers.copilot.settings import CopilotModelProvider, CopilotSettings
from runners.testing import Received, Subject, request
from runners.testing.apis.completions_api import CompletionsApi, Reply, text, tool_calls
from runners.testing.apis.stand_in import Json
from runners.translator import Translator
from tests.fakes.fake_claude import object_of
from tests.live.install import COPILOT_CACHE
from tests.subjects.on_api import HOLD, OnApi, offered
from tests.world import World

FAKE_COPILOT = Path(__file__).parents[1] / "fakes" / "fake_copilot.py"
TRANSCRIPTS = Path(__file__).parents[1] / "transcripts" / "copilot" / "1.0.102"
ONE_SHOT_VERSION = "GitHub Copilot CLI 1.0.70."


def received_by_api(body: dict[str, Any]) -> Received:
    """What the stand-in received, in the contract's terms."""
    system, texts, images, calls = "", [], [], []
    results: list[tuple[str, str, bool | None]] = []
    for message in body["messages"]:
        content: str | list[dict[str, Any]] = message["content"] or ""
        parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        images += [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
        said = next((part["text"] for part in parts if part["type"] == "text"), "")
        if message["role"] == "system":
            system = said
            continue
        texts.append((message["role"], said))
        calls += [_call(call) for call in message.get("tool_calls") or []]
        if message["role"] == "tool":
            results.append((message["tool_call_id"], said, None))
    knobs = {name: body.get(name) for name in ("max_tokens", "reasoning_effort", "response_format")}
    functions = [tool["function"] for tool in body.get("tools") or []]
    tools = [
        {"name": f["name"], "description": f.get("description") or "", "parameters": f.get("parameters") or {}}
        for f in functions
    ]
    knobs |= offered([tool | {"parameters": _as_given(tool["parameters"])} for tool in tools])
    knobs |= _tool_choice(body.get("tool_choice"))
    return Received(system, texts, knobs, images, calls, results, tools)


def _as_given(parameters: dict[str, Any]) -> dict[str, Any]:
    """A schema without the empty `properties` that the CLI adds where there are none."""
    return {word: value for word, value in parameters.items() if (word, value) != ("properties", {})}


def _call(call: dict[str, Any]) -> tuple[str, str, Any]:
    raw = call["function"]["arguments"]
    arguments = object_of(raw)
    return call["id"], call["function"]["name"], raw if arguments is None else arguments


def _tool_choice(choice: Any) -> dict[str, Any]:
    """In our form; nothing for `auto`, which is the model's own choice."""
    if isinstance(choice, dict):
        return {"tool_choice": {"name": choice["function"]["name"]}}
    return {"tool_choice": choice} if choice in ("none", "required") else {}


class RealCopilot(OnApi):
    """The real CLI against the stand-in API."""

    model_usage = (11, 7)
    sessions_share_a_process = True

    def __init__(self, world: World, binary: Path, api: CompletionsApi) -> None:
        self._url = api.url
        self._env = {"HOME": str(world.home), "XDG_CACHE_HOME": str(COPILOT_CACHE), "KEY": "dummy"}
        self._state = world.state / "copilot"
        super().__init__(api, self._made(str(binary)))

    def _made(self, binary: str) -> CopilotProvider:
        provider = CopilotModelProvider(base_url=self._url, api_key_env="KEY")
        settings = CopilotSettings(binary=binary, model="gpt-x", provider=provider, env=self._env)
        return CopilotProvider("copilot", settings, state_dir=self._state)

    def read(self, body: Json) -> Received:
        return received_by_api(body)

    def text(self, *pieces: str) -> Reply:
        return text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> Reply:
        return tool_calls(*calls, text=text)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/copilot")

    def translator(self) -> Translator:
        return CopilotTranslator("copilot", "gpt-x")


class ReplayedCopilot(Subject):
    """The copilot provider on the fake CLI, which replays a recording and keeps what it was sent."""

    model_usage = (123, 45)

    def __init__(self, world: World, **order: Any) -> None:
        self.log = world.root / "fake.log"
        self._world = world
        is_one_shot = order.get("version") == ONE_SHOT_VERSION
        transcript = TRANSCRIPTS / ("json-plain.jsonl" if is_one_shot else "headless-basic.jsonl")
        self._order = {"transcript": str(transcript), "log": str(self.log), **order}
        self._is_one_shot = is_one_shot
        self.fake = world.program("copilot", FAKE_COPILOT.read_text(encoding="utf-8"))
        self.provider = self.made(str(self.fake))

    def made(self, binary: str, *, is_byok: bool = True, **settings: Any) -> CopilotProvider:
        """A provider on another binary or with other settings; with an API of the user's own, or a login."""
        env = {"HOME": str(self._world.home), "FAKE_CLI": json.dumps(self._order)}
        place = CopilotModelProvider(base_url="http://127.0.0.1:1/v1") if is_byok else None
        made = CopilotSettings(binary=binary, model="gpt-x", provider=place, env=env, **settings)
        return CopilotProvider("copilot", made, state_dir=self._world.state / "copilot")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        return self.received()

    def received(self) -> Received:
        return received_by_api(self.logged("api")[-1])

    def model_calls(self) -> int:
        return len(self.logged("api"))

    def logged(self, what: str) -> list[Any]:
        """What the fake noted under a name: `argv`, `received` or `api`."""
        lines = self.log.read_text(encoding="utf-8").split("\n")[:-1] if self.log.exists() else []
        return [entry[what] for entry in map(json.loads, lines) if what in entry]

    def missing(self) -> LlmProvider:
        return self.made("/nonexistent/copilot")

    def translator(self) -> Translator:
        return CopilotTranslator("copilot", "gpt-x", is_one_shot=self._is_one_shot)


@asynccontextmanager
async def real_copilot(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with CompletionsApi() as api:
        yield RealCopilot(world, binary, api)


@asynccontextmanager
async def replayed_copilot(world: World) -> AsyncIterator[Subject]:
    yield ReplayedCopilot(world)


@asynccontextmanager
async def replayed_one_shot_copilot(world: World) -> AsyncIterator[Subject]:
    yield ReplayedCopilot(world, version=ONE_SHOT_VERSION)
