"""A thread of codex's, with a process that does what no real one was seen to do."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runners.errors import ProtocolError
from runners.messages import ChatMessage
from runners.providers.codex.items import names_of
from runners.providers.codex.server import CodexServer
from runners.providers.codex.thread import CodexThread
from runners.testing.tool_contract import result

pytestmark = pytest.mark.usefixtures("no_leaks")

SETTINGS: dict[str, Any] = {"model": "m"}
ASKED = [ChatMessage(role="user", content="hi")]
CALLED = [*ASKED, ChatMessage(role="assistant", content="")]


class Server(CodexServer):
    """One that takes everything, but for what is in `refused`."""

    def __init__(self) -> None:
        super().__init__(Path("/"))
        self.refused: set[str] = set()

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:  # noqa: ARG002 its form is given
        if method in self.refused:
            raise ProtocolError(f"no {method}")
        return {"thread": {"id": "t"}, "turn": {"id": "u"}, "model": "m"}

    def tells(self, method: str) -> None:
        self.heard(method, {"threadId": "t"})

    def asks_for(self, call_id: str) -> "asyncio.Task[Any]":
        params = {"threadId": "t", "callId": call_id}
        return asyncio.create_task(self.answer(1, "item/tool/call", params))


async def parked() -> tuple[Server, CodexThread]:
    server = Server()
    thread = CodexThread(server, SETTINGS, names_of(()))
    await thread.say(ASKED, {})
    thread.rest(awaits_results=True)
    return server, thread


async def test_results_go_to_the_turn_that_asks_for_them() -> None:
    server, thread = await parked()
    asked = server.asks_for("c")
    await asyncio.sleep(0)
    assert thread.continues(CALLED, [result("c", "18")], SETTINGS)
    await thread.say([*CALLED, result("c", "18")], {})
    assert (await asked)["contentItems"] == [{"type": "inputText", "text": "18"}]


@pytest.mark.parametrize("how", ["the turn", "the call"])
async def test_results_of_a_turn_that_was_given_up_are_for_another_thread(how: str) -> None:
    server, thread = await parked()
    asked = server.asks_for("c")
    await asyncio.sleep(0)
    if how == "the turn":
        server.tells("turn/completed")
    else:
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
    assert not thread.continues(CALLED, [result("c", "18")], SETTINGS)
    server.tells("turn/completed")
    await thread.end()
    await asyncio.wait([asked])


async def test_a_thread_that_the_process_keeps_gets_no_answers_any_more() -> None:
    server, thread = await parked()
    asked = server.asks_for("c")
    await asyncio.sleep(0)
    server.tells("turn/completed")
    server.refused.add("thread/unsubscribe")
    with pytest.raises(ProtocolError):
        await thread.end()
    await asyncio.wait([asked])
    assert asked.cancelled()
    assert not server.sessions
