"""An entry of the kind opencode."""

from typing import Any, Literal

from pydantic import Field

from runners.settings import RunnerSettings


class OpencodeSettings(RunnerSettings):
    """opencode. `provider` is what stands under that key in an opencode.json: the APIs that it may call, by name."""

    kind: Literal["opencode"] = "opencode"
    provider: dict[str, dict[str, Any]] = Field(default_factory=dict)
