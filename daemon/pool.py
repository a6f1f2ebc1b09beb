"""The live sessions of one runner: which of them serves a request, which are kept, which are ready before anybody asks.

Owns the workers. What happens is decided at once, by a look at plain data (`daemon.choice`); what it takes to do that
comes afterwards.
"""

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from daemon.choice import Wanted, abandoned, decide, surplus
from daemon.memory import Memory
from daemon.worker import Worker
from runners.messages import Served
from runners.provider import LlmProvider, Session

_REFILL_AFTER_S = 0.5
"""A blank that was taken is replaced when its turn has ended, and at the latest after this time: the start of another
CLI takes the processor from the one that is at work."""
_ANSWERED_S = 0.02
"""The last chunk is on its way by then."""

_BLANK_AGE_S = 3600.0
"""A blank that nobody takes is renewed: what its CLI has read at its start, such as a login or the date, grows old."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Tally:
    chats: int = 0
    session_s: float = 0.0


@dataclass(slots=True)
class _Warm:
    """A model that blanks are kept ready for: by whom they are opened, and until when."""

    provider: LlmProvider
    until_s: float
    refill: asyncio.TimerHandle | None = None


class Pool:
    """The workers of `runner`. What they need in memory they share with all other pools.

    For each model that was asked for within `idle_ttl_s` there are `warm` blanks, as long as memory lasts.
    """

    def __init__(self, runner: LlmProvider, memory: Memory, *, keeps: bool = True) -> None:
        self.name = runner.name
        self.counts_children = not runner.serves_models
        self.workers: list[Worker] = []
        self._served: dict[Served, _Tally] = {}
        self.runner = runner
        self._memory = memory
        self._keeps = keeps
        self._warm: dict[str, _Warm] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.TimerHandle | None = None
        memory.holders.append(self)

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.workers}>"

    def tallies(self) -> dict[str, dict[str, float]]:
        """How many chats were served in each way, and the mean seconds until they had their sessions."""
        return {
            served: {"chats": tally.chats, "session_s": round(tally.session_s / tally.chats, 4)}
            for served, tally in self._served.items()
        }

    def keep_warm(self, models: Iterable[str]) -> None:
        """Keeps blanks of these models, and no others, ready also when nobody asks; empty means the default model."""
        for warm in self._warm.values():
            warm.until_s = min(warm.until_s, self._wanted_until_s())
        for provider in [self.runner.with_model(model) if model else self.runner for model in models]:
            self._warm.setdefault(provider.default_model, _Warm(provider, 0.0)).until_s = math.inf
            self._refill(provider.default_model)
        self._tidy()

    def drain(self) -> None:
        """From now on nothing is kept or started ahead. What is in use goes when it is given back."""
        self._keeps = False
        self.start_over()

    async def aclose(self) -> None:
        """Closes every worker; no chat has one by now."""
        self.drain()
        if self._tidying is not None:
            self._tidying.cancel()
        await asyncio.gather(*self._closing)
        self._memory.holders.remove(self)

    def close(self, worker: Worker) -> "asyncio.Task[None]":
        """Begins to close a worker; who gave it back need not wait."""
        worker.move("draining")
        task = asyncio.create_task(self._closed(worker), name=f"close-{self.name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _closed(self, worker: Worker) -> None:
        try:
            await worker.aclose()
        except Exception:  # noqa: BLE001 a provider's bug, and a third party's may raise anything: the reaper is left
            _log.exception("worker.not_closed", runner=self.name)
        finally:
            worker.move("dead")
            self.workers.remove(worker)
            self._memory.happened()

    def start_over(self) -> None:
        """Closes what waits: when its user has mended a login, none must answer that has read the old one."""
        for warm in self._warm.values():
            if warm.refill is not None:
                warm.refill.cancel()
                warm.refill = None
        for worker in self.workers:
            if worker.state in ("starting", "idle", "parked"):
                self.close(worker)

    # Taking and giving back

    async def taken(self, provider: LlmProvider, wanted: Wanted) -> Worker:
        """The worker for a request, busy from now on. It may still be starting."""
        if (worker := decide(wanted, self.workers)) is None:
            await self._room(provider)
            worker = decide(wanted, self.workers) or self._begin(provider)
        if worker.state != "parked" and (left := abandoned(wanted, self.workers)) is not None:
            self.close(left)
        was_blank = worker.is_blank
        worker.move("busy")
        self._memory.happened()
        if was_blank and provider.default_model in self._warm:
            self._refill_within(provider.default_model, _REFILL_AFTER_S)
        return worker

    async def _room(self, provider: LlmProvider) -> None:
        """Waits until one more may start: also for those that leave, lest they become more and more."""
        while len(self._closing) > self.runner.settings.max_running:
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)
        if self._takes_a_process(provider):
            await self._memory.room(self.name)

    def _takes_a_process(self, provider: LlmProvider) -> bool:
        """Whether a new session starts a process, whose memory is a CLI's."""
        is_shared = provider.capabilities().sessions_per_process > 1
        return not provider.serves_models and not (is_shared and provider.processes())

    @property
    def starting(self) -> int:
        """How many processes are on their way, see daemon.memory.Holder."""
        on_their_way = sum(worker.session is None for worker in self.workers)
        return on_their_way if self._takes_a_process(self.runner) else 0

    def _begin(self, provider: LlmProvider) -> Worker:
        worker = Worker(provider.default_model, _opened(provider))
        self.workers.append(worker)
        worker.opening.add_done_callback(lambda _: self._is_open(worker))
        return worker

    def _is_open(self, worker: Worker) -> None:
        session = worker.session
        if session is not None:
            session.when_dead = lambda: self._has_died(worker)
            self._memory.happened()
            if worker.state == "starting":
                worker.move("idle")
            if session.state == "dead":
                self._has_died(worker)
            self._tidy()
        elif worker.state == "starting":
            _log.info("worker.not_started", runner=self.name, model=worker.model, error=str(worker.opening.exception()))
            self.close(worker)

    def _has_died(self, worker: Worker) -> None:
        """The CLI of one that waits has gone. Nobody starts another before somebody asks: it may go as soon."""
        if worker.state in ("idle", "parked"):
            _log.info("worker.died", runner=self.name, model=worker.model)
            self.close(worker)

    def give_back(self, worker: Worker) -> "asyncio.Task[None] | None":
        """A worker's turn is over: it is kept if it is good for another, and else closed, by the task returned."""
        if worker.model in self._warm and self._warm[worker.model].refill is not None:
            self._refill_within(worker.model, _ANSWERED_S)
        session = worker.session
        is_worth_keeping = self._keeps and session is not None and session.holds_conversation
        match session.state if session is not None and is_worth_keeping else "dead":
            case "idle" | "parked" as state:
                worker.move(state)
                for other in surplus(self.workers, self._most):
                    self.close(other)
                self._tidy()
                self._memory.happened()
                return None
            case _:
                return self.close(worker)

    @property
    def _most(self) -> int:
        """How many conversations are kept: where they share a process, as many as that takes."""
        return max(self.runner.settings.max_running, self.runner.capabilities().sessions_per_process)

    def has_begun(self, provider: LlmProvider, served: Served, session_s: float) -> None:
        """An answer has begun, which was served in this way, and had its session after so many seconds."""
        # Not before: the name may be no model's.
        self._ask_for(provider)
        if served not in ("continued", "resumed"):
            self._refill_within(provider.default_model, _REFILL_AFTER_S)
        tally = self._served.setdefault(served, _Tally())
        tally.chats += 1
        tally.session_s += session_s

    # What is ready ahead, and what has rested for long enough

    def _wanted_until_s(self) -> float:
        """Until when a model is wanted that is asked for now."""
        return time.monotonic() + self.runner.settings.idle_ttl_s

    def _ask_for(self, provider: LlmProvider) -> None:
        """A model was asked for: blanks of it are wanted for a while."""
        warm = self._warm.setdefault(provider.default_model, _Warm(provider, 0.0))
        warm.until_s = max(warm.until_s, self._wanted_until_s())

    def _refill_within(self, model: str, delay_s: float) -> None:
        """Replaces what was taken after so long, or earlier where that was said before."""
        warm, loop = self._warm[model], asyncio.get_running_loop()
        at_s = loop.time() + delay_s
        if warm.refill is not None and warm.refill.when() > at_s:
            warm.refill.cancel()
            warm.refill = None
        if warm.refill is None:
            warm.refill = loop.call_at(at_s, self._refill, model)

    def _refill(self, model: str) -> None:
        warm = self._warm[model]
        if warm.refill is not None:
            warm.refill.cancel()
            warm.refill = None
        waiting = [worker for worker in self.workers if worker.model == model and worker.state in ("starting", "idle")]
        missing = self.runner.settings.warm - sum(worker.is_fresh for worker in waiting)
        for _ in range(missing if warm.until_s > time.monotonic() and self._keeps else 0):
            if self._takes_a_process(warm.provider) and not self._memory.has_room(self.name):
                _log.info("worker.no_room", runner=self.name, model=model)
                break
            self._begin(warm.provider)
        self._tidy()

    def _tidy(self) -> None:
        """Closes what has rested for long enough, and comes again when the next one will have."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        now_s = time.monotonic()
        for model in [model for model, warm in self._warm.items() if warm.until_s <= now_s and warm.refill is None]:
            del self._warm[model]
        for worker in self.workers:
            if self._rests_until_s(worker) <= now_s:
                self.close(worker)
                if worker.is_fresh and worker.model in self._warm:
                    self._refill_within(worker.model, _REFILL_AFTER_S)
        next_s = min(map(self._rests_until_s, self.workers), default=math.inf)
        if next_s < math.inf:
            self._tidying = asyncio.get_running_loop().call_later(next_s - now_s, self._tidy)

    def _rests_until_s(self, worker: Worker) -> float:
        settings = self.runner.settings
        match worker.state:
            case "idle" if worker.is_fresh:
                warm = self._warm.get(worker.model)
                return min(warm.until_s, worker.used_s + _BLANK_AGE_S) if warm else 0.0
            case "idle":
                return worker.used_s + settings.idle_ttl_s
            case "parked":
                return worker.used_s + settings.parked_ttl_s
        return math.inf


async def _opened(provider: LlmProvider) -> Session:
    await provider.discover()
    return await provider.open()
