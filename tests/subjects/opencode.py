"""opencode put to the contract: the real CLI against a stand-in for an API of a user's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runners.provider import LlmProvider
from runners.providers.acp.events import AcpTranslator
from runners.providers.opencode.dialect import DIALECT
from runners.providers.opencode.provider import OpencodeProvider
from runners.providers.opencode.settings import OpencodeSettings
from runners.testing import Received
from runners.testing.apis.completions_api import CompletionsApi, Reply, text, tool_calls
from runners.testing.apis.stand_in import Json
from runners.translator import Translator
from tests.subjects.acp import held
from tests.subjects.copilot import received_by_api
from tests.subjects.on_api import OnApi
from tests.world import World

MODEL = "standin/gpt-x"
ENV = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


def provider_block(url: str) -> Json:
    """The entry's `provider`: the stand-in as opencode is told of an OpenAI-compatible server."""
    model = {"attachment": True, "modalities": {"input": ["text", "image"], "output": ["text"]}}
    options = {"baseURL": url, "apiKey": "dummy"}
    return {"standin": {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"gpt-x": model}}}


class RealOpencode(OnApi):
    """The real CLI against the stand-in API."""

    sessions_share_a_process = True
    model_usage = (11, 7)

    def __init__(self, world: World, binary: Path, api: CompletionsApi) -> None:
        self._url = api.url
        self._env = {"HOME": str(world.home)} | ENV
        self._state = world.state / "opencode"
        self.made = self._made(str(binary))
        super().__init__(api, self.made)

    def _made(self, binary: str) -> OpencodeProvider:
        settings = OpencodeSettings(binary=binary, model=MODEL, provider=provider_block(self._url), env=self._env)
        return OpencodeProvider("opencode", settings, state_dir=self._state)

    def read(self, body: Json) -> Received:
        received = received_by_api(body)
        received.knobs.update({name: body[name] for name in ("temperature", "top_p") if name in body})
        return received

    def text(self, *pieces: str) -> Reply:
        # A connection that its process keeps for later would be taken for a leak of the test.
        return text(*pieces, headers={"connection": "close"})

    def calls(self, *calls: tuple[str, str], text: str) -> Reply:
        return tool_calls(*calls, text=text)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/opencode")

    def translator(self) -> Translator:
        return AcpTranslator("opencode", MODEL, DIALECT)


@asynccontextmanager
async def real_opencode(world: World, binary: Path) -> AsyncIterator[RealOpencode]:
    async with CompletionsApi() as api:
        subject = RealOpencode(world, binary, api)
        async with held(subject.made):
            yield subject
