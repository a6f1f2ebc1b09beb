"""A conversation with an agent: one session of the agent's own as long as its turns end well.

After a turn that was cancelled, failed or cut that session holds what is no part of the conversation. It is left, and
the next turn begins another one, with the conversation so far as one text.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from runners.errors import DeadlineExceededError, RequestCancelledError
from runners.event_session import TranscriptSession
from runners.messages import ChatMessage
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.acp.agent import AcpAgent
from runners.providers.acp.agents import Agents
from runners.providers.acp.conversation import AgentSession
from runners.providers.acp.events import AcpInbox, AcpTranslator
from runners.providers.acp.sent import prompt
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines, within

DEFAULT_MODEL = "default"
"""Whichever model the agent itself chooses."""


class AcpSession(TranscriptSession):
    """A conversation in an agent's process. After a cancelled or failed turn it can go on from before that turn.

    `held` is the session of the agent's in which it goes on, `options` are those of its conversation. A kind of its own
    overrides `primed` and `blocks` where its agent can be told more than one text.
    """

    def __init__(self, provider: LlmProvider, agents: Agents, agent: AcpAgent) -> None:
        super().__init__(provider)
        self.agent = agent
        self.process = agent.process
        self._agents = agents
        self.options = SessionOptions()
        self.held: AgentSession | None = None
        self._said = 0
        self._used: set[str] = set()
        self._last = AcpTranslator(provider.name, self.model, agents.dialect)
        self._inbox = AcpInbox()
        self._farewells: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None
        agent.when_retired.add(self.cli_is_gone)

    @property
    def holds_conversation(self) -> bool:
        return self.held is not None

    async def begin(self) -> None:
        """Has a session of the agent's ready before it is known what for."""
        doing = "waiting for a session of the agent's"
        try:
            self.held = await within(self._new(), self.timeouts.spawn_s, deadline="spawn_s", doing=doing)
        except DeadlineExceededError:
            self.agent.retire()  # else others would wait for it too, as long as it is anybody's
            raise

    async def _new(self) -> AgentSession:
        agent = self.agent
        opening = asyncio.create_task(agent.new_session(self.options.tools), name="acp-new")
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The agent begins it all the same, some with a process of its own.
            self._keep(agent.farewell_to_new(opening), "acp-end-new")
            raise
        await self.choose_model(agent, session)
        return session

    async def choose_model(self, agent: AcpAgent, session: AgentSession) -> None:
        """Has this conversation's model answer in a session that is new."""
        self._agents.known.models = session.models
        # Of an agent that lists no models the entry's is a name for whatever it has.
        is_name = self.model == self.provider.settings.model and not session.models
        if not (self.model == DEFAULT_MODEL or is_name or self._agents.dialect.model_at_start):
            try:
                await session.choose(self.model)
            except BaseException:
                self._part(agent, session)
                raise

    async def prepare(self, options: SessionOptions) -> None:
        if self.state == "dead":
            raise self.agent.reason()
        self.options = options
        needed = self._agents.dialect.at_start(options.system, self.model)
        self._agents.latest_system = options.system
        if needed != self.agent.at_start:
            await self._move(await self._agents.acquire(needed))
        elif options.tools:
            # An agent is told of tools when a session begins.
            self.let_go()
            await self.begin()
        self.state = "idle"

    async def _move(self, agent: AcpAgent) -> None:
        """From now on it is another process that serves it: the one it was opened in was started for others."""
        left, held = self.agent, self.held
        self.agent, self.process, self.held = agent, agent.process, None
        left.when_retired.discard(self.cli_is_gone)
        agent.when_retired.add(self.cli_is_gone)
        self._keep(self._released(left, held), "acp-move")
        await self.begin()

    async def _released(self, agent: AcpAgent, held: AgentSession | None) -> None:
        if held is not None:
            await agent.farewell(held)
        await self._agents.release(agent)

    def translator(self) -> AcpTranslator:
        self._used = self._used if self.awaits else set()
        self._last = AcpTranslator(
            self.provider.name, self.model, self._agents.dialect, tools=self.options.tools, used=self._used
        )
        return self._last

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        new = messages[len(self.transcript) :]
        self._said = len(messages)
        held = self.held
        if self.awaits and held is not None and held.tools is not None:
            if held.is_busy and held.tools.waits_for(new):
                self.resent = False
                self._last.is_of(held.model or self.model, held.cost_usd)
                held.tools.give(new)
                return
            # What the agent goes on to say here it says without them.
            self.let_go()
            held = None
        is_known = held is not None and held.holds == len(self.transcript) > 0
        self.resent = not (is_known and len(new) == 1 and new[0].role == "user")
        if held is not None and self.resent and held.holds:
            self.let_go()
        held = await deadlines.wait(self.primed(messages, sampling))
        self._last.is_of(held.model or self.model, held.cost_usd)
        self._inbox = held.inbox
        held.say(self.blocks(messages))

    async def primed(self, messages: list[ChatMessage], sampling: Sampling) -> AgentSession:  # noqa: ARG002 overriders
        """The session in which `messages` are to be answered, which takes what `blocks` makes of them."""
        if self.held is None:
            self.held = await self._new()
        return self.held

    def blocks(self, messages: list[ChatMessage]) -> list[dict[str, Any]]:
        """The prompt for a session that holds nothing where `resent` is true, and else all but the last message."""
        dialect = self._agents.dialect
        if not self.resent:
            return prompt("", messages[-1:], dialect.guarded)
        return prompt("" if dialect.system_at_start else self.options.system, messages, dialect.guarded)

    def let_go(self) -> None:
        """Lets go of the session that it holds."""
        left, self.held = self.held, None
        self._part(self.agent, left)

    async def event(self) -> Event:
        return await self._inbox.get()

    async def interrupt(self) -> None:
        if self.state == "busy" and self.held is not None:
            await self.held.cancel()

    def settle(self, *, is_clean: bool) -> None:
        held = self.held
        self._agents.known.has_usage |= self._last.has_usage
        is_well = held is not None and is_clean and not held.is_spent
        if not is_well:
            self.awaits = frozenset()
        self.state = "dead" if self.agent.is_retired else "parked" if self.awaits else "idle"
        if held is not None and is_well:
            if self.awaits:
                return  # the agent is still in its turn, and may tell of that
            held.inbox.end()
            held.holds, held.cost_usd = self._said + 1, self._last.cost_usd
        else:
            self.let_go()

    def _part(self, agent: AcpAgent, session: AgentSession | None) -> None:
        """Lets a session of the agent's end, without waiting for it."""
        if session is not None:
            self._keep(agent.farewell(session), f"acp-end-{session.id}")

    def _keep(self, ending: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(ending, name=name)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    def cli_is_gone(self) -> None:
        if self.state in ("starting", "idle", "parked"):
            self.let_go()
        super().cli_is_gone()

    async def aclose(self) -> None:
        if self.state == "busy":
            self._inbox.close(RequestCancelledError("its session was closed"))
        self.state = "dead"
        self.let_go()
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="acp-leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        """Waits for what its turns leave behind."""
        await asyncio.gather(*self._farewells)
        self.agent.when_retired.discard(self.cli_is_gone)
        await self._agents.release(self.agent)
        self.provider.sessions.discard(self)
