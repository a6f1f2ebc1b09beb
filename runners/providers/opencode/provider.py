"""opencode, on its ACP mode: a model without tools, many conversations in one process.

Facts about the CLI were measured on the versions in TESTED_VERSIONS against a stand-in for a model API.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runners.capabilities import Capabilities
from runners.errors import ConfigError
from runners.messages import ChatRequest
from runners.provider import Health
from runners.providers.acp.agent import AcpAgent, Launch
from runners.providers.acp.dialect import AtStart
from runners.providers.acp.provider import AcpProvider
from runners.providers.acp.session import DEFAULT_MODEL, AcpSession
from runners.providers.opencode.config import content, furnish
from runners.providers.opencode.dialect import DIALECT, login_hint, not_logged_in
from runners.providers.opencode.session import OpencodeSession
from runners.providers.opencode.settings import OpencodeSettings
from runners.wire.deadlines import within
from runners.wire.jsonrpc import RpcError

TESTED_VERSIONS = ("1.18.3", "1.18.33")
"""The oldest and the newest version that the tests run. Before, one that tries again cannot be stopped (1.17.0)."""
PACKAGE = "opencode-ai"


class OpencodeProvider(AcpProvider):
    """The models of every API that opencode is logged into, or that the entry names, through the user's `opencode`."""

    kind = "opencode"
    display_name = "opencode"
    settings_type = OpencodeSettings
    program = "opencode"
    install_hint = f"npm install -g {PACKAGE}"
    dialect = DIALECT
    session_type = OpencodeSession
    settings: OpencodeSettings

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
            temperature=True,
            top_p=True,
            max_tokens=True,
            interrupt=True,
            usage=True,
            exact_text=True,
            sessions_per_process=32,
        )

    def caveats(self, request: ChatRequest) -> Iterator[str]:  # noqa: ARG002 all reaches the model as it is
        yield from ()

    def launch(self, at_start: AtStart, temporary: "tempfile.TemporaryDirectory[str]") -> Launch:  # noqa: ARG002 it is told later
        named = self.default_model if self.default_model != DEFAULT_MODEL else None
        env = self.environment({"OPENCODE_CONFIG_CONTENT": content(named, self.settings.provider)})
        try:
            env |= furnish(Path(temporary.name))
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be made: {error.strerror}", runner=self.name) from error
        argv = [self.binary(), "acp", *self.settings.args]
        return Launch(argv, env, self.directory("cwd"), login_hint(self.settings.provider))

    async def open(self) -> AcpSession:
        session = await super().open()
        if session.host.users > 1:
            return session
        try:
            limit_s = self.settings.timeouts.spawn_s
            doing = "waiting for opencode to load what it calls a model with"
            await within(self._rehearse(session.host), limit_s, deadline="spawn_s", doing=doing)
        except BaseException:
            await session.aclose()
            raise
        return session

    async def _rehearse(self, agent: AcpAgent) -> None:
        """Has a new process load what it would else load with its first prompt, which is most of what it needs.

        This prompt has no file, and so our plugin refuses the call of a model: nobody is asked.
        """
        session = await agent.new_session()
        with suppress(RpcError):
            await agent.ask(session.id, [{"type": "text", "text": "-"}])
        await agent.farewell(session)

    def health(self, agent: AcpAgent) -> Health:
        if not self.agents.known.models:
            raise not_logged_in()
        return super().health(agent).unless_older(TESTED_VERSIONS[0], hint=self.install_hint)
