"""The table of outcomes, as Markdown."""

from tests.faults.fault import Outcome
from tests.faults.house import Held

_HEAD = """\
| fault | tries | what the client saw | left behind |
|---|---|---|---|
"""


def table(outcomes: list[Outcome]) -> str:
    """One row for each; `left behind` is processes, descriptors, tasks and temporary files, the most after any try."""
    return _HEAD + "".join(row(outcome) for outcome in outcomes)


def row(outcome: Outcome) -> str:
    """One outcome."""
    tries = outcome.seen.total()
    saw = [text if count == tries else f"{count}x {text}" for text, count in outcome.seen.most_common()]
    declared = "" if set(outcome.seen) == {outcome.fault.sees} else f" **but should: {outcome.fault.sees}**"
    cells = (outcome.fault.name, str(tries), "; ".join(saw) + declared, _left(outcome.left))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def _left(left: list[Held]) -> str:
    if not left:
        return "not looked at"
    most = (
        max(len(held.processes) for held in left),
        max(held.descriptors for held in left),
        max(held.tasks for held in left),
        max(len(held.files) for held in left),
    )
    return ", ".join(map(str, most)) if not any(most) else f"**{', '.join(map(str, most))}**"
