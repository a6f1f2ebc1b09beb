"""Agents of other vendors that are clients of the daemon: the real Codex and Claude Code, told to use it as their API.

What they are told stands in docs/editors.md. Each runs as its user would run it, with its own tools, in a place of its
own and an environment made from nothing.
"""

import json
from pathlib import Path

from tests.live.editors_page import block, in_lab
from tests.live.http_clients import Door
from tests.live.lab import Json, Lab
from tests.world import printed

_LOOPBACK_ONLY = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost"}
_AGENT_S = 60.0


async def codex(lab: Lab, binary: Path, model: str, prompt: str) -> list[Json]:
    """`codex exec` with the page's configuration, and nothing else that it would say to anybody; what it prints."""
    home = lab.world.home / ".codex"
    home.mkdir(exist_ok=True)
    told = in_lab(block("Codex CLI", "toml"), lab).replace("claude:sonnet", model)
    silent = "check_for_update_on_startup = false\n", "\n[analytics]\nenabled = false\n"
    (home / "config.toml").write_text(told.join(silent), encoding="utf-8")
    options = ["--json", "--skip-git-repo-check", "--sandbox", "danger-full-access", prompt]
    return await _events(lab, block("Codex CLI", "sh"), [str(binary), "exec", *options], {})


async def claude_code(
    lab: Lab, binary: Path, model: str, prompt: str, *, door: Door = "tcp", is_frugal: bool = False
) -> list[Json]:
    """`claude -p` with the page's variables and all its tools; the events that it prints."""
    exports = block("Claude Code", "sh", 0 if door == "tcp" else 1) + is_frugal * block("Claude Code", "sh", 2)
    silent = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}
    options = ["--output-format", "stream-json", "--verbose", "--allowedTools", "Bash"]
    told = exports.replace("copilot:gpt-5", model)
    return await _events(lab, told, [str(binary), "-p", prompt, *options], silent)


async def _events(lab: Lab, exports: str, argv: list[str], env: dict[str, str]) -> list[Json]:
    work = lab.world.root / "work"
    work.mkdir(exist_ok=True)
    shell = ("/bin/sh", "-c", f'{in_lab(exports, lab)}exec "$@"', "sh", *argv)
    output = await printed(*shell, env=lab.world.env | _LOOPBACK_ONLY | env, cwd=work, limit_s=_AGENT_S)
    return [json.loads(line) for line in output.splitlines()]
