"""gemini put to the contract: the real CLI against a stand-in for its API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from runners.provider import LlmProvider
from runners.providers.acp.events import AcpTranslator
from runners.providers.gemini.dialect import DIALECT
from runners.providers.gemini.provider import GeminiProvider
from runners.providers.gemini.settings import GeminiSettings
from runners.testing import Received
from runners.testing.apis.gemini_api import GeminiApi, Reply, system_of, text, told, tool_calls
from runners.testing.apis.stand_in import Json
from runners.translator import Translator
from tests.subjects.acp import held
from tests.subjects.on_api import OnApi
from tests.world import World

MODEL = "gemini-2.5-pro"
ENV = {"GEMINI_API_KEY": "dummy", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


def received_by_api(body: Json) -> Received:
    """What the stand-in received, in the contract's terms: each part of a message as one of its own."""
    parts = [part for content in body["contents"] for part in content["parts"]]
    images = [part["inlineData"]["data"] for part in parts if "inlineData" in part]
    tools = [tool for kind in body.get("tools") or [] for tools in kind.values() for tool in tools]
    return Received(system_of(body), told(body), images=images, tools=tools)


class RealGemini(OnApi):
    """The real CLI against the stand-in API."""

    sessions_share_a_process = True
    model_usage = (11, 7)

    def __init__(self, world: World, binary: Path, api: GeminiApi) -> None:
        self._env = {"HOME": str(world.home), "GOOGLE_GEMINI_BASE_URL": api.url} | ENV
        self._state = world.state / "gemini"
        self.made = self._made(str(binary))
        super().__init__(api, self.made)

    def _made(self, binary: str) -> GeminiProvider:
        settings = GeminiSettings(binary=binary, model=MODEL, env=self._env)
        return GeminiProvider("gemini", settings, state_dir=self._state)

    def read(self, body: Json) -> Received:
        return received_by_api(body)

    def text(self, *pieces: str) -> Reply:
        # A connection that its process keeps for later would be waited for as a leak of the test.
        return text(*pieces, headers={"connection": "close"})

    def calls(self, *calls: tuple[str, str], text: str) -> Reply:
        return tool_calls(*calls, text=text)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/gemini")

    def translator(self) -> Translator:
        return AcpTranslator("gemini", MODEL, DIALECT)


@asynccontextmanager
async def real_gemini(world: World, binary: Path) -> AsyncIterator[RealGemini]:
    async with GeminiApi() as api:
        subject = RealGemini(world, binary, api)
        async with held(subject.made):
            yield subject
