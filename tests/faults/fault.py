"""A fault, the registry of them all, and how one is tried: many times, with a look at what each try left behind."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.entries import Entry
from tests.faults.house import NOTHING, Held, House, open_house

_TRY_S = 240.0
Try = Callable[[House], Awaitable[str]]

FAULTS: list["Fault"] = []
"""Every row of the table, in its order."""


@dataclass(frozen=True)
class Fault:
    """A row: what goes wrong, how that is brought about, and what the client has to see.

    `runners` and `settings` are the daemon's. `slow` says why a row is tried fewer times (`tries`), and `at_once` that
    its tries are made at the same time.
    """

    name: str
    sees: str
    run: Try
    runners: dict[str, Entry]
    settings: dict[str, Any] = field(default_factory=dict)
    slow: str = ""
    tries: int = 5
    at_once: bool = False


@dataclass
class Outcome:
    """What the tries of a fault showed."""

    fault: Fault
    seen: Counter[str] = field(default_factory=Counter)
    left: list[Held] = field(default_factory=list)

    @property
    def left_behind(self) -> list[str]:
        """The processes and files that were left, by name."""
        return [name for left in self.left for name in (*left.processes, *left.files)]

    @property
    def is_good(self) -> bool:
        """Whether every try saw what it should, and none left anything behind."""
        return set(self.seen) == {self.fault.sees} and all(left == NOTHING for left in self.left)


def fault(name: str, *, sees: str, runners: dict[str, Entry], **fields: Any) -> Callable[[Try], Fault]:
    """Makes a row of a function."""

    def made(run: Try) -> Fault:
        row = Fault(name, sees, run, runners, **fields)
        FAULTS.append(row)
        return row

    return made


async def tried(row: Fault, tries: int, *, is_full: bool) -> Outcome:
    """Tries a fault in a house of its own. What a first, short try leaves is what is made once, and no leak."""
    outcome = Outcome(row)
    try:
        async with open_house(row.runners, row.settings) as house:
            first = await _seen(row, house)
            await house.settle()
            if first != row.sees:
                outcome.seen[first] += 1
                return outcome
            house.is_full = is_full
            for together in [tries] if row.at_once else [1] * tries:
                outcome.seen.update(await asyncio.gather(*(_seen(row, house) for _ in range(together))))
                outcome.left.append(await house.left())
                house.clear()
    except Exception as error:  # noqa: BLE001 a daemon that does not start or end is an outcome too
        outcome.seen[_described(error)] += 1
    return outcome


async def _seen(row: Fault, house: House) -> str:
    try:
        async with asyncio.timeout(_TRY_S):
            return await row.run(house)
    except Exception as error:  # noqa: BLE001 whatever it is, it is what was seen, and the other rows are tried
        return _described(error)
    finally:
        await house.revive()


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
