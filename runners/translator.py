"""What every translator does alike: events in, chunks out, and no event that can break anything. Pure, no I/O."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from typing import Any

from runners.errors import ProtocolError, RunnerError
from runners.stream import ChatChunk

Event = dict[str, Any]


class Translator(ABC):
    """The events of one turn as chunks.

    `ended`: what comes now is no part of the turn. `is_clean`: the turn ended so that the CLI is at rest, its history
    exactly the conversation, and another may follow. `awaits`: the tool calls whose results the CLI needs, which then
    goes on with the turn: it ended for its client alone. `retried_error` is what the CLI is trying again after: at a
    deadline it says more than the deadline. `unknown` counts the events that nobody knows, by their name.
    """

    def __init__(self, runner: str) -> None:
        self.ended = False
        self.is_clean = False
        self.awaits: frozenset[str] = frozenset()
        self.retried_error: RunnerError | None = None
        self.unknown: Counter[str] = Counter()
        self._runner = runner

    def feed(self, event: Event) -> list[ChatChunk]:
        """The chunks that an event brings, often none. An event that nobody knows brings none.

        Raises the RunnerError of a turn that failed, and ProtocolError for an event that is known but not its form;
        then, too, the turn has `ended`.
        """
        try:
            chunks = self._chunks(event)
            if chunks is None:
                self.unknown[self.name_of(event)] += 1
                return []
            return list(chunks)
        except RunnerError:
            self.ended = True
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            self.ended = True
            raise ProtocolError(f"an event {self.name_of(event)} has a form that is not known: {error!r}") from error

    def name_of(self, event: Event) -> str:
        """What its vendor calls this kind of event, whatever else is in it; events of one name have one form."""
        return str(event.get("type"))

    @abstractmethod
    def _chunks(self, event: Event) -> Iterable[ChatChunk] | None:
        """What an event brings; None for one that nobody knows."""
