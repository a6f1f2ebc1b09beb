"""An entry of the kind ollama, and what an address of its server may look like."""

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, StrictInt, field_validator

from runners.errors import ConfigError
from runners.settings import RunnerSettings, Timeouts

_ANY_INTERFACE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 asked at its loopback address
# What of the daemon's own environment is about models and the machine, and says nothing of who pays or where to call.
OLLAMA_SERVER_VARIABLES = (
    *("OLLAMA_MODELS", "OLLAMA_KEEP_ALIVE", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_NUM_PARALLEL", "OLLAMA_MAX_LOADED_MODELS"),
    *("OLLAMA_MAX_QUEUE", "OLLAMA_LOAD_TIMEOUT", "OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NO_CLOUD"),
    *("OLLAMA_LLM_LIBRARY", "OLLAMA_GPU_OVERHEAD", "OLLAMA_SCHED_SPREAD", "OLLAMA_VULKAN"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION"),
)
_DURATION = re.compile(r"-?(\d+(\.\d+)?(ns|us|ms|s|m|h))+")


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
