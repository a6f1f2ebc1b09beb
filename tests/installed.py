"""Stand-ins for the vendors' CLIs on the PATH of a world, where nothing else is."""

import json
from pathlib import Path
from typing import Any

from tests.subjects.claude import FAKE_CLAUDE, TRANSCRIPTS
from tests.subjects.ollama import free_port
from tests.world import World

FAKE_OLLAMA = FAKE_CLAUDE.with_name("fake_ollama.py")

_COPILOT = """
import json, sys

if "--version" in sys.argv:
    print("GitHub Copilot CLI 1.0.102.")
    sys.exit()
status = {{"isAuthenticated": {logged_in}, "login": "octocat", "authType": "token"}}
answers = {{"auth.getStatus": status, "models.list": {{"models": []}}}}
while True:
    size = 0
    while (header := sys.stdin.buffer.readline()).strip():
        name, _, value = header.partition(b":")
        size = int(value) if name.lower() == b"content-length" else size
    if not header:
        break
    message = json.loads(sys.stdin.buffer.read(size))
    if "id" in message:
        answer = {{"jsonrpc": "2.0", "id": message["id"], "result": answers.get(message["method"], {{}})}}
        body = json.dumps(answer).encode()
        sys.stdout.buffer.write(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
        sys.stdout.buffer.flush()
"""


class Installed:
    """What is installed in a world: nothing at first. Its Ollama server, if one runs, is at `host`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._bin = world.root / "bin"
        self._bin.mkdir()
        self.host = f"127.0.0.1:{free_port()}"
        world.env["PATH"] = str(self._bin)
        world.env["OLLAMA_HOST"] = self.host

    def claude(self, **order: Any) -> Path:
        """The stand-in; `order` is told to it, see `fake_claude`."""
        order = {"transcript": str(TRANSCRIPTS / "2.1.329" / "interrupt.jsonl"), **order}
        return self.program("claude", _ordered("FAKE_CLI", order, FAKE_CLAUDE))

    def ollama(self, **order: Any) -> Path:
        """The stand-in; `order` is told to it, see `fake_ollama`."""
        return self.program("ollama", _ordered("FAKE_OLLAMA", order, FAKE_OLLAMA))

    def copilot(self, *, logged_in: bool) -> Path:
        """As far as a probe goes: its version, its server, its login."""
        return self.program("copilot", _COPILOT.format(logged_in=logged_in))

    def real(self, name: str, binary: Path) -> Path:
        """The vendor's own program."""
        path = self._bin / name
        path.symlink_to(binary)
        return path

    def program(self, name: str, source: str) -> Path:
        """Any other program."""
        return self._world.program(f"bin/{name}", source)


def _ordered(variable: str, order: dict[str, Any], program: Path) -> str:
    given = f"import os\n\nos.environ[{variable!r}] = {json.dumps(order)!r}\n"
    return given + program.read_text(encoding="utf-8")
