"""Records what the pinned CLIs tell, and writes the shapes that runnerd ships: `python -m tests.record_shapes KIND...`.

Each version is recorded several times: what only some recordings have is optional.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from runners.providers.claude.provider import TESTED_VERSIONS as CLAUDES
from runners.providers.codex.provider import TESTED_VERSIONS as CODEXES
from runners.providers.gemini.provider import TESTED_VERSIONS as GEMINIS
from runners.providers.opencode.provider import TESTED_VERSIONS as OPENCODES
from runners.testing.recording import VENDORS, Shapes, record
from tests.conftest import HEADLESS_COPILOTS
from tests.live.install import binary

VERSIONS = {"claude": CLAUDES, "codex": CODEXES, "copilot": HEADLESS_COPILOTS, "gemini": GEMINIS, "opencode": OPENCODES}
SHAPES = Path(__file__).parents[1] / "runners" / "testing" / "recording" / "shapes"
_TIMES = 3


async def shapes_of(kind: str, version: str, directory: Path) -> Shapes:
    """What one pinned version tells in one recording, which must go well."""
    program = binary(kind, version)
    assert program is not None, f"{kind} {version} is not installed"
    recording = await record(kind, str(program), directory)
    assert not recording.failed, recording.failed
    assert recording.version == version
    return recording.shapes


async def _main(kinds: list[str]) -> None:
    for kind in kinds:
        shapes: Shapes | None = None
        for version in VERSIONS[kind] * _TIMES:
            with tempfile.TemporaryDirectory() as directory:
                found = await shapes_of(kind, version, Path(directory))
            shapes = found if shapes is None else shapes.joined(found)
        assert shapes is not None
        written = {"versions": VERSIONS[kind], "events": shapes.to_json()}
        path = SHAPES / f"{kind}.json"
        path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:] or sorted(VENDORS)))
