"""The processes of one runner, and what was learned from them; the copies of a provider share one of this."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runners.messages import ModelInfo
from runners.providers.acp.agent import AcpAgent
from runners.providers.acp.dialect import AtStart, Dialect
from runners.shared_process import SharedProcess

if TYPE_CHECKING:
    from acp.schema import InitializeResponse

_KEPT = 32


@dataclass(slots=True)
class Known:
    """What the agent has said of itself so far; `has_usage`: that it tells what a turn costs."""

    info: "InitializeResponse | None" = None
    models: list[ModelInfo] = field(default_factory=list)
    has_usage: bool = False


class Agents:
    """One process for all conversations, or for all of those that need the same at its start.

    `latest_system` is the system prompt that came last: a session that is opened ahead will most likely get it too.
    """

    def __init__(self, start: Callable[[AtStart], Awaitable[AcpAgent]], dialect: Dialect) -> None:
        self.dialect = dialect
        self.known = Known()
        self.latest_system = ""
        self.looking = asyncio.Lock()
        self._start = start
        self._held: AcpAgent | None = None
        self._shared: dict[AtStart, SharedProcess[AcpAgent]] = {}

    async def acquire(self, at_start: AtStart) -> AcpAgent:
        """A process that was told this at its start; its `release` is due."""
        if at_start not in self._shared:
            if len(self._shared) >= _KEPT:
                # The one that began first: with it goes no more than the memory of how its starts went.
                self._shared.pop(next(iter(self._shared)))
            self._shared[at_start] = SharedProcess(lambda: self._start(at_start))
        agent = await self._shared[at_start].acquire()
        self.known.info = agent.info
        return agent

    def hold(self, agent: AcpAgent) -> None:
        """Keeps what `acquire` gave until `let_go`."""
        self._held = agent

    async def let_go(self) -> None:
        """Releases what is held, if anything is."""
        held, self._held = self._held, None
        if held is not None:
            await held.release()
