"""GitHub Copilot: `copilot` on its headless server, several conversations in one process.

Facts about the CLI were measured on the versions in TESTED_VERSIONS against a stand-in for its model API. This is the
driver's part that is the same for both of its modes: `server` and `oneshot`; the translator is `events`.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from runners.capabilities import Capabilities
from runners.errors import ProtocolError
from runners.installed import InstalledVersion
from runners.messages import ChatRequest, ImagePart, ModelInfo
from runners.provider import Health, LlmProvider, Session
from runners.providers.copilot.failures import not_logged_in
from runners.providers.copilot.oneshot import ARGUMENTS as ONE_SHOT_ARGUMENTS
from runners.providers.copilot.oneshot import OneShotCopilot
from runners.providers.copilot.server import CopilotServer
from runners.providers.copilot.session import CopilotSession
from runners.providers.copilot.settings import CopilotSettings
from runners.providers.copilot.tools import names_of, rewritten
from runners.shared_process import SharedProcess
from runners.wire.deadlines import within
from runners.wire.process import Finished, run

TESTED_VERSIONS = ("1.0.70", "1.0.102")
"""The oldest and the newest version that the tests run."""
HEADLESS_SINCE = (1, 0, 102)
"""1.0.92 tells deltas out of their order when they come fast; what lies between was not to be had."""
PACKAGE = "@github/copilot"

_UPDATE_HINT = "copilot update"
_NO_LIMIT = 9_000_000
_UNPACKING_S = 120.0
_HEADLESS = ["--headless", "--no-auto-update", "--log-level", "error", "--stdio"]


class CopilotProvider(LlmProvider):
    """The models of a GitHub Copilot plan, or of an API of the user's own, through the user's own `copilot`."""

    kind = "copilot"
    display_name = "GitHub Copilot"
    settings_type = CopilotSettings
    program = "copilot"
    install_hint = f"npm install -g {PACKAGE}"
    settings: CopilotSettings

    def __init__(self, name: str, settings: CopilotSettings, *, state_dir: Path, run_dir: Path | None = None) -> None:
        super().__init__(name, settings, state_dir=state_dir, run_dir=run_dir)
        # Shared with the copies that `with_model` makes.
        self._version = InstalledVersion(self._ask_version, like="{}", name=self.display_name, hint=self.install_hint)
        self._listed: list[ModelInfo] = []
        self._shared = SharedProcess(self._start)

    @property
    def vendor_default_model(self) -> str:
        return "auto"

    def available_models(self) -> list[ModelInfo]:
        named = [ModelInfo(model) for model in self.settings.models]
        return named or self._listed or [ModelInfo(self.default_model)]

    def capabilities(self) -> Capabilities:
        if not self._is_headless:
            return Capabilities(reasoning=True)
        return Capabilities(
            streaming=True,
            reasoning=True,
            tools=True,
            parallel_tools=True,
            system_prompt="replace",
            history="native",
            images=True,
            response_format=True,
            max_tokens=self.settings.provider is not None,
            reasoning_effort=True,
            interrupt=True,
            usage=True,
            exact_text=True,
            sessions_per_process=32,
        )

    def caveats(self, request: ChatRequest) -> Iterator[str]:
        if not self._is_headless:
            yield "this version of copilot puts the date before the text, and takes white space from its end"
            return
        if any(isinstance(part, ImagePart) for message in request.messages for part in message.parts):
            yield (
                "copilot puts the images of a message behind its text, each behind a line `image`, "
                "and scales those over 3 MiB or 2000 pixels"
            )
        yield from names_of(request.tools).caveats(self.name)
        for tool in request.tools:
            if words := ", ".join(rewritten(tool)):
                yield f"copilot takes {words} out of the parameters of {tool.name!r} and writes them into descriptions"

    async def discover(self) -> None:
        await self._version.look(self.binary())

    async def _ask_version(self, binary: str) -> Finished:
        # The first run of a version unpacks 235 MB, which is no part of a chat's deadlines.
        asked = run([binary, "--version"], env=self._environment(), cwd=self.directory("cwd"))
        return await within(asked, _UNPACKING_S, deadline="unpacking", doing="asking copilot for its version")

    @property
    def _is_headless(self) -> bool:
        """Whether the headless server is used; so it is while nothing is known."""
        return not self._version.numbers or self._version.numbers >= HEADLESS_SINCE

    async def probe(self) -> Health:
        await self.discover()
        server = await self._shared.acquire()
        try:
            health = await self._login(server)
        finally:
            await asyncio.shield(server.release())
        if health.ok and not self._is_headless:
            old = f"before {'.'.join(map(str, HEADLESS_SINCE))} each chat has a process of its own and does not stream"
            health = replace(health, detail=f"{health.detail}; {old}", hint=_UPDATE_HINT)
        return replace(health, version=str(self._version)).unless_older(TESTED_VERSIONS[0], hint=_UPDATE_HINT)

    async def _login(self, server: CopilotServer) -> Health:
        """What the CLI says of its login: local, and without a model call."""
        if self.settings.provider is not None:
            self._api_key()
            return Health(
                "ready", detail=f"with the API at {self.settings.provider.base_url}, whose key only a chat proves"
            )
        status = await server.call("auth.getStatus", {})
        if not status.get("isAuthenticated"):
            return Health.unavailable(not_logged_in())
        who = f"logged in as {status.get('login')} ({status.get('authType')})"
        try:
            listed = await server.call("models.list", {})
            self._listed[:] = [_model(model) for model in listed["models"]]
        except ProtocolError as error:
            # It asks GitHub for them: without a network there is no list, and no answer to a chat either.
            return Health("degraded", "network", authenticated=True, detail=f"{who}; {error.message}")
        except (KeyError, TypeError, AttributeError) as error:
            form = f"its list of models is not of its known form: {error!r}"
            return Health("degraded", "protocol", authenticated=True, detail=f"{who}; {form}")
        return Health("ready", authenticated=True, detail=who)

    async def open(self) -> Session:
        await self.discover()
        if not self._is_headless:
            return self._one_shot()
        # At the end of what it takes for the model's window the CLI would shorten the conversation or sum it up.
        window = {"limits": {"max_prompt_tokens": _NO_LIMIT}}
        settings: dict[str, Any] = {"model": self.default_model, "modelCapabilities": window}
        if self.settings.provider is not None:
            key = self._api_key()
            place = {"type": self.settings.provider.type, "baseUrl": self.settings.provider.base_url}
            settings["provider"] = place | ({"apiKey": key} if key else {})
        server = await self._shared.acquire()
        limit = self.settings.provider.max_prompt_tokens if self.settings.provider else None
        return CopilotSession(self, server, settings, limit)

    def _one_shot(self) -> OneShotCopilot:
        env = self._environment()
        argv = [self.binary(), *ONE_SHOT_ARGUMENTS, *self.settings.args]
        if self.settings.provider is not None:
            env |= {
                "COPILOT_PROVIDER_TYPE": self.settings.provider.type,
                "COPILOT_PROVIDER_BASE_URL": self.settings.provider.base_url,
                "COPILOT_PROVIDER_API_KEY": self._api_key() or "",
            }
        if self.default_model != self.vendor_default_model:
            argv += ["--model", self.default_model]
        return OneShotCopilot(self, argv, env=env, cwd=self.directory("cwd"))

    async def _start(self) -> CopilotServer:
        argv = [self.binary(), *_HEADLESS, *self.settings.args]
        if self.settings.provider is not None:
            argv.append("--no-auto-login")
        server, env = CopilotServer(self.directory("cwd")), self._environment()
        temporary = self.temporary()  # behind all else that may raise
        return await server.start(
            [*argv, "--log-dir", temporary.name],  # else each start leaves a file behind
            env=env,
            temporary=temporary,
            limit_s=self.settings.timeouts.spawn_s,
        )

    def _environment(self) -> dict[str, str]:
        # An old one too, which is only asked for its login here: each of its chats has a home that goes with it.
        is_private = self.settings.private_home or not self._is_headless
        home = {"COPILOT_HOME": str(self.directory("home"))} if is_private else {}
        return self.environment({"COPILOT_AUTO_UPDATE": "false"} | home)

    def _api_key(self) -> str | None:
        """The key of the user's own API, None when it needs none; ConfigError when it is nowhere."""
        assert self.settings.provider is not None
        return self.variable(self.settings.provider.api_key_env, key="provider.api_key_env")


def _model(listed: dict[str, Any]) -> ModelInfo:
    able = listed.get("capabilities") or {}
    limits, supports = able.get("limits") or {}, able.get("supports") or {}
    return ModelInfo(
        listed["id"],
        context_window=limits.get("max_context_window_tokens"),
        max_output_tokens=limits.get("max_output_tokens"),
        images=supports.get("vision"),
        reasoning=supports.get("reasoningEffort"),
    )
