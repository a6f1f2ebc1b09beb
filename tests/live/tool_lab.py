"""A lab whose models call tools as they are told to (see `runners.testing.calling`), whichever CLI they are behind."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.providers.claude.provider import TESTED_VERSIONS as CLAUDES
from runners.providers.codex.provider import TESTED_VERSIONS as CODEXES
from runners.testing import Received, called_by
from runners.testing.apis import completions_api, messages_api, responses_api
from runners.testing.apis.stand_in import BaseReply
from tests.conftest import HEADLESS_COPILOTS
from tests.live.claude_lab import claude_lab
from tests.live.codex_lab import codex_lab
from tests.live.copilot_lab import copilot_lab
from tests.live.lab import Answer, Entries, Json, Lab
from tests.subjects import claude, codex, copilot
from tests.subjects.on_api import asked_by
from tests.world import World

WEATHER: Json = {
    "name": "get_weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CLIS = [
    *(("claude", version) for version in CLAUDES),
    *(("copilot", version) for version in HEADLESS_COPILOTS),
    ("codex", CODEXES[-1]),
]
"""Those whose sessions wait for the results of tools."""
NEWEST_CLIS = pytest.mark.parametrize(
    "cli", [("claude", CLAUDES[-1]), ("copilot", HEADLESS_COPILOTS[-1])], ids="-".join, indirect=True
)
"""For tests of what does not hang on a CLI's version."""


@dataclass(frozen=True)
class _Api:
    lab: Callable[[World, Path, Entries], Any]
    read: Callable[[Json], Received]
    text: Callable[..., BaseReply]
    calls: Callable[..., BaseReply]


_APIS = {
    "claude": _Api(claude_lab, claude.received_by_api, messages_api.text, messages_api.tool_calls),
    "codex": _Api(codex_lab, codex.received_by_api, responses_api.text, responses_api.tool_calls),
    "copilot": _Api(copilot_lab, copilot.received_by_api, completions_api.text, completions_api.tool_calls),
}


class ToolLab:
    """A lab and clients that keep their conversations themselves."""

    def __init__(self, lab: Lab, api: _Api) -> None:
        self.lab = lab
        self._api = api

    def obey(self) -> None:
        """From now on the model does what it is told. The API forgets it at the end of each test."""
        self.lab.api.answer = self._answer

    def _answer(self, body: Json) -> BaseReply:
        asked = asked_by(self._api.read(body).messages)
        called = called_by(asked)
        return self._api.text(asked or "ok") if called is None else self._api.calls(*called[1], text=called[0])

    def script(self, *calls: tuple[str, str], **fields: Any) -> None:
        """What the model answers next: calls as (name, the text of the arguments), see BaseReply for `fields`."""
        self.lab.api.script(self._api.calls(*calls, **fields))

    async def chat(self, messages: list[Json], **params: Any) -> Answer:
        """A whole chat, which has a tool."""
        return await self.lab.chat(messages, tools=[WEATHER], **params)

    def read(self, body: Json) -> Received:
        """What a request to the model API said."""
        return self._api.read(body)

    def received(self) -> Received:
        """What the model API received last."""
        return self.read(self.lab.api.requests[-1].body)

    @property
    def model_calls(self) -> int:
        """How often the model was called."""
        return len(self.lab.api.requests)


@asynccontextmanager
async def tool_lab(world: World, cli: str, binary: Path, entries: Entries) -> AsyncIterator[ToolLab]:
    """A running lab of one CLI."""
    api = _APIS[cli]
    async with api.lab(world, binary, entries) as lab:
        yield ToolLab(lab, api)


def going_on(messages: list[Json], answer: Answer, *results: str) -> list[Json]:
    """The conversation with an answer and the results of its calls, in their order."""
    said = {"role": "assistant", "content": answer.result["content"], "tool_calls": answer.result["tool_calls"]}
    told = [
        {"role": "tool", "tool_call_id": call["id"], "content": text}
        for call, text in zip(answer.result["tool_calls"], results, strict=True)
    ]
    return [*messages, said, *told]
