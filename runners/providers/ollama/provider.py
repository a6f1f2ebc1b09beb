"""Ollama: chats over the HTTP API of its server, the user's own where that runs, else a child of ours.

`ollama run` prints plain text for people; the JSON lines that a program can trust are those of the server, which the
same binary is. The server keeps models loaded and no conversations. The source of the facts stands in `events`.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from runners.capabilities import Capabilities
from runners.errors import ModelNotFoundError, ProtocolError, RunnerError
from runners.messages import ModelInfo
from runners.provider import Health, LlmProvider, ProcessRef
from runners.providers.ollama.server import Found, Servers, ask
from runners.providers.ollama.session import OllamaSession
from runners.providers.ollama.settings import OLLAMA_SERVER_VARIABLES, OllamaSettings
from runners.translator import Event

_ASK_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What was found out about the models that are pulled, by full name; those that cannot chat are None."""

    digests: dict[str, str] = field(default_factory=dict)
    models: dict[str, ModelInfo | None] = field(default_factory=dict)

    def forget(self, digests: Mapping[str, str]) -> None:
        """Drops what is known of models that are no longer those."""
        self.digests = {name: digest for name, digest in self.digests.items() if digests.get(name) == digest}

    def model(self, name: str) -> ModelInfo:
        """What is known of a model; nothing but its name, when it is not pulled."""
        return self.models.get(_full_name(name)) or ModelInfo(name)

    @property
    def able_to_chat(self) -> list[ModelInfo]:
        """The models to offer, the one that was pulled last first."""
        return [model for model in self.models.values() if model is not None]


class OllamaProvider(LlmProvider):
    """Models on the user's own machine, or wherever their Ollama runs."""

    kind = "ollama"
    display_name = "Ollama"
    settings_type = OllamaSettings
    serves_models = True
    program = "ollama"
    install_hint = "install Ollama from https://ollama.com/download, or start its server"
    settings: OllamaSettings

    def __init__(self, name: str, settings: OllamaSettings, *, state_dir: Path, run_dir: Path | None = None) -> None:
        super().__init__(name, settings, state_dir=state_dir, run_dir=run_dir)
        # Shared with the copies that `with_model` makes.
        self._known = _Known()
        self._finds_default = settings.model is None
        host = settings.host or settings.env.get("OLLAMA_HOST") or os.environ.get("OLLAMA_HOST", "")
        self._servers = Servers(host, self._command, spawn_s=settings.timeouts.spawn_s)

    @property
    def vendor_default_model(self) -> str:
        """None has a name before `discover`: then the model that was pulled last."""
        return ""

    def available_models(self) -> list[ModelInfo]:
        return [self._known.model(name) for name in self.settings.models] or self._known.able_to_chat

    def offers(self, model: str) -> bool:
        return super().offers(model) or super().offers(_full_name(model))

    def capabilities(self) -> Capabilities:
        model = self._known.model(self.default_model)
        return Capabilities(
            streaming=True,
            reasoning=model.reasoning is not False,
            tools=model.tools is not False,
            parallel_tools=model.tools is not False,
            system_prompt="replace",
            history="native",
            images=model.images is not False,
            response_format=True,
            temperature=True,
            top_p=True,
            stop=True,
            max_tokens=True,
            reasoning_effort=model.reasoning is not False,
            interrupt=True,
            usage=True,
            exact_text=True,
            sessions_per_process=512,
        )

    def processes(self) -> list[ProcessRef]:
        """Our own server, also while no conversation needs it: it keeps the models loaded."""
        serve = self._servers.ours
        idle = [replace(serve.process, sessions=0)] if serve is not None and serve.is_running else []
        return super().processes() or idle

    async def discover(self) -> None:
        await self._look((await self._server()).url)

    async def _look(self, url: str) -> None:
        """Learns which models the server has, and what those that are new can do."""
        tags = await ask(url, "GET", "/api/tags", limit_s=_ASK_S)
        try:
            digests = {str(listed["name"]): str(listed.get("digest")) for listed in tags["models"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"the list of models at {url} is not of its known form: {error!r}") from error
        self._known.forget(digests)
        for name, digest in digests.items():
            if name not in self._known.digests:
                await self._learn(url, name, digest)
        # In the server's order: the one that was pulled last comes first.
        self._known.models = {name: self._known.models[name] for name in digests}
        if self._finds_default:
            self.default_model = next((model.model for model in self._known.able_to_chat), "")

    def with_model(self, model: str) -> Self:
        other = super().with_model(model)
        other._finds_default = False
        return other

    async def _learn(self, url: str, name: str, digest: str) -> None:
        self._known.models[name] = ModelInfo(name)
        try:
            shown = await ask(url, "POST", "/api/show", {"model": name}, limit_s=_ASK_S)
            self._known.models[name] = _model(name, shown)
            self._known.digests[name] = digest
        except (RunnerError, TypeError, AttributeError) as error:
            # One model that is broken must not hide the others; it is asked about again the next time.
            _log.warning("%s: ollama does not show %s: %s", self.name, name, error)

    async def probe(self) -> Health:
        server = await self._server()
        await self._look(server.url)
        where = f"{'its own server' if server.ours else 'the server'} at {server.url}"
        wanted = self.default_model or "llama3.2"
        if self._known.models.get(_full_name(wanted)):
            return Health("ready", version=server.version, detail=f"{where} has {len(self._known.able_to_chat)} models")
        missing = f"{where} has no model {wanted!r}" if self.default_model else f"{where} has no models"
        return Health("degraded", "model_not_found", server.version, detail=missing, hint=f"ollama pull {wanted}")

    async def open(self) -> "OllamaSession":
        server = await self._server()
        if not self.default_model:
            raise ModelNotFoundError(f"{self.name} has no model", hint="ollama pull llama3.2")
        return OllamaSession(self, self.settings, server.url, server.ours)

    async def aclose(self) -> None:
        await super().aclose()
        await self._servers.aclose()

    async def _server(self) -> Found:
        return await self._servers.find(ours_is_used=lambda: any(session.process for session in self.sessions))

    def _command(self) -> tuple[list[str], dict[str, str], Path]:
        passed = {name: os.environ[name] for name in OLLAMA_SERVER_VARIABLES if name in os.environ}
        return [self.binary(), "serve", *self.settings.args], self.environment(passed), self.directory("cwd")


def _full_name(model: str) -> str:
    """A model's name with its tag, as the server lists it."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def _model(name: str, shown: Event) -> ModelInfo | None:
    able = shown.get("capabilities")  # since 0.6.4
    if able is not None and "completion" not in able:
        return None
    lengths = [value for key, value in (shown.get("model_info") or {}).items() if key.endswith(".context_length")]
    return ModelInfo(
        name,
        context_window=lengths[0] if lengths else None,
        images=None if able is None else "vision" in able,
        tools=None if able is None else "tools" in able,
        reasoning=None if able is None else "thinking" in able,
    )
