"""The agents of README's runners.yaml, as they stand there, with nothing but a stand-in for their vendors added."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.config import load_config
from runners.kinds import provider_class
from runners.testing import request
from runners.testing.apis.messages_api import MessagesApi
from runners.testing.apis.responses_api import ResponsesApi
from tests.capability_matrix import README
from tests.conftest import real_cli
from tests.live.install import CLAUDE_AGENT_ACP_VERSION, CODEX_ACP_VERSION
from tests.subjects.acp import CLAUDE_AGENT_ENV, codex_arguments
from tests.world import World

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("no_leaks")]


def entries() -> dict[str, dict[str, Any]]:
    """The entries in README's section on any ACP agent."""
    section = README.read_text(encoding="utf-8").partition("### Any ACP agent\n")[2].partition("\n### ")[0]
    [block] = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    found = yaml.safe_load(block)["runners"]
    assert isinstance(found, dict)
    return found


async def answered(world: World, name: str, binary: Path, args: list[str], env: dict[str, str]) -> str:
    """The answer of an agent of README, found on PATH as it says there."""
    entry = entries()[name]
    binaries = world.root / "bin"
    binaries.mkdir()
    (binaries / entry["binary"]).symlink_to(binary)
    env = {"HOME": str(world.home), "PATH": f"{binaries}:{world.env['PATH']}", **env}
    config = world.config(
        yaml.safe_dump({"runners": {name: {**entry, "args": [*entry.get("args", []), *args], "env": env}}})
    )
    [settings] = load_config(config).runners.values()
    provider = provider_class(settings.kind)(name, settings, state_dir=world.state / name)
    try:
        return (await provider.complete(request("hello"))).content
    finally:
        await provider.aclose()


async def test_claude_agent_acp_of_readme_answers(world: World) -> None:
    async with MessagesApi() as api:
        env = {**CLAUDE_AGENT_ENV, "ANTHROPIC_BASE_URL": api.url}
        assert (
            await answered(world, "zed-claude", real_cli("claude-agent-acp", CLAUDE_AGENT_ACP_VERSION), [], env) == "ok"
        )


async def test_codex_acp_of_readme_answers(world: World) -> None:
    async with ResponsesApi() as api:
        binary = real_cli("codex-acp", CODEX_ACP_VERSION)
        assert await answered(world, "zed-codex", binary, codex_arguments(api.url), {}) == "ok"
        assert api.requests[0].body["model"] == "gpt-5.5"
