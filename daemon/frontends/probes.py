"""What monitors ask: is it there, who can answer, and the numbers in the form that Prometheus reads."""

from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from daemon.frontends.exchange import json_response
from daemon.service import Service

_STATES = ("ready", "degraded", "unavailable", "unknown")


class Probes:
    """`/healthz`, `/readyz` with a row for each runner, `/readyz/RUNNER`, `/metrics`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Answers at its paths."""
        router.add_get("/healthz", self._alive)
        router.add_get("/readyz", self._ready)
        router.add_get("/readyz/{runner}", self._ready)
        router.add_get("/metrics", self._metrics)

    async def _alive(self, _request: web.Request) -> web.Response:
        return json_response({"ok": True} | self._service.version())

    async def _ready(self, request: web.Request) -> web.Response:
        health = await self._service.health(request.match_info.get("runner"))
        return json_response(health, 200 if health["ok"] else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        registry = CollectorRegistry()
        registry.register(_Snapshot(await self._service.status()))
        return web.Response(body=generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})


class _Snapshot:
    """The daemon's `status` as metrics. Counters begin with the daemon; those of sessions also with a changed entry."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        status = self._status
        info = GaugeMetricFamily("runnerd_info", "The version that runs.", labels=["version"])
        info.add_metric([status["version"]], 1)
        yield info
        yield GaugeMetricFamily("runnerd_uptime_seconds", "Since the daemon began.", value=status["uptime_s"])
        yield GaugeMetricFamily(
            "runnerd_memory_bytes", "Of the daemon and its CLIs, each their share.", value=status["memory_bytes"]
        )
        yield GaugeMetricFamily(
            "runnerd_cli_memory_limit_bytes", "What the CLIs may take.", value=status["max_cli_memory_bytes"]
        )
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("runnerd_runner_state", "1 for the state it is in.", labels=["runner", "state"])
        running = GaugeMetricFamily("runnerd_running_chats", "Being answered now.", labels=["runner"])
        queued = GaugeMetricFamily("runnerd_queued_chats", "Waiting for a place.", labels=["runner"])
        sessions = GaugeMetricFamily("runnerd_sessions", "Sessions that live.", labels=["runner", "state"])
        for row in self._status["runners"]:
            name = row["name"]
            for known in _STATES:
                state.add_metric([name, known], row["state"] == known)
            running.add_metric([name], row["running"])
            queued.add_metric([name], row["queued"])
            found = [worker["state"] for worker in row["workers"]]
            for kind in sorted(set(found)):
                sessions.add_metric([name, kind], found.count(kind))
        yield from (state, running, queued, sessions)

    def _counters(self) -> Iterator[Metric]:
        chats = CounterMetricFamily(
            "runnerd_chats", "By how they ended: a stop reason, or the kind of an error.", labels=["runner", "outcome"]
        )
        seconds = CounterMetricFamily("runnerd_chat_seconds", "How long chats took.", labels=["runner"])
        usage = CounterMetricFamily(
            "runnerd_tokens", "By the CLIs' own word; some are parts of others.", labels=["runner", "kind"]
        )
        cost = CounterMetricFamily("runnerd_cost_usd", "By the CLIs' own word.", labels=["runner"])
        served = CounterMetricFamily("runnerd_served", "Chats by how they got a session.", labels=["runner", "served"])
        waited = GaugeMetricFamily(
            "runnerd_session_seconds", "How long that took, in the mean.", labels=["runner", "served"]
        )
        for row in self._status["runners"]:
            name = row["name"]
            for outcome, count in row["chats"].items():
                chats.add_metric([name, outcome], count)
            seconds.add_metric([name], row["duration_s"])
            for kind, total in row["usage"].items():
                if kind == "cost_usd":
                    cost.add_metric([name], total)
                else:
                    usage.add_metric([name, kind.removesuffix("_tokens")], total)
            for way, tally in row["served"].items():
                served.add_metric([name, way], tally["chats"])
                waited.add_metric([name, way], tally["session_s"])
        yield from (chats, seconds, usage, cost, served, waited)
