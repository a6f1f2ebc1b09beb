"""The program to run: not the Node script that npm puts on PATH, but the native program behind it.

The script hands on what it is told as long as it lives; killed outright it leaves the native program behind, which goes
on as nobody's child. So it is left out. Facts are from the packages of 0.169.0 and 0.171.0.
"""

import platform
import sys
from pathlib import Path

_NATIVE = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")  # Linux; macOS, and macOS for several machines
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_TARGETS = {
    "linux-x64": "x86_64-unknown-linux-musl",
    "linux-arm64": "aarch64-unknown-linux-musl",
    "darwin-x64": "x86_64-apple-darwin",
    "darwin-arm64": "aarch64-apple-darwin",
}


def native(program: Path) -> Path | None:
    """The native program that `program` is or starts; None when it is not found.

    It lies in a package of its own for this machine: beside that of the script (`bin/codex.js` of @openai/codex), or
    inside it, as npm has it; older versions had it in the script's own package.
    """
    if _is_native(program):
        return program  # under the name that it has: a version manager's (mise, volta) goes by that alone
    program = program.resolve()
    machine = f"{sys.platform}-{_MACHINES.get(platform.machine().lower(), '')}"
    target = _TARGETS.get(machine)
    if target is None:
        return None
    package = program.parent.parent
    places = (package.parent / f"codex-{machine}", package / "node_modules" / "@openai" / f"codex-{machine}", package)
    found = (place / "vendor" / target / "bin" / "codex" for place in places)
    return next((path for path in found if _is_native(path)), None)


def _is_native(program: Path) -> bool:
    try:
        with program.open("rb") as file:
            return file.read(4).startswith(_NATIVE)
    except OSError:
        return False
