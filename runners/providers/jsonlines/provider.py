"""A CLI that is declared in runners.yaml: one process for each turn, its prompt on stdin, its answer as JSON lines.

What it can do follows from its declaration, and is as true as that. Nothing is known of what it does by itself: the
entry must say `agent: true`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from runners.capabilities import Capabilities
from runners.errors import ConfigError, ModelNotFoundError, NotAuthenticatedError, ProcessExitedError
from runners.messages import ChatMessage, ModelInfo
from runners.one_shot_session import OneShotSession
from runners.prompt import as_one_text
from runners.provider import Health, LlmProvider
from runners.providers.jsonlines.arguments import filled
from runners.providers.jsonlines.events import Exited, JsonLinesTranslator
from runners.providers.jsonlines.settings import Command, JsonLinesSettings
from runners.stream import paired
from runners.translator import Event
from runners.wire.process import CliProcess, Finished, run

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_NO_MODEL = "default"
"""The model of a CLI that is told none."""


class JsonLinesProvider(LlmProvider):
    """The CLI of one entry."""

    kind = "jsonlines"
    display_name = "A CLI that prints JSON lines"
    settings_type = JsonLinesSettings
    settings: JsonLinesSettings
    program: ClassVar[str] = ""  # each entry names its own
    install_hint = "install it, or say in `binary` where it is"

    @property
    def vendor_default_model(self) -> str:
        return _NO_MODEL

    def available_models(self) -> list[ModelInfo]:
        return [ModelInfo(model) for model in self.settings.models or (self.settings.model or _NO_MODEL,)]

    def capabilities(self) -> Capabilities:
        settings = self.settings
        return Capabilities(
            streaming=settings.lines.text is not None,
            reasoning=settings.lines.reasoning is not None,
            system_prompt=settings.system_prompt if settings.takes_system else "inline",
            reasoning_effort="effort" in settings.takes,
            usage=settings.lines.usage is not None,
            exact_text=settings.exact_text,
        )

    async def probe(self) -> Health:
        asked = await self._run(self.settings.health)
        if asked.exit_code not in self.settings.health.success:
            raise ProcessExitedError(
                f"{self.settings.binary} {' '.join(self.settings.health.args)} exits with {asked.exit_code}",
                exit_code=asked.exit_code,
                stderr_tail=asked.stderr_tail or None,
            )
        version = _VERSION.search(asked.output.decode(errors="replace"))
        health = Health("ready", version=version[0] if version else None)
        login = self.settings.login
        if login is None:
            return health
        if (await self._run(login)).exit_code not in login.success:
            error = NotAuthenticatedError(f"{self.settings.binary} is not logged in", hint=login.hint)
            return replace(Health.unavailable(error), version=health.version)
        return replace(health, authenticated=True)

    async def _run(self, command: Command) -> Finished:
        argv = [self.binary(), *command.args]
        return await run(argv, env=self.environment({}), cwd=self.directory("cwd"))

    async def open(self) -> "JsonLinesSession":
        if "model" not in self.settings.takes and self.default_model != (self.settings.model or _NO_MODEL):
            raise ModelNotFoundError(f"{self.name} cannot be told a model: no argument of its entry takes {{model}}")
        self.binary()  # an entry whose CLI is missing fails here, and not in the middle of a turn
        return JsonLinesSession(self)


class JsonLinesSession(OneShotSession):
    """A conversation with such a CLI."""

    provider: JsonLinesProvider
    leaves_by_itself = True  # one that is killed may leave a lock behind

    def translator(self) -> JsonLinesTranslator:
        return JsonLinesTranslator(self.provider.name, self.provider.settings, self.model)

    def prompt(self, conversation: Sequence[ChatMessage]) -> str:
        return as_one_text("" if self.provider.settings.takes_system else self.options.system, conversation)

    async def start(self) -> CliProcess:
        temporary = self.provider.temporary()
        try:
            argv = [self.provider.binary(), *self._arguments(Path(temporary.name))]
            env, cwd = self.provider.environment({}), self.provider.directory("cwd")
        except BaseException:
            temporary.cleanup()
            raise
        return await CliProcess.spawn(argv, env=env, cwd=cwd, temporary=temporary)

    def _arguments(self, directory: Path) -> list[str]:
        system, system_file = paired(self.options.system), directory / "system.md"
        if "system_file" in self.provider.settings.takes:
            try:
                system_file.write_text(system, encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"{system_file} cannot be written: {error.strerror}") from error
        values = {
            "model": self.model,
            "system": system,
            "system_file": str(system_file),
            "effort": self.options.reasoning_effort,
        }
        return filled(self.provider.settings.args, values)

    async def event(self) -> Event:
        try:
            return await super().event()
        except ProcessExitedError as error:
            return Exited(error)
