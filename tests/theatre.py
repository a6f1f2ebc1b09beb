"""A pool of sessions that act (see tests.stage), and its clients."""

from collections.abc import Callable
from typing import Any

from daemon.memory import Memory
from daemon.pool import Pool
from daemon.turn import answer
from runners.messages import ChatRequest, ChatResponse
from runners.stream import ChatStream, Text, fold
from tests.stage import Stage
from tests.world import assistant, until, user

FIRST = [*user("one")]
SECOND = [*FIRST, assistant("re: one"), *user("two")]
THIRD = [*SECOND, assistant("re: two"), *user("three")]
"""One conversation, turn by turn."""


class Theatre:
    """A pool of a stage, and its clients."""

    def __init__(self, **settings: Any) -> None:
        self.stage = Stage(**{"warm": 0, **settings})
        self.memory = Memory()
        self.pool = Pool(self.stage, self.memory)

    def stream(self, messages: list[dict[str, Any]], **fields: Any) -> ChatStream:
        request = ChatRequest.model_validate({"messages": messages, **fields})
        return ChatStream(answer(self.pool, request), runner="stage")

    async def chat(self, messages: list[dict[str, Any]], **fields: Any) -> ChatResponse:
        return await fold(self.stream(messages, **fields))

    async def served(self, messages: list[dict[str, Any]], **fields: Any) -> str:
        return (await self.chat(messages, **fields)).served

    async def begun(self, messages: list[dict[str, Any]]) -> ChatStream:
        """A chat whose answer has begun."""
        stream = self.stream(messages)
        async for chunk in stream:
            if isinstance(chunk, Text):
                break
        return stream

    @property
    def states(self) -> list[str]:
        return [worker.state for worker in self.pool.workers]

    async def settled(self, *states: str) -> None:
        """Returns when the workers are in these states."""

        async def are() -> bool:
            return self.states == [*states]

        await until(are)

    async def aclose(self) -> None:
        self.stage.may_open.set()
        self.stage.may_close.set()
        await self.pool.aclose()
        assert (self.states, self.stage.sessions, self.memory.holders) == ([], set(), [])
        assert all(actor.is_closed for actor in self.stage.actors)


Open = Callable[..., Theatre]
"""Opens one, with these settings; it is closed at the test's end."""
