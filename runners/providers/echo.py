"""The echo runner: a small CLI of ours behind the same contract as every vendor's.

With it every path of the daemon can be tried on a machine that has no vendor CLI. It answers only when it is asked
for by name, so that an echo is never taken for a model's answer.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from runners.capabilities import Capabilities
from runners.errors import ModelNotFoundError
from runners.messages import ChatMessage, ModelInfo, Usage
from runners.process_session import ProcessSession
from runners.provider import Health, LlmProvider, Sampling, SessionOptions
from runners.settings import RunnerSettings
from runners.stream import ChatChunk, Done, Start, SurrogateJoiner, Text, UsageReport
from runners.translator import Event, Translator
from runners.wire.deadlines import TurnDeadlines, within
from runners.wire.process import CliProcess

_PROGRAM = Path(__file__).with_name("echo_cli.py")
_MODELS = ("echo", "request")


class EchoSettings(RunnerSettings):
    """Our own small CLI, that answers with what it was sent."""

    kind: Literal["echo"] = "echo"


class EchoProvider(LlmProvider):
    """Answers with what it was sent: `echo` with the last text, `request` with the whole request as JSON."""

    kind = "echo"
    display_name = "Echo (no model)"
    settings_type = EchoSettings
    image_roles = ("user", "tool")
    program = sys.executable
    install_hint = "install Python 3.11 or newer"
    by_name_only = True

    @property
    def vendor_default_model(self) -> str:
        return _MODELS[0]

    def available_models(self) -> list[ModelInfo]:
        return [ModelInfo(model) for model in self.settings.models or _MODELS]

    def capabilities(self) -> Capabilities:
        return Capabilities(
            streaming=True,
            system_prompt="replace",
            history="native",
            images=True,
            interrupt=True,
            usage=True,
            exact_text=True,
        )

    async def probe(self) -> Health:
        session = await self.open()
        try:
            await session.prepare(SessionOptions())
        finally:
            await session.aclose()
        return Health("ready", detail="a small CLI of ours, no model", version=sys.version.split()[0])

    async def open(self) -> "EchoSession":
        if self.default_model not in _MODELS:
            known = f"there are {', '.join(_MODELS)}"
            raise ModelNotFoundError(f"{self.name} has no model {self.default_model!r}", hint=known)
        # -I -S: nothing of ours, of the user or of the site is imported.
        argv = [self.binary(), "-I", "-S", str(_PROGRAM), *self.settings.args]
        process = await CliProcess.spawn(argv, env=self.environment({}), cwd=self.directory("cwd"))
        return EchoSession(self, process)


class EchoTranslator(Translator):
    """The echo CLI's events."""

    def __init__(self, runner: str) -> None:
        super().__init__(runner)
        self._joiner = SurrogateJoiner()

    def _chunks(self, event: Event) -> Iterator[ChatChunk] | None:
        known = event.get("type") in ("begin", "delta", "usage", "end")
        return self._told(event) if known else None

    def _told(self, event: Event) -> Iterator[ChatChunk]:
        match event["type"]:
            case "begin":
                yield Start(event["id"], self._runner, event["model"])
            case "delta":
                yield from (Text(piece) for piece in [self._joiner.feed(event["text"])] if piece)
            case "usage":
                yield from (Text(piece) for piece in [self._joiner.flush()] if piece)
                yield UsageReport(Usage(event["input_tokens"], output_tokens=event["output_tokens"]))
            case "end":
                self.ended = True
                self.is_clean = event["reason"] == "end"
                yield Done("end_turn" if self.is_clean else "cancelled", event["reason"])


class EchoSession(ProcessSession):
    """An echo process and its conversation."""

    async def prepare(self, options: SessionOptions) -> None:
        async def exchange() -> None:
            await self.send({"type": "start", "system": options.system})
            while (await self.event()).get("type") != "ready":
                pass

        await within(exchange(), self.timeouts.spawn_s, deadline="spawn_s", doing="waiting for echo to be ready")
        self.state = "idle"

    def translator(self) -> EchoTranslator:
        return EchoTranslator(self.provider.name)

    async def say(self, messages: list[ChatMessage], _sampling: Sampling, deadlines: TurnDeadlines) -> None:
        for message in messages:
            content = [part.model_dump() for part in message.parts]
            sent = {"type": "message", "message": {"role": message.role, "content": content}}
            await deadlines.wait(self.send(sent))
        await deadlines.wait(self.send({"type": "turn", "model": self.provider.default_model}))

    async def interrupt(self) -> None:
        if self.state == "busy":
            await self.send({"type": "interrupt"})
