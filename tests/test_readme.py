"""README says what is so."""

from runners.kinds import known_kinds
from tests.capability_matrix import BEGIN, END, KINDS, README, with_matrix


def test_the_table_of_capabilities_is_the_codes_own() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert text == with_matrix(text), "stale: run `python -m tests.capability_matrix`"


def test_the_table_of_capabilities_has_every_kind() -> None:
    assert sorted(KINDS) == known_kinds()
