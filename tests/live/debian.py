"""Programs from Debian's packages in a folder of our own: no root is needed, and the system stays as it is.

A package is unpacked beside those that it needs and the system lacks, and started by a script that tells the program
where its files are, for it was built to lie in /usr.
"""

import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_COMMAND_S = 300
_RUN = "run"


@dataclass(frozen=True)
class Program:
    """A program and its package.

    The words of its command are paths below its folder, patterns where they depend on version or machine, each behind
    what stands before its `=`. One of which the folder has nothing is left out: there the system's is found.
    """

    package: str
    command: tuple[str, ...]


PROGRAMS = {
    "nvim": Program(
        "neovim", ("LD_LIBRARY_PATH=usr/lib/*-linux-gnu", "VIMRUNTIME=usr/share/nvim/runtime", "usr/bin/nvim")
    ),
    "emacs": Program(
        "emacs-nox",
        (
            "LD_LIBRARY_PATH=usr/lib/*-linux-gnu",
            "EMACSLOADPATH=usr/share/emacs/*/lisp",
            "EMACSDATA=usr/share/emacs/*/etc",
            "EMACSPATH=usr/libexec/emacs/*/*-linux-gnu",
            "usr/bin/emacs-nox",
            "--dump-file=usr/libexec/emacs/*/*-linux-gnu/emacs*.pdmp",
        ),
    ),
}


def unpacked(name: str, folder: Path) -> Path | None:
    """What starts the program that lies in `folder / name`, or None when none does."""
    script = folder / name / _RUN
    return script if script.exists() else None


def unpack(name: str, folder: Path) -> str | None:
    """Gets a program into `folder / name` and starts it once; returns what went wrong."""
    program = PROGRAMS[name]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as made:
            scratch = Path(made)
            tree = scratch / name
            for package in _downloaded(program.package, scratch):
                _run("dpkg-deb", "-x", str(package), str(tree))
            script = tree / _RUN
            script.write_text(_script(program.command, tree), encoding="utf-8")
            script.chmod(0o755)
            _run("env", "-i", f"HOME={scratch}", str(script), "--version")
            shutil.rmtree(folder / name, ignore_errors=True)
            tree.rename(folder / name)
    except subprocess.CalledProcessError as error:
        return f"{shlex.join(error.cmd)}: {error.stderr.strip()[-500:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None


def _downloaded(package: str, scratch: Path) -> list[Path]:
    """The files of a package and of what it needs. Of apt's state only the list of what is installed is looked at."""
    lists, cache = scratch / "lists", scratch / "cache"
    for directory in (lists / "partial", cache / "archives" / "partial"):
        directory.mkdir(parents=True)
    options = (f"Dir::State::Lists={lists}", f"Dir::Cache={cache}", "Debug::NoLocking=1", "APT::Sandbox::User=root")
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    _run(*apt, "update")
    _run(*apt, "install", "--download-only", "--reinstall", "--no-install-recommends", "--yes", package)
    return sorted(cache.glob("archives/*.deb"))


def _script(command: tuple[str, ...], tree: Path) -> str:
    words = []
    for word in command:
        name, equals, pattern = word.rpartition("=")
        words += [f'"{name}{equals}$here/{path.relative_to(tree)}"' for path in sorted(tree.glob(pattern))[:1]]
    return f'#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\nexec env {" ".join(words)} "$@"\n'


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMMAND_S)
