"""The benchmark itself works: at its smallest size, on fakes alone."""

import json
import subprocess
import sys
from pathlib import Path

from tests.bench.figures import Row, Spread
from tests.bench.targets import NEW_FIRST, RATE
from tests.world import CHECKOUT, World


def test_a_benchmark_of_fakes_runs_to_its_end_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "tests.bench", "--size", "smallest", "--json", str(results)]
    done = subprocess.run(
        command, env=world.env, cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(results.read_text())["rows"]
    found = {(row["group"], row["subject"]) for row in rows}
    assert {("rate", "fake claude"), ("streams", "1 stream"), ("streams", "3 streams")} <= found
    assert {("http", "completions"), ("http", "messages"), ("commands", "daemon")} <= found
    assert all(row["runs"] == 1 for row in rows)


def test_a_ratio_is_that_of_each_run() -> None:
    row = Row("group", "claude 1.0", NEW_FIRST, "raw process", "ms")
    for ours, theirs in ((100.0, 100.0), (2000.0, 1000.0), (30.0, 10.0)):
        row.add(ours, theirs)
    assert row.ratio == Spread(2.0, 1.5, 2.5)
    assert (row.judged, row.holds) == (2.0, False)


def test_a_rate_must_reach_its_target_and_a_time_must_stay_below() -> None:
    rate = Row("group", "claude 1.0", RATE, "read directly", "deltas/s")
    rate.add(95.0, 100.0)
    first = Row("group", "claude 1.0", NEW_FIRST, "raw process", "ms")
    first.add(115.0, 100.0)
    told = Row("group", "claude 1.0", NEW_FIRST, "by hand", "ms")
    told.add(115.0, 100.0)
    assert [rate.holds, first.holds, told.holds] == [True, True, None]
