"""A conversation on copilot's headless server, see SharedSession."""

from typing import Any

from runners.messages import ChatMessage
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.copilot.cli_session import CliSession
from runners.providers.copilot.events import CopilotTranslator
from runners.providers.copilot.server import CopilotServer
from runners.providers.copilot.tools import names_of, parameters_of
from runners.shared_session import SharedSession
from runners.wire.deadlines import TurnDeadlines


class CopilotSession(SharedSession[CopilotServer, CliSession]):
    """A conversation on the headless server.

    `settings` are the parameters of the CLI's sessions that come from runners.yaml; the prompt of no turn may have more
    than `max_prompt_tokens`.
    """

    def __init__(
        self,
        provider: LlmProvider,
        server: CopilotServer,
        settings: dict[str, Any],
        max_prompt_tokens: int | None,
    ) -> None:
        super().__init__(provider, server)
        self._settings = settings
        self._max_prompt_tokens = max_prompt_tokens
        self._names = names_of(())
        self._last = CopilotTranslator(provider.name, self.model)

    async def prepare(self, options: SessionOptions) -> None:
        if self.state == "dead":
            raise self.host.reason()
        self.options = options
        self._names = names_of(options.tools)
        system = {"systemMessage": {"mode": "replace", "content": options.system}}
        self._settings = self._settings | system | parameters_of(options.tools, self._names)
        if options.reasoning_effort is not None:
            self._settings["reasoningEffort"] = options.reasoning_effort
        self.state = "idle"

    def translator(self) -> CopilotTranslator:
        # The CLI counts on where it goes on with a turn.
        before = self._last.size_bytes if self.awaits else 0
        self._last = CopilotTranslator(
            self.provider.name,
            self.model,
            tools=self.options.tools,
            names=self._names,
            size_before_bytes=before,
            max_prompt_tokens=self._max_prompt_tokens,
        )
        return self._last

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        settings = dict(self._settings)
        if sampling.max_tokens is not None:
            settings["provider"] = settings["provider"] | {"maxOutputTokens": sampling.max_tokens}
        shape = sampling.response_format.wrapped if sampling.response_format else None
        last = {} if shape is None else {"responseFormat": {"type": "json_schema", "jsonSchema": shape}}
        new = messages[len(self.transcript) :]
        self.resent = self.held is None or not self.held.continues(self.transcript, new, settings, last)
        if self.held is None or self.resent:
            self._last.size_bytes = 0
            self.let_go()
            self.held = CliSession(self.host, self.provider.temporary("conversations"), settings, self._names)
        self.inbox = self.held.inbox
        await deadlines.wait(self.held.say(messages, last))
