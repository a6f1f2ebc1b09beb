"""The client's tools as an MCP server, which the agent asks over HTTP on loopback: one for each session of the agent's.

Nobody else on this machine can ask it: it listens on a port and a path that nobody is told, and wants a token.
"""

import asyncio
import hmac
import secrets
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runners.mcp_tools import McpTools, outcome
from runners.messages import ChatMessage
from runners.tools import ToolDefinition, ToolNames
from runners.wire.framing import dump_json, parse_json_exactly

if TYPE_CHECKING:
    from aiohttp import web

SERVER = "runnerd"
"""Its name, which agents put before those of its tools: `mcp__runnerd__get_weather`."""

_NAME_CHARACTERS = 48
"""With what agents put before them they stay below the 64 that most APIs take."""
_BODY_BYTES = 64 * 1024 * 1024
_AWAKE_S = 15.0
"""HTTP clients give up on an answer that is silent: Node's behind five minutes."""
_PARSE_ERROR, _INVALID_REQUEST, _INVALID_PARAMS = -32700, -32600, -32602
_NOBODY = "No answer is being written any more, so nobody brings the result of this call."


def names_of(tools: Sequence[ToolDefinition]) -> ToolNames:
    """What the agent is told that the tools are called."""
    return ToolNames(tools, longest=_NAME_CHARACTERS)


def is_ours(call: dict[str, Any], tools: Sequence[ToolDefinition]) -> bool:
    """Whether the agent asks for leave to use one of the client's tools, by the name alone that it has with agents.

    A command of the agent's has its text for a title, or in it: one that reads exactly so would do nothing.
    """
    names = names_of(tools)
    return call.get("title") in {f"mcp__{SERVER}__{names.theirs(tool.name)}" for tool in tools}


def is_titled_as_ours(call: dict[str, Any], names: Collection[str]) -> bool:
    """Whether the agent shows this as a call of one of the client's tools, by these names: each agent in its own way.

    Seen so far: `mcp__runnerd__get_weather`, and `Tool: runnerd/get_weather`.
    """
    return str(call.get("title")).partition(SERVER)[2].lstrip("_/.: ") in names


@dataclass(frozen=True, slots=True)
class _Call:
    """One that waits for its `result`, by the id that the agent gave its request."""

    request_id: Any
    result: "asyncio.Future[ChatMessage]"


class ToolServer:
    """The server of `tools`.

    `called` is told of each call: an id of ours, the tool's name and the arguments. It says whether somebody will bring
    the result.
    """

    called: Callable[[str, str, dict[str, Any]], Awaitable[bool]]

    def __init__(self, tools: Sequence[ToolDefinition]) -> None:
        self.offered = tuple(tools)
        names = names_of(tools)
        self._names = {names.theirs(tool.name) for tool in tools}
        self._mcp = McpTools(SERVER, tools, names)
        self._path = f"/{secrets.token_urlsafe(24)}"
        self._token = secrets.token_urlsafe(32)
        self._calls: dict[str, _Call] = {}
        self._port = 0
        self._runner: web.AppRunner

    async def start(self) -> None:
        """Listens."""
        from aiohttp import web

        app = web.Application(client_max_size=_BODY_BYTES)
        app.router.add_post(self._path, self._asked)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]

    @property
    def address(self) -> dict[str, Any]:
        """What the agent is told of it."""
        from acp.schema import HttpHeader, HttpMcpServer

        bearer = HttpHeader(name="Authorization", value=f"Bearer {self._token}")
        url = f"http://127.0.0.1:{self._port}{self._path}"
        server = HttpMcpServer(type="http", name=SERVER, url=url, headers=[bearer])
        return server.model_dump(mode="json", by_alias=True, exclude_none=True)

    def waits_for(self, results: Sequence[ChatMessage]) -> bool:
        """Whether the agent still waits for all of these: its own patience with a tool may have an end."""
        calls = [self._calls.get(str(result.tool_call_id)) for result in results]
        return all(call is not None and not call.result.done() for call in calls)

    def give(self, results: Sequence[ChatMessage]) -> None:
        """The results of calls: the agent gets them as the answers that it waits for."""
        for result in results:
            call = self._calls.get(str(result.tool_call_id))
            if call is not None and not call.result.done():
                call.result.set_result(result)

    async def aclose(self) -> None:
        """Ends it, with what it has not answered."""
        await self._runner.cleanup()

    async def _asked(self, request: "web.Request") -> "web.StreamResponse":
        from aiohttp import web

        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return web.Response(status=401)
        try:
            message = parse_json_exactly(await request.read())
        except ValueError:
            return _json({"jsonrpc": "2.0", "id": None, "error": {"code": _PARSE_ERROR, "message": "no JSON"}}, 400)
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            error = {"code": _INVALID_REQUEST, "message": "one request at a time, with a method"}
            return _json({"jsonrpc": "2.0", "id": None, "error": error}, 400)
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if "id" not in message:
            if message["method"] == "notifications/cancelled":
                self._give_up(params.get("requestId"))
            return web.Response(status=202)
        head = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "tools/call":
            return await self._call(request, head, params)
        return _json(head | self._mcp.answer(message["method"], params))

    async def _call(self, request: "web.Request", head: dict[str, Any], params: dict[str, Any]) -> "web.StreamResponse":
        """Answers a call as a stream of one event, once its result has come."""
        from aiohttp import web

        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str) or name not in self._names:
            error = {"code": _INVALID_PARAMS, "message": f"there is no tool {name!r}"}
            return _json(head | {"error": error})
        arguments = arguments if isinstance(arguments, dict) else {}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        call_id = f"call_{uuid.uuid4().hex}"
        future: asyncio.Future[ChatMessage] = asyncio.get_running_loop().create_future()
        self._calls[call_id] = _Call(head["id"], future)
        try:
            if not await self.called(call_id, name, arguments) and not future.done():
                future.set_result(ChatMessage(role="tool", tool_call_id=call_id, content=_NOBODY, is_error=True))
            # An agent that has gone gets no answer.
            with suppress(ConnectionError):
                while not (await asyncio.wait([future], timeout=_AWAKE_S))[0]:
                    await response.write(b": waiting\n\n")
                if not future.cancelled():
                    event = dump_json(head | {"result": outcome(future.result())})
                    await response.write(b"event: message\ndata: " + event + b"\n\n")
                await response.write_eof()
        finally:
            del self._calls[call_id]
        return response

    def _give_up(self, request_id: Any) -> None:
        """The agent no longer waits for the answer to this request."""
        for call in self._calls.values():
            if call.request_id == request_id:
                call.result.cancel()


def _json(message: dict[str, Any], status: int = 200) -> "web.Response":
    from aiohttp import web

    return web.Response(body=dump_json(message), status=status, content_type="application/json")
