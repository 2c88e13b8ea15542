"""How long a generation is likely to take."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_video_provider.gateway.durations import Expectation, History, Progress, expected_of_family

#: A machine under load is no fault of the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class TestAnExpectation:
    def test_is_likeliest_to_come_true_around_its_median_and_less_so_long_after(self) -> None:
        expected = Expectation(100, 0.2)
        assert 100 < expected.peak < 150
        assert expected.hazard(50) < expected.hazard(90) < expected.hazard(expected.peak)
        assert expected.hazard(1000) < expected.hazard(expected.peak)

    @given(age=st.floats(-10, 10**9), median=st.floats(1, 10**5), spread=st.floats(0.01, 10))
    @settings(PATIENT)
    def test_has_a_hazard_at_any_age(self, age: float, median: float, spread: float) -> None:
        expected = Expectation(median, spread)
        assert 0 <= expected.hazard(age) < 10**4
        assert expected.peak > 0

    def test_with_another_believes_the_surer_one_more(self) -> None:
        both = Expectation(100, 0.1).with_(Expectation(400, 0.8))
        assert 100 < both.median < 110
        assert both.spread == 0.1


class TestOfAFamily:
    @pytest.mark.parametrize(
        ("model", "least", "most"),
        [
            ("veo3.1-fast", 30, 250),
            ("google/veo3", 80, 120),
            ("sora-2", 150, 300),
            ("sora-2-pro", 150, 300),
            ("Grok-Imagine", 14, 24),
        ],
    )
    def test_it_is_what_the_wire_contract_saw(self, model: str, least: float, most: float) -> None:
        assert least <= expected_of_family(model).median <= most

    @pytest.mark.parametrize("model", ["kling-v9", "", None])
    def test_of_an_unknown_model_it_is_wide(self, model: str | None) -> None:
        assert expected_of_family(model).spread > 0.7


class TestHistory:
    def test_many_videos_outweigh_the_family(self) -> None:
        history = History()
        for _ in range(30):
            history.note("video_default", "sora-2", random.uniform(58, 62))  # noqa: S311  no secret
        assert 55 < history.expected("video_default", "sora-2").median < 70
        assert history.expected("video_default", "sora-2").spread < 0.25

    def test_one_video_is_not_believed_alone(self) -> None:
        history = History()
        history.note("video_default", "sora-2", 20)
        assert 60 < history.expected("video_default", "sora-2").median < 200

    def test_another_connection_or_model_is_another_matter(self) -> None:
        history = History()
        history.note("video_default", "sora-2", 20)
        assert history.expected("video_other", "sora-2") == expected_of_family("sora-2")
        assert history.expected("video_default", "veo3") == expected_of_family("veo3")

    def test_one_that_hung_for_an_hour_changes_little(self) -> None:
        history = History()
        for _ in range(10):
            history.note("c", "m", 100)
        before = history.expected("c", "m")
        history.note("c", "m", 3600)
        assert history.expected("c", "m").median == pytest.approx(before.median, rel=0.05)

    @pytest.mark.parametrize("seconds", [-5, 0, 10**6, float("inf"), float("nan")])
    def test_what_no_video_takes_is_not_noted(self, seconds: float) -> None:
        history = History()
        history.note("c", "sora-2", seconds)
        assert history.expected("c", "sora-2") == expected_of_family("sora-2")

    def test_it_forgets_the_models_that_it_saw_longest_ago(self) -> None:
        history = History()
        for number in range(1000):
            history.note("c", f"model-{number}", 7)
        assert history.expected("c", "model-0") == expected_of_family("model-0")
        assert history.expected("c", "model-999").median < 50


class TestProgress:
    def test_is_extrapolated(self) -> None:
        progress = Progress()
        progress.note(10, 19)
        progress.note(50, 101)
        expected = progress.expected(101)
        assert expected is not None
        assert 100 <= expected.median <= 210

    def test_the_further_it_is_the_surer(self) -> None:
        early, late = Progress(), Progress()
        early.note(20, 20)
        late.note(90, 90)
        a, b = early.expected(20), late.expected(90)
        assert a is not None
        assert b is not None
        assert b.spread < a.spread

    @pytest.mark.parametrize("percent", [None, 0, 4])
    def test_too_little_of_it_tells_nothing(self, percent: int | None) -> None:
        progress = Progress()
        progress.note(percent, 30)
        assert progress.expected(30) is None

    def test_that_runs_backwards_tells_nothing_from_then_on(self) -> None:
        progress = Progress()
        progress.note(50, 50)
        progress.note(40, 60)
        progress.note(90, 90)
        assert progress.expected(90) is None

    def test_that_sticks_is_believed_less_and_less(self) -> None:
        progress = Progress()
        progress.note(50, 50)
        spreads = [expected.spread for age in (50, 100, 500) if (expected := progress.expected(age))]
        assert len(spreads) == 3
        assert spreads[0] < spreads[1] < spreads[2]

    @given(st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 100)), st.floats(0, 10**5)), max_size=30))
    @example([(5, 2.0), (6, 5e-324)])
    @settings(PATIENT)
    def test_whatever_it_says_an_expectation_is_one(self, replies: list[tuple[int | None, float]]) -> None:
        progress = Progress()
        for percent, age in replies:
            progress.note(percent, age)
            expected = progress.expected(age)
            if expected is not None:
                assert expected.median > 0
                assert expected.spread > 0
