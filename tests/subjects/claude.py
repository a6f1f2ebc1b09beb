"""claude put to the contract: the real CLI, and the provider on a recording."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runners.messages import ChatRequest
from runners.provider import LlmProvider
from runners.providers.claude.events import ClaudeTranslator
from runners.providers.claude.provider import ClaudeProvider
from runners.providers.claude.settings import ClaudeSettings
from runners.testing import Received, Subject, request
from runners.testing.apis.messages_api import MessagesApi, Reply, text, tool_calls
from runners.testing.apis.stand_in import Json
from runners.translator import Translator
from tests.live.claude_body import our_messages, our_system, text_of, told
from tests.subjects.on_api import HOLD, OnApi, offered
from tests.world import World

FAKE_CLAUDE = Path(__file__).parents[1] / "fakes" / "fake_claude.py"
TRANSCRIPTS = Path(__file__).parents[1] / "transcripts" / "claude"


_TOOL_CHOICES = {"none": "none", "any": "required"}


def received_by_api(body: dict[str, Any]) -> Received:
    """What the stand-in received, in the contract's terms."""
    output = body.get("output_config", {})
    shape = output.get("format")
    thinks = body.get("thinking", {}).get("type") in ("adaptive", "enabled")
    tools = [
        {"name": tool["name"], "description": tool.get("description") or "", "parameters": tool["input_schema"]}
        for tool in body.get("tools") or []
    ]
    knobs = {
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "stop": body.get("stop_sequences"),
        "max_tokens": body.get("max_tokens"),
        "reasoning_effort": output.get("effort") if thinks else None,
        "response_format": shape and {"type": "json_schema", "json_schema": {"name": "n", "schema": shape["schema"]}},
    }
    knobs |= offered(tools) | _tool_choice(body.get("tool_choice") or {})
    messages = our_messages(body)
    blocks = [block for message in messages for block in message["content"]]
    return Received(
        "".join(our_system(body)),
        [one for message in messages for one in told(message)],
        knobs,
        images=[image for block in blocks for image in _images(block)],
        calls=[(use["id"], use["name"], _arguments(use["input"])) for use in blocks if use["type"] == "tool_use"],
        results=[
            (block["tool_use_id"], text_of(block.get("content") or ""), bool(block.get("is_error")))
            for block in blocks
            if block["type"] == "tool_result"
        ],
        tools=tools,
    )


def _tool_choice(choice: dict[str, Any]) -> dict[str, Any]:
    """In our form; nothing for `auto`, which is the model's own choice."""
    if choice.get("type") == "tool":
        return {"tool_choice": {"name": choice["name"]}}
    word = _TOOL_CHOICES.get(choice.get("type", ""))
    return {"tool_choice": word} if word else {}


def _arguments(given: dict[str, Any]) -> Any:
    """The input of a call, or the text that the CLI keeps in its place where that is no object."""
    unparsed = given.get("__unparsedToolInput")
    return given if unparsed is None else unparsed["raw"]


def _images(block: dict[str, Any]) -> list[str]:
    """The data of an image, and of those in a tool's result."""
    if block["type"] == "tool_result" and not isinstance(block.get("content") or "", str):
        return [image for part in block["content"] for image in _images(part)]
    return [block["source"]["data"]] if block["type"] == "image" else []


class RealClaude(OnApi):
    """The real CLI against the stand-in API."""

    model_usage = (11, 7)

    def __init__(self, world: World, binary: Path, api: MessagesApi) -> None:
        self._env = {"HOME": str(world.home), "ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "dummy"}
        self._state = world.state / "claude"
        super().__init__(api, self._made(str(binary)))

    def _made(self, binary: str) -> ClaudeProvider:
        return ClaudeProvider("claude", ClaudeSettings(binary=binary, env=self._env), state_dir=self._state)

    def read(self, body: Json) -> Received:
        return received_by_api(body)

    def text(self, *pieces: str) -> Reply:
        return text(*pieces)

    def calls(self, *calls: tuple[str, str], text: str) -> Reply:
        return tool_calls(*calls, text=text)

    def missing(self) -> LlmProvider:
        return self._made("/nonexistent/claude")

    def translator(self) -> Translator:
        return ClaudeTranslator("claude")


class ReplayedClaude(Subject):
    """The claude provider on the fake CLI, which replays a recording and keeps what it was sent."""

    model_usage = (130, 42)

    def __init__(self, world: World, **order: Any) -> None:
        self.log = world.root / "fake.log"
        self._world = world
        self._order = {"transcript": str(TRANSCRIPTS / "2.1.329" / "interrupt.jsonl"), "log": str(self.log), **order}
        self.fake = world.root / "claude"
        self.fake.write_text(f"#!{sys.executable} -IS\n" + FAKE_CLAUDE.read_text(encoding="utf-8"), encoding="utf-8")
        self.fake.chmod(0o755)
        self.provider = self.made(str(self.fake))

    def made(self, binary: str, **settings: Any) -> ClaudeProvider:
        """A provider on another binary or with other settings."""
        env = {"HOME": str(self._world.home), "FAKE_CLI": json.dumps(self._order)}
        made = ClaudeSettings(binary=binary, env=env, **settings)
        return ClaudeProvider("claude", made, state_dir=self._world.state / "claude")

    def answer(self, *pieces: str) -> ChatRequest:
        return request("".join(pieces))

    def hold(self) -> ChatRequest:
        return request(HOLD)

    async def deliver(self, request: ChatRequest) -> Received:
        self.log.write_text("")
        await self.provider.complete(request)
        return self.received()

    def received(self) -> Received:
        """What the newest fake was sent since the log began, as the real CLI would pass it on."""
        body: dict[str, Any] = {}
        for sent in self._logged():
            control = sent.get("request", {})
            if control.get("subtype") == "initialize":
                body = {"messages": []}
            body.setdefault("messages", [])
            if sent["type"] in ("user", "assistant"):
                body["messages"].append({"role": sent["type"], "content": _without_white_blocks(sent["message"])})
            elif sent["type"] == "control_response":
                body |= _listed(sent["response"]["response"]["mcp_response"])
            elif control["subtype"] == "initialize":
                body["system"] = [{"type": "text", "text": prompt} for prompt in control["systemPrompt"]]
            elif control["subtype"] == "apply_flag_settings":
                flags = control["settings"]["env"]
                extra = json.loads(flags.get("CLAUDE_CODE_EXTRA_BODY") or "{}")
                # As the CLI does it: what it has to say here itself stays.
                body |= extra | {"output_config": body.get("output_config", {}) | extra.get("output_config", {})}
                if flags.get("CLAUDE_CODE_MAX_OUTPUT_TOKENS"):
                    body["max_tokens"] = int(flags["CLAUDE_CODE_MAX_OUTPUT_TOKENS"])
                if "CLAUDE_CODE_EFFORT_LEVEL" in flags:
                    body["thinking"] = {"type": "adaptive"}
                    effort = flags["CLAUDE_CODE_EFFORT_LEVEL"]
                    body["output_config"] = body.get("output_config", {}) | {"effort": effort}
        if body["messages"][-1]["role"] == "assistant":
            del body["messages"][-1]  # an answer, which its model is sent with the next message
        return received_by_api({"system": [], **body})

    def model_calls(self) -> int:
        return sum(sent.get("is_answer", False) for sent in self._logged())

    def _logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").split("\n")[:-1]]

    def missing(self) -> LlmProvider:
        return self.made("/nonexistent/claude")

    def translator(self) -> Translator:
        return ClaudeTranslator("claude")


@asynccontextmanager
async def real_claude(world: World, binary: Path) -> AsyncIterator[Subject]:
    async with MessagesApi() as api:
        yield RealClaude(world, binary, api)


@asynccontextmanager
async def replayed_claude(world: World) -> AsyncIterator[Subject]:
    yield ReplayedClaude(world)


def _listed(answer: dict[str, Any]) -> dict[str, Any]:
    """The tools that the model is offered, where this is the answer that lists them."""
    keys = {"name": "name", "description": "description", "inputSchema": "input_schema"}
    listed = answer.get("result", {}).get("tools")
    return {} if listed is None else {"tools": [{keys[key]: tool[key] for key in keys} for tool in listed]}


def _without_white_blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [block for block in message["content"] if block.get("text", "x").strip()]
