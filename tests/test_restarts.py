"""A server of ours that dies again and again is started again and again, and not at once."""

import itertools
from pathlib import Path

import pytest

from runners.errors import DeadlineExceededError, ProcessExitedError
from runners.providers.ollama.provider import OllamaProvider
from runners.providers.ollama.settings import OllamaSettings
from runners.testing import request
from runners.wire.restarts import STABLE_S, Restarts
from tests.world import World

DYING = """
import sys, time

with open(sys.argv[0] + ".starts", "a") as starts:
    print(time.monotonic(), file=starts)
sys.exit("cannot serve")
"""


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_start_and_one_behind_a_clean_end_are_due_at_once() -> None:
    restarts = Restarts(Clock())
    assert [restarts.wait_s(has_died=False) for _ in range(5)] == [0] * 5


def test_each_death_soon_behind_a_start_doubles_the_wait_up_to_a_bound() -> None:
    restarts = Restarts(clock := Clock())
    restarts.wait_s(has_died=False)
    waits = []
    for _ in range(8):
        clock.now_s += 0.1
        waits.append(restarts.wait_s(has_died=True))
        clock.now_s += waits[-1]
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 10]


def test_a_start_counts_as_good_when_it_has_lived_for_a_time() -> None:
    restarts = Restarts(clock := Clock())
    restarts.wait_s(has_died=False)
    for lived_s, wait_s in [(1, 0.5), (1, 1), (STABLE_S + 1, 0), (1, 0.5)]:
        clock.now_s += lived_s
        assert restarts.wait_s(has_died=True) == wait_s
        clock.now_s += wait_s


@pytest.mark.usefixtures("no_leaks")
async def test_an_ollama_serve_that_dies_at_once_is_not_started_in_a_row(world: World) -> None:
    binary = world.program("ollama", DYING)
    settings = OllamaSettings(binary=str(binary), host="127.0.0.1:1", env={"HOME": str(world.home)})
    provider = OllamaProvider("ollama", settings, state_dir=world.state / "ollama")
    for _ in range(4):
        with pytest.raises(ProcessExitedError):
            await provider.complete(request("Hi"))
    await provider.aclose()
    starts = [float(line) for line in Path(f"{binary}.starts").read_text().split()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert [gap >= wait for gap, wait in zip(gaps, (0.5, 1, 2), strict=True)] == [True] * 3


@pytest.mark.usefixtures("no_leaks")
async def test_a_request_may_give_less_time_to_a_start_that_goes_on_for_others(world: World) -> None:
    binary = world.program("ollama", "import time\ntime.sleep(3600)\n")
    settings = OllamaSettings(binary=str(binary), host="127.0.0.1:1", env={"HOME": str(world.home)})
    provider = OllamaProvider("ollama", settings, state_dir=world.state / "ollama")
    with pytest.raises(DeadlineExceededError) as caught:
        await provider.complete(request("Hi", timeouts={"spawn_s": 0.5}))
    assert (caught.value.deadline, caught.value.limit_s) == ("spawn_s", 0.5)
    await provider.aclose()
