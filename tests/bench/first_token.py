"""How long until an answer begins and ends: in a new chat, and in the 6th turn of one."""

from collections.abc import Iterator

from tests.bench.api import Api
from tests.bench.claude import Claude
from tests.bench.fakes import CLAUDE, NO_API, with_value
from tests.bench.figures import Row
from tests.bench.house import Client, House, calm, open_house, open_world
from tests.bench.reading import Json, Timing
from tests.bench.size import Size
from tests.bench.subjects import real_clis
from tests.bench.targets import NEW_FIRST, NEW_TOTAL, SIXTH_FIRST, SIXTH_TOTAL
from tests.bench.way import TURNS, Subject, Way, prompt
from tests.world import assistant, user

GROUP = "first token"


class Ours:
    """An editor: every request holds the whole history."""

    name = "runnerd"

    def __init__(self, house: House, runner: str) -> None:
        self._house = house
        self.world = house.world
        self._runner = runner
        self._client: Client = house.client()
        self._history: list[Json] = []
        self.served = ""

    def prepare(self) -> None:
        self._house.ready(self._runner)
        self._history = []

    def new(self) -> Timing:
        return self._turn(1)

    def sixth(self) -> Timing:
        for turn in range(2, TURNS):
            self._turn(turn)
        calm(self.world)
        return self._turn(TURNS)

    def _turn(self, turn: int) -> Timing:
        self._history += user(prompt(turn))
        told = self._client.chat(self._history, model=self._runner)
        self._history.append(assistant(told.text))
        self.served = told.served
        return told.timing

    def close(self) -> None:
        self._client.close()


def measure(size: Size) -> Iterator[Row]:
    """Every CLI in a world of its own."""
    if size.fakes_only:
        with open_world() as world:
            fake = world.program("claude", with_value(CLAUDE, "DELTAS", size.deltas))
            yield from _compared(size, "fake claude", Claude(world, fake, "", NO_API), sdk=False)
    for kind, version, path in real_clis(size, "claude", "copilot", "codex", "gemini", "opencode"):
        with open_world() as world, Api(world, kind.kind) as api:
            yield from _compared(size, f"{kind.kind} {version}", kind(world, path, version, api.url), sdk=True)


def _compared(size: Size, name: str, subject: Subject, *, sdk: bool) -> list[Row]:
    with open_house(subject.world, {"cli": subject.entry()}) as house:
        ours, others = Ours(house, "cli"), subject.ways(sdk=sdk)
        try:
            # What begins anew with each turn has no target here.
            return _by_turns(size.rounds(None if subject.is_live else 3), name, ours, others)
        finally:
            for way in (*others, ours):
                way.close()


def _by_turns(rounds: Iterator[int], subject: str, ours: Ours, others: list[Way]) -> list[Row]:
    rows = {
        (what, other.name): Row(GROUP, subject, what, other.name, "ms")
        for what in (NEW_FIRST, NEW_TOTAL, SIXTH_FIRST, SIXTH_TOTAL)
        for other in others
    }
    ways: list[Way] = [*others, ours]
    for run in rounds:
        seen: dict[tuple[str, str], float] = {}
        served: dict[str, str] = {}
        # Nobody is always the first.
        for way in ways[run % len(ways) :] + ways[: run % len(ways)]:
            way.prepare()
            calm(ours.world)
            for turn, first, whole in ((way.new, NEW_FIRST, NEW_TOTAL), (way.sixth, SIXTH_FIRST, SIXTH_TOTAL)):
                timing = turn()
                seen |= {(first, way.name): timing.first_s * 1000, (whole, way.name): timing.total_s * 1000}
                if way is ours:
                    served |= {first: ours.served, whole: ours.served}
        for (what, against), row in rows.items():
            row.add(seen[what, ours.name], seen[what, against], served[what])
    return list(rows.values())
