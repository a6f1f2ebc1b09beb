"""Which program is run for codex, as it may lie on a machine."""

import platform
import sys
from pathlib import Path

import pytest

from runners.providers.codex.binary import native

ELF = b"\x7fELF"


@pytest.fixture(autouse=True)
def _linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "place", ["codex-linux-x64", "codex/node_modules/@openai/codex-linux-x64", "codex"], ids=["beside", "inside", "own"]
)
def test_it_is_found_behind_the_script_that_npm_links_to(tmp_path: Path, place: str) -> None:
    modules = tmp_path / "lib" / "node_modules" / "@openai"
    script = written(modules / "codex" / "bin" / "codex.js", b"#!/usr/bin/env node\n")
    found = written(modules / place / "vendor" / "x86_64-unknown-linux-musl" / "bin" / "codex", ELF)
    link = tmp_path / "codex"
    link.symlink_to(script)
    assert native(link) == found
    found.unlink()
    assert native(link) is None


def test_a_version_managers_program_keeps_the_name_that_it_goes_by(tmp_path: Path) -> None:
    manager = written(tmp_path / "usr" / "mise", ELF)
    shim = tmp_path / "codex"
    shim.symlink_to(manager)
    assert native(shim) == shim
