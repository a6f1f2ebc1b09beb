"""One entry under `runners:` in runners.yaml, as each kind accepts it. Unknown keys are refused.

A third party's kind brings a subclass of RunnerSettings of its own (see `runners.kinds`), so this is a family of
classes chosen by `kind` and no closed union.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Timeouts(_Strict):
    """The four deadlines of a turn, in seconds. Time that a slow client takes counts in `turn_s` only."""

    spawn_s: float = Field(default=30, gt=0, description="from the start of the CLI until it answers for itself")
    first_chunk_s: float = Field(default=180, gt=0, description="from sending the turn to the first content")
    silence_s: float = Field(default=180, gt=0, description="between any two events of the CLI, hidden ones too")
    turn_s: float = Field(default=3600, gt=0, description="the whole turn")


class RunnerSettings(_Strict):
    """What every kind of runner accepts.

    `binary` is a name on PATH or a path. `model` is asked for when a request names none; `models` is the list
    to show. `max_tokens` and `temperature` stand in for what a request leaves out. `env` is added to the CLI's
    environment, `env_pass` names variables of the daemon's own that the CLI may see; `args` follow our own.
    """

    kind: str
    binary: str | None = None
    model: str | None = None
    models: list[str] = Field(default_factory=list)
    max_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    timeouts: Timeouts = Timeouts()
    env: dict[str, str] = Field(default_factory=dict)
    env_pass: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)

    @field_validator("env")
    @classmethod
    def _can_be_an_environment(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value:
                raise ValueError(f"{name!r}: a name holds no `=`, and neither name nor value a NUL")
        return env

    @field_validator("args")
    @classmethod
    def _can_be_arguments(cls, args: list[str]) -> list[str]:
        if any("\0" in arg for arg in args):
            raise ValueError("an argument holds no NUL")
        return args


class ClaudeSettings(RunnerSettings):
    """Claude Code."""

    kind: Literal["claude"] = "claude"


class EchoSettings(RunnerSettings):
    """Our own small CLI, that answers with what it was sent."""

    kind: Literal["echo"] = "echo"
