"""codex put to the contract: the real CLI, on a stand-in for a user's own Responses API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runners.provider import LlmProvider
from runners.providers.codex.events import CodexTranslator
from runners.providers.codex.provider import CodexProvider
from runners.providers.codex.settings import CodexSettings
from runners.testing import Received, Subject
from runners.testing.apis.responses_api import Reply, ResponsesApi, text, tool_calls
from runners.testing.apis.stand_in import Json
from runners.translator import Translator
from tests.fakes.fake_claude import object_of
from tests.subjects.on_api import OnApi, offered
from tests.world import World


def received_by_api(body: Json) -> Received:
    """What the stand-in received, in the contract's terms."""
    system, images, calls = "", [], []
    texts: list[tuple[str, str]] = []
    results: list[tuple[str, str, bool | None]] = []
    for item in body["input"]:
        if item["type"] == "function_call":
            calls.append(_call(item))
            if not texts or texts[-1][0] != "assistant":
                texts.append(("assistant", ""))
        elif item["type"] == "function_call_output":
            said, shown = _told(item["output"])
            texts.append(("tool", said))
            results.append((item["call_id"], said, None))
            images += shown
        elif item["type"] == "message":
            said, shown = _told(item["content"])
            images += shown
            if item["role"] == "developer":
                system += said
            else:
                texts.append((item["role"], said))
    shape = (body.get("text") or {}).get("format")
    knobs = {"reasoning_effort": (body.get("reasoning") or {}).get("effort")}
    if shape:
        named = {"name": "n", "schema": shape["schema"]}
        knobs["response_format"] = {"type": "json_schema", "json_schema": named}
    tools = [
        {"name": tool["name"], "description": tool["description"], "parameters": tool["parameters"]}
        for tool in body.get("tools") or []
    ]
    as_given = [tool | {"parameters": _as_given(tool["parameters"])} for tool in tools]
    return Received(system, texts, knobs | offered(as_given), images, calls, results, tools)


def _told(content: Any) -> tuple[str, list[str]]:
    """The text of a message or a result, and the data of its images."""
    parts = [{"text": content}] if isinstance(content, str) else content
    images = [part["image_url"].partition(",")[2] for part in parts if "image_url" in part]
    return "".join(part.get("text", "") for part in parts), images


def _as_given(parameters: Json) -> Json:
    """A schema without the empty `properties` that the CLI adds where there are none."""
    return {word: value for word, value in parameters.items() if (word, value) != ("properties", {})}


def _call(item: Json) -> tuple[str, str, Any]:
    arguments = object_of(item["arguments"])
    return item["call_id"], item["name"], item["arguments"] if arguments is None else arguments


class RealCodex(OnApi):
    """The real CLI against the stand-in API."""

    whole_properties = 20
    sessions_share_a_process = True
    model_usage = (11, 7)

    def __init__(self, world: World, binary: Path, api: ResponsesApi) -> None:
        self._url = api.url
        self._env = {"HOME": str(world.home), "KEY": "dummy"}
        self._state = world.state / "codex"
        super().__init__(api, self._made(str(binary)))

    def _made(self, binary: str) -> CodexProvider:
        settings = CodexSettings(binary=binary, model="gpt-x", base_url=self._url, api_key_env="KEY", env=self._env)
        return CodexProvider("codex", settings, state_dir=self._state)

    def read(self, body: Json) -> Received:
        return received_by_api(body)

    def text(self, *pieces: str) -> Reply:
        return text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> Reply:
        return tool_calls(*calls, text=text)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/codex")

    def translator(self) -> Translator:
        return CodexTranslator("codex", "gpt-x")


@asynccontextmanager
async def real_codex(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with ResponsesApi() as api:
        yield RealCodex(world, binary, api)
