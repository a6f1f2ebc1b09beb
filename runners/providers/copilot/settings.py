"""An entry of the kind copilot."""

from typing import Literal

from pydantic import Field, model_validator

from runners.settings import HttpUrl, RunnerSettings, StrictModel


class CopilotModelProvider(StrictModel):
    """A model API of the user's own, that copilot calls in GitHub's place.

    `api_key_env` names the variable with its key: in the entry's `env`, else in the daemon's environment.
    `max_prompt_tokens` is the model's window, which the CLI cannot know; longer prompts are refused.
    """

    type: Literal["openai", "azure", "anthropic"] = "openai"
    base_url: HttpUrl
    api_key_env: str | None = None
    max_prompt_tokens: int | None = Field(default=None, gt=0)


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
