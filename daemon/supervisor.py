"""What is known of each runner: its health, from probes and from real chats, and the gate that its chats go through.

Owns the probe tasks and the closing of runners that a reload has replaced. A probe runs at start, when a chat has shown
something bad, and when somebody asks; there is no timer.
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
from daemon.registry import Registry
from runners.errors import RunnerError
from runners.provider import Health, LlmProvider

STALE_S = 60.0
FIRST_PROBE_S = 5.0
_CLOSE_S = 30.0  # more than all ladders of a runner's processes take, which end at the same time

_log = structlog.get_logger()


@dataclass(slots=True)
class _Supervised:
    gate: Gate
    evidence: states.Evidence | None = None
    probe: "asyncio.Task[None] | None" = None

    @property
    def runner(self) -> LlmProvider:
        return self.gate.runner


class Supervisor:
    """Keeps the evidence and the gates. `clock` is monotonic seconds."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._records: dict[LlmProvider, _Supervised] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._record_all()

    def start(self) -> None:
        """Begins the first probe of every runner that has had none."""
        for runner in self._registry.runners.values():
            if self._records[runner].evidence is None:
                self._probe(self._records[runner])

    def replace(self, registry: Registry) -> None:
        """From now on the runners are these. One that is not among them ends with the last of its chats."""
        self._registry = registry
        self._record_all()
        for supervised in list(self._records.values()):
            self._close_if_done(supervised)
        self.start()

    def gate(self, runner: LlmProvider) -> Gate:
        """What a runner's chats go through. For a chat that comes too late a runner that was replaced is used again."""
        if runner not in self._records:
            self._record(runner)
        return self._records[runner].gate

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

    async def aclose(self) -> None:
        """Ends every probe and every runner."""
        tasks = [supervised.probe for supervised in self._records.values() if supervised.probe is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*self._closing, *(self._closed(runner) for runner in self.in_use()))

    async def _closed(self, runner: LlmProvider) -> None:
        """Ends a runner. One that cannot be ended keeps no other from its end: what it leaves is the reaper's."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await runner.aclose()
        except Exception:  # noqa: BLE001 a provider's bug, and a third party's may raise anything
            _log.exception("runner.not_closed", runner=runner.name)

    def _record_all(self) -> None:
        for runner in self._registry.runners.values():
            if runner not in self._records:
                self._record(runner)

    def _record(self, runner: LlmProvider) -> None:
        made = self._records[runner] = _Supervised(Gate(runner, self._limiter(runner), self._clock))
        made.gate.when_empty = lambda: self._close_if_done(made)

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
        task = asyncio.create_task(self._closed(runner), name=f"retire-{runner.name}")
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
        if supervised.evidence is before:  # else a chat has shown more in the meantime
            self._learn(supervised, states.probed(before, health, self._clock()))
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
