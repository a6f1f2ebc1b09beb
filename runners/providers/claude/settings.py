"""An entry of the kind claude."""

from typing import Literal

from runners.settings import RunnerSettings


class ClaudeSettings(RunnerSettings):
    """Claude Code."""

    kind: Literal["claude"] = "claude"
