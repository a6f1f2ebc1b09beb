"""The real CLIs that are installed."""

from pathlib import Path

from runners.providers.claude import provider as claude
from runners.providers.codex import provider as codex
from runners.providers.copilot import provider as copilot
from runners.providers.gemini import provider as gemini
from runners.providers.opencode import provider as opencode
from tests.bench.claude import Claude
from tests.bench.codex import Codex
from tests.bench.copilot import Copilot
from tests.bench.gemini import Gemini
from tests.bench.opencode import Opencode
from tests.bench.size import Size
from tests.bench.way import Subject
from tests.live.install import binary

_KINDS: dict[str, tuple[type[Subject], tuple[str, ...]]] = {
    "claude": (Claude, claude.TESTED_VERSIONS),
    "codex": (Codex, codex.TESTED_VERSIONS[-1:]),
    "copilot": (Copilot, copilot.TESTED_VERSIONS),
    "gemini": (Gemini, gemini.TESTED_VERSIONS[-1:]),
    "opencode": (Opencode, opencode.TESTED_VERSIONS[-1:]),
}


def real_clis(size: Size, *kinds: str) -> list[tuple[type[Subject], str, Path]]:
    """Each with its version and its binary."""
    found = []
    for kind in () if size.fakes_only else kinds:
        subject, versions = _KINDS[kind]
        for version in versions:
            path = binary(kind, version)
            if path is not None and size.only in f"{kind} {version}":
                found.append((subject, version, path))
    return found
