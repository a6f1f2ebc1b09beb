"""Who runs, who waits, who is refused, and whose turn is next."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.limiter import Limiter, Ticket
from runners.errors import QueueFullError


def nothing() -> None:
    """A callback of who runs at once."""


class Bench:
    """A limiter whose tickets have names: the first letter is the client's."""

    def __init__(self, max_running: int = 1, max_queued: int = 100) -> None:
        self.limiter = Limiter(max_running, max_queued)
        self.tickets: dict[str, Ticket] = {}
        self.served: list[str] = []
        self.dropped: dict[str, QueueFullError] = {}

    def enter(self, *names: str) -> None:
        for name in names:
            self.tickets[name] = self.limiter.enter(name[0], self._admitted(name), self._dropped(name))

    def _admitted(self, name: str) -> Callable[[], None]:
        return lambda: self.served.append(name)

    def _dropped(self, name: str) -> Callable[[QueueFullError], None]:
        def dropped(error: QueueFullError) -> None:
            assert name not in self.dropped
            self.dropped[name] = error

        return dropped

    def leave(self, *names: str) -> None:
        for name in names:
            self.limiter.leave(self.tickets[name])

    def pause(self, *names: str) -> None:
        for name in names:
            self.limiter.pause(self.tickets[name])

    def resume(self, *names: str) -> None:
        for name in names:
            self.limiter.resume(self.tickets[name])

    def running(self) -> list[str]:
        return [name for name, ticket in self.tickets.items() if ticket.is_running]

    def order(self) -> str:
        """Who is served, when always the one that has run longest leaves; who ran at first is not in it."""
        begun = len(self.served)
        running = self.running()
        while running:
            known = len(self.served)
            self.leave(running.pop(0))
            running += self.served[known:]
        return " ".join(self.served[begun:])


def test_as_many_run_as_may_and_the_others_wait() -> None:
    bench = Bench(max_running=2)
    bench.enter("a1", "b1", "a2", "b2")
    assert bench.running() == ["a1", "b1"]
    assert (bench.limiter.running, bench.limiter.queued) == (2, 2)
    assert bench.served == []  # who runs at once is told by its ticket alone


def test_a_place_that_is_free_goes_to_who_waits() -> None:
    bench = Bench(max_running=2)
    bench.enter("a1", "b1", "b2")
    bench.leave("a1")
    assert bench.served == ["b2"]
    assert bench.running() == ["b1", "b2"]
    bench.leave("b1", "b2")
    assert (bench.limiter.running, bench.limiter.queued) == (0, 0)


def test_within_a_client_the_first_in_is_the_first_out() -> None:
    bench = Bench()
    bench.enter("a1", "a2", "a3", "a4")
    assert bench.order() == "a2 a3 a4"


def test_the_client_with_the_fewest_running_is_next() -> None:
    bench = Bench(max_running=4)
    bench.enter("a1", "a2", "a3", "b1", "a4", "b2", "c1")
    bench.leave("a1")
    assert bench.served == ["c1"]
    bench.leave("a2")  # now one of each runs, and a was served longest ago
    assert bench.served == ["c1", "a4"]
    bench.leave("c1")
    assert bench.served == ["c1", "a4", "b2"]


def test_a_client_that_comes_one_by_one_waits_for_no_more_than_one_round_of_the_others() -> None:
    bench = Bench()
    bench.enter("q0", *(f"q{number}" for number in range(1, 20)))
    for number in range(5):
        bench.enter(f"one{number}")
        while f"one{number}" not in bench.served:
            bench.leave(bench.running()[0])
        bench.leave(f"one{number}")
    between = " ".join(name[0] for name in bench.served).split("o")
    assert len(between) == 6
    assert all(part.count("q") <= 2 for part in between)


def test_no_endless_row_of_new_clients_keeps_one_waiting() -> None:
    limiter = Limiter(2, 100)
    served: list[str] = []
    running = [limiter.enter("old", nothing, print) for _ in range(2)]
    limiter.enter("old", lambda: served.append("old"), print)
    for number in range(20):
        running.append(limiter.enter(f"new {number}", lambda: served.append("new"), print))
        limiter.leave(running.pop(0))
    assert served[:2] == ["new", "old"]


def test_a_full_queue_refuses_and_says_how_many_there_are() -> None:
    bench = Bench(max_running=2, max_queued=1)
    bench.enter("a1", "a2", "a3")
    with pytest.raises(QueueFullError, match="2 chats run and 1 wait") as caught:
        bench.enter("b1")
    assert caught.value.retryable
    assert (bench.limiter.running, bench.limiter.queued, bench.dropped) == (2, 1, {})


def test_without_a_queue_nobody_waits() -> None:
    bench = Bench(max_running=1, max_queued=0)
    bench.enter("a1")
    with pytest.raises(QueueFullError, match="1 chats run and 0 wait"):
        bench.enter("b1")
    bench.leave("a1")
    bench.enter("b1")
    assert bench.running() == ["b1"]


def test_a_newcomer_takes_the_place_of_the_greediest_clients_newest() -> None:
    bench = Bench(max_queued=5)
    bench.enter("a0", "b1", "b2", "a1", "a2", "a3")
    bench.enter("c1")
    assert list(bench.dropped) == ["a3"]
    assert bench.dropped["a3"].message.startswith("1 chats run and 5 wait")
    assert bench.dropped["a3"].retryable
    assert bench.limiter.queued == 5
    assert bench.order() == "b1 a1 c1 b2 a2"


def test_with_one_more_waiting_nobody_is_dropped() -> None:
    bench = Bench(max_queued=3)
    bench.enter("a0", "a1", "a2", "b1")
    for name in ("a3", "b2"):
        with pytest.raises(QueueFullError):
            bench.enter(name)
    bench.enter("c1")
    assert list(bench.dropped) == ["a2"]
    with pytest.raises(QueueFullError):
        bench.enter("d1")


def test_who_leaves_the_queue_frees_its_place_and_hears_nothing_more() -> None:
    bench = Bench(max_queued=2)
    bench.enter("a0", "a1", "a2")
    bench.leave("a1", "a1")
    bench.enter("a3")
    assert bench.order() == "a2 a3"
    bench.leave("a0", "a1", "a2")
    assert (bench.limiter.running, bench.limiter.queued) == (0, 0)


def test_of_equals_those_that_wait_take_turns() -> None:
    bench = Bench()
    bench.enter("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert bench.order() == "a2 b1 c1 a3 b2 a4"


def test_who_is_told_that_it_runs_may_leave_and_enter_at_once() -> None:
    limiter = Limiter(1, 10)
    served: list[int] = []
    tickets: dict[int, Ticket] = {}

    def run(number: int) -> None:
        served.append(number)
        if number < 5:
            wait(number + 5)
        limiter.leave(tickets[number])

    def wait(number: int) -> None:
        tickets[number] = limiter.enter("a", lambda: run(number), print)

    first = limiter.enter("a", nothing, print)
    for number in range(5):
        wait(number)
    limiter.leave(first)
    assert served == list(range(10))
    assert (limiter.running, limiter.queued) == (0, 0)


def test_a_paused_ticket_leaves_its_place_to_another_client_and_to_none_of_its_own() -> None:
    bench = Bench()
    bench.enter("a1", "a2", "b1", "b2")
    bench.pause("a1")
    assert bench.served == ["b1"]
    assert (bench.limiter.running, bench.limiter.queued) == (2, 2)
    bench.leave("b1")
    assert bench.served == ["b1", "b2"]
    bench.leave("b2")  # the place is free, and a may not have it
    assert (bench.served, bench.limiter.queued) == (["b1", "b2"], 1)
    bench.leave("a1")
    assert bench.served == ["b1", "b2", "a2"]


def test_a_newcomer_runs_at_once_beside_a_paused_ticket_of_another_client() -> None:
    bench = Bench(max_queued=0)
    bench.enter("a1")
    bench.pause("a1")
    with pytest.raises(QueueFullError):
        bench.enter("a2")
    bench.enter("b1")
    assert bench.running() == ["a1", "b1"]
    with pytest.raises(QueueFullError):
        bench.enter("c1")


def test_a_paused_ticket_that_goes_on_cuts_nobody_and_counts_again() -> None:
    bench = Bench()
    bench.enter("a1", "b1", "b2")
    bench.pause("a1")
    bench.resume("a1", "a1")
    assert bench.running() == ["a1", "b1"]
    bench.leave("a1")
    assert bench.running() == ["b1"]
    bench.leave("b1")
    assert bench.served == ["b1", "b2"]


def test_only_who_runs_can_pause_and_a_second_pause_is_none() -> None:
    bench = Bench()
    bench.enter("a1", "b1", "c1", "c2")
    bench.pause("b1")
    bench.leave("b1")
    bench.pause("b1", "a1", "a1")
    assert bench.served == ["c1"]
    bench.leave("a1")
    bench.pause("a1")
    bench.resume("a1")
    assert (bench.limiter.running, bench.limiter.queued) == (1, 1)


def test_a_dropped_ticket_may_leave() -> None:
    bench = Bench(max_queued=2)
    bench.enter("a0", "a1", "a2", "b1")
    bench.leave("a2")
    assert (bench.limiter.running, bench.limiter.queued) == (1, 2)


@given(st.integers(1, 5), st.integers(2, 5), st.data())
def test_clients_that_always_want_more_have_equal_shares(max_running: int, clients: int, data: st.DataObject) -> None:
    limiter = Limiter(max_running, 100)
    running: list[Ticket] = []

    def want(client: str) -> None:
        ticket = limiter.enter(client, lambda: running.append(ticket), print)
        if ticket.is_running:
            running.append(ticket)

    # The first one comes alone and has every place.
    names = [str(number) for number in range(clients) for _ in range(max_running + 1)]
    for name in names:
        want(name)
    for ticket in list(running):
        running.remove(ticket)
        limiter.leave(ticket)
        want(ticket.client)
    for _ in range(20):
        shares = Counter(dict.fromkeys(names, 0))
        shares.update(ticket.client for ticket in running)
        assert sum(shares.values()) == max_running
        assert max(shares.values()) - min(shares.values()) <= 1
        done = running.pop(data.draw(st.integers(0, max_running - 1)))
        limiter.leave(done)
        want(done.client)
