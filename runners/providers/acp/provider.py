"""Any agent that speaks the Agent Client Protocol (version 1) over stdio: several conversations in one process.

The protocol has no system prompt and no past: both are written into the first prompt of a session. Facts about agents
were measured on those in `tests.live.install`, against stand-ins for their model APIs. A kind of its own overrides
`dialect`, `launch` and what it can do better. `agent` is the process, `session` a conversation in it.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from runners.capabilities import Capabilities
from runners.messages import ChatRequest, ModelInfo
from runners.provider import Health, LlmProvider
from runners.providers.acp.agent import AcpAgent, Launch
from runners.providers.acp.agents import Agents
from runners.providers.acp.dialect import AtStart, Dialect
from runners.providers.acp.sent import moves_images
from runners.providers.acp.session import DEFAULT_MODEL, AcpSession
from runners.providers.acp.settings import AcpSettings
from runners.providers.acp.tool_server import names_of
from runners.settings import RunnerSettings


class AcpProvider(LlmProvider):
    """The models of an agent that speaks ACP, through its user's own program."""

    kind = "acp"
    display_name = "ACP agent"
    settings_type: ClassVar[type[RunnerSettings]] = AcpSettings
    program = "acp-agent"
    install_hint = "install the agent, or say in `binary` where its program is"
    dialect: ClassVar[Dialect] = Dialect()
    session_type: ClassVar[type[AcpSession]] = AcpSession

    def __init__(self, name: str, settings: RunnerSettings, *, state_dir: Path, run_dir: Path | None = None) -> None:
        super().__init__(name, settings, state_dir=state_dir, run_dir=run_dir)
        # Shared with the copies that `with_model` makes.
        self.agents = Agents(self._start, self.dialect)

    @property
    def vendor_default_model(self) -> str:
        return DEFAULT_MODEL

    def available_models(self) -> list[ModelInfo]:
        named = [ModelInfo(model) for model in self.settings.models]
        return named or self.agents.known.models or [ModelInfo(self.default_model)]

    def capabilities(self) -> Capabilities:
        known = self.agents.known
        able = known.info.agent_capabilities if known.info else None
        return Capabilities(
            streaming=True,
            reasoning=True,
            tools=bool(able and able.mcp_capabilities and able.mcp_capabilities.http),
            images=bool(able and able.prompt_capabilities and able.prompt_capabilities.image),
            interrupt=True,
            usage=known.has_usage,
            sessions_per_process=32,
        )

    def caveats(self, request: ChatRequest) -> Iterator[str]:
        if request.conversation[-1].text.lstrip().startswith("/"):
            yield "the agent may take what begins with `/` for a command of its own"
        if moves_images(request.conversation):
            yield "the agent is shown the images behind all text"
        if self.capabilities().tools:
            yield from names_of(request.tools).caveats(self.name)

    def launch(self, at_start: AtStart, temporary: "tempfile.TemporaryDirectory[str]") -> Launch:  # noqa: ARG002 overriders
        """What starts the agent. `temporary` is its TMPDIR, and goes with it: what is written there it may read."""
        return Launch([self.binary(), *self.settings.args], self.environment({}), self.directory("cwd"))

    async def _start(self, at_start: AtStart) -> AcpAgent:
        temporary = self.temporary()
        try:
            launch = self.launch(at_start, temporary)
        except BaseException:
            temporary.cleanup()
            raise
        limit_s = self.settings.timeouts.spawn_s
        return await AcpAgent.launched(launch, at_start, self.dialect, temporary=temporary, limit_s=limit_s)

    async def discover(self) -> None:
        """Asks an agent that has not run yet; the process that was started for that serves the first session."""
        async with self.agents.looking:
            if self.agents.known.info is None:
                self.agents.hold(await self._acquire())

    async def _acquire(self) -> AcpAgent:
        """A process for whatever comes next: most likely for what came last."""
        return await self.agents.acquire(self.dialect.at_start(self.agents.latest_system, self.default_model))

    async def probe(self) -> Health:
        # A kind of its own may have more ready in a session than a probe needs.
        session = await AcpProvider.open(self)
        try:
            return self.health(session.host)
        finally:
            await session.aclose()

    def health(self, agent: AcpAgent) -> Health:
        """Of an agent that has opened a session. Whether its vendor takes its login only a chat proves."""
        who = agent.info.agent_info
        version = who.version if who else f"unknown, of ACP {agent.info.protocol_version}"
        return Health("ready", version=version, detail=f"{who.title or who.name} {version}" if who else None)

    async def open(self) -> AcpSession:
        try:
            agent = await self._acquire()
        except BaseException:
            await self.agents.let_go()
            raise
        session = self.session_type(self, self.agents, agent)
        try:
            await self.agents.let_go()
            await session.begin()
        except BaseException:
            await session.aclose()
            raise
        return session

    async def aclose(self) -> None:
        await super().aclose()
        await self.agents.let_go()
