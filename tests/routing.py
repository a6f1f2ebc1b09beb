"""A service with scripted runners, on a clock and with a chance that the test turns."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon.chat import Chat
from daemon.config import load_config
from daemon.registry import Registry
from daemon.service import Service
from daemon.supervisor import Supervisor
from daemon.tally import RunnerTally
from runners.errors import RunnerError
from runners.messages import ChatRequest
from runners.provider import LlmProvider, Session
from runners.settings import BreakerSettings, RetrySettings, RunnerSettings, Timeouts
from runners.stream import ChatChunk, Retrying, Text, Warn
from runners.testing import ScriptedProvider, request

Reply = str | list[ChatChunk] | RunnerError


def settings(attempts: int = 3, base_s: float = 0.001, cap_s: float = 0.004, **fields: Any) -> RunnerSettings:
    """Those of a runner that is quickly tried again."""
    retry = RetrySettings(attempts=attempts, base_s=base_s, cap_s=cap_s)
    return RunnerSettings(kind="scripted", **{"retry": retry, **fields})


class Scripted(ScriptedProvider):
    """Keeps the deadlines of every turn that it is asked for."""

    def __init__(self, name: str, *replies: Reply, settings: RunnerSettings) -> None:
        super().__init__(*replies, name=name, settings=settings)
        self.turns_s: list[float] = []
        self.asked = asyncio.Event()

    async def open(self) -> Session:
        session = await super().open()
        turn = session.turn

        def noted(messages: Any, sampling: Any) -> Any:
            self.turns_s.append(session.timeouts.turn_s)
            self.asked.set()
            return turn(messages, sampling)

        session.turn = noted  # type: ignore[method-assign]
        return session


class Routed:
    """Runners `a`, `b`, ... in a service; `fallback`, `alloy` and `default` as in runners.yaml."""

    def __init__(self, directory: Path, *, top: str = "", **runners: LlmProvider) -> None:
        path = directory / "runners.yaml"
        kinds = "".join(f"  {name}: {{kind: claude}}\n" for name in runners)
        path.write_text(f"{top}\nrunners:\n{kinds}")
        self.now_s = 1000.0
        self.registry = Registry(load_config(path), directory)
        self.registry.runners.update(runners)
        self.registry.eligible[:] = runners.values()
        self.supervisor = Supervisor(self.registry, lambda: self.now_s)
        self.service = Service(self.registry, self.supervisor)
        self.tallies: defaultdict[str, RunnerTally] = defaultdict(RunnerTally)
        self.jitters: list[tuple[float, float]] = []
        self.chance = 0.0

    def jitter(self, least: float, most: float) -> float:
        self.jitters.append((least, most))
        return least + self.chance * (most - least)

    async def chat(self, model: str | None = None, **fields: Any) -> list[ChatChunk]:
        """The chunks of a chat through the service."""
        async with await self.service.chat(request("Hi", model=model, **fields)) as stream:
            return [chunk async for chunk in stream]

    async def answer(self, *models: str, **fields: Any) -> list[ChatChunk]:
        """The chunks of a chat that goes the way of these runners, with the chance of the test."""
        chat = Chat(asked(**fields), self.supervisor, "", tally=self.tallies.__getitem__, jitter=self.jitter)
        return [chunk async for chunk in chat.answer(map(self.registry.resolve, models))]


def asked(**fields: Any) -> ChatRequest:
    return request("Hi", **fields)


def told(chunks: list[ChatChunk]) -> list[str]:
    """What a client sees of them, in short."""
    return list(_told(chunks))


def _told(chunks: list[ChatChunk]) -> Iterator[str]:
    for chunk in chunks:
        if isinstance(chunk, Retrying):
            yield f"retrying {chunk.attempt}/{chunk.max_attempts} {chunk.error}"
        elif isinstance(chunk, Warn):
            yield f"warning {chunk.message}"
        elif isinstance(chunk, Text):
            yield chunk.chunk


def breaks_after(failures: int) -> RunnerSettings:
    """Tried once, and left alone after so many failures."""
    return settings(attempts=1, breaker=BreakerSettings(failures=failures, open_s=30))


def in_time(turn_s: float, **fields: Any) -> RunnerSettings:
    """A whole turn may take so long."""
    return settings(timeouts=Timeouts(turn_s=turn_s), **fields)
