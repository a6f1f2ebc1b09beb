"""What holds for the limiter at every moment, whoever comes, pauses and goes in whatever order."""

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon.limiter import Limiter, Ticket
from runners.errors import QueueFullError

CLIENTS = "abcd"


class Entry:
    """One chat as its client knows it: `said` is what it was told, in order."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.said: list[str] = []
        self.ticket: Ticket | None = None
        self.ran_at_once = False
        self.overtaken_by: list[str] = []


class LimiterAlwaysHolds(RuleBasedStateMachine):
    @initialize(max_running=st.integers(1, 3), max_queued=st.integers(0, 6))
    def begin(self, max_running: int, max_queued: int) -> None:
        self.limiter = Limiter(max_running, max_queued)
        self.max_running, self.max_queued = max_running, max_queued
        self.running: list[Entry] = []
        self.paused: list[Entry] = []  # they run as well
        self.waiting: list[Entry] = []
        self.over: list[Entry] = []

    def running_of(self, client: str) -> int:
        return sum(entry.client == client for entry in self.running)

    def waiting_of(self, client: str) -> int:
        return sum(entry.client == client for entry in self.waiting)

    def has_room(self, client: str) -> bool:
        return len(self.running) - len(self.paused) < self.max_running and self.running_of(client) < self.max_running

    def admitted(self, entry: Entry) -> None:
        entry.said.append("admitted")
        self.is_who_is_next(entry)
        self.waiting.remove(entry)
        self.running.append(entry)

    def is_who_is_next(self, entry: Entry) -> None:
        assert self.has_room(entry.client)
        assert entry == next(other for other in self.waiting if other.client == entry.client)
        candidates = {other.client for other in self.waiting if self.has_room(other.client)}
        assert self.running_of(entry.client) == min(map(self.running_of, candidates))
        # Who has as few running is overtaken at most once by each other, until it is served itself.
        for client in candidates - {entry.client}:
            if self.running_of(client) == 0:
                head = next(other for other in self.waiting if other.client == client)
                head.overtaken_by.append(entry.client)
                assert head.overtaken_by.count(entry.client) <= 1

    def dropped(self, entry: Entry, error: QueueFullError) -> None:
        entry.said.append("dropped")
        assert error.retryable
        assert error.message.startswith(f"{len(self.running)} chats run and {self.max_queued} wait")
        newest = [other for other in self.waiting if other.client == entry.client][-1]
        assert entry == newest
        assert self.waiting_of(entry.client) == max(map(self.waiting_of, CLIENTS))
        self.waiting.remove(entry)
        self.over.append(entry)

    @rule(client=st.sampled_from(CLIENTS))
    def enter(self, client: str) -> None:
        entry = Entry(client)
        had_room = self.has_room(client)
        is_full = len(self.waiting) >= self.max_queued
        may_take_a_place = max(map(self.waiting_of, CLIENTS)) >= self.waiting_of(client) + 2
        known = len(self.over)
        try:
            entry.ticket = self.limiter.enter(
                client, lambda: self.admitted(entry), lambda error: self.dropped(entry, error)
            )
        except QueueFullError:
            assert not had_room
            assert is_full
            assert not may_take_a_place
            assert len(self.over) == known
            return
        assert entry.ticket.is_running == had_room
        if had_room:
            assert self.waiting_of(client) == 0
            entry.ran_at_once = True
            self.running.append(entry)
        else:
            assert not is_full or may_take_a_place
            assert len(self.over) - known == is_full
            self.waiting.append(entry)

    def leave(self, entry: Entry) -> None:
        for entries in (self.running, self.waiting):
            if entry in entries:
                entries.remove(entry)
                self.over.append(entry)
        if entry in self.paused:
            self.paused.remove(entry)
        assert entry.ticket is not None
        self.limiter.leave(entry.ticket)

    @precondition(lambda self: self.running or self.waiting or self.over)
    @rule(data=st.data())
    def one_leaves(self, data: st.DataObject) -> None:
        kinds = [entries for entries in (self.running, self.waiting, self.over) if entries]
        self.leave(data.draw(st.sampled_from(data.draw(st.sampled_from(kinds)))))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_pauses(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.running))
        assert entry.ticket is not None
        if entry not in self.paused:
            self.paused.append(entry)
        self.limiter.pause(entry.ticket)

    @precondition(lambda self: self.waiting or self.over)
    @rule(data=st.data())
    def one_that_does_not_run_pauses_and_resumes(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([*self.waiting, *self.over]))
        assert entry.ticket is not None
        self.limiter.pause(entry.ticket)
        self.limiter.resume(entry.ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_resumes(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.running))
        assert entry.ticket is not None
        self.limiter.resume(entry.ticket)
        if entry in self.paused:
            self.paused.remove(entry)

    @invariant()
    def the_numbers_are_right(self) -> None:
        assert self.limiter.running == len(self.running)
        assert self.limiter.queued == len(self.waiting) <= self.max_queued
        for entry in (*self.running, *self.waiting, *self.over):
            assert entry.ticket is not None
            assert entry.ticket.is_running == (entry in self.running)
            assert entry.ticket.is_paused == (entry in self.paused)

    @invariant()
    def no_client_has_more_than_all_places(self) -> None:
        assert all(self.running_of(client) <= self.max_running for client in CLIENTS)

    @invariant()
    def nobody_waits_who_has_room(self) -> None:
        assert not [entry for entry in self.waiting if self.has_room(entry.client)]

    @invariant()
    def each_is_told_once_and_only_what_became_of_it(self) -> None:
        for entry in self.running:
            assert entry.said == ([] if entry.ran_at_once else ["admitted"])
        for entry in self.waiting:
            assert entry.said == []
        for entry in self.over:
            assert len(entry.said) <= (not entry.ran_at_once)

    def teardown(self) -> None:
        """Whoever waits is served in the end."""
        while self.running:
            self.leave(self.running[0])
        assert not self.waiting
        assert (self.limiter.running, self.limiter.queued) == (0, 0)


TestLimiterAlwaysHolds = LimiterAlwaysHolds.TestCase
TestLimiterAlwaysHolds.settings = hypothesis_settings(max_examples=200, stateful_step_count=40, deadline=None)
