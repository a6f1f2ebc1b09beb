"""Entries of runners.yaml whose CLIs misbehave: the fakes of vendors' CLIs, and small programs behind `echo`."""

import os
from collections.abc import Callable
from typing import Any

from tests.subjects.claude import ReplayedClaude
from tests.subjects.copilot import ReplayedCopilot
from tests.world import World

Entry = Callable[[World, str], dict[str, Any]]
"""Makes an entry, and its program, in a world, under a name."""

ONE_ATTEMPT: dict[str, Any] = {"retry": {"attempts": 1}, "breaker": {"failures": 1000}, "idle_ttl_s": 1}
"""What keeps a fault as it is: no second attempt, and no breaker that refuses the next try. What is kept for the next
chat goes soon, so that it is not taken for what was left behind."""


def claude(fault: str = "", *, order: dict[str, Any] | None = None, **settings: Any) -> Entry:
    """The fake claude with one of its faults; `order` is what else it is told."""

    def made(world: World, _name: str) -> dict[str, Any]:
        subject = ReplayedClaude(world, log=os.devnull, fault=fault, **(order or {}))
        return _entry("claude", subject.provider.settings.model_dump(mode="json", exclude_unset=True), settings)

    return made


def copilot(fault: str = "", **settings: Any) -> Entry:
    """The fake copilot with one of its faults."""

    def made(world: World, _name: str) -> dict[str, Any]:
        subject = ReplayedCopilot(world, log=os.devnull, fault=fault)
        return _entry("copilot", subject.provider.settings.model_dump(mode="json", exclude_unset=True), settings)

    return made


def program(source: str, **settings: Any) -> Entry:
    """A program in the place of the echo CLI's Python."""
    return lambda world, name: _entry("echo", {"binary": str(world.program(name, source))}, settings)


def echo(**settings: Any) -> Entry:
    """The real echo."""
    return lambda _world, _name: _entry("echo", {}, settings)


def _entry(kind: str, made: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, **ONE_ATTEMPT, **made, **settings}
