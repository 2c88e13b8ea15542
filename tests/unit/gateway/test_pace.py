"""When to ask next."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_video_provider.gateway.pace import PollSchedule, RateGate

#: A machine under load is no fault of the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class TestPollSchedule:
    def test_a_healthy_task_is_asked_at_the_interval(self) -> None:
        assert PollSchedule(interval=7, jitter=0).delay() == 7

    @pytest.mark.parametrize(
        ("failures", "seconds"), [(0, 10), (1, 10), (2, 20), (3, 40), (4, 60), (10**6, 60)]
    )
    def test_the_wait_doubles_with_each_failure_after_the_first(self, failures: int, seconds: float) -> None:
        assert PollSchedule(interval=10, max_interval=60, jitter=0).delay(failures=failures) == seconds

    def test_an_interval_beyond_the_longest_wait_is_kept(self) -> None:
        schedule = PollSchedule(interval=300, max_interval=60, jitter=0)
        assert schedule.delay() == schedule.delay(failures=5) == 300

    @pytest.mark.parametrize(("asked", "seconds"), [(None, 10), (0, 10), (3, 10), (90, 90), (3600, 3600)])
    def test_what_the_gateway_asks_for_is_never_undercut(self, asked: float | None, seconds: float) -> None:
        assert PollSchedule(interval=10, jitter=0).delay(failures=1, retry_after=asked) == seconds

    def test_tasks_that_were_submitted_together_do_not_ask_together(self) -> None:
        schedule = PollSchedule(interval=10, jitter=0.1)
        assert len({schedule.delay() for _ in range(50)}) > 1

    @settings(PATIENT)
    @given(
        interval=st.floats(min_value=0.1, max_value=600),
        longest=st.floats(min_value=0.1, max_value=600),
        jitter=st.floats(min_value=0, max_value=1),
        failures=st.integers(min_value=0, max_value=10**9),
        retry_after=st.none() | st.floats(min_value=0, max_value=3600),
    )
    def test_the_wait_is_bounded_and_never_shorter_than_the_interval(
        self, interval: float, longest: float, jitter: float, failures: int, retry_after: float | None
    ) -> None:
        schedule = PollSchedule(interval=interval, max_interval=longest, jitter=jitter)
        wait = schedule.delay(failures=failures, retry_after=retry_after)
        most = max(max(interval, longest) * (1 + jitter), retry_after or 0)
        assert max(interval, retry_after or 0) <= wait <= most * (1 + 1e-9)
        assert math.isfinite(wait)


class TestRateGate:
    def test_is_open_at_first(self) -> None:
        assert RateGate().wait(now=0) == RateGate().wait(now=10**9) == 0

    def test_holds_every_query_back_until_it_opens(self) -> None:
        gate = RateGate()
        gate.close_for(30, now=100)
        assert [gate.wait(now=now) for now in (100, 110, 129.5, 130, 200)] == [30, 20, 0.5, 0, 0]

    def test_a_shorter_pause_does_not_cut_a_longer_one(self) -> None:
        gate = RateGate()
        gate.close_for(30, now=100)
        gate.close_for(5, now=110)
        assert gate.wait(now=110) == 20
        gate.close_for(60, now=110)
        assert gate.wait(now=110) == 60
