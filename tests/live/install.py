"""Installs the pinned real CLIs into `.clis/` of the checkout, which git ignores: `python -m tests.live.install`.

The pins stand in the providers (`TESTED_VERSIONS`). A version that is there already is left alone. Where npm or its
registry is missing this says so and ends well: the tests that need the CLI then skip loudly, or fail under CI.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from runners.providers.claude.provider import PACKAGE, TESTED_VERSIONS

CLIS = Path(__file__).parents[2] / ".clis"
_INSTALL_S = 600


def claude_binary(version: str) -> Path | None:
    """The native binary of a pinned version, or None when it is not installed."""
    found = sorted((CLIS / f"claude-{version}" / "node_modules" / "@anthropic-ai").glob("claude-code-*/claude"))
    return found[0] if found else None


def install(version: str) -> str | None:
    """Installs one version; returns what went wrong."""
    if claude_binary(version) is not None:
        return None
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not installed"
    # Into a folder of its own first: an install that was broken off must not look like a whole one.
    partial, final = CLIS / f"partial-{version}", CLIS / f"claude-{version}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # The exact version: without one npm chooses by its own Node, and may silently take an old CLI.
    command = [npm, "install", "--prefix", str(partial), "--no-save", "--no-audit", "--no-fund", f"{PACKAGE}@{version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        return f"npm did not end within {_INSTALL_S} s"
    if done.returncode != 0:
        return f"npm exited with {done.returncode}: {done.stderr.strip()[-500:]}"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return None if claude_binary(version) else "the package brought no native binary for this machine"


def main() -> None:
    """Installs every pinned version and says what it did."""
    for version in TESTED_VERSIONS:
        problem = install(version)
        print(f"claude {version}: {problem or claude_binary(version)}", file=sys.stderr)


if __name__ == "__main__":
    main()
