"""ACP agents put to the contract: a fake one, and real ones that are nobody's kind."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.acp.events import AcpTranslator
from runners.providers.acp.provider import AcpProvider
from runners.providers.acp.settings import AcpSettings
from runners.testing import Received, Subject, request
from runners.testing.apis import messages_api, responses_api
from runners.testing.apis.stand_in import Json, StandIn
from runners.translator import Translator
from tests.live.claude_body import text_of, told
from tests.subjects.on_api import HOLD, OnApi, offered
from tests.world import World

PREFIX = "mcp__runnerd__"
"""What agents put before the names of the client's tools."""

_ADDED = (
    *("<system-reminder>", "<local-command-", "<command-name>"),
    *("<environment_context>", "<skills_instructions>", "<permissions instructions>"),
)
FAKE_ACP = Path(__file__).parents[1] / "fakes" / "fake_acp.py"


class FakeAgent(Subject):
    """The acp provider on the fake agent. `order` is told to it, see `fake_acp`."""

    is_free_in_arguments = False
    tells_usage_of_whole_turns = True

    def __init__(self, world: World, **order: Any) -> None:
        self.log = world.root / "acp.log"
        self._world = world
        self._order = {"log": str(self.log), **order}
        self.fake = world.program("agent", FAKE_ACP.read_text(encoding="utf-8"))
        self.provider: AcpProvider = self.made()

    def made(self, binary: str | None = None, **settings: Any) -> AcpProvider:
        """A provider on this agent, or with another binary and other settings."""
        env = {"HOME": str(self._world.home), "FAKE_ACP": json.dumps(self._order)}
        made = AcpSettings.model_validate({"binary": binary or str(self.fake), "env": env, "agent": True, **settings})
        return AcpProvider("agent", made, state_dir=self._world.state / "agent")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        await self.provider.complete(request)
        blocks = self.logged("session/prompt")[-1]["prompt"]
        images = [block["data"] for block in blocks if block["type"] == "image"]
        return replace(self.received(), images=images)

    def received(self) -> Received:
        """What the agent's model would have been sent last."""
        api = self.log_of("api")[-1]
        tools = [
            {"name": tool["name"], "description": tool["description"], "parameters": tool["inputSchema"]}
            for tool in api["tools"]
        ]
        messages = api["messages"]
        return Received(
            "",
            [(message["role"], message["text"]) for message in messages],
            offered(tools),
            calls=[(*call,) for message in messages for call in message.get("calls", [])],
            results=[(m["id"], m["text"], m["is_error"]) for m in messages if m["role"] == "tool"],
            tools=tools,
        )

    def model_calls(self) -> int:
        return len(self.log_of("api"))

    def log_of(self, what: str) -> list[Any]:
        """Every entry of this kind in its log, see `fake_acp`."""
        lines = self.log.read_text(encoding="utf-8").split("\n")[:-1] if self.log.exists() else []
        return [entry[what] for entry in map(json.loads, lines) if what in entry]

    def logged(self, method: str) -> list[dict[str, Any]]:
        """The params of every message of a method that the fake received."""
        return [message["params"] for message in self.log_of("received") if message.get("method") == method]

    def missing(self) -> LlmProvider:
        return self.made("/nonexistent/agent")

    def translator(self) -> Translator:
        return AcpTranslator("agent", "default")


@asynccontextmanager
async def fake_agent(world: World) -> AsyncIterator[Subject]:
    yield FakeAgent(world)


class RealAgent(OnApi):
    """A real agent against a stand-in API."""

    is_free_in_arguments = False
    tells_usage_of_whole_turns = True

    def __init__(self, world: World, binary: Path, api: StandIn, args: list[str], env: dict[str, str]) -> None:
        self._args = args
        self._env = {"HOME": str(world.home), **env}
        self._state = world.state / "agent"
        super().__init__(api, self._made(str(binary)))

    def _made(self, binary: str) -> AcpProvider:
        settings = AcpSettings(binary=binary, args=self._args, env=self._env, agent=True)
        return AcpProvider("agent", settings, state_dir=self._state)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/agent")

    def translator(self) -> Translator:
        return AcpTranslator("agent", "default")


class RealClaudeAgent(RealAgent):
    """claude-agent-acp, of Zed's, which runs Claude Code."""

    def read(self, body: Json) -> Received:
        messages = [(message["role"], _ours(message["content"])) for message in body["messages"]]
        blocks = [block for _, blocks in messages for block in blocks]
        results = [block for block in blocks if block["type"] == "tool_result"]
        own = [tool | {"name": tool["name"].removeprefix(PREFIX)} for tool in body["tools"] if PREFIX in tool["name"]]
        tools = [
            {"name": tool["name"], "description": tool.get("description") or "", "parameters": tool["input_schema"]}
            for tool in own
        ]
        return Received(
            "",
            [one for role, blocks in messages for one in told({"role": role, "content": blocks})],
            offered(tools),
            images=[block["source"]["data"] for block in blocks if block["type"] == "image"],
            calls=[
                (use["id"], use["name"].removeprefix(PREFIX), use["input"])
                for use in blocks
                if use["type"] == "tool_use"
            ],
            results=[(b["tool_use_id"], text_of(b.get("content") or ""), bool(b.get("is_error"))) for b in results],
            tools=tools,
        )

    def text(self, *pieces: str) -> messages_api.Reply:
        return messages_api.text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> messages_api.Reply:
        return messages_api.tool_calls(*((PREFIX + name, raw) for name, raw in calls), text=text)


def _ours(content: str | list[Json]) -> list[Json]:
    """Less what Claude Code adds of its own: reminders, and the commands that the agent gives it."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [block for block in blocks if not block.get("text", "").startswith(_ADDED)]


class RealCodexAgent(RealAgent):
    """codex-acp, of Zed's, which is Codex."""

    def read(self, body: Json) -> Received:
        messages: list[tuple[str, str]] = []
        calls: list[tuple[str, str, Any]] = []
        results: list[tuple[str, str, bool | None]] = []
        images: list[str] = []
        for item in body["input"]:
            match item["type"]:
                case "message" if item["role"] != "developer":
                    text = "".join(part.get("text", "") for part in item["content"])
                    images += [part["image_url"].partition(",")[2] for part in item["content"] if "image_url" in part]
                    messages += [] if text.startswith(_ADDED) else [(item["role"], text)]
                case "function_call":
                    calls.append((item["call_id"], item["name"], json.loads(item["arguments"])))
                    if messages[-1][0] != "assistant":
                        messages.append(("assistant", ""))
                case "function_call_output":
                    # With how long it took, and as the JSON text of its blocks.
                    text = text_of(json.loads(item["output"].partition("Output:\n")[2]))
                    messages.append(("tool", text))
                    results.append((item["call_id"], text, None))
        spaces = [tool for tool in body["tools"] if tool.get("name") == PREFIX.removesuffix("__")]
        tools = [
            {"name": tool["name"], "description": tool["description"], "parameters": _as_given(tool["parameters"])}
            for space in spaces
            for tool in space["tools"]
        ]
        return Received("", messages, offered(tools), images, calls, results, tools)

    def text(self, *pieces: str) -> responses_api.Reply:
        return responses_api.text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> responses_api.Reply:
        reply = responses_api.tool_calls(*calls, text=text)
        space = {"namespace": PREFIX.removesuffix("__")}
        items = [
            replace(item, added=item.added | space, done=item.done | space) if "call_id" in item.done else item
            for item in reply.items
        ]
        return replace(reply, items=tuple(items))


def _as_given(parameters: Json) -> Json:
    """A schema without the empty `properties` that Codex adds where there are none."""
    return {word: value for word, value in parameters.items() if (word, value) != ("properties", {})}


CLAUDE_AGENT_ENV = {
    "ANTHROPIC_API_KEY": "dummy",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_AUTOUPDATER": "1",
}


def codex_arguments(url: str) -> list[str]:
    """What has codex-acp call an API without a login. Of a model that it does not know it says so in its answers."""
    provider = f'model_providers.stand_in={{name="stand-in",base_url="{url}",wire_api="responses"}}'
    settings = (provider, "model_provider=stand_in", "model=gpt-5.5", "analytics.enabled=false")
    return [argument for setting in settings for argument in ("-c", setting)]


@asynccontextmanager
async def real_claude_agent(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with messages_api.MessagesApi() as api:
        yield RealClaudeAgent(world, binary, api, [], {**CLAUDE_AGENT_ENV, "ANTHROPIC_BASE_URL": api.url})


@asynccontextmanager
async def real_codex_agent(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with responses_api.ResponsesApi() as api:
        yield RealCodexAgent(world, binary, api, codex_arguments(api.url), {})


@asynccontextmanager
async def held(provider: AcpProvider) -> AsyncIterator[None]:
    """One process for all chats of a test that have no system prompt: a start of these CLIs takes seconds."""
    agent = await provider.agents.acquire(provider.dialect.at_start("", provider.default_model))
    try:
        yield
    finally:
        await agent.release()
