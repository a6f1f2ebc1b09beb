"""Any CLI that only talks to a terminal, as an entry of runners.yaml describes it.

Its answers are what a person would read on its screen. The driver is TerminalProvider with `session`, `console` and
`sent`; the translator is `events`. Not proved to be without hands: only who says `agent: true` has it.
"""

import re
from collections.abc import Iterator

from runners.capabilities import Capabilities
from runners.errors import ModelNotFoundError
from runners.messages import ChatRequest, ModelInfo
from runners.provider import Health, LlmProvider
from runners.providers.terminal.sent import plain, refuse_unsafe
from runners.providers.terminal.session import TerminalSession
from runners.providers.terminal.settings import TerminalSettings
from runners.stream import Warn
from runners.wire.process import run
from runners.wire.terminal import TerminalProcess

# For as little decoration as a CLI can be asked for; an entry's `env` may ask for more.
_ENVIRONMENT = {"TERM": "dumb", "NO_COLOR": "1"}
_VERSION = re.compile(r"\d+(?:\.\d+)+")


class TerminalProvider(LlmProvider):
    """A CLI on a terminal of its own for each conversation."""

    kind = "terminal"
    display_name = "A CLI on a terminal"
    settings_type = TerminalSettings
    program = ""
    install_hint = "install it, or name it with `binary` in runners.yaml"
    settings: TerminalSettings

    @property
    def vendor_default_model(self) -> str:
        return "default"

    def available_models(self) -> list[ModelInfo]:
        return [
            ModelInfo(model) for model in self.settings.models or (self.settings.model or self.vendor_default_model,)
        ]

    def capabilities(self) -> Capabilities:
        return Capabilities(
            streaming=self.settings.streams != "answer", system_prompt="inline", history="text", interrupt=True
        )

    def preflight(self, request: ChatRequest) -> list[Warn]:
        for text in (request.system, *(message.text for message in request.conversation)):
            refuse_unsafe(plain(text, self.settings), self.settings)  # here, where no session is spent for it
        return super().preflight(request)

    def caveats(self, request: ChatRequest) -> Iterator[str]:
        if not self.settings.bracketed_paste and any("\t" in message.text for message in request.conversation):
            yield f"{self.name} is typed spaces in place of tabs"

    async def probe(self) -> Health:
        binary = self.binary()
        if not self.settings.version_args:
            return Health("ready", detail="its version is not asked for")
        argv = [binary, *self.settings.version_args]
        told = await run(argv, env=self.environment(_ENVIRONMENT), cwd=self.directory("cwd"))
        found = _VERSION.search(told.output.decode(errors="replace") + told.stderr_tail)
        if told.exit_code != 0 or found is None:
            detail = f"exits with {told.exit_code} when it is asked for its version, and tells none"
            return Health("degraded", detail=detail, hint="`version_args` are what it is asked with; [] asks nothing")
        return Health("ready", version=found[0])

    async def open(self) -> TerminalSession:
        argv = [self.binary(), *(arg.replace("{model}", self._model()) for arg in self.settings.args)]
        process = await TerminalProcess.on_terminal(
            argv,
            env=self.environment(_ENVIRONMENT),
            cwd=self.directory("cwd"),
            size=(self.settings.size.columns, self.settings.size.rows),
            farewell=self.settings.farewell,
            temporary=self.temporary(),
        )
        session = TerminalSession(self, process, self.settings)
        try:
            await session.settle_down()
        except BaseException:
            await session.aclose()
            raise
        return session

    def _model(self) -> str:
        model = self.default_model
        if model.startswith("-") or "\0" in model or (not self.settings.takes_models and not self.offers(model)):
            hint = f"there are {', '.join(info.model for info in self.available_models())}"
            raise ModelNotFoundError(f"{self.name} has no model {model!r}", hint=hint)
        return model
