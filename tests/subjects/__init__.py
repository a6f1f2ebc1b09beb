"""The runners that are put to the provider contract, each with the world behind it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from runners.providers.claude.provider import TESTED_VERSIONS as CLAUDE_VERSIONS
from runners.providers.codex.provider import TESTED_VERSIONS as CODEX_VERSIONS
from runners.providers.copilot.provider import TESTED_VERSIONS as COPILOT_VERSIONS
from runners.providers.gemini.provider import TESTED_VERSIONS as GEMINI_VERSIONS
from runners.providers.opencode.provider import TESTED_VERSIONS as OPENCODE_VERSIONS
from runners.testing import Subject
from tests.live.install import CLAUDE_AGENT_ACP_VERSION, CODEX_ACP_VERSION
from tests.subjects.acp import fake_agent, real_claude_agent, real_codex_agent
from tests.subjects.claude import real_claude, replayed_claude
from tests.subjects.codex import real_codex
from tests.subjects.copilot import real_copilot, replayed_copilot, replayed_one_shot_copilot
from tests.subjects.echo import echo
from tests.subjects.gemini import real_gemini
from tests.subjects.jsonlines import declared_claude, fake_jsonlines
from tests.subjects.ollama import serving_ollama, spawned_ollama
from tests.subjects.opencode import real_opencode
from tests.subjects.terminal import ollama_run, python
from tests.world import World

MakeSubject = Callable[[World], AbstractAsyncContextManager[Subject]]
MakeRealSubject = Callable[[World, Path], AbstractAsyncContextManager[Subject]]

STANDING_IN: dict[str, MakeSubject] = {
    "echo": echo,
    "claude-replayed": replayed_claude,
    "ollama-serving": serving_ollama,
    "ollama-spawned": spawned_ollama,
    "copilot-replayed": replayed_copilot,
    "copilot-oneshot-replayed": replayed_one_shot_copilot,
    "acp": fake_agent,
    "terminal-ollama-run": ollama_run,
    "terminal-python": python,
    "jsonlines-fake": fake_jsonlines,
}
"""Those that need no vendor's CLI."""

REAL: dict[str, tuple[MakeRealSubject, tuple[str, ...]]] = {
    "claude": (real_claude, CLAUDE_VERSIONS),
    "codex": (real_codex, CODEX_VERSIONS),
    "copilot": (real_copilot, COPILOT_VERSIONS),
    "claude-agent-acp": (real_claude_agent, (CLAUDE_AGENT_ACP_VERSION,)),
    "codex-acp": (real_codex_agent, (CODEX_ACP_VERSION,)),
    "gemini": (real_gemini, GEMINI_VERSIONS),
    "opencode": (real_opencode, OPENCODE_VERSIONS),
    "claude declared": (declared_claude, CLAUDE_VERSIONS[-1:]),
}
"""Those of real CLIs, each with the versions to test; the first word is the CLI's name."""

STARTED_ONCE = ("gemini", "opencode")
"""Those of them that take seconds of the processor to start: one process keeps the whole contract, test for test."""
