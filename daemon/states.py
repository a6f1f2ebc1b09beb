"""What is known of a runner's health, and how a probe or a real chat changes that. Pure: no clock, no task.

`unknown` (no evidence) -> `ready`, `degraded` or `unavailable`. A probe sees a binary, a version and a login. What a
chat showed weighs more: it is forgotten only when another chat is answered, or when a probe finds something worse.
"""

from dataclasses import dataclass, replace

from daemon.breaker import COUNTED
from runners.errors import DeadlineExceededError, RunnerError, SpawnFailedError
from runners.provider import Health
from runners.settings import Timeouts

_PROVED_BY_CHAT = ("not_installed", "not_authenticated", "auth_expired")
_SHAKEN_BY_CHAT = tuple(kind for kind in COUNTED if kind not in _PROVED_BY_CHAT)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A runner's health, the monotonic time at which it was seen, and whether a chat showed it."""

    health: Health
    at_s: float
    by_chat: bool = False


def probed(known: Evidence | None, health: Health, now_s: float) -> Evidence:
    """What holds after a probe, which cannot refute what a vendor or a real turn made of a login and of a CLI."""
    only_a_chat_refutes = known is not None and known.health.reason in ("auth_expired", *_SHAKEN_BY_CHAT)
    if known is not None and known.by_chat and health.ok and only_a_chat_refutes:
        return known
    return Evidence(health, now_s)


def overtaken(known: Evidence, health: Health) -> Evidence:
    """What holds after a probe that a chat has overtaken: what the chat has shown, and what only the probe can tell."""
    if known.health.state == health.state == "ready":
        return replace(known, health=health)
    return replace(known, health=replace(known.health, version=known.health.version or health.version))


def answered(known: Evidence | None, now_s: float) -> Evidence:
    """What holds after a chat was answered: whatever was wrong is mended."""
    health = known.health if known else Health("ready")
    if health.state != "ready":
        logged_in = None if health.authenticated is None else True
        health = Health("ready", version=health.version, authenticated=logged_in, detail="a chat was answered")
    return Evidence(health, now_s, by_chat=True)


def failed(known: Evidence | None, error: RunnerError, now_s: float) -> Evidence | None:
    """What holds after a chat failed: what says that the next one will fail too, or may, counts here."""
    health = known.health if known else Health("ready")
    if error.kind in _PROVED_BY_CHAT:
        return Evidence(replace(Health.unavailable(error), version=health.version), now_s, by_chat=True)
    if error.kind in _SHAKEN_BY_CHAT and health.ok:
        shaken = replace(health, state="degraded", reason=error.kind, detail=error.message, hint=error.hint)
        return Evidence(shaken, now_s, by_chat=True)
    return known


def is_its_own_fault(error: RunnerError, own: Timeouts) -> bool:
    """Whether a failure says something of the runner, whose own deadlines these are.

    The whole turn's time may be what its client took to read, and a client may ask for less time than anybody needs.
    """
    if not isinstance(error, DeadlineExceededError):
        return not isinstance(error, SpawnFailedError)
    return error.deadline != "turn_s" and error.limit_s >= getattr(own, error.deadline, 0)
