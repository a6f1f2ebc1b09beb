"""`python -m tests.bench`: measures, prints tables, writes all of it as JSON; with `--check` 1 when a target fails."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bench import commands, first_token, http, rate, sent, streams
from tests.bench.figures import Row
from tests.bench.size import LARGE, SMALL, SMALLEST, Size
from tests.bench.table import printed

_GROUPS: dict[str, Callable[[Size], Iterable[Row]]] = {
    "first": first_token.measure,
    "sent": sent.measure,
    "rate": rate.measure,
    "streams": streams.measure,
    "http": http.measure,
    "commands": commands.measure,
}
_SIZES = {"large": LARGE, "small": SMALL, "smallest": SMALLEST}
_RESULTS = Path(__file__).with_name("results.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(_GROUPS)}; all, unless named")
    parser.add_argument("--size", choices=_SIZES, default="large", help="smallest: fakes alone, to see that it works")
    parser.add_argument("--runs", type=int, help="of each thing")
    parser.add_argument("--only", default="", help="the CLIs whose name holds this, such as 2.1.329")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where all of it is written")
    parser.add_argument("--check", action="store_true", help="1 when a target fails")
    options = parser.parse_args()
    if unknown := set(options.groups) - _GROUPS.keys():
        parser.error(f"no such group: {', '.join(unknown)}")
    size = _SIZES[options.size].with_options(options.runs, options.only)
    began_s = time.monotonic()
    rows: list[Row] = []
    for name in options.groups or _GROUPS:
        found: list[Row] = []
        for row in _GROUPS[name](size):
            if not found or found[-1].subject != row.subject:
                print(f"{time.monotonic() - began_s:4.0f} s {name}: {row.subject}", file=sys.stderr, flush=True)
            found.append(row)
        printed(found)
        rows += found
        # Also what was measured before something breaks is worth having.
        _write(options.json, rows, time.monotonic() - began_s)
    failed = [row for row in rows if row.holds is False]
    print(f"{len(rows)} rows, {sum(row.holds is not None for row in rows)} targets, {len(failed)} of them missed")
    return 1 if options.check and failed else 0


def _write(path: Path, rows: list[Row], took_s: float) -> None:
    where = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "took_s": round(took_s),
    }
    whole = {"where": where, "rows": [row.as_json() for row in rows]}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
