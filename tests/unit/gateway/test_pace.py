"""When to ask next: one task, and one connection."""

from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_video_provider.gateway.durations import Expectation
from airflow_video_provider.gateway.pace import (
    FEWEST_CONNECTIONS,
    HEADROOM,
    LONGEST_PAUSE,
    MOST_CONNECTIONS,
    UNSPREAD,
    Gate,
    Schedule,
)

#: A machine under load is no fault of the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

LIKELY = Expectation(200.0, 0.2)


class TestAFixedSchedule:
    def test_is_the_interval(self) -> None:
        assert Schedule(7, mode="fixed", jitter=0).delay(150, LIKELY) == 7

    def test_jitter_only_adds(self) -> None:
        delays = {Schedule(10, mode="fixed", jitter=0.1).delay() for _ in range(200)}
        assert len(delays) > 100
        assert min(delays) >= 10
        assert max(delays) <= 11


class TestAnAdaptiveSchedule:
    schedule = Schedule(5, 60, jitter=0)

    def test_is_sparse_while_an_end_is_unlikely_and_dense_when_it_is_likely(self) -> None:
        assert self.schedule.delay(5, LIKELY) > 40
        assert self.schedule.delay(200, LIKELY) < 7

    def test_gets_sparser_again_for_a_video_that_is_late(self) -> None:
        late = [self.schedule.delay(age, LIKELY) for age in (400, 2_000, 20_000)]
        assert late == sorted(late)
        assert 7 < late[1] < late[2] <= 60

    def test_does_not_wait_past_the_time_at_which_an_end_becomes_likely(self) -> None:
        begun = 100.0
        assert begun + self.schedule.delay(begun, LIKELY) < 180

    def test_without_an_age_or_an_expectation_is_the_lowest_interval(self) -> None:
        assert self.schedule.delay() == self.schedule.delay(None, LIKELY) == self.schedule.delay(9) == 5

    @given(
        age=st.floats(-100, 10**7),
        median=st.floats(1, 86_400),
        spread=st.floats(0.03, 5),
        interval=st.floats(0.05, 500),
        longest=st.floats(1, 500),
    )
    @settings(PATIENT)
    def test_stays_between_its_bounds_whatever_is_expected(
        self, age: float, median: float, spread: float, interval: float, longest: float
    ) -> None:
        schedule = Schedule(interval, longest, jitter=0)
        delay = schedule.delay(age, Expectation(median, spread))
        assert interval <= delay <= max(interval, longest)


class TestAfterFailures:
    @pytest.mark.parametrize(
        ("failures", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (10**6, 60)]
    )
    def test_the_wait_doubles_up_to_its_bound(self, failures: int, seconds: float) -> None:
        assert Schedule(10, 60, jitter=0).delay_after_failures(failures) == seconds

    def test_an_interval_above_the_bound_is_the_bound(self) -> None:
        assert Schedule(300, 60, jitter=0).delay_after_failures(5) == 300

    @pytest.mark.parametrize(("asked", "seconds"), [(3, 10), (30, 30), (3600, 3600), (None, 10)])
    def test_what_the_gateway_asked_for_is_never_undercut(self, asked: float | None, seconds: float) -> None:
        assert Schedule(10, jitter=0).delay_after_failures(1, asked) == seconds


def test_a_wait_that_begins_again_does_so_at_random_within_the_interval() -> None:
    delays = [Schedule(10).delay_after_restart() for _ in range(200)]
    assert min(delays) < 2
    assert 8 < max(delays) <= 10


class TestTheGate:
    def test_is_open_at_first(self) -> None:
        assert Gate().wait(0) == Gate().wait(10**9) == 0

    def test_never_lets_more_go_out_than_there_are_connections(self) -> None:
        gate, now = Gate(), 0.0
        for _ in range(FEWEST_CONNECTIONS):
            now += gate.wait(now)
            gate.begin(now)
        assert gate.wait(now + 100) == math.inf
        assert gate.wait(now + 100, urgent=True) == math.inf
        gate.answered(0.1, now=now)
        assert gate.wait(now + 100) == 0

    def test_a_query_that_was_cancelled_gives_its_place_back(self) -> None:
        gate = Gate(most=1)
        gate.begin(0)
        gate.cancelled()
        assert gate.wait(1) == 0

    def test_has_as_many_connections_as_rate_and_latency_need_and_no_more_than_there_are(self) -> None:
        quick, slow = Gate(), Gate()
        for gate, latency in ((quick, 0.005), (slow, 2.0)):
            gate.expect(100)
            gate.begin(0)
            gate.answered(latency, now=0)
        assert quick.connections(0) == FEWEST_CONNECTIONS
        assert slow.connections(0) == MOST_CONNECTIONS

    def test_what_becomes_due_at_once_goes_out_evenly(self) -> None:
        gate = Gate()
        gate.expect(100)  # a thousand waits of an interval of 10 s
        at = play(gate, due=[0.0] * 1000, latency=0.01, until=60)
        assert 1000 / (100 * HEADROOM) - 1 < max(at) < 10
        assert most_in_a_second(at) <= 100 * HEADROOM + 10

    def test_few_waits_are_not_spread(self) -> None:
        gate = Gate()
        gate.expect(0.1)
        assert max(play(gate, due=[0.0] * 4, latency=0.01, until=60)) < 4 / UNSPREAD

    def test_a_ceiling_is_kept(self) -> None:
        gate = Gate(max_per_second=2)
        gate.expect(100)
        at = play(gate, due=[0.0] * 40, latency=0.01, until=100)
        assert len(at) == 40
        assert 18 <= max(at) <= 21

    def test_waits_that_end_are_not_expected_any_more(self) -> None:
        gate = Gate()
        gate.expect(0.1)
        gate.expect(-0.1)
        gate.expect(-5)
        assert gate.due == 0


class TestAfterTooMany:
    def refused(self, retry_after: float | None, *, due: float = 100.0) -> Gate:
        gate = Gate()
        gate.expect(due)
        now = 0.0
        for _ in range(int(due * 30)):  # at work for a while
            now += 1 / due
            gate.begin(now)
            gate.answered(0.01, now=now)
        gate.begin(now)
        gate.begin(now)
        self.now = now
        gate.refused(retry_after, now=now)
        return gate

    def test_all_wait_for_as_long_as_the_gateway_says(self) -> None:
        gate = self.refused(5.0)
        assert gate.wait(self.now) == pytest.approx(5)
        assert gate.wait(self.now + 5.001) == 0

    def test_the_others_in_flight_that_hear_the_same_only_make_it_longer(self) -> None:
        gate = self.refused(5.0)
        rate = gate.rate(self.now + 5)
        gate.refused(7.0, now=self.now)
        assert gate.closed_for(self.now) == pytest.approx(7)
        assert gate.rate(self.now + 7) == pytest.approx(rate, rel=0.01)

    def test_a_shorter_wait_does_not_replace_a_longer_one(self) -> None:
        gate = self.refused(60.0)
        gate.refused(1.0, now=self.now + 1)
        assert gate.closed_for(self.now + 1) == pytest.approx(59)

    def test_a_query_at_its_deadline_is_not_held_back(self) -> None:
        gate = self.refused(3600.0)
        assert gate.wait(self.now + 1, urgent=True) == 0

    def test_the_rate_is_halved_and_grows_back_to_what_it_was(self) -> None:
        gate = self.refused(5.0)
        reopened = self.now + 5
        assert gate.rate(reopened) == pytest.approx(50, rel=0.2)
        rates = [gate.rate(reopened + second) for second in range(12)]
        assert rates == sorted(rates)
        assert rates[-1] == 100 * HEADROOM

    def test_without_a_length_the_pause_doubles_with_each(self) -> None:
        gate, now, pauses = Gate(), 0.0, []
        for _ in range(10):
            gate.begin(now)
            gate.refused(None, now=now)
            pauses.append(gate.closed_for(now))
            now += pauses[-1]
        assert pauses[:4] == [1, 2, 4, 8]
        assert pauses[-1] == LONGEST_PAUSE

    def test_an_answer_ends_the_doubling(self) -> None:
        gate = Gate()
        gate.begin(0)
        gate.refused(None, now=0)
        gate.begin(2)
        gate.answered(0.1, now=2)
        gate.begin(3)
        gate.refused(None, now=3)
        assert gate.closed_for(3) == 1


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["ask", "answered", "refused", "cancelled", "join", "leave"]),
            st.floats(0, 100),
            st.one_of(st.none(), st.floats(0, 3600)),
        ),
        max_size=200,
    ),
    ceiling=st.one_of(st.none(), st.floats(0.01, 1000)),
)
@settings(PATIENT, max_examples=300)
def test_whatever_happens_no_more_go_out_than_allowed_and_each_gets_its_turn(
    steps: list[tuple[str, float, float | None]], ceiling: float | None
) -> None:
    gate, now, in_flight = Gate(max_per_second=ceiling), 0.0, 0
    for what, seconds, asked in steps:
        now += seconds
        if what == "ask" and gate.wait(now) == 0:
            gate.begin(now)
            in_flight += 1
        elif what in {"join", "leave"}:
            gate.expect(seconds if what == "join" else -seconds)
        elif in_flight and what in {"answered", "refused", "cancelled"}:
            in_flight -= 1
            if what == "answered":
                gate.answered(seconds, now=now)
            elif what == "refused":
                gate.refused(asked, now=now)
            else:
                gate.cancelled()
        assert gate.in_flight == in_flight <= MOST_CONNECTIONS
        assert 0 < gate.rate(now) <= (ceiling or math.inf)
    for _ in range(in_flight):
        gate.answered(1.0, now=now)
    wait = gate.wait(now)
    assert wait <= 3600 + 100 / min(ceiling or 1, 0.2)
    assert gate.wait(now + wait + 1e-3) == pytest.approx(0, abs=1e-3)


def play(gate: Gate, *, due: list[float], latency: float, until: float) -> list[float]:
    """Send what becomes due through a gate, first come, first served, and return when each went out."""
    now, sent, ends = 0.0, [], []
    queue = sorted(due)
    while queue and now < until:
        while ends and ends[0] <= now:
            gate.answered(latency, now=heapq.heappop(ends))
        wait = gate.wait(now)
        if queue[0] > now:
            now = queue[0]
        elif wait == 0:
            gate.begin(now)
            sent.append(now)
            queue.pop(0)
            heapq.heappush(ends, now + latency * random.uniform(0.9, 1.1))  # noqa: S311  no secret
        else:
            now = min(now + wait, ends[0] if ends else math.inf)
    return sent


def most_in_a_second(times: list[float]) -> int:
    return max(sum(begin <= time < begin + 1 for time in times) for begin in times)
