"""A runner whose sessions act: they repeat what they are told, wait, fail and die when a test says so. No process."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

from runners.capabilities import Capabilities
from runners.errors import NotAuthenticatedError, RunnerError, VendorError
from runners.messages import ChatMessage, ModelInfo, Usage
from runners.provider import Health, LlmProvider, ProcessRef, Sampling, Session, SessionOptions
from runners.settings import RunnerSettings
from runners.stream import ChatChunk, ChatStream, Done, Start, Text, ToolRequestComplete, ToolRequestStart, UsageReport
from runners.tools import ToolCall


class Stage(LlmProvider):
    """Its sessions are `actors`, in the order in which they were opened.

    `may_open`, `may_close` and `may_end` hold up what they say; `fails_to_open` and `fails_to_prepare` are what comes
    of it the next times. `outlives` is whether a turn that was cancelled or failed leaves its session idle, with its
    old conversation, `takes_results` whether a parked session takes what it waits for; a call has these `arguments`. So
    many sessions as `dies_at_birth` says have lost their CLI when they are open. `pids` are those of their processes.
    """

    kind = "stage"
    display_name = "Stage"
    settings_type = RunnerSettings
    program = "stage"
    install_hint = "there is nothing to install"

    def __init__(self, name: str = "stage", *, sessions_per_process: int = 1, **settings: object) -> None:
        super().__init__(name, RunnerSettings.model_validate({"kind": self.kind, **settings}), state_dir=Path())
        self.actors: list[Actor] = []
        self.may_open, self.may_close, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_open.set()
        self.may_close.set()
        self.fails_to_open: list[RunnerError] = []
        self.fails_to_prepare: list[RunnerError] = []
        self.outlives = False
        self.takes_results = True
        self.arguments: dict[str, Any] = {"city": "Paris"}
        self.dies_at_birth = 0
        self.opening = asyncio.Event()
        self._sessions_per_process = sessions_per_process
        self.pids: Iterator[int] = itertools.count(2**30)  # nobody's

    @property
    def vendor_default_model(self) -> str:
        return "m"

    def available_models(self) -> list[ModelInfo]:
        return [ModelInfo("m")]

    def capabilities(self) -> Capabilities:
        return Capabilities(
            streaming=True,
            system_prompt="replace",
            history="native",
            tools=True,
            reasoning_effort=True,
            sessions_per_process=self._sessions_per_process,
        )

    def resumes(self, results: Sequence[ChatMessage]) -> bool:  # noqa: ARG002 all alike
        return self.takes_results

    async def probe(self) -> Health:
        return Health("ready")

    async def open(self) -> "Actor":
        self.opening.set()
        await self.may_open.wait()
        if self.fails_to_open:
            raise self.fails_to_open.pop(0)
        shared = self.processes() if self._sessions_per_process > 1 else []
        actor = Actor(self, shared[0] if shared else ProcessRef(next(self.pids), time.monotonic()))
        if self.dies_at_birth:
            self.dies_at_birth -= 1
            actor.die()
        return actor

    @property
    def told(self) -> list[list[list[str]]]:
        """What each session was told, turn by turn."""
        return [actor.told for actor in self.actors]


class Actor(Session):
    """One session. What a turn does, its last message says; all else is repeated.

    `hold` waits, after its first word, until `may_end`; `fail` fails before its answer and `break` in it; `login` fails
    because there is none; `stop` ends with `done{cancelled}`; `call` calls the tool `c1` and is parked.
    """

    def __init__(self, stage: Stage, process: ProcessRef) -> None:
        self.told: list[list[str]] = []
        self.options: SessionOptions | None = None
        self.is_closed = False
        self.model = stage.default_model
        self.process = process
        self._stage = stage
        stage.actors.append(self)
        stage.sessions.add(self)

    async def prepare(self, options: SessionOptions) -> None:
        assert self.options is None, "it was prepared already"
        if self._stage.fails_to_prepare:
            raise self._stage.fails_to_prepare.pop(0)
        self.options = options
        self.state = "idle"

    def turn(self, messages: list[ChatMessage], _sampling: Sampling) -> ChatStream:
        assert self.state in ("idle", "parked"), f"a turn on a session that is {self.state}"
        self.state = "busy"
        self.turns += 1
        self.told.append([message.text for message in messages])
        return ChatStream(self._turn(messages[-1].text), runner=self._stage.name)

    async def _turn(self, text: str) -> AsyncGenerator[ChatChunk, None]:
        try:
            if text == "fail":
                raise VendorError("it failed")
            if text == "login":
                raise NotAuthenticatedError("it is not logged in")
            yield Start(f"a-{self.turns}", self._stage.name, self.model)
            yield Text("re: ")
            if text == "break":
                raise VendorError("it broke off")
            if text == "hold":
                await self._stage.may_end.wait()
            yield Text(text)
            if text == "call":
                yield ToolRequestStart("c1", "weather")
                yield ToolRequestComplete(ToolCall(id="c1", name="weather", arguments=self._stage.arguments))
            yield UsageReport(Usage())
            self.state = "parked" if text == "call" else "idle"
            self.awaits = frozenset({"c1"}) if text == "call" else frozenset()
            yield Done({"call": "tool_calls", "stop": "cancelled"}.get(text, "end_turn"))
        finally:
            if self.state == "busy":
                self.state = "idle" if self._stage.outlives else "dead"

    def die(self) -> None:
        """Its CLI goes between turns."""
        self.state = "dead"
        self.when_dead()

    async def interrupt(self) -> None:
        pass

    async def aclose(self) -> None:
        await self._stage.may_close.wait()
        self.state = "dead"
        self.is_closed = True
        self._stage.sessions.discard(self)
