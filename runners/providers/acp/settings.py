"""An entry of the kind acp."""

from typing import Literal

from pydantic import Field, model_validator

from runners.settings import AgentSettings, Timeouts


class AcpTimeouts(Timeouts):
    """The same, for an agent that may work with tools of its own for minutes before it says something."""

    spawn_s: float = Field(default=60, gt=0, description=Timeouts.model_fields["spawn_s"].description)
    first_chunk_s: float = Field(default=900, gt=0, description=Timeouts.model_fields["first_chunk_s"].description)
    silence_s: float = Field(default=900, gt=0, description=Timeouts.model_fields["silence_s"].description)


class AcpSettings(AgentSettings):
    """An agent that speaks ACP: `binary` is its program, `args` what makes it speak it.

    `model` is one of those that the agent lists; of an agent that lists none it is a mere name.
    """

    kind: Literal["acp"] = "acp"
    timeouts: AcpTimeouts = AcpTimeouts()

    @model_validator(mode="after")
    def _says_what_an_agent_can_be_told(self) -> "AcpSettings":
        if self.binary is None:
            raise ValueError("`binary` must name the agent's program")
        if self.temperature is not None or self.max_tokens is not None:
            raise ValueError("an ACP agent takes neither temperature nor max_tokens")
        return self
