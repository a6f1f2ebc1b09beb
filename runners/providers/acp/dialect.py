"""What is known of one agent beyond the letter of the protocol: pure.

A kind of its own (see `gemini`, `opencode`) is an AcpProvider with another dialect and another `launch`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runners.errors import RunnerError
from runners.messages import Usage
from runners.providers.acp.failures import failure
from runners.providers.acp.usage import usage
from runners.translator import Event


@dataclass(frozen=True, slots=True)
class AtStart:
    """What an agent can only be told when its process starts: a process serves none but the conversations alike.

    Empty where a session of it can be told, see Dialect.
    """

    system: str = ""
    model: str = ""


def _as_it_is(text: str) -> str:
    return text


def _as_it_happened(event: Event) -> Event:
    return event


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an agent is spoken to.

    `guarded`: a prompt's text, so written that the agent takes it for no command of its own. `failure`: the error that
    an answer (code, message, data) of it means; one that knows its own words leaves the rest to `failures.failure`.
    `meant`: an event as the protocol would have it, where the agent tells it otherwise.
    `usage`: what the result of a prompt says of its cost. `system_at_start`: the system prompt is given to the process
    by `AcpProvider.launch`, and is not written into the prompt; `model_at_start`: so is the model, and no session is
    asked to change it. `hears_eof`: it ends when its input does; most do not (measured: claude-agent-acp 0.23.1,
    codex-acp 0.16.0, gemini 0.61.0), and are terminated at once.
    """

    guarded: Callable[[str], str] = _as_it_is
    meant: Callable[[Event], Event] = _as_it_happened
    failure: Callable[[int, str, Any], RunnerError] = failure
    usage: Callable[[Event], Usage | None] = usage
    system_at_start: bool = False
    model_at_start: bool = False
    hears_eof: bool = False

    def at_start(self, system: str, model: str) -> AtStart:
        """What the process of such a conversation must have been told at its start."""
        return AtStart(system if self.system_at_start else "", model if self.model_at_start else "")
