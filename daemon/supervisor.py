"""What there is of each runner: its health, from probes and from real chats, the gate that its chats go through, and
the pool of its sessions.

Owns the probe tasks, the warming of who is asked by default, and the closing of runners that a reload has replaced. A
probe runs at start, when a chat has shown something bad, and when somebody asks; there is no timer.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from daemon import states
from daemon.breaker import Admission
from daemon.gate import Gate
from daemon.limiter import Limiter
from daemon.memory import Memory
from daemon.pool import Pool
from daemon.registry import Registry, Route
from runners.errors import RunnerError
from runners.provider import Health, LlmProvider

STALE_S = 60.0
FIRST_PROBE_S = 5.0
_CLOSE_S = 30.0  # more than all ladders of a runner's processes take, which end at the same time

_log = structlog.get_logger()


@dataclass(slots=True)
class _Supervised:
    gate: Gate
    pool: Pool
    evidence: states.Evidence | None = None
    probe: "asyncio.Task[None] | None" = None

    @property
    def runner(self) -> LlmProvider:
        return self.gate.runner


class Supervisor:
    """Keeps the evidence, the gates and the pools. `clock` is monotonic seconds."""

    def __init__(
        self, registry: Registry, clock: Callable[[], float] = time.monotonic, memory: Memory | None = None
    ) -> None:
        self._registry = registry
        self._clock = clock
        self.memory = memory or Memory()
        self._records: dict[LlmProvider, _Supervised] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self._warming: asyncio.Task[None] | None = None
        self._record_all()

    def start(self) -> None:
        """Begins the first probe of every runner that has had none, and warms who answers by default."""
        self.memory.start()
        self._begin()

    def _begin(self) -> None:
        for runner in self._registry.runners.values():
            if self._records[runner].evidence is None:
                self._probe(self._records[runner])
        if self._warming is not None:
            self._warming.cancel()
        self._warming = asyncio.create_task(self._warm(), name="warm-up")

    async def _warm(self) -> None:
        routes = self._registry.defaults
        if self._registry.default is None:
            routes = [route for route in [await self.first_able()] if route is not None]
        elif routes:
            await asyncio.gather(*(self.first_look(route.runner) for route in routes))
        for runner in self._registry.runners.values():
            models = [route.model for route in routes if route.runner is runner]
            health = self.known(runner)
            self._records[runner].pool.keep_warm(models if health is None or health.ok else [])

    async def first_able(self) -> Route | None:
        """The first runner that can answer, or may, of those that may without being named; None when none can."""
        for runner in self._registry.eligible:
            health = await self.first_look(runner)
            if health is None or health.ok:
                return Route(runner, "")
        return None

    def replace(self, registry: Registry) -> None:
        """From now on the runners are these. One that is not among them ends with the last of its chats."""
        self._registry = registry
        self._record_all()
        for supervised in list(self._records.values()):
            if not self._is_current(supervised.runner):
                supervised.pool.drain()
            self._close_if_done(supervised)
        self._begin()

    def gate(self, runner: LlmProvider) -> Gate:
        """What a runner's chats go through. For a chat that comes too late a runner that was replaced is used again."""
        return self._recorded(runner).gate

    def pool(self, runner: LlmProvider) -> Pool:
        """Who has the sessions of a runner that somebody is at the gate of."""
        return self._recorded(runner).pool

    def pools(self, name: str) -> list[Pool]:
        """That of the runner of this name, and those of the ones that it has replaced, while their last chats run."""
        return [supervised.pool for supervised in self._records.values() if supervised.runner.name == name]

    async def health(self, runner: LlmProvider) -> tuple[Health | None, float | None]:
        """What is known and its age in seconds; (None, None) when a first probe takes too long.

        Good evidence is shown as it is, and looked at again when it is old. Bad evidence is what a user is just
        mending, so it waits for a new probe, as a first look does, for at most 5 s.
        """
        supervised = self._records.get(runner)
        if supervised is None:
            return None, None  # it was replaced since
        known = supervised.evidence
        if known is None or known.health.state != "ready":
            await asyncio.wait([self._probe(supervised)], timeout=FIRST_PROBE_S)
            known = supervised.evidence
        elif self._clock() - known.at_s > STALE_S:
            self._probe(supervised)
        return (None, None) if known is None else (self.known(runner), self._clock() - known.at_s)

    async def first_look(self, runner: LlmProvider) -> Health | None:
        """What is known, after a first probe of at most 5 s where nothing is; None when that takes too long."""
        if self.known(runner) is None and runner in self._records:
            await asyncio.wait([self._probe(self._records[runner])], timeout=FIRST_PROBE_S)
        return self.known(runner)

    async def look_again(self) -> None:
        """Probes every runner, for at most 5 s."""
        probes = [self._probe(self._records[runner]) for runner in self._registry.runners.values()]
        if probes:
            await asyncio.wait(probes, timeout=FIRST_PROBE_S)

    def known(self, runner: LlmProvider) -> Health | None:
        """What is known now, without asking anybody. Whose chats are refused is unavailable, whatever it looks like."""
        supervised = self._records.get(runner)
        if supervised is None:
            return None
        known = None if supervised.evidence is None else supervised.evidence.health
        refusal = supervised.gate.breaker.refusal()
        if refusal is None:
            return known
        return replace(
            known or Health("unavailable"),
            state="unavailable",
            reason=refusal.kind,
            detail=refusal.message,
            hint=refusal.hint,
        )

    def in_use(self) -> list[LlmProvider]:
        """The runners, and those that were replaced or removed while their last chats run."""
        return [*self._registry.runners.values(), *(runner for runner in self._records if not self._is_current(runner))]

    def succeeded(self, runner: LlmProvider, admission: Admission) -> None:
        """A chat that the gate has admitted was answered."""
        admission.succeeded()
        supervised = self._records[runner]
        self._learn(supervised, states.answered(supervised.evidence, self._clock()))

    def failed(self, runner: LlmProvider, admission: Admission, error: RunnerError) -> None:
        """A chat that the gate has admitted failed."""
        if not states.is_its_own_fault(error, runner.settings.timeouts):
            return
        admission.failed(error)
        supervised = self._records[runner]
        before = supervised.evidence
        self._learn(supervised, states.failed(before, error, self._clock()))
        if supervised.evidence is not before and self._is_current(runner):
            self._probe(supervised)

    def drain(self) -> None:
        """Nothing is kept for chats that come later, or started for them."""
        self._is_draining = True
        for supervised in self._records.values():
            supervised.pool.drain()

    async def aclose(self) -> None:
        """Ends every probe, every session and every runner."""
        tasks = [supervised.probe for supervised in self._records.values() if supervised.probe is not None]
        tasks += [self._warming] if self._warming is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._closing, *map(self._closed, list(self._records.values())))
        await self.memory.aclose()

    async def _closed(self, supervised: _Supervised) -> None:
        """Ends a runner. One that cannot be ended keeps no other from its end: what it leaves is the reaper's."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await supervised.pool.aclose()
                await supervised.runner.aclose()
        except Exception:  # noqa: BLE001 a provider's bug, and a third party's may raise anything
            _log.exception("runner.not_closed", runner=supervised.runner.name)

    def _record_all(self) -> None:
        for runner in self._registry.runners.values():
            self._recorded(runner)

    def _recorded(self, runner: LlmProvider) -> _Supervised:
        if runner not in self._records:
            gate = Gate(runner, self._limiter(runner), self._clock)
            pool = Pool(runner, self.memory, keeps=self._is_current(runner) and not self._is_draining)
            made = self._records[runner] = _Supervised(gate, pool)
            gate.when_empty = lambda: self._close_if_done(made)
        return self._records[runner]

    def _limiter(self, runner: LlmProvider) -> Limiter:
        """One for all that bear a name: chats that a reload leaves with the one before count against its successor."""
        limits = runner.settings.max_running, runner.settings.max_queued
        for supervised in self._records.values():
            if supervised.runner.name == runner.name:
                if self._is_current(runner):
                    supervised.gate.limiter.resize(*limits)
                return supervised.gate.limiter
        return Limiter(*limits)

    def _is_current(self, runner: LlmProvider) -> bool:
        return self._registry.runners.get(runner.name) is runner

    def _close_if_done(self, supervised: _Supervised) -> None:
        """Ends a runner that was replaced and has no chat any more. One may still be on its way: then it ends again."""
        runner = supervised.runner
        if self._is_current(runner) or not supervised.gate.is_empty:
            return
        self._records.pop(runner, None)
        if supervised.probe is not None:
            supervised.probe.cancel()
        task = asyncio.create_task(self._closed(supervised), name=f"retire-{runner.name}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _probe(self, supervised: _Supervised) -> "asyncio.Task[None]":
        if supervised.probe is None or supervised.probe.done():
            probing = self._run_probe(supervised, supervised.evidence)
            supervised.probe = asyncio.create_task(probing, name=f"probe-{supervised.runner.name}")
        return supervised.probe

    async def _run_probe(self, supervised: _Supervised, before: states.Evidence | None) -> None:
        try:
            health = await supervised.runner.health_check()
        except Exception as error:  # noqa: BLE001 a provider's bug must not look like a probe that takes its time
            _log.exception("probe.bug", runner=supervised.runner.name)
            health = Health("unavailable", "vendor_error", detail=f"the probe failed: {error!r}")
        since = supervised.evidence
        if since is None or since is before:
            self._learn(supervised, states.probed(before, health, self._clock()))
        else:  # a chat has shown more in the meantime
            self._learn(supervised, states.overtaken(since, health))
        refusal = supervised.gate.breaker.refusal()
        if health.ok and refusal is not None and refusal.kind == "not_installed":
            supervised.gate.breaker.try_now()  # the one failure that a probe sees mended

    def _learn(self, supervised: _Supervised, evidence: states.Evidence | None) -> None:
        before, supervised.evidence = supervised.evidence, evidence
        if evidence is not None and (before is None or before.health.state != evidence.health.state):
            health = evidence.health
            _log.info(
                "runner.health",
                runner=supervised.runner.name,
                state=health.state,
                reason=health.reason,
                version=health.version,
            )
