"""A conversation with a `claude` process over its live stream-json protocol."""

from typing import Any

from runners.errors import ProtocolError
from runners.messages import ChatMessage
from runners.process_session import ProcessSession
from runners.provider import LlmProvider, Sampling, SessionOptions
from runners.providers.claude.events import ClaudeTranslator
from runners.providers.claude.sent import flags, line, names_of, turns_of
from runners.providers.claude.tool_host import SERVER, ToolHost
from runners.tools import ToolDefinition
from runners.wire.deadlines import TurnDeadlines, within
from runners.wire.process import CliProcess


class ClaudeSession(ProcessSession):
    """A `claude` process and its one conversation.

    The process starts blank and prints nothing until its first input; the system prompt comes with a late
    `initialize`. Failed and cancelled turns leave their text in the CLI's history, so the session is dead after one.
    """

    def __init__(self, provider: LlmProvider, process: CliProcess) -> None:
        super().__init__(provider, process)
        self._requests = 0
        self._injected = 0
        self._flags = {"CLAUDE_CODE_DISABLE_THINKING": "1"}  # as it was started
        self._last: ClaudeTranslator | None = None
        self._seen: set[str] = set()
        self._tools: tuple[ToolDefinition, ...] = ()
        self._names = names_of(())
        self._host = ToolHost((), self._names)

    async def prepare(self, options: SessionOptions) -> None:
        self._tools, self._names = options.tools, names_of(options.tools)
        self._host = ToolHost(options.tools, self._names)
        # Without a system prompt of ours, if only an empty one, the CLI sends 27 KB of its own.
        initialize: dict[str, Any] = {"subtype": "initialize", "systemPrompt": [options.system]}
        if options.tools:
            initialize["sdkMcpServers"] = [SERVER]
        flags = {}
        if options.reasoning_effort not in (None, "none"):
            flags = {"CLAUDE_CODE_DISABLE_THINKING": "", "CLAUDE_CODE_EFFORT_LEVEL": options.reasoning_effort}

        async def exchange() -> None:
            await self._control(initialize)
            await self._set_flags(flags)

        doing = "waiting for claude to answer `initialize`"
        await within(exchange(), self.timeouts.spawn_s, deadline="spawn_s", doing=doing)
        self.state = "idle"

    def translator(self) -> ClaudeTranslator:
        spent_usd = 0.0
        if self._last is not None:
            spent_usd = self._last.total_cost_usd
            self._seen |= self._last.call_ids
        self._last = ClaudeTranslator(
            self.provider.name,
            tools=self._tools,
            names=self._names,
            resumes=self.awaits,
            seen=self._seen,
            cost_before_usd=spent_usd,
        )
        return self._last

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        await deadlines.wait(self._set_flags(flags(sampling, self._names)))
        if self.awaits:
            for answer in self._host.given(messages):
                await deadlines.wait(self.send(answer))
            return
        turns = turns_of(messages, self._names)
        self._seen |= {block["id"] for _, blocks in turns for block in blocks if block["type"] == "tool_use"}
        *history, (_, new) = turns
        for role, blocks in history:
            await deadlines.wait(self._inject(role, blocks))
        if new[-1]["type"] == "tool_result":
            # New puts the date into the last block, and a line feed behind its text. This one it drops afterwards.
            new.append({"type": "text", "text": "\n"})
        await deadlines.wait(self.send(line("user", new)))

    async def interrupt(self) -> None:
        """The running turn ends with `done{cancelled}`; its partial text stays in the CLI's history."""
        if self.state == "busy":
            await self.send(self._control_request({"subtype": "interrupt"}))

    async def _set_flags(self, wanted: dict[str, str]) -> None:
        """Changes variables of the CLI's environment. They are sticky; an empty string resets one."""
        changed = {name: value for name, value in wanted.items() if value != self._flags.get(name, "")}
        if changed:
            await self._control({"subtype": "apply_flag_settings", "settings": {"env": changed}})
            self._flags |= changed

    async def _inject(self, role: str, blocks: list[dict[str, Any]]) -> None:
        """Adds a message of the past without asking the model."""
        if role == "assistant":
            # Without an id of its own old merges it with its neighbours.
            self._injected += 1
            message = {"id": f"msg_history_{self._injected}", "type": "message", "model": self.model}
            said = line("assistant", blocks)
            await self.send(said | {"message": message | said["message"]})
            return
        await self.send(line("user", blocks) | {"shouldQuery": False})
        # Without this wait the order of the history is scrambled.
        while (await self.event()).get("type") != "result":
            pass

    async def _control(self, request: dict[str, Any]) -> None:
        message = self._control_request(request)
        await self.send(message)
        while True:
            event = await self.event()
            response = event.get("response")
            if event.get("type") != "control_response" or not isinstance(response, dict):
                continue
            if response.get("request_id") == message["request_id"]:
                break
        if response.get("subtype") != "success":
            raise ProtocolError(f"claude refused {request['subtype']}: {response.get('error')}")

    def _control_request(self, request: dict[str, Any]) -> dict[str, Any]:
        self._requests += 1
        return {"type": "control_request", "request_id": f"runnerd-{self._requests}", "request": request}

    async def event(self) -> dict[str, Any]:
        """The CLI's next event. It may ask for the client's tools; all else (a permission, a hook) is refused."""
        while True:
            event = await self._lines.next()
            if event.get("type") != "control_request":
                return event
            if (answer := self._answer(event)) is not None:
                await self.send(answer)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        try:
            if request["request"]["subtype"] == "mcp_message" and request["request"]["server_name"] == SERVER:
                return self._host.asked(request)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"a request of claude's has a form that is not known: {error!r}") from error
        refusal = {"subtype": "error", "request_id": request.get("request_id"), "error": "this host grants nothing"}
        return {"type": "control_response", "response": refusal}
