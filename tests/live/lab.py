"""A lab: a real daemon in a world of its own, a vendor's real CLIs behind it, and a stand-in for their API.

Owns the daemon's runners.yaml and one connection to its socket. A CLI gets no variable of this machine, and of the
network only loopback. What is a vendor's own stands in `claude_lab` and `copilot_lab`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from runners.testing.apis.stand_in import BaseReply, Received, StandIn
from tests.world import END_S, Daemon, Wire, World

Json = dict[str, Any]
Entries = Mapping[str, Json]

RUNNER_ERROR = -32010
PROBES_S = 60.0
AS_IT_IS: Json = {"retry": {"attempts": 1}, "breaker": {"failures": 1000}, "warm": 0, "idle_ttl_s": 0}
"""What a test sees is what the CLI did for it: no other try hides it, none is refused for what it did before, and no
conversation of another test is continued."""


@dataclass(frozen=True)
class Answer:
    """What a client saw of one chat: its chunks and its response."""

    chunks: list[Json] = field(default_factory=list)
    response: Json = field(default_factory=dict)

    @property
    def result(self) -> Json:
        assert "result" in self.response, self.response
        result = self.response["result"]
        assert isinstance(result, dict)
        return result

    @property
    def error(self) -> Json:
        """The RunnerError. When the answer had started, its last chunk must say the same."""
        assert "error" in self.response, self.response
        error = self.response["error"]
        assert error["code"] == RUNNER_ERROR
        data = error["data"]
        assert isinstance(data, dict)
        # A cancelled request has no use for more chunks.
        if data["kind"] != "cancelled" and any(chunk["type"] == "start" for chunk in self.chunks):
            assert self.chunks[-1] == {"type": "error", "error": data}
        return data


def joined(chunks: list[Json], kind: str) -> str:
    """The pieces of all chunks of one type, `text` or `reasoning`."""
    return "".join(chunk["chunk"] for chunk in chunks if chunk["type"] == kind)


def cancel(chat: int) -> Json:
    """The notification that cancels a chat."""
    return {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": chat}}


class Lab:
    """`api` is what the CLIs talk to, `wire` the test's connection to the daemon, `runner` whom it chats with.

    HTTP is served on `http_socket`, and at `url` to whom has the `token`, which stands in `token_file`.
    """

    def __init__(self, world: World, api: StandIn, daemon: Daemon, runner: str) -> None:
        self.world = world
        self.api = api
        self.daemon = daemon
        self.runner = runner
        self.wire: Wire
        unix, tcp = daemon.wait_for("daemon.ready")["http"]
        self.http_socket, self.url = Path(unix), str(tcp)
        self.token_file = world.state / "runnerd" / "token"
        self.token = self.token_file.read_text(encoding="ascii").strip()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Lab"]:
        """The lab with a new connection. At the end no CLI may be left, and the API knows nothing any more."""
        try:
            async with await Wire.connect(self.world.socket) as self.wire:
                yield self
        finally:
            await self.no_cli_is_left()
            await asyncio.wait_for(self.api.forget(), END_S)

    async def begin(self, messages: list[Json], *, runner: str | None = None, **params: Any) -> int:
        """Sends a chat and returns its id."""
        return await self.wire.request("chat", model=runner or self.runner, messages=messages, **params)

    async def chat(self, messages: list[Json], *, runner: str | None = None, **params: Any) -> Answer:
        """A whole chat."""
        return await self.rest(await self.begin(messages, runner=runner, **params))

    async def rest(self, request_id: int) -> Answer:
        """What is still to come of a chat."""
        return (await self.rest_of_all(request_id))[0]

    async def rest_of_all(self, *request_ids: int) -> list[Answer]:
        """What is still to come of several chats at once."""
        answers = {request_id: Answer() for request_id in request_ids}
        while any(not answer.response for answer in answers.values()):
            message = await self.wire.read()
            if message.get("method") == "chat.chunk":
                answers[message["params"]["id"]].chunks.append(message["params"]["chunk"])
            else:
                answers[message["id"]].response.update(message)
        return list(answers.values())

    async def chunks_until(self, request_id: int, text: str) -> list[Json]:
        """The chunks of a chat until the text of its answer so far is `text`."""
        chunks: list[Json] = []
        while joined(chunks, "text") != text:
            message = await self.wire.read()
            assert message.get("method") == "chat.chunk", message
            assert message["params"]["id"] == request_id
            chunks.append(message["params"]["chunk"])
        return chunks

    async def cancel(self, chat: int) -> None:
        """Asks the daemon to cancel a chat."""
        await self.wire.send(cancel(chat))

    async def cancelled_in_time(self, chat: int, limit_s: float) -> None:
        """Cancels a chat whose request is at the API: that ends in time, its CLI too, and the client is told."""
        received = await self.received()
        await self.cancel(chat)
        await asyncio.wait_for(received.gone.wait(), limit_s)
        assert (await self.rest(chat)).error["kind"] == "cancelled"
        await self.no_cli_is_left()
        assert len(self.api.requests) == 1

    async def partly_answered(self, reply: BaseReply, *later: BaseReply, runner: str) -> tuple[list[Json], Json]:
        """The chunks and the error of an answer that breaks behind "Hello", once that is at the client.

        `later` is what the CLI would be told if it asked again.
        """
        assert reply.pause is not None
        self.api.script(reply, *later)
        chat = await self.begin([{"role": "user", "content": "hi"}], runner=runner)
        seen = await self.chunks_until(chat, "Hello")
        reply.pause.set()
        rest = await self.rest(chat)
        assert [chunk["type"] for chunk in rest.chunks] == ["error"]
        assert joined(seen + rest.chunks, "text") == "Hello"
        failure = rest.response["error"]["data"]
        assert rest.chunks[-1] == {"type": "error", "error": failure}
        await self.no_cli_is_left()
        assert len(self.api.requests) == 1
        assert isinstance(failure, dict)
        return seen, failure

    async def received(self, n: int = 1) -> Received:
        """The n-th request of the CLIs to their API, from 1."""
        return await asyncio.wait_for(self.api.received(n), END_S)

    async def first_probes_end(self) -> None:
        """Waits until the daemon knows the health of every runner: what runs from then on was started by a chat."""
        async with asyncio.timeout(PROBES_S), await Wire.connect(self.world.socket) as wire:
            rows = [{"reason": "timeout"}]
            while any(row["reason"] == "timeout" for row in rows):
                rows = (await wire.call("health"))["result"]["runners"]

    async def workers(self, runner: str | None = None) -> list[Json]:
        """The sessions of a runner, as `status` tells them."""
        async with await Wire.connect(self.world.socket) as wire:
            rows = (await wire.call("status"))["result"]["runners"]
        found = next(row["workers"] for row in rows if row["name"] == (runner or self.runner))
        assert isinstance(found, list)
        return found

    def clis(self) -> list[psutil.Process]:
        """The processes that run in this world beside the daemon."""
        return [process for process in self.world.processes() if process.pid != self.daemon.process.pid]

    async def no_cli_is_left(self) -> None:
        """Waits until the daemon is alone, and fails when it does not come to that."""
        try:
            async with asyncio.timeout(END_S):
                while self.clis():  # noqa: ASYNC110 nothing tells of a process of others
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"still there: {self.clis()}") from None


@asynccontextmanager
async def running_lab(world: World, api: StandIn, runners: Entries, *, runner: str) -> AsyncIterator[Lab]:
    """A lab whose daemon serves `runners`, and knows how they are."""
    daemon_part = {"drain_s": 5, "http": {"tcp": "127.0.0.1:0"}}
    config = world.config(json.dumps({"daemon": daemon_part, "runners": runners}))  # JSON is YAML
    with world.daemon(config) as daemon:
        lab = Lab(world, api, daemon, runner)
        await lab.first_probes_end()
        yield lab
