"""A CLI on a terminal put to the contract: `ollama run` as a stand-in, and Python's own prompt."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.terminal.events import TerminalTranslator
from runners.providers.terminal.provider import TerminalProvider
from runners.providers.terminal.settings import TerminalSettings
from runners.testing import Received, Subject, request
from runners.translator import Translator
from tests.readme import entry
from tests.world import World

_FAKE = Path(__file__).parents[1] / "fakes" / "fake_ollama_run.py"


class OnTerminal(Subject):
    """An entry of README's. `made` is another on the same CLI."""

    def __init__(self, world: World, name: str, binary: Path, **changes: Any) -> None:
        self._world = world
        self._name = name
        self._changes = {"binary": str(binary), **changes}
        self.provider = self.made()

    @property
    def settings(self) -> TerminalSettings:
        """Those of the entry."""
        return self.made().settings

    def made(self, **changes: Any) -> TerminalProvider:
        """A provider on the same CLI with other settings."""
        wanted = entry(self._name) | self._changes | changes
        wanted["env"] = {"HOME": str(self._world.home), **entry(self._name).get("env", {}), **wanted.get("env", {})}
        settings = TerminalSettings.model_validate(wanted)
        return TerminalProvider(self._name, settings, state_dir=self._world.state / self._name)

    def shown(self, text: str) -> str:
        return text.replace("\0", "").rstrip()

    def missing(self) -> LlmProvider:
        return self.made(binary="/nonexistent/cli")

    def translator(self) -> Translator:
        return TerminalTranslator(self._name, self.settings, model="m", message_id="1")


class FakeOllamaRun(OnTerminal):
    """The stand-in for `ollama run`. `order` is told to it, see `fake_ollama_run`."""

    def __init__(self, world: World, **order: Any) -> None:
        self.log, self._told = world.root / "chats.log", world.root / "answers.json"
        self._answers: dict[str, tuple[str, ...]] = {}
        self._order = {"log": str(self.log), "answers": str(self._told), **order}
        super().__init__(world, "ollama-repl", world.program("ollama", _FAKE.read_text(encoding="utf-8")))

    def made(self, **changes: Any) -> TerminalProvider:
        return super().made(**{"env": {"FAKE_OLLAMA_RUN": json.dumps(self._order)}, **changes})

    def answer(self, *pieces: str) -> ChatRequest:
        asked = f"answer {len(self._answers)}"
        self._answers[asked] = pieces
        self._told.write_text(json.dumps(self._answers), encoding="utf-8")
        return request(asked)

    def hold(self) -> ChatRequest:
        return request("[hold]")

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        return Received("", [(message["role"], message["content"]) for message in self.chats()[-1]])

    def chats(self) -> list[list[dict[str, str]]]:
        """The messages of each chat that the model was asked."""
        return [json.loads(line)["messages"] for line in self.log.read_text(encoding="utf-8").splitlines()]


class Python(OnTerminal):
    """Python's prompt: what it is told to print is its answer. It is told no conversations."""

    def answer(self, *pieces: str) -> ChatRequest:
        return request(f"print({''.join(pieces)!a})")

    def hold(self) -> ChatRequest:
        return request("import time; print('first word', flush=True); time.sleep(3600)")

    async def deliver(self, request: ChatRequest) -> Received:
        # Whatever came before would be evaluated too.
        text = request.conversation[-1].text
        await self.provider.complete(self.answer(text))
        return Received("", [("user", text)])


@asynccontextmanager
async def ollama_run(world: World) -> AsyncIterator[Subject]:
    yield FakeOllamaRun(world)


@asynccontextmanager
async def python(world: World) -> AsyncIterator[Subject]:
    yield Python(world, "python", Path(sys.executable))
