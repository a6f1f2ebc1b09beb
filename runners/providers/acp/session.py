"""A conversation with an agent, see SharedSession: a session that is begun anew is told it as one text."""

import asyncio
from collections.abc import Coroutine
from itertools import takewhile
from typing import Any

from runners.errors import DeadlineExceededError
from runners.messages import ChatMessage
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.acp.agent import AcpAgent
from runners.providers.acp.agents import Agents
from runners.providers.acp.conversation import AgentSession
from runners.providers.acp.events import AcpTranslator
from runners.providers.acp.sent import prompt
from runners.shared_session import SharedSession
from runners.wire.deadlines import TurnDeadlines, within

DEFAULT_MODEL = "default"
"""Whichever model the agent itself chooses."""


class AcpSession(SharedSession[AcpAgent, AgentSession]):
    """A conversation in an agent's process.

    A kind of its own overrides `primed` and `blocks` where its agent can be told more than one text.
    """

    def __init__(self, provider: LlmProvider, agents: Agents, agent: AcpAgent) -> None:
        super().__init__(provider, agent)
        self._agents = agents
        self._said = 0
        self._used: dict[str, bool] = {}
        self._last = AcpTranslator(provider.name, self.model, agents.dialect)

    async def begin(self) -> None:
        """Has a session of the agent's ready before it is known what for."""
        doing = "waiting for a session of the agent's"
        try:
            self.held = await within(self._new(), self.timeouts.spawn_s, deadline="spawn_s", doing=doing)
        except DeadlineExceededError:
            self.host.retire()  # else others would wait for it too, as long as it is anybody's
            raise

    async def _new(self) -> AgentSession:
        return await self.begun(self.host.new_session(self.options.tools))

    async def begun(self, beginning: Coroutine[Any, Any, AgentSession]) -> AgentSession:
        """A session that begins in the agent, with this conversation's model; one that nobody waits for is ended."""
        agent = self.host
        opening = asyncio.create_task(beginning, name="acp-begin")
        try:
            session = await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The agent begins it all the same, some with a process of its own.
            self.leave_behind(agent.farewell_to_new(opening))
            raise
        await self._choose_model(agent, session)
        return session

    async def _choose_model(self, agent: AcpAgent, session: AgentSession) -> None:
        self._agents.known.models = session.models
        # Of an agent that lists no models the entry's is a name for whatever it has.
        is_name = self.model == self.provider.settings.model and not session.models
        if not (self.model == DEFAULT_MODEL or is_name or self._agents.dialect.model_at_start):
            try:
                await session.choose(self.model)
            except BaseException:
                self.leave_behind(agent.farewell(session))
                raise

    async def prepare(self, options: SessionOptions) -> None:
        if self.state == "dead":
            raise self.host.reason()
        self.options = options
        needed = self._agents.dialect.at_start(options.system, self.model)
        self._agents.latest_system = options.system
        if needed != self.host.at_start:
            await self._move(await self._agents.acquire(needed))
        elif options.tools:
            # An agent is told of tools when a session begins.
            self.let_go()
            await self.begin()
        self.state = "idle"

    async def _move(self, agent: AcpAgent) -> None:
        """From now on it is another process that serves it: the one it was opened in was started for others."""
        left, held = self.host, self.held
        self.host, self.process, self.held = agent, agent.process, None
        left.when_retired.discard(self.cli_is_gone)
        agent.when_retired.add(self.cli_is_gone)
        self.leave_behind(self._released(left, held))
        await self.begin()

    async def _released(self, agent: AcpAgent, held: AgentSession | None) -> None:
        if held is not None:
            await agent.farewell(held)
        await agent.release()

    def translator(self) -> AcpTranslator:
        self._used = self._used if self.awaits else {}
        self._last = AcpTranslator(
            self.provider.name, self.model, self._agents.dialect, tools=self.options.tools, used=self._used
        )
        return self._last

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        new = messages[len(self.transcript) :]
        self._said = len(messages)
        held = self.held
        if self.awaits and held is not None and held.tools is not None:
            if held.is_busy and held.tools.waits_for(new) and not self._has_given_up(held):
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
        self.inbox = held.inbox
        held.say(self.blocks(messages))

    def _has_given_up(self, held: AgentSession) -> bool:
        """Whether the agent, parked, goes on without the results: it says of a call that it failed.

        It says so too of one whose result was an error, maybe only when the next one waits: then nobody can tell.
        """
        earlier = takewhile(lambda message: message.role != "user", reversed(self.transcript))
        return not any(message.is_error for message in earlier) and self._last.has_given_up(held.inbox.unread)

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

    def settle(self, *, is_clean: bool) -> None:
        self._agents.known.has_usage |= self._last.has_usage
        super().settle(is_clean=is_clean)
        if self.held is not None and not self.awaits:
            self.held.holds, self.held.cost_usd = self._said + 1, self._last.cost_usd
