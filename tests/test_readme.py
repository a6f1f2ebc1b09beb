"""README, and what it leaves to docs/runners.md, say what is so."""

import re
from importlib import import_module

import pytest

from runners.kinds import known_kinds
from runners.providers.jsonlines.settings import JsonLinesSettings
from runners.providers.terminal.settings import TerminalSettings
from runners.settings import AgentSettings
from tests.capability_matrix import BEGIN, END, KINDS, README, with_matrix

RUNNERS = README.parent / "docs" / "runners.md"


def test_the_table_of_capabilities_is_the_codes_own() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text == with_matrix(text), "stale: run `python -m tests.capability_matrix`"


def test_the_table_of_capabilities_has_every_kind() -> None:
    assert sorted(KINDS) == known_kinds()


@pytest.mark.parametrize(
    ("section", "settings"),
    [("only talks to a terminal", TerminalSettings), ("prints JSON lines", JsonLinesSettings)],
)
def test_every_key_of_a_declared_cli_is_named(section: str, settings: type[AgentSettings]) -> None:
    told = "".join(
        re.split(r"^##+ ", text.partition(f"## Any CLI that {section}")[2], maxsplit=1, flags=re.MULTILINE)[0]
        for text in (README.read_text(encoding="utf-8"), RUNNERS.read_text(encoding="utf-8"))
    )
    own = settings.model_fields.keys() - AgentSettings.model_fields.keys()
    assert {key for key in own if key not in told} == set()


@pytest.mark.parametrize("kind", ["claude", "copilot", "codex", "gemini", "opencode"])
def test_the_versions_named_are_those_that_are_tested(kind: str) -> None:
    versions = " and ".join(import_module(f"runners.providers.{kind}.provider").TESTED_VERSIONS)
    [row] = re.findall(rf"^\| `{kind}` .*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert row.endswith(f"| {versions} |")
    assert versions in " ".join(RUNNERS.read_text(encoding="utf-8").split())
