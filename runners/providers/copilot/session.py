"""A conversation on copilot's headless server: one session of the CLI's as long as its turns end well.

After a turn that was cancelled, failed or cut that session holds what is no part of the conversation. It is taken out
of the CLI, and the next turn begins another, with the conversation as it was before.
"""

import asyncio
from typing import Any

from runners.errors import RequestCancelledError
from runners.event_session import TranscriptSession
from runners.messages import ChatMessage
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.copilot.cli_session import CliSession
from runners.providers.copilot.events import CopilotTranslator
from runners.providers.copilot.inbox import CopilotInbox
from runners.providers.copilot.server import CopilotServer
from runners.providers.copilot.tools import names_of, parameters_of
from runners.shared_process import SharedProcess
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines


class CopilotSession(TranscriptSession):
    """A conversation on the headless server. After a cancelled or failed turn it can go on from before that turn.

    `settings` are the parameters of the CLI's sessions that come from runners.yaml; the prompt of no turn may have more
    than `max_prompt_tokens`.
    """

    def __init__(
        self,
        provider: LlmProvider,
        shared: SharedProcess[CopilotServer],
        server: CopilotServer,
        settings: dict[str, Any],
        max_prompt_tokens: int | None,
    ) -> None:
        super().__init__(provider)
        self.server = server
        self.process = server.process
        self._shared = shared
        self._settings = settings
        self._max_prompt_tokens = max_prompt_tokens
        self._options = SessionOptions()
        self._names = names_of(())
        self._last = CopilotTranslator(provider.name, self.model)
        self._cli: CliSession | None = None
        self._inbox = CopilotInbox()
        self._farewells: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None
        server.when_retired.add(self.cli_is_gone)

    @property
    def holds_conversation(self) -> bool:
        return self._cli is not None

    async def prepare(self, options: SessionOptions) -> None:
        if self.state == "dead":
            raise self.server.reason()
        self._options = options
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
            tools=self._options.tools,
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
        self.resent = self._cli is None or not self._cli.continues(self.transcript, new, settings, last)
        if self._cli is None or self.resent:
            self._last.size_bytes = 0
            self._part(abort=False)
            self._cli = CliSession(self.server, self.provider.temporary("conversations"), settings, self._names)
        self._inbox = self._cli.inbox
        await deadlines.wait(self._cli.say(messages, last))

    async def event(self) -> Event:
        return await self._inbox.get()

    async def interrupt(self) -> None:
        if self.state == "busy" and self._cli is not None:
            await self._cli.abort()

    def settle(self, *, is_clean: bool) -> None:
        is_well = self._cli is not None and is_clean and not self._cli.is_spent
        if not is_well:
            self.awaits = frozenset()
        self.state = "dead" if self.server.is_retired else "parked" if self.awaits else "idle"
        if self._cli is not None and is_well:
            self._cli.rest(awaits_results=bool(self.awaits))
        else:
            self._part(abort=not is_clean)

    def _part(self, *, abort: bool) -> None:
        """Lets the CLI's session end, without waiting for it."""
        cli, self._cli = self._cli, None
        if cli is not None:
            task = asyncio.create_task(self.server.farewell(cli, abort=abort), name=f"copilot-end-{cli.id}")
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    def cli_is_gone(self) -> None:
        if self.state in ("starting", "idle", "parked"):
            self._part(abort=False)
        super().cli_is_gone()

    async def aclose(self) -> None:
        is_busy = self.state == "busy"
        if is_busy:
            self._inbox.close(RequestCancelledError("its session was closed"))
        self.state = "dead"
        self._part(abort=is_busy)
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="copilot-leave")
        await asyncio.shield(self._leaving)

    async def _leave(self) -> None:
        """Waits for what its turns leave behind."""
        await asyncio.gather(*self._farewells)
        self.server.when_retired.discard(self.cli_is_gone)
        await self._shared.release(self.server)
        self.provider.sessions.discard(self)
