"""What the real CLIs put to the contract share: a stand-in API that answers with the text that it was sent."""

from abc import abstractmethod

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.testing import Received, Subject, request
from tests.live.stand_in import BaseReply, Json, StandIn

HOLD = "[hold]"


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

    def _answer(self, body: Json) -> BaseReply:
        asked = self.read(body).messages[-1][1]
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
        return self.read(self._api.requests[-1].body)
