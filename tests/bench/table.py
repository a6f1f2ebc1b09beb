"""The rows as tables for a terminal."""

from itertools import groupby

from rich.console import Console
from rich.table import Table

from tests.bench.figures import Row, Spread

_WIDTH = 190


def printed(rows: list[Row]) -> None:
    """A table for each group."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for group, found in groupby(rows, key=lambda row: row.group):
        table = Table(title=group, title_justify="left")
        for name in ("", "what", "ours (quartiles)", "against", "theirs (quartiles)", "ratio (quartiles)"):
            table.add_column(name)
        for name in ("runs", "served", "target", "holds"):
            table.add_column(name)
        subject = ""
        for row in found:
            table.add_row(*_cells(row, is_new=row.subject != subject))
            subject = row.subject
        console.print(table)


def _cells(row: Row, *, is_new: bool) -> list[str]:
    return [
        row.subject if is_new else "",
        row.what,
        f"{_spread(Spread.of(row.ours))} {row.unit}",
        row.against,
        _spread(Spread.of(row.theirs)) if row.theirs else "",
        _spread(row.ratio) if row.ratio else "",
        str(len(row.ours)),
        ", ".join(sorted(set(row.served))),
        str(row.target or ""),
        {True: "[green]yes[/green]", False: "[red]NO[/red]", None: ""}[row.holds],
    ]


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.low)} - {_number(spread.high)})"


def _number(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"
