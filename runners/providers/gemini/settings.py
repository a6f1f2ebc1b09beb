"""An entry of the kind gemini."""

from typing import Literal

from pydantic import model_validator

from runners.settings import RunnerSettings


class GeminiSettings(RunnerSettings):
    """Gemini CLI."""

    kind: Literal["gemini"] = "gemini"

    @model_validator(mode="after")
    def _asks_for_what_gemini_takes(self) -> "GeminiSettings":
        if self.temperature is not None or self.max_tokens is not None:
            raise ValueError("gemini takes neither temperature nor max_tokens")
        return self
