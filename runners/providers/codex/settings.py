"""An entry of the kind codex."""

from typing import Literal

from pydantic import model_validator

from runners.settings import HttpUrl, RunnerSettings


class CodexSettings(RunnerSettings):
    """OpenAI's Codex CLI.

    With a `base_url` it calls the OpenAI-compatible server there in OpenAI's place, which must serve `/responses`.
    `api_key_env` names the variable with that server's key: in the entry's `env`, else in the daemon's environment.
    """

    kind: Literal["codex"] = "codex"
    base_url: HttpUrl | None = None
    api_key_env: str | None = None

    @property
    def variables(self) -> set[str]:
        """Those names, and that of the server's key."""
        return super().variables | ({self.api_key_env} if self.api_key_env else set())

    @model_validator(mode="after")
    def _is_whole_about_its_server(self) -> "CodexSettings":
        if self.base_url is not None and self.model is None:
            raise ValueError("with a server of your own, `model` must say which of its models is meant")
        if self.base_url is None and self.api_key_env is not None:
            raise ValueError("api_key_env is the key of a server of your own: `base_url` must say where that is")
        return self

    @model_validator(mode="after")
    def _asks_for_what_codex_takes(self) -> "CodexSettings":
        if self.temperature is not None:
            raise ValueError("codex takes no temperature")
        if self.max_tokens is not None:
            raise ValueError("codex takes no max_tokens")
        return self
