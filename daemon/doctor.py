"""What stands between a user and an answer: every known CLI, where it is, which version, whether it is logged in.

Asks the CLIs itself, so that it has an answer where no daemon runs.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from daemon.config import Config
from daemon.errors import DaemonError
from daemon.reaper import leased
from daemon.registry import Registry
from runners.errors import ConfigError, NotInstalledError, RunnerError
from runners.kinds import known_kinds, provider_class
from runners.provider import Health, LlmProvider
from runners.settings import RunnerSettings
from runners.wire.environment import find_binary

Rows = list[dict[str, Any]]


def examine(config: Config, state_dir: Path) -> Rows:
    """A row for each runner of the configuration, and for each known kind that it leaves out."""
    return _looked_at(state_dir, lambda run_dir: _examine(config, state_dir, run_dir))


def record(config: Config, state_dir: Path, kinds: Sequence[str]) -> Rows:
    """A row for each of these kinds, and for each binary that the configuration names for one.

    Each CLI that is installed is recorded anew, and compared with what runnerd has recorded of its kind.
    """
    return _looked_at(state_dir, lambda run_dir: _record(config, state_dir, run_dir, kinds))


def _looked_at(state_dir: Path, look: Callable[[Path | None], Coroutine[Any, Any, Rows]]) -> Rows:
    try:
        with leased(state_dir) as run_dir:
            return asyncio.run(_until_signalled(look(run_dir)))
    except asyncio.CancelledError:
        raise DaemonError("ended by a signal before everything was looked at") from None


async def _until_signalled(look: Coroutine[Any, Any, Rows]) -> Rows:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Who gives up waiting must not leave the CLIs behind.
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await look


async def _examine(config: Config, state_dir: Path, run_dir: Path | None) -> Rows:
    registry = Registry(config, state_dir, run_dir)
    configured = {runner.kind for runner in registry.runners.values()}
    left_out, broken = _classes(kind for kind in known_kinds() if kind not in configured)
    unused = [
        found(
            found.kind,
            settings,
            state_dir=state_dir / "runners" / found.kind,
            run_dir=run_dir and run_dir / found.kind,
        )
        for found in left_out
        if (settings := _least(found)) is not None
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
    return rows + [
        _told(kind, kind, Health.unavailable(why)) | {"is_configured": False} for kind, why in broken.items()
    ]


def _classes(kinds: Iterable[str]) -> tuple[list[type[LlmProvider]], dict[str, ConfigError]]:
    """What serves each of these kinds, or why it does not: a package that is broken says nothing of the others."""
    found, broken = [], {}
    for kind in kinds:
        try:
            found.append(provider_class(kind))
        except ConfigError as error:
            broken[kind] = error
    return found, broken


def _least(found: type[LlmProvider]) -> RunnerSettings | None:
    """The settings of an entry that says no more than its kind; None where it must.

    What an agent may do only its user allows, and a kind of somebody else's may need what only they know.
    """
    try:
        return found.settings_type.model_validate({"kind": found.kind})
    except ValidationError:
        return None


async def _row(runner: LlmProvider) -> dict[str, Any]:
    health = await runner.health_check()
    try:
        binary = runner.binary()
    except (NotInstalledError, ConfigError):
        binary = None
    return _told(runner.name, runner.kind, health) | {"by_name_only": runner.by_name_only, "binary": binary}


def _told(name: str, kind: str, health: Health) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "is_configured": True,
        "by_name_only": False,
        "ok": health.ok,
        "state": health.state,
        "reason": health.reason,
        "binary": None,
        "version": health.version,
        "authenticated": health.authenticated,
        "detail": health.detail,
        "hint": health.hint,
    }


async def _record(config: Config, state_dir: Path, run_dir: Path | None, kinds: Sequence[str]) -> Rows:
    from runners.testing import recording  # brings a web server

    configured = list(Registry(config, state_dir, run_dir).runners.values())
    classes, broken = _classes(kinds)
    async with asyncio.TaskGroup() as group:
        looking = [
            group.create_task(_compared(found.kind, binary, run_dir or state_dir))
            for found in classes
            for binary in (_binaries(found, configured) if found.kind in recording.VENDORS else [None])
        ]
    unloaded = [_unrecorded(kind) | {"state": "not recorded", "detail": why.message} for kind, why in broken.items()]
    return [task.result() for task in looking] + unloaded


def _unrecorded(kind: str) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "binary": None, "version": None, "recorded": None, "detail": None}
    return row | {"drift": [], "failed": {}}


def _binaries(found: type[LlmProvider], configured: Sequence[LlmProvider]) -> Iterable[str | RunnerError]:
    """Those that the configuration names for a kind, each once, else the usual one; why not, where there is none."""
    usual = partial(find_binary, found.program, dict(os.environ), hint=found.install_hint)
    finds = [runner.binary for runner in configured if runner.kind == found.kind] or [usual]
    return {str(binary): binary for binary in map(_binary_of, finds)}.values()


def _binary_of(find: Callable[[], str]) -> str | RunnerError:
    try:
        return find()
    except (NotInstalledError, ConfigError) as error:
        return error


async def _compared(kind: str, binary: str | RunnerError | None, directory: Path) -> dict[str, Any]:
    """What a recording of a CLI says; `drift` and `failed` say where it is not as it was."""
    from runners.testing import recording

    row = _unrecorded(kind)
    if binary is None:
        why = recording.UNRECORDED.get(kind, "runnerd has no stand-in for what its CLI calls")
        return row | {"state": "not recorded", "detail": why}
    if isinstance(binary, RunnerError):
        return row | {"state": "not installed", "detail": binary.message}
    before = recording.recorded(kind)
    look = partial(recording.record, kind, binary, directory, since=before.versions[0])
    now = await look()
    drift, failed = before.shapes.drift_of(now.shapes), now.failed
    if (drift or failed) and recording.START not in failed:
        # What only one of two recordings shows is chance: a CLI may lose an event, or tell two in another order.
        again = await look()
        drift = [one for one in before.shapes.drift_of(again.shapes) if one in drift]
        failed = {name: why for name, why in again.failed.items() if name in failed}
    state = "failed" if failed else "drifted" if drift else "as recorded"
    row |= {"binary": binary, "version": now.version, "recorded": ", ".join(before.versions)}
    row |= {"state": "not recorded" if now.unfit else state, "detail": now.unfit}
    return row | {"drift": [asdict(one) for one in drift], "failed": failed}
