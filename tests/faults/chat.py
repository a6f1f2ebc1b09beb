"""A chat as its client sees it, in words that are the same whenever it is the same."""

import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tests.world import END_S, Wire, user

WHOLE = "the whole answer"


class Chat:
    """A chat that was asked for on a connection of its own. `served` is how, when its answer has ended."""

    def __init__(self, wire: Wire, request_id: int, right: str) -> None:
        self.served = ""
        self._wire = wire
        self._id = request_id
        self._right = right
        self._texts = 0

    @classmethod
    async def ask(
        cls, wire: Wire, model: str, text: str, *, history: Sequence[dict[str, Any]] = (), right: str | None = None
    ) -> "Chat":
        """Asks behind `history`. The right answer is the text itself where none is given."""
        request_id = await wire.request("chat", model=model, messages=[*history, *user(text)])
        return cls(wire, request_id, text if right is None else right)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        """Closes the connection, whatever is still to come."""
        await self._wire.close()

    async def begins(self) -> None:
        """Waits for the first text: from then on the CLI is in the middle of its answer."""
        while not self._texts:
            ended = await self._next()
            assert ended is None, f"the chat ended before its first text: {ended}"

    async def seen(self) -> str:
        """What comes until it has ended, and how that was."""
        try:
            while (response := await self._next()) is None:
                pass
        except ConnectionError:
            return f"the connection closes{self._behind()}"
        except TimeoutError:
            return f"nothing for {END_S:.0f} s{self._behind()}"
        if "error" in response:
            return f"error {error_in_words(response['error'])}{self._behind()}"
        content = response["result"]["content"]
        self.served = response["result"]["served"]
        return WHOLE if content == self._right else f"the answer {content[:40]!r}"

    async def _next(self) -> dict[str, Any] | None:
        """Reads a message; returns the response when it is that."""
        message = await self._wire.read()
        if message.get("method") == "chat.chunk":
            self._texts += message["params"]["chunk"]["type"] == "text"
            return None
        return message

    def _behind(self) -> str:
        return f" behind {counted(self._texts, 'text chunk')}" if self._texts else ""


def error_in_words(error: dict[str, Any]) -> str:
    """Its kind, and which deadline or how the process ended."""
    data = error.get("data") or {}
    if "kind" not in data:
        return f"{error['code']} ({error['message']})"
    what = data.get("deadline")
    if "exit_code" in data:
        code = data["exit_code"]
        what = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return f"{data['kind']} ({what})" if what else str(data["kind"])


def counted(number: int, what: str) -> str:
    """`1 chat`, `2 chats`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def summed(seen: list[str]) -> str:
    """What many chats saw: said once, with how many they were."""
    kinds = sorted(set(seen))
    return "; ".join(f"{seen.count(kind)} times {kind}" for kind in kinds)
