"""Gemini CLI, on its ACP mode: a model without tools, several conversations in one process.

Facts about the CLI were measured on the versions in TESTED_VERSIONS against a stand-in for its model API.
"""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runners.capabilities import Capabilities
from runners.errors import ConfigError
from runners.messages import ChatRequest
from runners.provider import Health
from runners.providers.acp.agent import AcpAgent, Launch
from runners.providers.acp.dialect import AtStart
from runners.providers.acp.provider import AcpProvider
from runners.providers.acp.sent import bare
from runners.providers.gemini.dialect import DIALECT, KEY_HINT, LOGIN_HINT
from runners.providers.gemini.home import KEY, furnish, workplace
from runners.providers.gemini.session import COMMANDS, HOME, GeminiSession
from runners.providers.gemini.settings import GeminiSettings

TESTED_VERSIONS = ("0.52.0", "0.61.0")
"""The oldest and the newest version that the tests run."""
PACKAGE = "@google/gemini-cli"

_ARGUMENTS = ["--acp", "--extensions", "none", "--allowed-mcp-server-names", "none"]
_LEFT_OUT_OF_A_SYSTEM_PROMPT = re.compile(r"^\s|\s$|\n{3}|\$\{(AgentSkills|SubAgents|AvailableTools)\}")


class GeminiProvider(AcpProvider):
    """The Gemini models, through the user's own `gemini`."""

    kind = "gemini"
    display_name = "Gemini CLI"
    settings_type = GeminiSettings
    program = "gemini"
    install_hint = f"npm install -g {PACKAGE}"
    dialect = DIALECT
    session_type = GeminiSession

    @property
    def vendor_default_model(self) -> str:
        # Not `auto`, the CLI's own default: it has a model choose the model, at each turn.
        return "gemini-2.5-pro"

    async def discover(self) -> None:
        """What it can do is known without asking it."""
        self.binary()

    def capabilities(self) -> Capabilities:
        return Capabilities(
            streaming=True,
            reasoning=True,
            system_prompt="replace",
            history="native",
            images=True,
            interrupt=True,
            usage=True,
            exact_text=True,
            sessions_per_process=32,
        )

    def caveats(self, request: ChatRequest) -> Iterator[str]:
        if _LEFT_OUT_OF_A_SYSTEM_PROMPT.search(request.system):
            yield "gemini takes white space around the system prompt, and more than one empty line in it, out of it"
        if any(bare(message).startswith(COMMANDS) for message in request.conversation if message.role == "user"):
            yield "gemini's model is sent an invisible character (U+200B) before a text that begins with `/` or `$`"

    def launch(self, at_start: AtStart, temporary: "tempfile.TemporaryDirectory[str]") -> Launch:
        place = Path(temporary.name)
        home, system, cwd = place / HOME, place / "system.md", place / "chat"
        kind_env = {
            # It would start itself once more as a child, and ignore SIGTERM.
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        }
        env = self.environment(kind_env)
        try:
            way = furnish(home, env)
            workplace(cwd, env)
            system.write_text(at_start.system, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be made: {error.strerror}", runner=self.name) from error
        argv = [self.binary(), *_ARGUMENTS, "--model", self.default_model, *self.settings.args]
        env |= {"GEMINI_CLI_HOME": str(home), "GEMINI_SYSTEM_MD": str(system)}
        return Launch(argv, env, cwd, KEY_HINT if way == KEY else LOGIN_HINT)

    def health(self, agent: AcpAgent) -> Health:
        return super().health(agent).unless_older(TESTED_VERSIONS[0], hint=self.install_hint)
