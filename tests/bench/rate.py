"""How fast a flood of deltas passes through the daemon, and whether all of it does."""

from collections.abc import Iterator

from tests.bench.api import Api
from tests.bench.claude import Claude
from tests.bench.fakes import CLAUDE, NO_API, with_value
from tests.bench.figures import Row
from tests.bench.house import open_house, open_world
from tests.bench.size import Size
from tests.bench.subjects import real_clis
from tests.bench.targets import DIRECT, RATE
from tests.bench.way import prompt
from tests.world import user

GROUP = "rate"


def measure(size: Size) -> Iterator[Row]:
    with open_world() as world:
        fake = world.program("claude", with_value(CLAUDE, "DELTAS", size.deltas))
        yield _compared(size, Claude(world, fake, "", NO_API), "fake claude")
    for _, version, path in real_clis(size, "claude"):
        with open_world() as world, Api(world, "claude") as api:
            api.deltas(size.deltas)
            yield _compared(size, Claude(world, path, version, api.url), f"claude {version}")


def _compared(size: Size, subject: Claude, name: str) -> Row:
    row = Row(GROUP, name, RATE, DIRECT, "deltas/s")
    raw = subject.raw()
    with open_house(subject.world, {"cli": subject.entry()}) as house, house.client() as client:
        try:
            for _ in size.rounds():
                house.ready("cli")
                text, direct_s = raw.flood()
                house.ready("cli")
                told = client.chat(user(prompt(1)), model="cli")
                for said in (text, told.text):
                    assert _is_whole(said, size.deltas), "some of it is missing"
                row.add((size.deltas - 1) / told.span_s, (size.deltas - 1) / direct_s, told.served)
        finally:
            raw.close()
    return row


def _is_whole(text: str, deltas: int) -> bool:
    """Whether that is an answer of the stand-in with nothing lost, doubled or out of its order."""
    number = text.partition(".")[0]
    return text == "".join(f"{number}.{index} " for index in range(deltas))
