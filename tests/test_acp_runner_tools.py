"""The client's tools in an agent's hands: who may ask for them, and how its calls and their results come through."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import psutil
import pytest

from runners.messages import ChatMessage, ChatRequest, ChatResponse
from runners.providers.acp import tool_server
from runners.providers.acp.session import AcpSession
from runners.providers.acp.tool_server import SERVER, ToolServer, is_ours, is_titled_as_ours
from runners.stream import Done, fold
from runners.testing import calling, request
from runners.testing.tool_contract import PARIS, TIME, WEATHER, result
from runners.tools import ToolDefinition
from tests.subjects.acp import FakeAgent
from tests.world import World, until

pytestmark = pytest.mark.usefixtures("no_leaks")

Json = dict[str, Any]
TOOLS = [ToolDefinition.model_validate(tool) for tool in (WEATHER, TIME)]
CLOSE_S = 10.0


class Caller:
    """An agent's end of a server: what it is told of the place, and what it asks there."""

    def __init__(self, server: ToolServer, http: aiohttp.ClientSession) -> None:
        address = server.address
        assert (address["type"], address["name"]) == ("http", SERVER)
        self.url = address["url"]
        self.headers = {header["name"]: header["value"] for header in address["headers"]}
        self._http = http

    async def post(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        async with self._http.post(self.url, data=body, headers=self.headers | headers) as answer:
            return answer.status, await answer.read()

    async def ask(self, method: str, **params: Any) -> Json:
        message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        status, body = await self.post(json.dumps(message).encode())
        assert status == 200
        answer = json.loads(body)
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
        assert isinstance(answer, dict)
        return answer


async def served(stack: AsyncExitStack) -> tuple[ToolServer, Caller, "asyncio.Queue[tuple[str, str, Json]]"]:
    """A server, who asks it, and its calls as they come."""
    server, calls = ToolServer(TOOLS), asyncio.Queue[tuple[str, str, Json]]()

    async def called(call_id: str, name: str, arguments: Json) -> bool:
        calls.put_nowait((call_id, name, arguments))
        return True

    server.called = called
    await server.start()
    stack.push_async_callback(server.aclose)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    return server, Caller(server, http), calls


async def test_the_server_tells_its_tools_to_who_has_the_token() -> None:
    async with AsyncExitStack() as stack:
        _, caller, _ = await served(stack)
        told = (await caller.ask("initialize", protocolVersion="2025-06-18"))["result"]
        assert (told["protocolVersion"], told["capabilities"]) == ("2025-06-18", {"tools": {}})
        assert await caller.post(b'{"jsonrpc":"2.0","method":"notifications/initialized"}') == (202, b"")
        listed = (await caller.ask("tools/list"))["result"]["tools"]
        assert [(tool["name"], tool["inputSchema"]) for tool in listed] == [
            (tool.name, tool.parameters) for tool in TOOLS
        ]
        assert (await caller.ask("resources/list"))["error"]["code"] == -32601
        assert (await caller.ask("tools/call", name="rm"))["error"]["code"] == -32602


async def test_nobody_else_is_served() -> None:
    async with AsyncExitStack() as stack:
        _, caller, calls = await served(stack)
        ask = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_time"}}'
        assert (await caller.post(ask, Authorization="Bearer no"))[0] == 401
        assert (await caller.post(ask, Authorization=""))[0] == 401
        assert (await caller.post(ask, Authorization="Bearer \u00e9"))[0] == 401
        caller.url += "x"
        assert (await caller.post(ask))[0] == 404
        assert calls.empty()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"jsonrpc":"2.0","id":1}', b'{"id":1,"method":5}'])
async def test_what_is_no_message_is_refused(body: bytes) -> None:
    async with AsyncExitStack() as stack:
        _, caller, _ = await served(stack)
        status, answer = await caller.post(body)
        assert (status, json.loads(answer)["error"]["code"]) in [(400, -32700), (400, -32600)]


async def test_a_call_is_kept_awake_until_its_result_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_server, "_AWAKE_S", 0.05)
    async with AsyncExitStack() as stack:
        server, caller, calls = await served(stack)
        message = {
            "jsonrpc": "2.0",
            "id": "a",
            "method": "tools/call",
            "params": {"name": "get_time", "arguments": {"x": 1}},
        }
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with http.post(caller.url, json=message, headers=caller.headers) as answer:
            assert answer.content_type == "text/event-stream"
            call_id, name, arguments = await calls.get()
            assert (name, arguments) == ("get_time", {"x": 1})
            assert await answer.content.readline() == b": waiting\n"
            server.give([result("another", "no"), result(call_id, "no such city", is_error=True)])
            body = await answer.content.read()
        [data] = [line for line in body.split(b"\n") if line.startswith(b"data: ")]
        told = json.loads(data.removeprefix(b"data: "))
        assert told["id"] == "a"
        assert told["result"] == {"content": [{"type": "text", "text": "no such city"}], "isError": True}


async def test_a_server_that_is_closed_leaves_its_calls_unanswered() -> None:
    async with AsyncExitStack() as stack:
        server, caller, calls = await served(stack)
        asking = asyncio.create_task(caller.ask("tools/call", name="get_time"))
        await calls.get()
        async with asyncio.timeout(CLOSE_S):
            await server.aclose()
        with pytest.raises(aiohttp.ClientError):
            await asking


def test_leave_is_given_for_the_clients_tools_alone() -> None:
    assert is_ours({"title": "mcp__runnerd__get_weather"}, TOOLS)
    for title in (
        "`mcp__runnerd__get_weather`",
        "rm -rf / # mcp__runnerd__get_weather",
        "mcp__runnerd__other",
        "Bash",
        None,
    ):
        assert not is_ours({"title": title}, TOOLS)
    assert not is_ours({}, TOOLS)


def test_tools_of_the_agents_own_are_not_taken_for_the_clients() -> None:
    names = {"get_weather"}
    for title in ("mcp__runnerd__get_weather", "Tool: runnerd/get_weather"):
        assert is_titled_as_ours({"title": title}, names)
    for other in ("cat runnerd.log", "mcp__other__get_weather", "mcp__runnerd__rm", None):
        assert not is_titled_as_ours({"title": other}, names)


# In an agent


def asked(text: str) -> ChatRequest:
    return request(text, tools=[WEATHER, TIME])


async def opened(stack: AsyncExitStack, subject: FakeAgent) -> AcpSession:
    await subject.provider.discover()
    stack.push_async_callback(subject.provider.aclose)
    session = await subject.provider.open()
    stack.push_async_callback(session.aclose)
    await session.prepare(subject.provider.session_options(asked("")))
    return session


async def turn(session: AcpSession, *messages: ChatMessage) -> ChatResponse:
    async with asyncio.timeout(CLOSE_S * 3):
        return await fold(session.turn(list(messages), session.provider.sampling(asked(""))))


async def logged(subject: FakeAgent, what: str) -> list[Any]:
    async def look() -> list[Any] | None:
        return subject.log_of(what) or None

    return await until(look)


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


async def test_calls_at_once_come_one_behind_the_other_and_are_no_tools_of_the_agents_own(world: World) -> None:
    subject = FakeAgent(world, leave=True)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject)
        first = await turn(session, user(calling(PARIS, ("get_time", {}), text="I look.")))
        assert (first.content, [call.name for call in first.tool_calls]) == ("I look.", ["get_weather"])
        assert session.state == "parked"
        assert session.awaits == {first.tool_calls[0].id}
        second = await turn(session, result(first.tool_calls[0].id, "18"))
        assert [call.name for call in second.tool_calls] == ["get_time"]
        last = await turn(session, result(second.tool_calls[0].id, "noon"))
        assert (last.content, last.stop_reason, session.state) == ("noon", "end_turn", "idle")
        assert not first.warnings + second.warnings + last.warnings
        # What the agent tells at the end is of all its model's calls in between.
        assert (first.usage.output_tokens, second.usage.output_tokens, last.usage.output_tokens) == (None, None, 10)
        assert subject.received().results == [
            (call[0], text, False) for call, text in zip(subject.received().calls, ("18", "noon"), strict=True)
        ]
        assert (await turn(session, user("and now?"))).content == "and now?"
        assert not session.resent
    assert [bool(new["mcpServers"]) for new in subject.logged("session/new")] == [False, True]


async def test_without_tools_there_is_no_server(world: World) -> None:
    subject = FakeAgent(world)
    await subject.provider.complete(request("hello"))
    assert subject.logged("session/new")[-1]["mcpServers"] == []


async def test_an_agent_that_asks_no_http_servers_has_no_tools(world: World) -> None:
    subject = FakeAgent(world, say={"agentCapabilities": {}})
    answer = await subject.provider.complete(asked("hello"))
    assert answer.warnings == ["tools is not supported by agent: ignored"]


async def test_a_turn_that_waits_for_results_can_be_cancelled(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject)
        [call] = (await turn(session, user(calling(PARIS)))).tool_calls
        stream = session.turn([result(call.id, "[hold]")], session.provider.sampling(asked("")))
        while (await anext(stream)).type != "text":
            pass
        await session.interrupt()
        async with asyncio.timeout(CLOSE_S):
            *_, last = [chunk async for chunk in stream]
        assert last == Done("cancelled", "cancelled")
        assert session.state == "idle"
        # Another session of the agent's goes on from before, and has the tools too.
        answer = await turn(session, result(call.id, "18"))
        assert "get_weather" in answer.content
        assert session.resent
    assert [bool(new["mcpServers"]) for new in subject.logged("session/new")] == [False, True, True]


async def test_a_session_that_is_not_wanted_any_more_when_it_begins_is_closed(world: World) -> None:
    subject = FakeAgent(world, session_s=0.5)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(subject.provider.aclose)
        other = await subject.provider.open()
        stack.push_async_callback(other.aclose)
        session = await subject.provider.open()
        preparing = asyncio.create_task(session.prepare(subject.provider.session_options(asked(""))))

        async def is_asked() -> bool:
            return len(subject.logged("session/new")) == 3

        await until(is_asked)
        preparing.cancel()
        await asyncio.wait([preparing])
        await session.aclose()
        # The one that it was opened with, and the one with its tools.
        assert len(subject.logged("session/close")) == 2
        [process] = subject.provider.processes()
        assert process.sessions == 1


@pytest.mark.parametrize("how", ["hangs-up", "says-so", "walks-away", "shows-it"])
async def test_an_agent_that_does_not_wait_for_a_result_is_told_it_in_another_session(world: World, how: str) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject)
        [call] = (await turn(session, user(f"[haste] {how}"))).tool_calls
        await logged(subject, "given_up")

        async def is_seen() -> bool:
            held = session.held
            assert held is not None
            assert held.tools is not None
            is_shown = any(event.get("status") == "failed" for event in held.inbox.unread)
            return is_shown or not (held.is_busy and held.tools.waits_for([result(call.id, "")]))

        await until(is_seen)
        answer = await turn(session, result(call.id, "18 degrees"))
        assert "18 degrees" in answer.content
        assert session.resent
    assert len(subject.logged("session/new")) == 3


async def test_a_call_whose_result_is_an_error_was_not_given_up(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject)

        async def told(**what: str) -> None:
            async def is_told() -> bool:
                assert session.held is not None
                return any(what.items() <= event.items() for event in session.held.inbox.unread)

            await until(is_told)

        [first] = (await turn(session, user("[both] well"))).tool_calls
        await told(type="called")
        [second] = (await turn(session, result(first.id, "no", is_error=True))).tool_calls
        await told(status="failed")
        assert (await turn(session, result(second.id, "yes"))).content == "well"
        assert not session.resent


async def test_a_call_behind_its_turn_is_answered_that_nobody_hears_it(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject)
        assert (await turn(session, user("[later] well"))).content == "well"
        [late] = await logged(subject, "late")
        assert late["result"]["isError"]
        assert (await turn(session, user("and now?"))).content == "and now?"


async def test_a_session_that_is_parked_in_an_agent_that_dies_is_dead(world: World) -> None:
    subject = FakeAgent(world)
    async with AsyncExitStack() as stack:
        session = await opened(stack, subject)
        await turn(session, user(calling(PARIS)))
        gone = asyncio.Event()
        session.when_dead = gone.set
        assert session.process is not None
        psutil.Process(session.process.pid).kill()
        async with asyncio.timeout(CLOSE_S):
            await gone.wait()
        assert session.state == "dead"


async def test_names_that_agents_do_not_take_are_warned_of(world: World) -> None:
    subject = FakeAgent(world)
    answer = await subject.provider.complete(request("hello", tools=[{"name": "files.read"}, {"name": "n" * 60}]))
    assert [warning.rpartition(" ")[2] for warning in answer.warnings] == ["'files_read'", f"'{'n' * 48}'"]
    assert [tool["name"] for tool in subject.received().tools] == ["files_read", "n" * 48]
