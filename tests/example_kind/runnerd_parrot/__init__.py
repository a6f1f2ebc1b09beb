"""A kind of runner that is no part of runnerd: a parrot, which says what it was told. Its CLI is `cli.py`."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from runners.capabilities import Capabilities
from runners.errors import ModelNotFoundError
from runners.messages import ChatMessage, ModelInfo, Usage
from runners.one_shot_session import OneShotSession
from runners.prompt import as_one_text
from runners.provider import Health, LlmProvider
from runners.settings import RunnerSettings
from runners.stream import ChatChunk, Done, Start, Text, UsageReport
from runners.translator import Event, Translator
from runners.wire.process import CliProcess, run

CLI = Path(__file__).with_name("cli.py")
MODEL = "grey"


class ParrotSettings(RunnerSettings):
    """An entry of the kind parrot, which says everything so many `times`."""

    kind: Literal["parrot"] = "parrot"
    times: int = Field(default=1, ge=1, le=9)


class ParrotProvider(LlmProvider):
    """A parrot."""

    kind = "parrot"
    display_name = "Parrot"
    settings_type = ParrotSettings
    settings: ParrotSettings
    program = sys.executable
    install_hint = "install Python"

    @property
    def vendor_default_model(self) -> str:
        return MODEL

    def available_models(self) -> list[ModelInfo]:
        return [ModelInfo(MODEL)]

    def capabilities(self) -> Capabilities:
        return Capabilities(streaming=True, usage=True)

    def command(self, *arguments: str) -> list[str]:
        """How the CLI is started."""
        return [self.binary(), "-IS", str(CLI), *arguments]

    async def probe(self) -> Health:
        asked = await run(self.command("--version"), env=self.environment({}), cwd=self.directory("cwd"))
        return Health("ready", version=asked.output.decode().strip())

    async def open(self) -> "ParrotSession":
        if self.default_model != MODEL:
            raise ModelNotFoundError(f"{self.name} has no model {self.default_model!r}", hint=f"there is {MODEL}")
        self.binary()
        return ParrotSession(self)


class ParrotSession(OneShotSession):
    """A conversation: each turn has a process, and is told all that was said."""

    provider: ParrotProvider
    leaves_by_itself = True

    async def start(self) -> CliProcess:
        argv = self.provider.command(str(self.provider.settings.times))
        return await CliProcess.spawn(argv, env=self.provider.environment({}), cwd=self.provider.directory("cwd"))

    def prompt(self, conversation: Sequence[ChatMessage]) -> str:
        return as_one_text(self.options.system, conversation)

    def translator(self) -> "ParrotTranslator":
        return ParrotTranslator(self.provider.name)


class ParrotTranslator(Translator):
    """What the CLI prints, as chunks."""

    def _chunks(self, event: Event) -> Iterator[ChatChunk] | None:
        known = {"hello": self._hello, "word": self._word, "bye": self._bye}
        told = known.get(str(event.get("type")))
        return None if told is None else told(event)

    def _hello(self, event: Event) -> Iterator[ChatChunk]:
        yield Start(event["id"], self._runner, MODEL)

    def _word(self, event: Event) -> Iterator[ChatChunk]:
        yield Text(event["word"])

    def _bye(self, event: Event) -> Iterator[ChatChunk]:
        self.ended = self.is_clean = True
        yield UsageReport(Usage(input_tokens=event["heard"], output_tokens=event["said"]))
        yield Done("end_turn", "bye")
