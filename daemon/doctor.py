"""What stands between a user and an answer: every known CLI, where it is, which version, whether it is logged in.

Asks the CLIs itself, so that it has an answer where no daemon runs.
"""

import asyncio
import signal
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.errors import DaemonError
from daemon.reaper import leased
from daemon.registry import Registry
from runners.errors import ConfigError, NotInstalledError
from runners.kinds import known_kinds, provider_class
from runners.provider import LlmProvider
from runners.settings import AgentSettings


def examine(config: Config, state_dir: Path) -> list[dict[str, Any]]:
    """A row for each runner of the configuration, and for each known kind that it leaves out."""
    try:
        with leased(state_dir) as run_dir:
            return asyncio.run(_examine(config, state_dir, run_dir))
    except asyncio.CancelledError:
        raise DaemonError("ended by a signal before everything was looked at") from None


async def _examine(config: Config, state_dir: Path, run_dir: Path | None) -> list[dict[str, Any]]:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Who gives up waiting must not leave the CLIs behind.
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    registry = Registry(config, state_dir, run_dir)
    configured = {runner.kind for runner in registry.runners.values()}
    left_out = [provider_class(kind) for kind in known_kinds() if kind not in configured]
    # What an agent may do only its user allows, and a kind of somebody else's may need settings that only they know.
    unused = [
        found(
            found.kind,
            found.settings_type(kind=found.kind),
            state_dir=state_dir / "runners" / found.kind,
            run_dir=run_dir and run_dir / found.kind,
        )
        for found in left_out
        if not issubclass(found.settings_type, AgentSettings)
        and not any(field.is_required() for name, field in found.settings_type.model_fields.items() if name != "kind")
    ]
    asked = [*registry.runners.values(), *unused]
    try:
        # A group, which waits for all of them when it is cancelled: none may start a CLI behind its closing.
        async with asyncio.TaskGroup() as group:
            looking = [group.create_task(_row(runner)) for runner in asked]
    finally:
        await asyncio.gather(*(runner.aclose() for runner in asked))
    rows = [task.result() for task in looking]
    for row in rows[len(registry.runners) :]:
        row["hint"] = row["hint"] or f"add `{row['name']}: {{kind: {row['kind']}}}` under runners: in {config.path}"
        row["is_configured"] = False
    return rows


async def _row(runner: LlmProvider) -> dict[str, Any]:
    health = await runner.health_check()
    try:
        binary = runner.binary()
    except (NotInstalledError, ConfigError):
        binary = None
    return {
        "name": runner.name,
        "kind": runner.kind,
        "is_configured": True,
        "by_name_only": runner.by_name_only,
        "ok": health.ok,
        "state": health.state,
        "reason": health.reason,
        "binary": binary,
        "version": health.version,
        "authenticated": health.authenticated,
        "detail": health.detail,
        "hint": health.hint,
    }
