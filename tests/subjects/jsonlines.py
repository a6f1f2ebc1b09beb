"""Declared CLIs put to the contract: a small fake one, and the real claude as README declares its one-shot mode."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from daemon.config import load_config
from runners.kinds import provider_class
from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.jsonlines.events import JsonLinesTranslator
from runners.providers.jsonlines.provider import JsonLinesProvider
from runners.testing import Received, Subject, request
from runners.testing.apis.messages_api import MessagesApi, Reply, text, tool_calls
from runners.testing.apis.stand_in import Json
from runners.translator import Translator
from tests.capability_matrix import README
from tests.subjects.claude import received_by_api
from tests.subjects.on_api import HOLD, OnApi
from tests.world import World

FAKE = Path(__file__).parents[1] / "fakes" / "fake_jsonlines.py"
_SECTION = "### Any CLI that prints JSON lines\n"

FAKE_ENTRY: Json = yaml.safe_load("""
kind: jsonlines
agent: true
model: small
args: ["--model={model}", "--system-file={system_file}", "--effort={effort}", "{{a brace}}"]
lines:
  model: type == 'hello' && model
  text: type == 'piece' && text
  whole_text: type == 'whole' && text
  reasoning: type == 'thought' && text
  stop_reason: why
  usage: {at: tokens, input_tokens: in, cached_input_tokens: cached, output_tokens: out}
  error:
    message: type == 'failure' && message
    status: status
    words: {context_overflow: [too long]}
  end: type == 'end'
stop_reasons: {finished: end_turn}
exit_codes: {success: [0, 4], rate_limited: [7], network: [8, 9]}
login: {args: [login, status], hint: fake login}
system_prompt: replace
exact_text: true
""")


def declared(cli: str) -> Json:
    """The entry of that CLI in README, as it stands there, less its name."""
    section = README.read_text(encoding="utf-8").partition(_SECTION)[2].partition("\n### ")[0]
    blocks = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    entries = [entry for block in blocks for entry in yaml.safe_load(block)["runners"].values()]
    [found] = [entry for entry in entries if entry.get("binary") == cli]
    assert isinstance(found, dict)
    return found


def loaded(world: World, entry: Json, **more: Any) -> JsonLinesProvider:
    """A provider of that entry, read by the daemon's own reader; `env` is added to the entry's."""
    env = {"HOME": str(world.home)} | entry.get("env", {}) | more.pop("env", {})
    config = load_config(world.config(json.dumps({"runners": {"cli": entry | more | {"env": env}}})))
    settings = config.runners["cli"]
    provider = provider_class(settings.kind)("cli", settings, state_dir=world.state / "cli")
    assert isinstance(provider, JsonLinesProvider)
    return provider


class FakeJsonLines(Subject):
    """The fake CLI behind its declaration. It keeps what it was given."""

    model_usage = (11, 7)

    def __init__(self, world: World, **order: Any) -> None:
        self.log = world.root / "fake.log"
        self._world = world
        self._order = {"log": str(self.log), **order}
        self.fake = world.program("fake", FAKE.read_text(encoding="utf-8"))
        self.provider: JsonLinesProvider = self.made()

    def made(self, **more: Any) -> JsonLinesProvider:
        """A provider with other settings."""
        env = {"FAKE_CLI": json.dumps(self._order)}
        return loaded(self._world, FAKE_ENTRY, **{"binary": str(self.fake), "env": env} | more)

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        return self.received()

    def received(self) -> Received:
        given = json.loads(self.log.read_text(encoding="utf-8").splitlines()[-1])
        options = dict(arg.removeprefix("--").split("=", 1) for arg in given["argv"] if arg.startswith("--"))
        return Received(given["system"], [("user", given["prompt"])], {"reasoning_effort": options.get("effort")})

    def missing(self) -> LlmProvider:
        return self.made(binary="/nonexistent/fake")

    def translator(self) -> Translator:
        return JsonLinesTranslator("cli", self.provider.settings, "small")


class DeclaredClaude(OnApi):
    """The real claude, as README declares it, against the stand-in API."""

    model_usage = (11, 7)

    def __init__(self, world: World, binary: Path, api: MessagesApi) -> None:
        self._world = world
        self._env = {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "dummy"}
        self._settings = self._made(str(binary)).settings
        super().__init__(api, self._made(str(binary)))

    def _made(self, binary: str) -> JsonLinesProvider:
        return loaded(self._world, declared("claude"), binary=binary, env=self._env)

    def read(self, body: Json) -> Received:
        return received_by_api(body)

    def text(self, *pieces: str) -> Reply:
        return text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> Reply:
        return tool_calls(*calls, text=text)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/claude")

    def translator(self) -> Translator:
        return JsonLinesTranslator("cli", self._settings, "sonnet")


@asynccontextmanager
async def fake_jsonlines(world: World) -> AsyncIterator[Subject]:
    yield FakeJsonLines(world)


@asynccontextmanager
async def declared_claude(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with MessagesApi() as api:
        yield DeclaredClaude(world, binary, api)
