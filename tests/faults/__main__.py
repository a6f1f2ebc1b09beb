"""`python -m tests.faults`: tries every fault many times and prints the table; 1 when a row is not as declared."""

import argparse
import asyncio
import os
import platform
import sys
import time
from pathlib import Path

from tests.faults import FAULTS
from tests.faults.fault import Outcome, tried
from tests.faults.table import row, table

_RESULTS = Path(__file__).with_name("RESULTS.md")
_TRIES = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--tries", type=int, help=f"for each row ({_TRIES}, fewer for the slow ones)")
    parser.add_argument("--only", default="", help="the rows whose name holds this")
    parser.add_argument("--write", action="store_true", help=f"write {_RESULTS.name} too")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    for fault in FAULTS:
        if options.only.lower() in fault.name.lower():
            began_s = time.monotonic()
            tries = options.tries or (fault.tries if fault.slow else _TRIES)
            outcomes.append(asyncio.run(tried(fault, tries, is_full=True)))
            print(f"{time.monotonic() - began_s:6.1f} s {row(outcomes[-1])}", end="", file=sys.stderr, flush=True)
            for left in outcomes[-1].left_behind:
                print(f"         left: {left}", file=sys.stderr)
    text = _page(outcomes)
    print(text)
    if options.write:
        _RESULTS.write_text(text, encoding="utf-8")
    return 0 if outcomes and all(outcome.is_good for outcome in outcomes) else 1


def _page(outcomes: list[Outcome]) -> str:
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    slow = "".join(f"- {outcome.fault.name}: {outcome.fault.slow}.\n" for outcome in outcomes if outcome.fault.slow)
    return f"""\
# What faults do

Written by `make faults`: each fault over real child processes, most of them through a real daemon. Left behind are
processes, file descriptors and tasks of the daemon, and temporary files: the most that any try left. {where}.

{table(outcomes)}
Tried fewer times, because they are slow:

{slow}"""


if __name__ == "__main__":
    sys.exit(main())
