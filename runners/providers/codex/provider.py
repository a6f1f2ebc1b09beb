"""OpenAI's Codex: `codex app-server`, several conversations in one process.

Facts about the CLI were measured on the versions in TESTED_VERSIONS against a stand-in for its model API.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runners.capabilities import Capabilities
from runners.errors import ConfigError, NotAuthenticatedError, ProtocolError
from runners.installed import InstalledVersion
from runners.messages import ChatRequest, ModelInfo
from runners.process_session import json_object
from runners.provider import Health, LlmProvider, Session
from runners.providers.codex.arguments import API_KEY_VARIABLE, arguments
from runners.providers.codex.binary import native
from runners.providers.codex.catalog import listed, tool_less
from runners.providers.codex.failures import not_logged_in
from runners.providers.codex.items import WHOLE_SCHEMA_BYTES, altered, is_too_long, names_of
from runners.providers.codex.server import CodexServer
from runners.providers.codex.session import VENDORS_DEFAULT, CodexSession
from runners.providers.codex.settings import CodexSettings
from runners.shared_process import SharedProcess
from runners.wire.deadlines import within
from runners.wire.framing import dump_json
from runners.wire.process import Finished, run

TESTED_VERSIONS = ("0.169.0", "0.171.0")
"""The oldest and the newest version that the tests run."""
PACKAGE = "@openai/codex"

_UPDATE_HINT = f"npm install -g {PACKAGE}"
_CATALOG_S = 20.0
_CATALOG_CAP_BYTES = 64 * 1024 * 1024  # 0.171.0 tells 920 KB


class CodexProvider(LlmProvider):
    """The models of a ChatGPT plan or an OpenAI key, or of a server of the user's own, through the user's `codex`."""

    kind = "codex"
    display_name = "Codex"
    settings_type = CodexSettings
    program = "codex"
    install_hint = f"npm install -g {PACKAGE}"
    image_roles = ("user", "tool")
    settings: CodexSettings

    def __init__(self, name: str, settings: CodexSettings, *, state_dir: Path, run_dir: Path | None = None) -> None:
        super().__init__(name, settings, state_dir=state_dir, run_dir=run_dir)
        # Shared with the copies that `with_model` makes.
        like = r"codex-cli {}"
        self._version = InstalledVersion(self._ask_version, like=like, name=self.display_name, hint=self.install_hint)
        self._listed: list[ModelInfo] = []
        self._shared = SharedProcess(self._start)

    @property
    def vendor_default_model(self) -> str:
        return VENDORS_DEFAULT

    def available_models(self) -> list[ModelInfo]:
        named = [ModelInfo(model) for model in self.settings.models]
        return named or self._listed or [ModelInfo(self.default_model)]

    def capabilities(self) -> Capabilities:
        return Capabilities(
            streaming=True,
            reasoning=True,
            tools=True,
            parallel_tools=True,
            system_prompt="replace",
            history="native",
            images=True,
            response_format=True,
            reasoning_effort=True,
            interrupt=True,
            usage=True,
            exact_text=True,
            sessions_per_process=32,
        )

    def caveats(self, request: ChatRequest) -> Iterator[str]:
        yield from names_of(request.tools).caveats(self.name)
        for tool in request.tools:
            if words := ", ".join(altered(tool)):
                yield f"codex does not tell its model {words} in the parameters of {tool.name!r} as they are"
            if is_too_long(tool):
                yield f"codex takes descriptions out of parameters of over {WHOLE_SCHEMA_BYTES} bytes: of {tool.name!r}"
        if request.response_format is not None and request.response_format.type == "json_object":
            yield "codex has no response_format json_object: give it a json_schema; ignored"

    async def discover(self) -> None:
        await self._version.look(str(self._program()))

    async def _ask_version(self, binary: str) -> Finished:
        return await run([binary, "--version"], env=self._environment(), cwd=self.directory("cwd"))

    def _program(self) -> Path:
        """The native program, or where that is not found the one that starts it: its group is ended with it."""
        program = Path(self.binary())
        return native(program) or program

    async def probe(self) -> Health:
        await self.discover()
        server = await self._shared.acquire()
        try:
            health = await self._account(server)
        finally:
            await asyncio.shield(server.release())
        if health.ok and native(Path(self.binary())) is None:
            health = replace(health, detail=f"{health.detail}; its native program was not found behind its script")
        return replace(health, version=str(self._version)).unless_older(TESTED_VERSIONS[0], hint=_UPDATE_HINT)

    async def _login(self, server: CodexServer) -> str:
        """How the CLI is logged in, local and without a model call; NotAuthenticatedError when it is not."""
        asked = server.call("getAuthStatus", {"includeToken": False, "refreshToken": False})
        limit_s = self.settings.timeouts.spawn_s
        told = await within(asked, limit_s, deadline="spawn_s", doing="asking codex for its login")
        if told.get("authMethod") is None and told.get("requiresOpenaiAuth"):
            raise not_logged_in(_users_home(self.environment({})))
        return f"logged in by {told.get('authMethod')}"

    async def _account(self, server: CodexServer) -> Health:
        """How the CLI is logged in, and whether it can ask its vendor about that."""
        if self.settings.base_url is not None:
            return Health("ready", detail=f"with the server at {self.settings.base_url}, whose key only a chat proves")
        try:
            how = await self._login(server)
        except NotAuthenticatedError as error:
            return Health.unavailable(error)
        try:
            account = (await server.call("account/read", {})).get("account") or {}
        except ProtocolError as error:
            # Of a ChatGPT plan it asks its vendor: without a network there is no answer to a chat either.
            return Health("degraded", "network", authenticated=True, detail=f"{how}; {error.message}")
        plan = f" ({account['planType']})" if account.get("planType") else ""
        return Health("ready", authenticated=True, detail=f"{how}{plan}")

    async def open(self) -> Session:
        await self.discover()
        server = await self._shared.acquire()
        try:
            await self._check(server)
        except BaseException:
            await asyncio.shield(server.release())
            raise
        return CodexSession(self, server, is_own_server=self.settings.base_url is not None)

    async def _check(self, server: CodexServer) -> None:
        """Raises where no session may begin: it would ask its vendor without a login, or not be told of its end."""
        if self.settings.base_url is None:
            await self._login(server)
        if server.is_retired:
            raise server.reason()

    async def _start(self) -> CodexServer:
        environment = self._environment()
        key = self.variable(self.settings.api_key_env, key="api_key_env")
        if key is not None:
            environment[API_KEY_VARIABLE] = key
        server, program = CodexServer(self.directory("cwd")), str(self._program())
        temporary = self.temporary()  # from here on what raises must take it along
        try:
            catalog = Path(temporary.name) / "models.json"
            catalog.write_bytes(dump_json(tool_less(await self._catalog(environment))))
        except BaseException:
            temporary.cleanup()
            raise
        own = arguments(catalog, base_url=self.settings.base_url, has_key=key is not None)
        return await server.start(
            [program, *own, *self.settings.args],
            # Its records, which grow: else they would stay behind.
            env=environment | {"CODEX_SQLITE_HOME": temporary.name},
            temporary=temporary,
            limit_s=self.settings.timeouts.spawn_s,
        )

    async def _catalog(self, environment: dict[str, str]) -> dict[str, Any] | None:
        """The vendor's catalog of models, which the CLI may fetch for that; None for a server of the user's own."""
        if self.settings.base_url is not None:
            return None
        command = [str(self._program()), "debug", "models"]
        asked = run(command, env=environment, cwd=self.directory("cwd"), cap_bytes=_CATALOG_CAP_BYTES)
        told = await within(asked, _CATALOG_S, deadline="catalog", doing="asking codex for its models")
        catalog = json_object(told.output)
        try:
            self._listed[:] = listed(catalog or {})
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(
                f"codex debug models does not answer as it is known to: {error!r}",
                exit_code=told.exit_code,
                stderr_tail=told.stderr_tail or None,
            ) from error
        return catalog

    def _environment(self) -> dict[str, str]:
        """With a home of the runner's own, in which the user's login alone is the user's.

        The CLI has a file for that, and writes through a link to it when it renews a token; the lock that it takes for
        that lies beside the file itself. In the user's own home there are also settings, instructions and MCP servers.
        """
        environment, home = self.environment({}), self.directory("home")
        if self.settings.base_url is None:
            self._link(home / "auth.json", Path(_users_home(environment)) / "auth.json")
        return environment | {"CODEX_HOME": str(home)}

    def _link(self, link: Path, login: Path) -> None:
        try:
            if link.is_symlink() and link.readlink() == login:
                return
            link.unlink(missing_ok=True)
            link.symlink_to(login)
        except OSError as error:
            raise ConfigError(f"{link} cannot be made: {error.strerror}", runner=self.name) from error


def _users_home(environment: Mapping[str, str]) -> str:
    """Where the user's own codex keeps its login; a CODEX_HOME that is exported must be named in `env_pass`."""
    return environment.get("CODEX_HOME") or str(Path(environment.get("HOME", "")) / ".codex")
