"""One entry under `runners:` in runners.yaml: what every kind accepts. Unknown keys are refused.

Each kind brings a subclass of RunnerSettings of its own, which stands beside its provider.
"""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator


class StrictModel(BaseModel):
    """A part of a runners.yaml: unknown keys are refused, and so is what is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Timeouts(StrictModel):
    """The four deadlines of a turn, in seconds. Time that a slow client takes counts in `turn_s` only."""

    spawn_s: float = Field(default=30, gt=0, description="from the start of the CLI until it answers for itself")
    first_chunk_s: float = Field(default=180, gt=0, description="from sending the turn to the first content")
    silence_s: float = Field(default=180, gt=0, description="between any two events of the CLI, hidden ones too")
    turn_s: float = Field(default=3600, gt=0, description="the whole turn")


class BreakerSettings(StrictModel):
    """When a runner that fails is left alone for a while, and for how long."""

    failures: int = Field(default=5, ge=1, description="so many in a row open it")
    open_s: float = Field(default=30, gt=0, description="until one request tries it again; longer each time in a row")


class RetrySettings(StrictModel):
    """How often a chat is tried that failed before its answer began, and how long to wait in between.

    The wait is random, up to `base_s`, and up to twice as much each time; `cap_s` is the longest. It comes on top of
    a vendor's own word on when to come back.
    """

    attempts: int = Field(default=3, ge=1, le=100, description="tries in all; 1 tries nothing again")
    base_s: float = Field(default=0.5, gt=0)
    cap_s: float = Field(default=8, gt=0)


class RunnerSettings(StrictModel):
    """What every kind of runner accepts.

    `binary` is a name on PATH or a path. `model` is asked for when a request names none; `models` is the list
    to show. `max_tokens` and `temperature` stand in for what a request leaves out. `env` is added to the CLI's
    environment, `env_pass` names variables of the daemon's own that the CLI may see; `args` follow our own.
    What stands below `args` here is the daemon's business: `max_running` chats at once, `max_queued` that may wait;
    `warm` sessions that are ready for each model that was asked for lately; a session is kept for `idle_ttl_s` after
    its turn, for `parked_ttl_s` when that waits for the results of tools.
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
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    max_running: int = Field(default=8, ge=1)
    max_queued: int = Field(default=32, ge=0)
    warm: int = Field(default=1, ge=0, le=16)
    idle_ttl_s: float = Field(default=600, ge=0)
    parked_ttl_s: float = Field(default=600, ge=0)

    @property
    def is_agent(self) -> bool:
        """Whether its CLI may act by itself: it then answers only who asks for it, and never in another's place."""
        return False

    @property
    def variables(self) -> set[str]:
        """The names that are looked up in the daemon's environment, beyond what every CLI may see."""
        return set(self.env_pass)

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


class AgentRetry(RetrySettings):
    """The same, for a CLI that may have done something before it failed: nothing is done twice unless it is allowed."""

    attempts: int = Field(default=1, ge=1, le=100, description=RetrySettings.model_fields["attempts"].description)


class AgentSettings(RunnerSettings):
    """For kinds whose CLI is not proved to have no hands of its own: who configures one must say that it may act."""

    retry: AgentRetry = AgentRetry()
    agent: bool = Field(default=False, validate_default=True)

    @property
    def is_agent(self) -> bool:
        """See RunnerSettings.is_agent."""
        return True

    @field_validator("agent")
    @classmethod
    def _is_known_to_act(cls, agent: bool) -> bool:
        if not agent:
            raise ValueError("must be true: what this CLI may do by itself is not known, so its user must allow it")
        return agent


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL that begins with http:// or https://")
    return url


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""The address of a model API, as its user writes it."""
