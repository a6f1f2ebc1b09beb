"""Which of a runner's workers serves a request, and which of those that are kept go. Pure: looks at plain data."""

from collections.abc import Iterable
from dataclasses import dataclass

from daemon.conversation import NOTHING_SAID, Conversation
from daemon.worker import Worker
from runners.provider import SessionOptions


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request needs of a session: `history` is its conversation less what is new.

    `results` are the ids of the tool calls whose results it brings, when it brings nothing else that is new. `root` is
    what its conversation began with, `calls` are the ids of all calls in it.
    """

    model: str
    options: SessionOptions
    history: Conversation = NOTHING_SAID
    results: frozenset[str] = frozenset()
    root: Conversation = NOTHING_SAID
    calls: frozenset[str] = frozenset()


def decide(wanted: Wanted, workers: Iterable[Worker]) -> Worker | None:
    """The worker that serves a request: of these the first that there is. None means a new one.

    1. The parked one that waits for exactly the request's results, and 2. the idle one, of several the one that was
       used last: both only where their conversation is the request's history, with the same model, system prompt, tools
       and effort. A vendor may give the same id to calls of several conversations.
    3. A blank of the same model, one that is ready before one that still starts.
    """
    able = [worker for worker in workers if worker.model == wanted.model]
    alike = [worker for worker in able if worker.options == wanted.options]
    same = [worker for worker in alike if worker.conversation == wanted.history != NOTHING_SAID]
    for worker in same:
        if worker.state == "parked" and worker.awaits == wanted.results != frozenset():
            return worker
    kept = [worker for worker in same if worker.state == "idle"]
    blank = [worker for worker in able if worker.is_blank and worker.options in (None, wanted.options)]
    ready = [worker for worker in blank if worker.state == "idle"]
    starting = [worker for worker in blank if worker.state == "starting"]
    return max(kept or ready or starting, key=lambda worker: worker.used_s, default=None)


def abandoned(wanted: Wanted, workers: Iterable[Worker]) -> Worker | None:
    """The parked worker whose conversation goes on elsewhere with this request: nobody will bring its results.

    That is one that began alike and has its calls, whatever else its client has changed or asks for now. Of several the
    one that waits the longest.
    """
    alike = [worker for worker in workers if worker.root == wanted.root != NOTHING_SAID]
    left = [worker for worker in alike if worker.state == "parked" and worker.awaits <= wanted.calls]
    return min(left, key=lambda worker: worker.used_s, default=None)


def surplus(workers: Iterable[Worker], most: int) -> list[Worker]:
    """The conversations beyond `most` that are kept, those that rest the longest."""
    kept = [worker for worker in workers if worker.state == "idle" and not worker.is_fresh]
    return sorted(kept, key=lambda worker: worker.used_s)[: max(len(kept) - most, 0)]
