"""What is known of each runner's health: probes, how old they are, and what real chats showed since.

Owns the probe tasks. A probe runs at start and when somebody asks; there is no timer.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from daemon.registry import Registry
from runners.errors import DeadlineExceededError, RunnerError
from runners.provider import Health, LlmProvider

STALE_S = 60.0
FIRST_PROBE_S = 5.0
_CHAT_PROVES = ("not_installed", "not_authenticated", "auth_expired")
_CHAT_SHAKES = ("process_exited", "protocol", "timeout", "overloaded", "vendor_error")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Evidence:
    """A runner's health, the monotonic time at which it was seen, and whether a chat showed it."""

    health: Health
    at_s: float
    by_chat: bool = False

    @property
    def only_a_chat_refutes(self) -> bool:
        """A probe sees a login, and a CLI that starts. What its vendor or a real turn makes of it, it does not."""
        return self.by_chat and self.health.reason in ("auth_expired", *_CHAT_SHAKES)


class Supervisor:
    """Keeps the evidence. `clock` is monotonic seconds."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._evidence: dict[str, Evidence] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begins the first probe of every runner."""
        for runner in self._registry.runners.values():
            self._probe(runner)

    async def health(self, runner: LlmProvider) -> tuple[Health | None, float | None]:
        """What is known and its age in seconds; (None, None) when a first probe takes too long.

        Good evidence is shown as it is, and looked at again when it is old. Bad evidence is what a user is just
        mending, so it waits for a new probe, as a first look does, for at most 5 s.
        """
        known = self._evidence.get(runner.name)
        if known is None or known.health.state != "ready":
            await asyncio.wait([self._probe(runner)], timeout=FIRST_PROBE_S)
            known = self._evidence.get(runner.name)
        elif self._clock() - known.at_s > STALE_S:
            self._probe(runner)
        return (None, None) if known is None else (known.health, self._clock() - known.at_s)

    async def first_look(self, runner: LlmProvider) -> Health | None:
        """What is known, after a first probe of at most 5 s where nothing is; None when that takes too long."""
        if self.known(runner.name) is None:
            await asyncio.wait([self._probe(runner)], timeout=FIRST_PROBE_S)
        return self.known(runner.name)

    async def look_again(self) -> None:
        """Probes every runner, for at most 5 s."""
        await asyncio.wait([self._probe(runner) for runner in self._registry.runners.values()], timeout=FIRST_PROBE_S)

    def known(self, name: str) -> Health | None:
        """What is known now, without asking anybody."""
        evidence = self._evidence.get(name)
        return None if evidence is None else evidence.health

    def succeeded(self, name: str) -> None:
        """A chat was answered: whatever was wrong is mended."""
        known = self.known(name) or Health("ready")
        if known.state != "ready":
            logged_in = None if known.authenticated is None else True
            known = Health("ready", version=known.version, authenticated=logged_in, detail="a chat was answered")
        self._learn(name, known, by_chat=True)

    def failed(self, name: str, error: RunnerError) -> None:
        """A chat failed: what says that the next one will fail too, or may, counts here."""
        known = self.known(name) or Health("ready")
        # The whole turn's time may be what its client took to read.
        is_slow_client = isinstance(error, DeadlineExceededError) and error.deadline == "turn_s"
        if error.kind in _CHAT_PROVES:
            self._learn(name, replace(Health.unavailable(error), version=known.version), by_chat=True)
        elif error.kind in _CHAT_SHAKES and not is_slow_client and known.ok:
            shaken = replace(known, state="degraded", reason=error.kind, detail=error.message, hint=error.hint)
            self._learn(name, shaken, by_chat=True)

    async def aclose(self) -> None:
        """Ends the probes that still run."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    def _probe(self, runner: LlmProvider) -> "asyncio.Task[None]":
        if runner.name not in self._probes:
            task = asyncio.create_task(
                self._run_probe(runner, self._evidence.get(runner.name)), name=f"probe-{runner.name}"
            )
            self._probes[runner.name] = task
            task.add_done_callback(lambda _: self._probes.pop(runner.name, None))
        return self._probes[runner.name]

    async def _run_probe(self, runner: LlmProvider, before: Evidence | None) -> None:
        try:
            health = await runner.health_check()
        except Exception as error:  # noqa: BLE001 a provider's bug must not look like a probe that takes its time
            _log.exception("probe.bug", runner=runner.name)
            health = Health("unavailable", "vendor_error", detail=f"the probe failed: {error!r}")
        known = self._evidence.get(runner.name)
        if known is not before:
            return  # a chat has shown more in the meantime
        if known and health.ok and known.only_a_chat_refutes:
            return
        self._learn(runner.name, health)

    def _learn(self, name: str, health: Health, *, by_chat: bool = False) -> None:
        before = self.known(name)
        self._evidence[name] = Evidence(health, self._clock(), by_chat)
        if before is None or before.state != health.state:
            _log.info("runner.health", runner=name, state=health.state, reason=health.reason, version=health.version)
