"""What the real CLIs put to the contract share: a stand-in API that answers with the text or calls it was sent."""

import itertools
from abc import abstractmethod
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.testing import Received, Subject, request
from runners.testing.apis.stand_in import BaseReply, Json, StandIn
from runners.testing.contract import called_by

HOLD = "[hold]"


def asked_by(messages: list[tuple[str, str]]) -> str:
    """The text that is to be answered: of several results of tools the last one that asks for calls, else the last."""
    results = [text for _, text in itertools.takewhile(lambda message: message[0] == "tool", reversed(messages))]
    texts = results or [messages[-1][1]]
    return next((text for text in texts if called_by(text)), texts[0])


def offered(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Tools that were received as the knob `tools`: as a client defines them, that is without empty descriptions."""
    reduced = [{key: value for key, value in tool.items() if key != "description" or value} for tool in tools]
    return {"tools": reduced} if reduced else {}


class OnApi(Subject):
    """A provider whose CLI calls `api`. `read` tells what a request to it said, in the contract's terms."""

    def __init__(self, api: StandIn, provider: LlmProvider) -> None:
        self.provider = provider
        self._api = api
        self._pieces: dict[str, tuple[str, ...]] = {}
        api.answer = self._answer

    @abstractmethod
    def read(self, body: Json) -> Received:
        """What the stand-in received."""

    @abstractmethod
    def text(self, *pieces: str) -> BaseReply:
        """An answer of these pieces."""

    @abstractmethod
    def calls(self, *calls: tuple[str, str], text: str) -> BaseReply:
        """An answer of a text, if any, and calls as (name, the text of the arguments)."""

    def _answer(self, body: Json) -> BaseReply:
        asked = asked_by(self.read(body).messages)
        if (called := called_by(asked)) is not None:
            text, calls = called
            return self.calls(*calls, text=text)
        if HOLD in asked:
            return self.held()
        # A CLI that is not exact puts a date before the text, and takes white space from its end.
        told = (pieces for whole, pieces in self._pieces.items() if whole in asked or whole.rstrip() in asked)
        return self.text(*max(told, key=lambda pieces: len("".join(pieces)), default=(asked,)))

    def held(self) -> BaseReply:
        """An answer that begins and does not end."""
        return self.text("first", "never").broken("stall", after=1)

    def answer(self, *pieces: str) -> ChatRequest:
        whole = "".join(pieces)
        self._pieces[whole] = pieces
        return request(whole)

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        return self.received()

    def received(self) -> Received:
        return self.read(self._api.requests[-1].body)

    def model_calls(self) -> int:
        return len(self._api.requests)
