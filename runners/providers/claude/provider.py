"""Claude Code: `claude -p` on its live stream-json protocol, one process for each conversation.

Facts about the CLI were measured on the two versions in TESTED_VERSIONS against a stand-in for its API; where the
two differ the comment says so. The driver is ClaudeProvider and ClaudeSession; the translator is
`events`.
"""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from runners.capabilities import Capabilities
from runners.errors import InvalidRequestError, NotInstalledError, ProtocolError
from runners.messages import ChatMessage, ChatRequest, ImagePart, ModelInfo, TextPart
from runners.process_session import ProcessSession, json_object
from runners.provider import Health, LlmProvider, Sampling, SessionOptions
from runners.providers.claude.events import WHITE_SPACE, ClaudeTranslator, not_logged_in
from runners.settings import ClaudeSettings
from runners.stream import Warn
from runners.wire.deadlines import TurnDeadlines, within
from runners.wire.process import CliProcess, run

TESTED_VERSIONS = ("2.1.197", "2.1.329")
"""The oldest and the newest version that the tests run."""
PACKAGE = "@anthropic-ai/claude-code"


# No tools, no settings, no hooks, no MCP servers, no slash commands, nothing saved: a model, not an agent.
_ARGUMENTS = [
    *("-p", "--input-format", "stream-json", "--output-format", "stream-json"),
    *("--verbose", "--include-partial-messages"),
    *("--tools", "", "--setting-sources", "", "--strict-mcp-config"),
    *("--disable-slash-commands", "--no-session-persistence"),
]

_ENVIRONMENT = {
    "CLAUDE_CODE_DISABLE_ATTACHMENTS": "1",  # `@file` stays text
    "CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK": "1",  # else a broken stream is asked for again, and text doubles
    # Ten by default, three silent minutes. Retries are ours to make, but without one of its own the CLI never says
    # how long its vendor asked to wait: it announces the retry before it waits, and the translator ends the turn there.
    "CLAUDE_CODE_MAX_RETRIES": "1",
    "DISABLE_COMPACT": "1",  # else a long conversation is silently replaced by a summary
    "CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE": "100000000",  # else the CLI's own estimate refuses a long prompt
    "CLAUDE_CODE_DISABLE_REFUSAL_RETRY": "1",
    "CLAUDE_CODE_DISABLE_THINKING": "1",  # until a request asks for it, see `prepare`
    "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
    "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
    "CLAUDE_CODE_DISABLE_CLAUDE_MDS": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
}


class ClaudeProvider(LlmProvider):
    """Anthropic's models through the user's own `claude`."""

    kind = "claude"
    display_name = "Claude Code"
    settings_type = ClaudeSettings
    image_roles = ("user", "tool")
    program = "claude"
    install_hint = f"npm install -g {PACKAGE}"

    @property
    def vendor_default_model(self) -> str:
        return "sonnet"

    def available_models(self) -> list[ModelInfo]:
        return [ModelInfo(model) for model in self.settings.models or ("sonnet", "opus", "haiku", "fable")]

    def capabilities(self) -> Capabilities:
        return Capabilities(
            streaming=True,
            reasoning=True,
            system_prompt="replace",
            history="native",
            images=True,
            temperature=True,
            top_p=True,
            stop=True,
            max_tokens=True,
            reasoning_effort=True,
            interrupt=True,
            usage=True,
            exact_text=True,
        )

    def preflight(self, request: ChatRequest) -> list[Warn]:
        warnings = super().preflight(request)
        _turns(request.conversation)  # raises here, where no session is spent for it
        return warnings

    async def probe(self) -> Health:
        environment, directory = self.environment(_ENVIRONMENT), self.directory("cwd")
        binary = self.binary()
        printed = await run([binary, "--version"], env=environment, cwd=directory)
        match = re.match(r"(\d+(?:\.\d+)+) \(Claude Code\)", printed.output.decode(errors="replace"))
        if printed.exit_code != 0 or match is None:
            raise NotInstalledError(f"{binary} --version does not answer like Claude Code", hint=self.install_hint)
        version = match[1]
        # Local and without a model call. An expired login still says true: only a chat proves it.
        status = await run([binary, "auth", "status", "--json"], env=environment, cwd=directory)
        login = json_object(status.output)
        if login is None or "loggedIn" not in login:
            return Health("degraded", version=version, detail="the CLI does not say whether it is logged in")
        if not login["loggedIn"]:
            return replace(Health.unavailable(not_logged_in()), version=version)
        if _numbers(version) < _numbers(TESTED_VERSIONS[0]):
            old = f"{version} is older than {TESTED_VERSIONS[0]}, the oldest version that is known to work"
            return Health("degraded", "unsupported", version, authenticated=True, detail=old, hint=self.install_hint)
        method = login.get("authMethod", "an unknown method")
        return Health("ready", version=version, authenticated=True, detail=f"logged in by {method}")

    async def open(self) -> "ClaudeSession":
        argv = [self.binary(), *_ARGUMENTS, "--model", self.default_model, *self.settings.args]
        # A killed CLI leaves a socket in its TMPDIR.
        process = await CliProcess.spawn(
            argv, env=self.environment(_ENVIRONMENT), cwd=self.directory("cwd"), temporary=self.temporary()
        )
        return ClaudeSession(self, process)


class ClaudeSession(ProcessSession):
    """A `claude` process and its one conversation.

    The process starts blank and prints nothing until its first input; the system prompt comes with a late
    `initialize`. Failed and cancelled turns leave their text in the CLI's history, so the session is dead after one.
    """

    def __init__(self, provider: ClaudeProvider, process: CliProcess) -> None:
        super().__init__(provider, process)
        self._requests = 0
        self._injected = 0
        self._flags = {"CLAUDE_CODE_DISABLE_THINKING": _ENVIRONMENT["CLAUDE_CODE_DISABLE_THINKING"]}
        self._last: ClaudeTranslator | None = None

    async def prepare(self, options: SessionOptions) -> None:
        # Without a system prompt of ours, if only an empty one, the CLI sends 27 KB of its own.
        initialize = {"subtype": "initialize", "systemPrompt": [options.system]}
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
        spent_usd = self._last.total_cost_usd if self._last else 0.0
        self._last = ClaudeTranslator(self.provider.name, cost_before_usd=spent_usd)
        return self._last

    async def say(self, messages: list[ChatMessage], sampling: Sampling, deadlines: TurnDeadlines) -> None:
        await deadlines.wait(self._set_flags(_flags(sampling)))
        *history, (_, new) = _turns(messages)
        for role, blocks in history:
            await deadlines.wait(self._inject(role, blocks))
        await deadlines.wait(self.send(_line("user", new)))

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
            line = _line("assistant", blocks)
            await self.send(line | {"message": message | line["message"]})
            return
        await self.send(_line("user", blocks) | {"shouldQuery": False})
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
        """The CLI's next event. What the CLI asks of its host (a permission, a hook) is refused."""
        while True:
            event = await self._lines.next()
            if event.get("type") != "control_request":
                return event
            refusal = {"subtype": "error", "request_id": event.get("request_id"), "error": "this host grants nothing"}
            await self.send({"type": "control_response", "response": refusal})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _flags(sampling: Sampling) -> dict[str, str]:
    body = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_sequences": list(sampling.stop) or None,
    }
    body = {name: value for name, value in body.items() if value is not None}
    return {
        "CLAUDE_CODE_EXTRA_BODY": json.dumps(body) if body else "",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(sampling.max_tokens or ""),
    }


def _line(role: str, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": role, "message": {"role": role, "content": blocks}, "parent_tool_use_id": None}


def _turns(messages: list[ChatMessage]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The conversation as alternating (role, content blocks): neighbours of one role become one message.

    Text that is only white space is no content: the CLI drops it, and so does its vendor.
    """
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message))
        if blocks and turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((role, blocks))
    if not turns or turns[-1][0] != "user":
        raise InvalidRequestError("messages: the last one is empty")
    return turns


def _blocks(message: ChatMessage) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield {
            "type": "tool_result",
            "tool_use_id": message.tool_call_id,
            "content": list(_content(message)),
            "is_error": message.is_error,
        }
        return
    for block in _content(message):
        yield block
        if message.role == "user" and block.get("text", "").lstrip(WHITE_SPACE).startswith("/"):
            # `/word` alone would be a command. Before a second block it is text, and that block is dropped again.
            yield {"type": "text", "text": "\n"}
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def _content(message: ChatMessage) -> Iterator[dict[str, Any]]:
    """The parts as blocks. Text parts side by side are one block, for one of white space alone would be dropped."""
    for is_text, parts in itertools.groupby(message.parts, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            text = "".join(part.text for part in parts if isinstance(part, TextPart))
            yield from [{"type": "text", "text": text}] if text.strip(WHITE_SPACE) else []
        else:
            for part in parts:
                assert isinstance(part, ImagePart)
                yield {
                    "type": "image",
                    "source": {"type": "base64", "media_type": part.media_type, "data": part.data},
                }
