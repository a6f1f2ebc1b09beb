"""runners.yaml: how many sessions are kept, for how long, and what they may take together."""

from pathlib import Path

import pytest

from daemon.config import load_config
from tests.test_config import mistakes, put
from tests.test_config_show import shown
from tests.world import World

RUNNERS = "runners:\n  c: {kind: claude}\n"


def test_what_is_kept_is_said_for_each_runner_and_holds_without_being_said(tmp_path: Path) -> None:
    text = f"{RUNNERS}  d: {{kind: claude, warm: 0, idle_ttl_s: 0, parked_ttl_s: 2.5}}\n"
    runners = load_config(put(tmp_path / "runners.yaml", text)).runners
    kept = {name: (entry.warm, entry.idle_ttl_s, entry.parked_ttl_s) for name, entry in runners.items()}
    assert kept == {"c": (1, 600, 600), "d": (0, 0, 2.5)}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1", 1),
        ("2147483648", 2**31),
        ("2GB", 2 * 10**9),
        ("2GiB", 2**31),
        ("1.5 GiB", 3 * 2**29),
        ("500mb", 500 * 10**6),
        ("'1024'", 1024),
    ],
)
def test_what_they_may_take_is_written_in_bytes_or_with_a_unit(tmp_path: Path, written: str, meant: int) -> None:
    text = f"daemon: {{max_cli_memory: {written}}}\n{RUNNERS}"
    assert load_config(put(tmp_path / "runners.yaml", text)).daemon.max_cli_memory == meant


@pytest.mark.parametrize("bad", ["0", "-1", "-1GB", "0.1", "lots", "2XB", "[]", ".inf"])
def test_what_they_cannot_take_is_named_with_its_line(tmp_path: Path, bad: str) -> None:
    [mistake] = mistakes(tmp_path, f"daemon:\n  max_cli_memory: {bad}\n{RUNNERS}")
    assert mistake.startswith("2: daemon.max_cli_memory: ")


@pytest.mark.parametrize(
    "bad", ["warm: -1", "warm: 17", "warm: 0.5", "idle_ttl_s: -1", "idle_ttl_s: .inf", "parked_ttl_s: never"]
)
def test_what_cannot_be_kept_is_named_with_its_line(tmp_path: Path, bad: str) -> None:
    [mistake] = mistakes(tmp_path, f"runners:\n  c:\n    kind: claude\n    {bad}\n")
    assert mistake.startswith(f"4: runners.c.{bad.split(':', maxsplit=1)[0]}: ")


def test_all_of_it_is_shown_and_what_is_shown_means_the_same(world: World) -> None:
    whole = shown(world, f"daemon: {{max_cli_memory: 2GB}}\n{RUNNERS}")
    assert whole["daemon"]["max_cli_memory"] == 2 * 10**9
    entry = whole["runners"]["c"]
    assert {key: entry[key] for key in ("warm", "idle_ttl_s", "parked_ttl_s")} == {
        "warm": 1,
        "idle_ttl_s": 600,
        "parked_ttl_s": 600,
    }
    # Nobody said how much: a quarter of whatever machine it is read on.
    assert "max_cli_memory" not in shown(world, RUNNERS)["daemon"]
