"""The real Codex and the real Claude Code use the daemon as their model API: another vendor's runner answers them."""

from typing import Any

import pytest

from runners.providers.claude.provider import TESTED_VERSIONS as CLAUDES
from runners.providers.codex.provider import TESTED_VERSIONS as CODEX_VERSIONS
from runners.testing.apis import completions_api, messages_api
from tests.conftest import HEADLESS_COPILOTS, real_cli
from tests.live.agents import claude_code, codex
from tests.live.claude_lab import claude_lab
from tests.live.copilot_lab import copilot_lab
from tests.live.http_clients import Door
from tests.world import World

pytestmark = [pytest.mark.live]

MARKER = "echo marker-123"


@pytest.mark.parametrize("version", CODEX_VERSIONS)
async def test_codex_runs_its_tool_for_the_model_of_claude(world: World, version: str) -> None:
    binary = real_cli("codex", version)
    async with claude_lab(world, real_cli("claude", CLAUDES[-1]), {"claude": {}}) as lab, lab.connected():
        lab.api.script(
            messages_api.tool_calls(("exec_command", f'{{"cmd": "{MARKER}"}}'), text="I run it."),
            messages_api.text("It said ", "marker-123.", thinking="Seen."),
        )
        events = await codex(lab, binary, "claude:sonnet", "Run it.")
        first, second = (received.body for received in lab.api.requests)
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    ran = [item for item in items if item["type"] == "command_execution"]
    assert [(item["command"].endswith(f"'{MARKER}'"), item["exit_code"]) for item in ran] == [(True, 0)]
    said = [item["text"] for item in items if item["type"] == "agent_message"]
    assert said == ["I run it.", "It said marker-123."]
    assert events[-1]["type"] == "turn.completed"
    assert events[-1]["usage"]["output_tokens"] == 14
    # Each of its tools reached the model as one, and the result as one.
    names = {tool["name"].removeprefix("mcp__runnerd__") for tool in first["tools"]}
    assert {"exec_command", "view_image", "update_goal"} <= names
    assert "marker-123" in str(_results(second))
    assert len(_results(second)) == 1


def _results(body: dict[str, Any]) -> list[dict[str, Any]]:
    blocks = [
        block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]
    ]
    return [block for block in blocks if block["type"] == "tool_result"]


@pytest.mark.parametrize(
    ("version", "door", "is_frugal"),
    [(CLAUDES[0], "tcp", False), (CLAUDES[-1], "tcp", False), (CLAUDES[-1], "unix", False), (CLAUDES[-1], "tcp", True)],
)
async def test_claude_code_runs_its_tool_for_the_model_of_copilot(
    world: World, version: str, door: Door, is_frugal: bool
) -> None:
    claude = real_cli("claude", version)
    binary = real_cli("copilot", HEADLESS_COPILOTS[-1])
    async with copilot_lab(world, binary, {"copilot": {}}) as lab, lab.connected():
        lab.api.script(
            completions_api.tool_calls(("Bash", f'{{"command": "{MARKER}", "description": "x"}}'), text="I run it."),
            completions_api.text("It said ", "marker-123.", reasoning="Seen."),
        )
        events = await claude_code(lab, claude, "copilot:gpt-x", "Run it.", door=door, is_frugal=is_frugal)
        first, second = (received.body for received in lab.api.requests)
    result = events[-1]
    assert (result["type"], result["subtype"], result["result"]) == ("result", "success", "It said marker-123.")
    assert result["usage"]["output_tokens"] == 14
    names = {tool["function"]["name"] for tool in first["tools"]}
    assert {"Bash", "Read", "Edit"} <= names
    if is_frugal:
        assert {"WebFetch", "NotebookEdit"} <= names  # they need not be searched for
    [told] = [message for message in second["messages"] if message["role"] == "tool"]
    assert "marker-123" in str(told["content"])
