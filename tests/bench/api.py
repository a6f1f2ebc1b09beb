"""The vendors' stand-in APIs in a process of their own, so that their work is not done in the time of a client.

`python -m tests.bench.api KIND` tells its URL, then obeys one JSON object a line, each with an answer of a line.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any, Self

from runners.testing.apis import completions_api, gemini_api, messages_api, responses_api
from runners.testing.apis.stand_in import BaseReply, StandIn
from tests.bench.reading import Child, Json, lines
from tests.world import CHECKOUT, World

_DELTAS = 20
_APIS: dict[str, tuple[Callable[[], StandIn], Callable[..., BaseReply]]] = {
    "claude": (messages_api.MessagesApi, messages_api.text),
    "codex": (responses_api.ResponsesApi, responses_api.text),
    "copilot": (completions_api.CompletionsApi, completions_api.text),
    "gemini": (gemini_api.GeminiApi, gemini_api.text),
    "opencode": (completions_api.CompletionsApi, completions_api.text),
}


class Api:
    """A stand-in that answers at once, each time with another text of so many deltas; `url` is where."""

    def __init__(self, world: World, kind: str) -> None:
        self._world = world
        self._kind = kind

    def __enter__(self) -> Self:
        argv = [sys.executable, "-m", "tests.bench.api", self._kind]
        self._child = Child(argv, env=self._world.env, cwd=CHECKOUT)
        self._lines = lines(self._child.output)
        self.url = str(json.loads(next(self._lines))["url"])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.end()

    def deltas(self, number: int = _DELTAS) -> None:
        """From now on an answer has so many."""
        self._ask({"deltas": number})

    def taken(self) -> list[Json]:
        """The requests since this was last asked: the `body` of each and its size in `bytes`."""
        found = self._ask({"take": True})
        assert isinstance(found, list)
        return found

    def _ask(self, order: Json) -> Any:
        self._child.say(order)
        return json.loads(next(self._lines))


def answer(number: int, deltas: int) -> list[str]:
    """The pieces of the answer with that number."""
    return [f"{number}.{index} " for index in range(deltas)]


async def _serve(kind: str) -> None:
    made, text = _APIS[kind]
    api = made()
    numbers, deltas = count(1), _DELTAS

    def reply(_body: Json) -> BaseReply:
        return text(*answer(next(numbers), deltas))

    api.answer = reply
    async with api:
        print(json.dumps({"url": api.url}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            order = json.loads(line)
            deltas = order.get("deltas", deltas)
            seen = [{"body": received.body, "bytes": len(received.raw)} for received in api.requests]
            api.requests.clear()
            print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
