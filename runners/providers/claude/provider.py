"""Claude Code: `claude -p` on its live stream-json protocol, one process for each conversation.

Facts about the CLI were measured on the two versions in TESTED_VERSIONS against a stand-in for its API; where the
two differ the comment says so. The driver is ClaudeProvider and `session`, with `sent` and `tool_host`; the
translator is `events`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from runners.capabilities import Capabilities
from runners.errors import UnsupportedError
from runners.installed import InstalledVersion
from runners.messages import ChatMessage, ChatRequest, ModelInfo
from runners.process_session import json_object
from runners.provider import Health, LlmProvider
from runners.providers.claude.failures import not_logged_in
from runners.providers.claude.sent import is_told_unchanged, names_of, turns_of, units
from runners.providers.claude.session import ClaudeSession
from runners.providers.claude.settings import ClaudeSettings
from runners.providers.claude.tool_host import SERVER, passes_unchanged
from runners.stream import Warn
from runners.tool_calls import schema_problem
from runners.wire.process import CliProcess, Finished, run

TESTED_VERSIONS = ("2.1.197", "2.1.329")
"""The oldest and the newest version that the tests run."""
PACKAGE = "@anthropic-ai/claude-code"


# No tools but the client's, no settings, hooks, MCP servers or slash commands, nothing saved: a model, not an agent.
_ARGUMENTS = [
    *("-p", "--input-format", "stream-json", "--output-format", "stream-json"),
    *("--verbose", "--include-partial-messages"),
    *("--tools", "", "--setting-sources", "", "--strict-mcp-config"),
    *("--disable-slash-commands", "--no-session-persistence"),
    *("--allowedTools", f"mcp__{SERVER}"),
]

_ENVIRONMENT = {
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",  # `@file` stays text
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",  # else a broken stream is asked for again, and text doubles
    # Ten by default, three silent minutes. Retries are ours to make, but without one of its own the CLI never says
    # how long its vendor asked to wait: it announces the retry before it waits, and the translator ends the turn there.
    "CLAUDE_CODE_MAX_RETRIES": "1",
    "DISABLE_COMPACT": "1",  # else a long conversation is silently replaced by a summary
    "CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "100000000",  # else the CLI's own estimate refuses a long prompt
    "CLAUDE_CODE_DISABLE_REFUSAL_RETRY": "1",
    "CLAUDE_CODE_DISABLE_THINKING": "1",  # until a request asks for it, see `prepare`
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    "CLAUDE_AGENT_SDK_MCP_NO_PREFIX": "1",  # the client's tools have their own names
    "CLAUDE_CODE_MAX_MCP_DESCRIPTION_LENGTH": "100000000",  # and, since 2.1.329, their whole descriptions
    "ENABLE_TOOL_SEARCH": "false",  # else many tools are only told of when the model asks
    "CLAUDE_CODE_MAX_TOOL_USE_CONCURRENCY": "1000",  # else of more than 10 calls the others are asked for later
    "MAX_MCP_OUTPUT_TOKENS": "100000000",
    "CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT": "0",
    "CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS": "0",
    "CLAUDE_AGENT_SDK_DISABLE_BUILTIN_AGENTS": "1",  # else it tells of them where a tool has the name `Agent`
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_CLAUDE_MDS": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}


_WHOLE_DESCRIPTIONS_SINCE = (2, 1, 329)
_DESCRIPTION_CHARACTERS = 2048
_NOT_AT_THE_TOP = ("oneOf", "anyOf", "allOf")


class ClaudeProvider(LlmProvider):
    """Anthropic's models through the user's own `claude`."""

    kind = "claude"
    display_name = "Claude Code"
    settings_type = ClaudeSettings
    image_roles = ("user", "tool")
    program = "claude"
    install_hint = f"npm install -g {PACKAGE}"

    def __init__(self, name: str, settings: ClaudeSettings, *, state_dir: Path, run_dir: Path | None = None) -> None:
        super().__init__(name, settings, state_dir=state_dir, run_dir=run_dir)
        # Shared with the copies that `with_model` makes.
        self._version = InstalledVersion(
            self._ask_version, like=r"^{} \(Claude Code\)", name=self.display_name, hint=self.install_hint
        )

    @property
    def vendor_default_model(self) -> str:
        return "sonnet"

    def available_models(self) -> list[ModelInfo]:
        return [ModelInfo(model) for model in self.settings.models or ("sonnet", "opus", "haiku", "fable")]

    def capabilities(self) -> Capabilities:
        return Capabilities(
            streaming=True,
            reasoning=True,
            tools=True,
            parallel_tools=True,
            tool_choice=True,
            system_prompt="replace",
            history="native",
            images=True,
            response_format=True,
            temperature=True,
            top_p=True,
            stop=True,
            max_tokens=True,
            reasoning_effort=True,
            interrupt=True,
            usage=True,
            exact_text=True,
        )

    def preflight(self, request: ChatRequest) -> list[Warn]:
        for index, tool in enumerate(request.tools):
            # Its vendor refuses these, and the CLI drops the tool, its whole schema, or all tools, in silence.
            composed = [f"no {word} at the top" for word in _NOT_AT_THE_TOP if word in tool.parameters]
            if why := [*composed, *filter(None, [schema_problem(tool)])]:
                raise UnsupportedError(f"tools[{index}].parameters: claude takes {why[0]}", runner=self.name)
        warnings = super().preflight(request)
        turns_of(request.conversation, names_of(request.tools))  # raises here, where no session is spent for it
        return warnings

    def caveats(self, request: ChatRequest) -> Iterator[str]:
        yield from names_of(request.tools).caveats(self.name)
        if request.response_format is not None and request.response_format.type == "json_object":
            yield "claude has no response_format json_object: give it a json_schema; ignored"
        for tool in request.tools:
            if not is_told_unchanged(tool):
                yield f"claude changes characters of the definition of {tool.name!r}: it normalizes them (NFKC)"
        if self._version.numbers < _WHOLE_DESCRIPTIONS_SINCE:
            cut = [tool.name for tool in request.tools if units(tool.description) > _DESCRIPTION_CHARACTERS]
            for name in cut:
                yield f"claude {self._version} cuts the description of {name!r} at {_DESCRIPTION_CHARACTERS} characters"

    def resumes(self, results: Sequence[ChatMessage]) -> bool:
        return all(map(passes_unchanged, results))

    async def discover(self) -> None:
        await self._version.look(self.binary())

    async def _ask_version(self, binary: str) -> Finished:
        return await run([binary, "--version"], env=self.environment(_ENVIRONMENT), cwd=self.directory("cwd"))

    async def probe(self) -> Health:
        await self.discover()
        environment, directory, version = self.environment(_ENVIRONMENT), self.directory("cwd"), str(self._version)
        binary = self.binary()
        # Local and without a model call. An expired login still says true: only a chat proves it.
        status = await run([binary, "auth", "status", "--json"], env=environment, cwd=directory)
        login = json_object(status.output)
        if login is None or "loggedIn" not in login:
            return Health("degraded", version=version, detail="the CLI does not say whether it is logged in")
        if not login["loggedIn"]:
            return replace(Health.unavailable(not_logged_in()), version=version)
        method = login.get("authMethod", "an unknown method")
        health = Health("ready", version=version, authenticated=True, detail=f"logged in by {method}")
        return health.unless_older(TESTED_VERSIONS[0], hint=self.install_hint)

    async def open(self) -> "ClaudeSession":
        argv = [self.binary(), *_ARGUMENTS, "--model", self.default_model, *self.settings.args]
        # A killed CLI leaves a socket in its TMPDIR, and it logs the errors of tools in its cache.
        temporary = self.temporary()
        env = self.environment(_ENVIRONMENT | {"XDG_CACHE_HOME": temporary.name})
        process = await CliProcess.spawn(argv, env=env, cwd=self.directory("cwd"), temporary=temporary)
        return ClaudeSession(self, process)
