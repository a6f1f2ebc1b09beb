"""A session whose CLI tells what happens as events, one JSON object each: the course of a turn, for every vendor.

Owns sending, reading until the translator says that the turn ended, the deadlines, and the giving up of what did not
end. Where the events come from and what they mean is its subclasses' business.
"""

import asyncio
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from runners.errors import DeadlineExceededError, InvalidRequestError, ProtocolError
from runners.messages import ChatMessage
from runners.provider import LlmProvider, Sampling, Session
from runners.stream import (
    ChatChunk,
    ChatStream,
    Done,
    Reasoning,
    ResponseBuilder,
    Text,
    ToolRequestArg,
    ToolRequestStart,
)
from runners.translator import Event, Translator
from runners.wire.deadlines import TurnDeadlines

_CONTENT = (Text, Reasoning, ToolRequestStart, ToolRequestArg)


class EventSession(Session):
    """The course of a turn. A subclass says how it is begun, where its events come from and how it is given up."""

    def __init__(self, provider: LlmProvider) -> None:
        self.provider = provider
        self.model = provider.default_model
        self.timeouts = provider.settings.timeouts
        self.unknown: Counter[str] = Counter()
        """The events of its turns so far that nobody knew, by their name."""
        provider.sessions.add(self)

    @abstractmethod
    def translator(self) -> Translator:
        """A new one, for the turn that begins."""

    @abstractmethod
    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        """Sends what the turn begins with, every wait through `deadlines`.

        Where it `awaits` results, `messages` are these, and the CLI is still in its own turn.
        """

    @abstractmethod
    async def event(self) -> Event:
        """The next event of the turn; raises the RunnerError for a CLI that tells no more."""

    @abstractmethod
    def settle(self, *, is_clean: bool) -> None:
        """Ends at once what a turn may still do, and sets `state` to what the session is good for now.

        Called once for each turn: as soon as it has ended or cannot go on, whether its client reads or not. A clean
        end is one when it is read and not before: who leaves ahead of it knows no answer, but the CLI would. Behind a
        clean end a session that `awaits` results is parked.
        """

    def turn(self, messages: list[ChatMessage], sampling: Sampling) -> ChatStream:
        """See Session.turn."""
        if self.awaits and sorted(message.tool_call_id or "" for message in messages) != sorted(self.awaits):
            raise InvalidRequestError(f"the session waits for the results of {sorted(self.awaits)} and nothing else")
        return ChatStream(self._turn(messages, sampling), runner=self.provider.name)

    async def _turn(self, messages: list[ChatMessage], sampling: Sampling) -> AsyncGenerator[ChatChunk, None]:
        if self.state not in ("idle", "parked"):
            raise ProtocolError(f"a turn on a session that is {self.state}")
        self.state = "busy"
        self.turns += 1
        translator = self.translator()
        deadlines = TurnDeadlines(self.timeouts)
        # Also while the client does not read: nobody waits for the CLI then, and it must not run for ever.
        overdue = asyncio.get_running_loop().call_at(deadlines.turn_ends, self._overdue)
        try:
            await self.say(messages, sampling, deadlines)
            self.awaits = frozenset()
            while not translator.ended:
                deadlines.check()
                event = await deadlines.wait(self.event())
                self.provider.when_told(translator.name_of(event), event)
                chunks = translator.feed(event)
                if translator.ended and not translator.is_clean:
                    self.settle(is_clean=False)
                for chunk in chunks:
                    if isinstance(chunk, _CONTENT):
                        deadlines.is_content_seen = True
                    elif isinstance(chunk, Done) and translator.is_clean and self.state == "busy":
                        self.awaits = translator.awaits
                        self.settle(is_clean=True)
                    yield chunk
        except DeadlineExceededError as error:
            raise translator.retried_error or error from error
        finally:
            self.unknown += translator.unknown
            overdue.cancel()
            deadlines.close()
            self._overdue()

    def cli_is_gone(self) -> None:
        """Its process has ended. In the middle of a turn its reader finds out, with what the CLI said last."""
        if self.state in ("starting", "idle", "parked"):
            self.state = "dead"
            self.when_dead()

    def _overdue(self) -> None:
        if self.state == "busy":
            self.settle(is_clean=False)


class TranscriptSession(EventSession):
    """A session whose CLI keeps nothing from turn to turn: it holds the conversation and sends all of it each time.

    A turn that failed or was cancelled leaves the conversation as it was before it.
    """

    def __init__(self, provider: LlmProvider) -> None:
        super().__init__(provider)
        self.transcript: list[ChatMessage] = []
        self.resent = True

    @property
    def holds_conversation(self) -> bool:
        """See Session.holds_conversation: it is all sent again."""
        return False

    async def _turn(self, messages: list[ChatMessage], sampling: Sampling) -> AsyncGenerator[ChatChunk, None]:
        conversation = [*self.transcript, *messages]
        answer = ResponseBuilder()
        async with aclosing(super()._turn(conversation, sampling)) as chunks:
            async for chunk in chunks:
                answer.add(chunk)
                if isinstance(chunk, Done) and chunk.stop_reason != "cancelled":
                    self.transcript = [*conversation, answer.response().as_message()]
                yield chunk
