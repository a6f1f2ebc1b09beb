"""Installs the pinned real CLIs into `.clis/` of the checkout, which git ignores: `python -m tests.live.install`.

The pins of the vendors' CLIs stand in the providers (`TESTED_VERSIONS`), those of our clients here. A version that is
there already is left alone. Where npm or its registry is missing this says so and ends well: the tests that need the
CLI then skip loudly, or fail under CI. So too the editors, which come from Debian's packages where PATH has none.
"""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runners.providers.claude import provider as claude
from runners.providers.codex import provider as codex
from runners.providers.copilot import provider as copilot
from runners.providers.gemini import provider as gemini
from runners.providers.opencode import provider as opencode
from tests.live import debian

CLIS = Path(__file__).parents[2] / ".clis"
COPILOT_CACHE = CLIS / "copilot-cache"
"""Where every copilot of the tests unpacks itself, once for each version."""

ACPX_VERSION = "0.18.0"
"""Of the headless ACP client that drives `runnerd acp`. Its package asks for a newer Node than 20, and runs on that."""

CLAUDE_AGENT_ACP_VERSION = "0.23.1"
CODEX_ACP_VERSION = "0.16.0"
"""Of two agents that are no kind of their own: any agent that speaks ACP is driven as they are."""

_INSTALL_S = 600
_AT_ONCE = 16
"""Each has a folder of its own, and waits for the network most of its time."""
_PACKAGES = {
    "claude": (claude.PACKAGE, claude.TESTED_VERSIONS, "@anthropic-ai/claude-code-*/claude"),
    "copilot": (copilot.PACKAGE, copilot.TESTED_VERSIONS, "@github/copilot-*/copilot"),
    "codex": (codex.PACKAGE, codex.TESTED_VERSIONS, "@openai/codex-*/vendor/*/bin/codex"),
    "claude-agent-acp": ("@zed-industries/claude-agent-acp", (CLAUDE_AGENT_ACP_VERSION,), ".bin/claude-agent-acp"),
    "codex-acp": ("@zed-industries/codex-acp", (CODEX_ACP_VERSION,), "@zed-industries/codex-acp-*/bin/codex-acp"),
    "gemini": (gemini.PACKAGE, gemini.TESTED_VERSIONS, "@google/gemini-cli/bundle/gemini.js"),
    "opencode": (opencode.PACKAGE, opencode.TESTED_VERSIONS, "opencode-*-*/bin/opencode"),
    "acpx": ("acpx", (ACPX_VERSION,), "acpx/dist/cli.js"),
}


def newest(cli: str) -> str:
    """The newest version that is pinned."""
    _, versions, _ = _PACKAGES[cli]
    return versions[-1]


def binary(cli: str, version: str) -> Path | None:
    """The program of a pinned version, or None when it is not installed: a native binary, or what Node runs."""
    _, _, pattern = _PACKAGES[cli]
    found = sorted((CLIS / f"{cli}-{version}" / "node_modules").glob(pattern))
    return found[0] if found else None


def install(cli: str, version: str) -> str | None:
    """Installs one version; returns what went wrong."""
    if binary(cli, version) is not None:
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    # Into a folder of its own first: an install that was broken off must not look like a whole one.
    package, _, _ = _PACKAGES[cli]
    partial, final = CLIS / f"partial-{cli}-{version}", CLIS / f"{cli}-{version}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # The exact version: without one npm chooses by its own Node, and may silently take an old CLI.
    command = [npm, "install", "--prefix", str(partial), "--no-save", "--no-audit", "--no-fund", f"{package}@{version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        return f"npm did not end within {_INSTALL_S} s"
    if done.returncode != 0:
        return f"npm exited with {done.returncode}: {done.stderr.strip()[-500:]}"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return None if binary(cli, version) else "the package brought no program for this machine"


def editor(name: str) -> Path | None:
    """The program `nvim` or `emacs`, or None when it is not installed."""
    on_path = shutil.which(name)
    return debian.unpacked(name, CLIS) or (Path(on_path) if on_path else None)


def install_editor(name: str) -> str | None:
    """Installs one; returns what went wrong."""
    return debian.unpack(name, CLIS) if editor(name) is None else None


def main() -> None:
    """Installs every pinned version and the editors, and says what it did."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        said = [pool.submit(_cli, cli, version) for cli, (_, versions, _) in _PACKAGES.items() for version in versions]
        said += [pool.submit(_editor, name) for name in debian.PROGRAMS]
        for one in said:
            print(one.result(), file=sys.stderr)


def _cli(cli: str, version: str) -> str:
    return f"{cli} {version}: {install(cli, version) or binary(cli, version)}"


def _editor(name: str) -> str:
    return f"{name}: {install_editor(name) or editor(name)}"


if __name__ == "__main__":
    main()
