"""Agents of other vendors that are clients of the daemon: the real Codex and Claude Code, told to use it as their API.

Each runs as its user would run it, with its own tools, in a place of its own and an environment made from nothing.
"""

import asyncio
import json
from pathlib import Path

from tests.live.lab import Json, Lab
from tests.world import END_S

_LOOPBACK_ONLY = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost"}
_AGENT_S = 60.0


async def codex(lab: Lab, binary: Path, model: str, prompt: str) -> list[Json]:
    """`codex exec` with the configuration that README's page on editors shows; the events that it prints."""
    home = lab.world.home / ".codex"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        f"""
model = "{model}"
model_provider = "runnerd"
web_search = "disabled"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.runnerd]
name = "runnerd"
base_url = "{lab.url}/v1"
wire_api = "responses"
env_key = "RUNNERD_TOKEN"
""",
        encoding="utf-8",
    )
    options = ["--json", "--skip-git-repo-check", "--sandbox", "danger-full-access", prompt]
    return await _events(lab, [str(binary), "exec", *options], {"RUNNERD_TOKEN": lab.token})


async def claude_code(lab: Lab, binary: Path, model: str, prompt: str, **env: str) -> list[Json]:
    """`claude -p` with all its tools; the events that it prints."""
    own = {
        "ANTHROPIC_BASE_URL": lab.url,
        "ANTHROPIC_AUTH_TOKEN": lab.token,
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    options = ["--output-format", "stream-json", "--verbose", "--allowedTools", "Bash"]
    return await _events(lab, [str(binary), "-p", prompt, *options], own | env)


async def _events(lab: Lab, argv: list[str], env: dict[str, str]) -> list[Json]:
    work = lab.world.root / "work"
    work.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=lab.world.env | _LOOPBACK_ONLY | env,
        cwd=work,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_AGENT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await asyncio.wait_for(process.wait(), END_S)
        raise
    assert process.returncode == 0, (output, errors)
    return [json.loads(line) for line in output.splitlines()]
