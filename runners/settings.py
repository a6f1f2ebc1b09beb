"""One entry under `runners:` in runners.yaml, as each kind accepts it. Unknown keys are refused.

A third party's kind brings a subclass of RunnerSettings of its own (see `runners.kinds`), so this is a family of
classes chosen by `kind` and no closed union.
"""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StrictInt, field_validator, model_validator

from runners.errors import ConfigError

_ANY_INTERFACE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 asked at its loopback address
# What of the daemon's own environment is about models and the machine, and says nothing of who pays or where to call.
OLLAMA_SERVER_VARIABLES = (
    *("OLLAMA_MODELS", "OLLAMA_KEEP_ALIVE", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS"),
    *("OLLAMA_MAX_QUEUE", "OLLAMA_LOAD_TIMEOUT", "OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NO_CLOUD"),
    *("OLLAMA_LLM_LIBRARY", "OLLAMA_GPU_OVERHEAD", "OLLAMA_SCHED_SPREAD", "OLLAMA_VULKAN"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION"),
)
_DURATION = re.compile(r"-?(\d+(\.\d+)?(ns|us|ms|s|m|h))+")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Timeouts(_Strict):
    """The four deadlines of a turn, in seconds. Time that a slow client takes counts in `turn_s` only."""

    spawn_s: float = Field(default=30, gt=0, description="from the start of the CLI until it answers for itself")
    first_chunk_s: float = Field(default=180, gt=0, description="from sending the turn to the first content")
    silence_s: float = Field(default=180, gt=0, description="between any two events of the CLI, hidden ones too")
    turn_s: float = Field(default=3600, gt=0, description="the whole turn")


class BreakerSettings(_Strict):
    """When a runner that fails is left alone for a while, and for how long."""

    failures: int = Field(default=5, ge=1, description="so many in a row open it")
    open_s: float = Field(default=30, gt=0, description="until one request tries it again; longer each time in a row")


class RetrySettings(_Strict):
    """How often a chat is tried that failed before its answer began, and how long to wait in between.

    The wait is random, up to `base_s`, and up to twice as much each time; `cap_s` is the longest. It comes on top of
    a vendor's own word on when to come back.
    """

    attempts: int = Field(default=3, ge=1, le=100, description="tries in all; 1 tries nothing again")
    base_s: float = Field(default=0.5, gt=0)
    cap_s: float = Field(default=8, gt=0)


class RunnerSettings(_Strict):
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


class ClaudeSettings(RunnerSettings):
    """Claude Code."""

    kind: Literal["claude"] = "claude"


class CopilotModelProvider(_Strict):
    """A model API of the user's own, that copilot calls in GitHub's place.

    `api_key_env` names the variable with its key: in the entry's `env`, else in the daemon's environment.
    `max_prompt_tokens` is the model's window, which the CLI cannot know; longer prompts are refused.
    """

    type: Literal["openai", "azure", "anthropic"] = "openai"
    base_url: str
    api_key_env: str | None = None
    max_prompt_tokens: int | None = Field(default=None, gt=0)

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, base_url: str) -> str:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is no URL that begins with http:// or https://")
        return base_url


class CopilotSettings(RunnerSettings):
    """GitHub Copilot CLI.

    With `private_home` it keeps its files in a directory of the runner's own in place of ~/.copilot. A login in
    ~/.copilot/config.json is then not seen; one in the system's keychain is.
    """

    kind: Literal["copilot"] = "copilot"
    provider: CopilotModelProvider | None = None
    private_home: bool = False

    @property
    def variables(self) -> set[str]:
        """Those names, and that of the provider's key."""
        named = self.provider.api_key_env if self.provider else None
        return super().variables | ({named} if named else set())

    @model_validator(mode="after")
    def _names_the_model_of_its_provider(self) -> "CopilotSettings":
        if self.provider is not None and self.model is None:
            raise ValueError("with a provider of your own, `model` must say which of its models is meant")
        return self

    @model_validator(mode="after")
    def _asks_for_what_copilot_takes(self) -> "CopilotSettings":
        if self.temperature is not None:
            raise ValueError("copilot takes no temperature")
        if self.max_tokens is not None and self.provider is None:
            raise ValueError("copilot takes max_tokens only with a provider of your own")
        return self


class OllamaTimeouts(Timeouts):
    """The same, for a server that looks at its GPUs before it answers, and may load a model for minutes."""

    spawn_s: float = Field(default=120, gt=0, description=Timeouts.model_fields["spawn_s"].description)
    first_chunk_s: float = Field(default=900, gt=0, description=Timeouts.model_fields["first_chunk_s"].description)
    silence_s: float = Field(default=900, gt=0, description=Timeouts.model_fields["silence_s"].description)


class OllamaSettings(RunnerSettings):
    """Ollama.

    `host` is where its server is, in any form that OLLAMA_HOST may have; without it that variable counts, and then
    127.0.0.1:11434. `keep_alive` is how long a model stays loaded, in seconds or as `5m`, negative for ever.
    `num_ctx` is the window to load models with: one size for all requests, since another loads the model anew.
    """

    kind: Literal["ollama"] = "ollama"
    timeouts: OllamaTimeouts = OllamaTimeouts()
    host: str | None = None
    keep_alive: StrictInt | str | None = None
    num_ctx: int | None = Field(default=None, gt=0)

    @property
    def variables(self) -> set[str]:
        """Those names, and what says where and how Ollama runs."""
        return super().variables | {"OLLAMA_HOST", *OLLAMA_SERVER_VARIABLES}

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str | None) -> str | None:
        if host is not None:
            try:
                ollama_url(host)
            except ConfigError as error:
                raise ValueError(error.message.removeprefix("host: ")) from error
        return host

    @field_validator("keep_alive")
    @classmethod
    def _is_a_duration(cls, keep_alive: int | str | None) -> int | str | None:
        if isinstance(keep_alive, str) and not _DURATION.fullmatch(keep_alive):
            raise ValueError(f"{keep_alive!r} is neither a number of seconds nor a duration such as `5m`")
        return keep_alive


class EchoSettings(RunnerSettings):
    """Our own small CLI, that answers with what it was sent."""

    kind: Literal["echo"] = "echo"


def ollama_url(host: str) -> str:
    """The base URL that a value of OLLAMA_HOST means: `host`, `host:port`, `:port` or a URL, in Ollama's own rules."""
    text = host.strip().strip("\"'")
    if text == "ollama.com":
        text = "https://ollama.com"
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    rest, slash, path = rest.partition("/")
    if rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"  # an IPv6 address alone
    try:
        parts = urlsplit(f"{scheme}://{rest}{slash}{path}")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"host: {host!r} is no address of an Ollama server: {error}") from error
    if scheme not in ("http", "https") or " " in rest:
        raise ConfigError(f"host: {host!r} is no address of an Ollama server")
    name = parts.hostname or ""
    name = _ANY_INTERFACE.get(name, name)
    if port is None:
        port = {"http": 80, "https": 443}.get(scheme, 11434) if found else 11434
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path.rstrip('/')}"
