"""Everything that a front end can ask for: chat, models, runners, health, status. Knows no transport."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

import psutil
import structlog

from daemon import __version__
from daemon.registry import Registry
from daemon.supervisor import Supervisor
from runners.errors import ModelNotFoundError, RequestCancelledError, RunnerError
from runners.messages import ChatRequest
from runners.provider import Health, LlmProvider, Session
from runners.stream import ChatChunk, ChatStream, Done, Failed

_log = structlog.get_logger()


class Service:
    """The daemon without its doors."""

    def __init__(self, registry: Registry, supervisor: Supervisor) -> None:
        self._registry = registry
        self._supervisor = supervisor
        self._began_s = time.monotonic()
        self._running: Counter[str] = Counter()
        self._draining = False

    async def chat(self, request: ChatRequest) -> ChatStream:
        """Answers through the runner that `request.model` names; raises ModelNotFoundError.

        The stream is the runner's own: see ChatStream for its order, its errors and its cancellation.
        """
        if self._draining:
            raise RequestCancelledError(
                "the daemon is shutting down", hint="start it again: runnerd serve", retryable=True
            )
        runner, model = await self._resolved(request.model)
        stream = runner.complete_stream(request.model_copy(update={"model": model}))
        return ChatStream(self._observed(runner, model, stream), runner=runner.name)

    async def _resolved(self, reference: str | None) -> tuple[LlmProvider, str]:
        if reference is None and self._registry.default is None:
            for runner in self._registry.eligible:
                health = await self._supervisor.first_look(runner)
                if health is None or health.ok:
                    return runner, ""
            # What nobody could do, a user may have mended since.
            await self._supervisor.look_again()
            for runner in self._registry.eligible:
                known = self._supervisor.known(runner.name)
                if known is not None and known.ok:
                    return runner, ""
        try:
            return self._registry.resolve(reference)
        except ModelNotFoundError:
            # Which models there are, some runners learn by looking.
            await self._supervisor.look_again()
            return self._registry.resolve(reference)

    async def _observed(self, runner: LlmProvider, model: str, stream: ChatStream) -> AsyncGenerator[ChatChunk, None]:
        began_s = time.monotonic()
        log = _log.bind(runner=runner.name, model=model or runner.default_model)
        outcome = "cancelled"
        self._running[runner.name] += 1
        try:
            async with stream:
                async for chunk in stream:
                    if isinstance(chunk, Done):
                        outcome = chunk.stop_reason
                        self._supervisor.succeeded(runner.name)
                    elif isinstance(chunk, Failed):
                        outcome = chunk.error.kind
                        self._supervisor.failed(runner.name, chunk.error)
                    yield chunk
        except RunnerError as error:
            outcome = error.kind
            self._supervisor.failed(runner.name, error)
            raise
        finally:
            self._running[runner.name] -= 1
            log.info("chat.ended", outcome=outcome, duration_s=round(time.monotonic() - began_s, 3))

    async def health(self, name: str | None = None, *, deep: bool = False) -> dict[str, Any]:
        """One row for each runner, or for the one that is named. `deep` asks each for a real, paid answer."""
        runners = [self._registry.runner(name)] if name else list(self._registry.runners.values())
        rows = await asyncio.gather(*(self._health_row(runner, deep=deep) for runner in runners))
        counted = [row["ok"] for row, runner in zip(rows, runners, strict=True) if name or not runner.by_name_only]
        return {"ok": any(counted), "runners": rows}

    async def _health_row(self, runner: LlmProvider, *, deep: bool) -> dict[str, Any]:
        if deep:
            request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "Say OK."}]})
            try:
                await runner.complete(request)
            except RunnerError as error:
                self._supervisor.failed(runner.name, error)
                return _health_row(runner, Health.unavailable(error), 0.0)
            self._supervisor.succeeded(runner.name)
        health, age_s = await self._supervisor.health(runner)
        return _health_row(runner, health, age_s)

    async def models(self) -> dict[str, Any]:
        """Every model that is offered, by the name that a request uses, and what is known of it."""
        await asyncio.gather(*(self._supervisor.health(runner) for runner in self._registry.runners.values()))
        rows = [
            {"id": f"{name}:{info.model}", "runner": name, **asdict(info)}
            for name, runner in self._registry.runners.items()
            for info in runner.available_models()
        ]
        return {"models": rows}

    def runners(self) -> dict[str, Any]:
        """What each runner is and can do."""
        rows = [
            {
                "name": name,
                "kind": runner.kind,
                "display_name": runner.display_name,
                "default_model": runner.default_model,
                "capabilities": asdict(runner.capabilities()),
                "state": self._state(name),
            }
            for name, runner in self._registry.runners.items()
        ]
        return {"runners": rows}

    def status(self) -> dict[str, Any]:
        """The daemon and its processes, now. The memory at the top is of them all together."""
        rows = [
            {
                "name": name,
                "state": self._state(name),
                "running": self._running[name],
                "queued": 0,  # nothing waits: there is no limit yet
                "workers": [_worker(session) for session in runner.sessions],
            }
            for name, runner in self._registry.runners.items()
        ]
        pids = {process.pid for runner in self._registry.runners.values() for process in runner.processes()}
        return {
            **self.version(),
            "uptime_s": time.monotonic() - self._began_s,
            "runners": rows,
            "memory_bytes": sum(_memory_bytes(pid) or 0 for pid in (os.getpid(), *pids)),
        }

    def version(self) -> dict[str, Any]:
        """Which daemon this is."""
        return {"version": __version__, "pid": os.getpid()}

    def _state(self, name: str) -> str:
        known = self._supervisor.known(name)
        return known.state if known else "unknown"

    def refuse_chats(self) -> None:
        """From now on no chat begins; those that run go on."""
        self._draining = True


def _worker(session: Session) -> dict[str, Any]:
    process = session.process
    return {
        "state": session.state,
        "model": session.model,
        "pid": process and process.pid,
        "age_s": process and max(time.time() - process.start_time, 0.0),
        "turns": session.turns,
        "memory_bytes": process and _memory_bytes(process.pid),
    }


def _memory_bytes(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return None


def _health_row(runner: LlmProvider, health: Health | None, age_s: float | None) -> dict[str, Any]:
    health = health or Health("degraded", "timeout", detail="the first probe has not ended yet")
    return {
        "name": runner.name,
        "kind": runner.kind,
        "ok": health.ok,
        "state": health.state,
        "reason": health.reason,
        "version": health.version,
        "authenticated": health.authenticated,
        "detail": health.detail,
        "hint": health.hint,
        "age_s": age_s,
    }
