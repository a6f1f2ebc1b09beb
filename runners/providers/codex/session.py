"""A conversation with codex, see SharedSession."""

from typing import Any

from runners.messages import ChatMessage, ResponseFormat
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.codex.events import CodexTranslator
from runners.providers.codex.items import definitions, names_of
from runners.providers.codex.server import CodexServer
from runners.providers.codex.thread import CodexThread
from runners.shared_session import SharedSession
from runners.wire.deadlines import TurnDeadlines

VENDORS_DEFAULT = "default"
"""What stands for the model that the CLI takes where it is given none."""


class CodexSession(SharedSession[CodexServer, CodexThread]):
    """A conversation in codex's process."""

    def __init__(self, provider: LlmProvider, server: CodexServer, *, is_own_server: bool) -> None:
        super().__init__(provider, server)
        self._is_own_server = is_own_server
        self._settings: dict[str, Any] = {}
        self._names = names_of(())
        self._last = CodexTranslator(provider.name, self.model)

    async def prepare(self, options: SessionOptions) -> None:
        if self.state == "dead":
            raise self.host.reason()
        self.options = options
        self._names = names_of(options.tools)
        reasoning = {"model_reasoning_summary": "auto"}
        if options.reasoning_effort is not None:
            reasoning["model_reasoning_effort"] = options.reasoning_effort
        self._settings = {
            "model": None if self.model == VENDORS_DEFAULT else self.model,
            # In the place of its own instructions some models would be told ours twice.
            "baseInstructions": "",
            "developerInstructions": options.system,
            "dynamicTools": definitions(options.tools, self._names),
            "config": reasoning,
            "cwd": str(self.host.cwd),
        }
        self.state = "idle"

    def translator(self) -> CodexTranslator:
        self._last = CodexTranslator(
            self.provider.name,
            self.model,
            tools=self.options.tools,
            names=self._names,
            is_own_server=self._is_own_server,
        )
        return self._last

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        new = messages[len(self.transcript) :]
        self.resent = self.held is None or not self.held.continues(self.transcript, new, self._settings)
        if self.held is None or self.resent:
            self.let_go()
            self.held = CodexThread(self.host, self._settings, self._names)
        self.inbox = self.held.inbox
        await deadlines.wait(self.held.say(messages, _shape(sampling.response_format)))
        self._last.model = self.held.model


def _shape(response_format: ResponseFormat | None) -> dict[str, Any]:
    """The parameters of a turn whose answer is to be shaped."""
    if response_format is None or response_format.type != "json_schema":
        return {}
    return {"outputSchema": (response_format.wrapped or {}).get("schema")}
