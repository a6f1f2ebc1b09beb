"""Everything that a front end can ask for: chat, models, runners, health, status. Knows no transport."""

import asyncio
import os
import time
from collections import defaultdict
from dataclasses import asdict
from typing import Any

import psutil

from daemon import __version__
from daemon.chat import Chat
from daemon.config import ALLOY
from daemon.conversation import parted
from daemon.memory import sizes_bytes
from daemon.registry import Registry, Route
from daemon.supervisor import Supervisor
from daemon.tally import RunnerTally
from daemon.worker import Worker
from runners.errors import ModelNotFoundError, RequestCancelledError, RunnerError
from runners.messages import ChatRequest, ModelInfo
from runners.provider import Health, LlmProvider
from runners.stream import ChatStream, fold


class Service:
    """The daemon without its doors."""

    def __init__(self, registry: Registry, supervisor: Supervisor, *, is_autostarted: bool = False) -> None:
        self._registry = registry
        self._is_autostarted = is_autostarted
        self._supervisor = supervisor
        self._began_s = time.monotonic()
        self._draining = False
        self._tallies: defaultdict[str, RunnerTally] = defaultdict(RunnerTally)

    async def chat(self, request: ChatRequest, *, client: str = "") -> ChatStream:
        """Answers through the runner that `request.model` names; raises ModelNotFoundError.

        `client` is who asks: a runner that has much to do serves all clients alike. The stream is that of the runner
        that answers: see ChatStream for its order, its errors and its cancellation.
        """
        if self._draining:
            raise RequestCancelledError(
                "the daemon is shutting down", hint="start it again: runnerd serve", retryable=True
            )
        first = self._who_waits_for(request) or await self._resolved(request.model)
        # Who is strict wants nobody else's answer.
        routes = [first, *([] if request.strict else self._registry.fallbacks(first))]
        return self._answer(request, routes, client)

    def _answer(self, request: ChatRequest, routes: list[Route], client: str) -> ChatStream:
        chat = Chat(request, self._supervisor, client, tally=self._tallies.__getitem__)
        return ChatStream(chat.answer(iter(routes)), runner=routes[0].runner.name)

    def _who_waits_for(self, request: ChatRequest) -> Route | None:
        """Of those that answer by turns the one whose session waits for this request's results: its turn goes on."""
        if not self._registry.is_alloy(request.model):
            return None
        _, new = parted(request.conversation)
        results = {message.tool_call_id for message in new if message.role == "tool"}
        if not results:
            return None
        try:
            members = self._registry.alloy
        except ModelNotFoundError:
            return None  # one whose models are not known yet: they are looked for next
        for route in members:
            model = route.model or route.runner.default_model
            workers = [worker for worker in self._supervisor.pool(route.runner).workers if worker.model == model]
            if any(worker.state == "parked" and worker.awaits <= results for worker in workers):
                return route
        return None

    async def _resolved(self, reference: str | None) -> Route:
        if reference is None and self._registry.default is None:
            if (able := await self._supervisor.first_able()) is not None:
                return able
            # What nobody could do, a user may have mended since.
            await self._supervisor.look_again()
            for runner in self._registry.eligible:
                known = self._supervisor.known(runner)
                if known is not None and known.ok:
                    return Route(runner, "")
        try:
            return self._registry.resolve(reference)
        except ModelNotFoundError:
            # Which models there are, some runners learn by looking.
            await self._supervisor.look_again()
            return self._registry.resolve(reference)

    async def resolve(self, reference: str | None) -> dict[str, Any]:
        """Who would answer now for a model's name, or for none; ModelNotFoundError with the nearest names.

        No runner stands for those that answer by turns.
        """
        if self._registry.is_alloy(reference):
            return {"runner": None, "model": ALLOY, "capabilities": None}
        route = await self._resolved(reference)
        model = route.model or route.runner.default_model
        return {"runner": route.runner.name, "model": model, "capabilities": asdict(route.runner.capabilities())}

    def replace(self, registry: Registry) -> None:
        """From now on the runners are these; chats that run go on as they began."""
        self._registry = registry
        self._supervisor.replace(registry)

    async def health(self, name: str | None = None, *, deep: bool = False) -> dict[str, Any]:
        """One row for each runner, or for the one that is named. `deep` asks each for a real, paid answer."""
        runners = [self._registry.runner(name)] if name else list(self._registry.runners.values())
        rows = await asyncio.gather(*(self._health_row(runner, deep=deep) for runner in runners))
        counted = [row["ok"] for row, runner in zip(rows, runners, strict=True) if name or not runner.by_name_only]
        return {"ok": any(counted), "runners": rows}

    async def _health_row(self, runner: LlmProvider, *, deep: bool) -> dict[str, Any]:
        if deep:
            request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "Say OK."}]})
            # Who asks on purpose is the trial that a runner which rests is waiting for.
            self._supervisor.gate(runner).breaker.try_now()
            try:
                await fold(self._answer(request, [Route(runner, "")], "health"))
            except RunnerError as error:
                return _health_row(runner, Health.unavailable(error), 0.0)
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
        if members := self._registry.alloy:
            rows.append(_alloy(members))
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
                "state": self._state(runner),
            }
            for name, runner in self._registry.runners.items()
        ]
        return {"runners": rows}

    async def status(self) -> dict[str, Any]:
        """The daemon and its processes, now. The memory at the top is of them all, tasks and descriptors its own.

        `served` counts the chats by how they were served, with the mean seconds until each had its session; `chats`
        by how they ended, and `usage` is what they cost together, as far as their CLIs have said.
        """
        processes = [process for runner in self._supervisor.in_use() for process in runner.processes()]
        whole = {os.getpid(): False} | {process.pid: True for process in processes}
        sizes = await asyncio.to_thread(sizes_bytes, whole)
        rows = [
            {
                "name": name,
                "state": self._state(runner),
                "running": self._supervisor.gate(runner).limiter.running,
                "queued": self._supervisor.gate(runner).limiter.queued,
                "served": self._supervisor.pool(runner).tallies(),
                **self._tallies[name].as_row(),
                "workers": [_worker(worker, sizes) for pool in self._supervisor.pools(name) for worker in pool.workers],
            }
            for name, runner in self._registry.runners.items()
        ]
        return {
            **self.version(),
            "uptime_s": time.monotonic() - self._began_s,
            "runners": rows,
            "memory_bytes": sum(sizes.values()),
            "max_cli_memory_bytes": self._supervisor.memory.limit_bytes,
            "tasks": len(asyncio.all_tasks()),
            "descriptors": psutil.Process().num_fds(),
        }

    def version(self) -> dict[str, Any]:
        """Which daemon this is."""
        return {"version": __version__, "pid": os.getpid(), "autostarted": self._is_autostarted}

    def _state(self, runner: LlmProvider) -> str:
        known = self._supervisor.known(runner)
        return known.state if known else "unknown"

    def refuse_chats(self) -> None:
        """From now on no chat begins, and nothing is kept for one; those that run go on."""
        self._draining = True
        self._supervisor.drain()


def _alloy(members: list[Route]) -> dict[str, Any]:
    """The row of a model that is several by turns: what fits into all of them fits into it."""
    infos = [
        info
        for route in members
        for info in route.runner.available_models()
        if info.model == (route.model or route.runner.default_model)
    ]
    windows = [info.context_window for info in infos if info.context_window is not None]
    outputs = [info.max_output_tokens for info in infos if info.max_output_tokens is not None]
    limits = ModelInfo(ALLOY, min(windows, default=None), min(outputs, default=None))
    return {"id": ALLOY, "runner": None, **asdict(limits)}


def _worker(worker: Worker, sizes: dict[int, int]) -> dict[str, Any]:
    session = worker.session
    process = session and session.process
    return {
        "state": worker.state,
        "model": worker.model,
        "pid": process and process.pid,
        "age_s": process and time.monotonic() - process.start_time,
        "turns": session.turns if session else 0,
        "memory_bytes": process and sizes.get(process.pid),
    }


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
