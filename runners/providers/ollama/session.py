"""A conversation with an Ollama server: one HTTP request for each turn, which carries all of it."""

import asyncio
import io
import uuid
from collections import deque
from typing import Any

import aiohttp

from runners.errors import NetworkError, ProtocolError, RequestCancelledError, RunnerError
from runners.event_session import TranscriptSession
from runners.messages import ChatMessage, ImagePart, ResponseFormat
from runners.process_session import json_object
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.ollama.events import INTERRUPTED, OllamaTranslator, failure
from runners.providers.ollama.server import OllamaServe
from runners.providers.ollama.settings import OllamaSettings
from runners.tools import ToolDefinition
from runners.translator import Event
from runners.wire.deadlines import TurnDeadlines
from runners.wire.framing import LineFramer, dump_json

_THINK = {"none": False, "low": "low", "medium": "medium", "high": "high", "xhigh": "max"}


class OllamaSession(TranscriptSession):
    """A conversation, all of which goes to the server with each turn."""

    def __init__(self, provider: LlmProvider, settings: OllamaSettings, url: str, serve: OllamaServe | None) -> None:
        super().__init__(provider)
        self.process = None if serve is None else serve.process
        self._settings = settings
        self._url = url
        self._serve = serve
        self._options = SessionOptions()
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        self._asking: asyncio.Future[aiohttp.ClientResponse] | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._framer = LineFramer()
        self._lines: deque[bytes] = deque()
        self._is_interrupted = False
        self._closing: asyncio.Task[None] | None = None
        if serve is not None:
            serve.when_exited.add(self.cli_is_gone)

    async def prepare(self, options: SessionOptions) -> None:
        if self.state == "dead" and self._serve is not None and (exited := await self._serve.exited()):
            raise exited
        self._options = options
        self.state = "idle"

    def translator(self) -> OllamaTranslator:
        return OllamaTranslator(self.provider.name, str(uuid.uuid4()), tools=self._options.tools)

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        self._framer, self._lines, self._is_interrupted, self._response = LineFramer(), deque(), False, None
        # The status comes with the first token: the whole time of loading the model and reading the prompt is here.
        asked = self._http.post(f"{self._url}/api/chat", data=io.BytesIO(dump_json(self._body(messages, sampling))))
        self._asking = asyncio.ensure_future(asked)
        try:
            self._response = response = await deadlines.wait(self._asking)
            if self._is_interrupted:  # between its arrival and here
                response.close()
            refused = None if response.status == 200 else await deadlines.wait(response.read())
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._is_interrupted or (task is not None and task.cancelling()):
                raise
            raise RequestCancelledError("interrupted before the answer began") from None
        except aiohttp.ClientError as error:
            raise await self._broken(error) from error
        if refused is not None:
            raise failure(response.status, json_object(refused) or {}, self.model)

    def _body(self, messages: list[ChatMessage], sampling: Sampling) -> dict[str, Any]:
        system = [{"role": "system", "content": self._options.system}] if self._options.system else []
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        options = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "num_predict": sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "num_ctx": self._settings.num_ctx,
        }
        body = {
            "model": self.model,
            "messages": system + [_message(message, names) for message in messages],
            "tools": [_tool(tool) for tool in self._options.tools] or None,
            "think": _THINK.get(self._options.reasoning_effort or ""),
            "format": _format(sampling.response_format),
            "options": {name: value for name, value in options.items() if value is not None} or None,
            "keep_alive": self._settings.keep_alive,
            "truncate": False,  # else the oldest messages are dropped in silence
            "stream": True,
        }
        return {name: value for name, value in body.items() if value is not None}

    async def event(self) -> Event:
        assert self._response is not None
        while True:
            while self._lines:
                line = json_object(self._lines.popleft())
                if line is not None:
                    return line
            if self._framer.overflow is not None:
                raise self._framer.overflow
            try:
                data = await self._response.content.readany()
            except aiohttp.ClientError as error:
                if self._is_interrupted:
                    return INTERRUPTED
                raise await self._broken(error) from error
            if not data:
                raise ProtocolError("ollama ended its answer without the last line")
            self._lines.extend(self._framer.feed(data))

    async def _broken(self, error: aiohttp.ClientError) -> RunnerError:
        """Why the connection broke: with a server of ours, most often because it is gone."""
        exited = None if self._serve is None else await self._serve.exited()
        return exited or NetworkError(f"the connection to Ollama broke: {error}")

    async def interrupt(self) -> None:
        """Closes the connection, at which the server stops."""
        if self.state == "busy" and self._asking is not None:
            self._is_interrupted = True
            self._asking.cancel()
            if self._response is not None:
                self._response.close()

    def settle(self, *, is_clean: bool) -> None:  # noqa: ARG002 the connection goes in any case
        self.state = "idle" if self._serve is None or self._serve.is_running else "dead"
        if self._response is not None:
            self._response.close()

    async def aclose(self) -> None:
        if self.state == "busy":
            self.settle(is_clean=False)
        self.state = "dead"
        if self._serve is not None:
            self._serve.when_exited.discard(self.cli_is_gone)
        if self._closing is None:
            self._closing = asyncio.create_task(self._http.close(), name="ollama-close")
            self._closing.add_done_callback(lambda _: self.provider.sessions.discard(self))
        await asyncio.shield(self._closing)


def _format(asked: ResponseFormat | None) -> Any:
    if asked is None or asked.wrapped is None:
        return None
    return asked.wrapped["schema"] if asked.type == "json_schema" else "json"


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _message(message: ChatMessage, names: dict[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.text}
    images = [part.data for part in message.parts if isinstance(part, ImagePart)]
    # The server takes an object: what is none is shown in one.
    calls = [
        {
            "id": call.id,
            "function": {
                "name": call.name,
                "arguments": call.arguments if call.arguments_raw is None else {"arguments_raw": call.arguments_raw},
            },
        }
        for call in message.tool_calls
    ]
    if message.role == "tool":
        said |= {"tool_call_id": message.tool_call_id, "tool_name": names.get(message.tool_call_id or "", "")}
    return said | ({"images": images} if images else {}) | ({"tool_calls": calls} if calls else {})
