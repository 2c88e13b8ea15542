"""What the ends of many waits mean together: when the task fails, with which end, and what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.gateway.ends import FailIf, ListEnd, counted, left
from airflow_video_provider.gateway.state import TaskState
from airflow_video_provider.gateway.task import VideoTask
from airflow_video_provider.gateway.verdict import Done, End

RULES: tuple[FailIf, ...] = get_args(FailIf)
BAD = [End.FAILED, End.REFUSED, End.GONE, End.TIMED_OUT, End.UNREACHABLE]
"""From what no retry cures to what a retry may find otherwise."""


def done(end: End, video_id: str = "a", message: str = "") -> Done:
    return Done(end, video_id, message or f"video {video_id} {end}")


tasks = st.builds(
    VideoTask,
    video_id=st.text(min_size=1),
    state=st.sampled_from(TaskState),
    progress=st.none() | st.integers(0, 100),
    video_url=st.none() | st.just("https://cdn.example/a.mp4"),
    failure=st.none() | st.text(),
    completed_at=st.none() | st.just(datetime(2026, 2, 6, tzinfo=UTC)),
    usage=st.none() | st.dictionaries(st.text(), st.integers(0, 9)),
).map(lambda task: task.as_json())
ends = st.builds(
    Done,
    st.sampled_from(End),
    st.text(min_size=1),
    st.text(),
    st.none() | tasks,
    st.none() | st.sampled_from(["transport", "authentication"]),
)
lists = st.lists(ends, max_size=20).map(lambda some: ListEnd(tuple(some)))


class TestWhenItFails:
    @given(lists)
    def test_any_waits_for_one_that_did_not_succeed(self, end: ListEnd) -> None:
        bad = {done.end for done in end.ends} & set(BAD)
        for rule in ("any", "first"):
            failure = end.failure(rule)  # type: ignore[arg-type]
            assert (failure is None) is (not bad)
            assert failure is None or failure.end is next(worst for worst in BAD if worst in bad)

    @given(lists)
    def test_all_is_content_with_one_that_succeeded(self, end: ListEnd) -> None:
        kinds = {done.end for done in end.ends}
        failure = end.failure("all")
        assert (failure is not None) is (bool(kinds) and kinds <= set(BAD))
        assert failure is None or failure.end is next(best for best in reversed(BAD) if best in kinds)

    @given(lists, st.sampled_from(RULES))
    def test_the_message_has_one_length_for_thousands_and_counts_all(
        self, end: ListEnd, rule: FailIf
    ) -> None:
        for times in (1, 50):
            failure = ListEnd(end.ends * times).failure(rule)
            assert failure is None or len(failure.message) < 1300
            assert failure is None or failure.message.startswith(f"{len(end.ends) * times} video")

    @pytest.mark.parametrize("rule", RULES)
    def test_an_empty_list_is_a_success(self, rule: FailIf) -> None:
        assert ListEnd(()).failure(rule) is None

    @pytest.mark.parametrize("rule", RULES)
    def test_a_wait_that_broke_off_is_worth_a_retry_whatever_ended_before(self, rule: FailIf) -> None:
        failure = ListEnd((done(End.FAILED), left("b")), "the connection is gone").failure(rule)
        assert failure == (End.UNREACHABLE, "the connection is gone")

    def test_the_message_tells_the_worst_first_with_its_reason(self) -> None:
        end = ListEnd((
            done(End.SUCCEEDED, "a"), done(End.UNREACHABLE, "b"), done(End.FAILED, "c", "video c failed: bad")
        ))  # fmt: skip
        failure = end.failure("any")
        assert failure is not None
        assert failure.message == (
            "3 videos: 1 failed, 1 succeeded, 1 unreachable. video c failed: bad; video b unreachable"
        )


class TestTheEvent:
    @given(lists, st.none() | st.text())
    def test_is_json_from_which_the_same_is_read(self, end: ListEnd, broke_off: str | None) -> None:
        end = ListEnd(end.ends, broke_off)
        assert ListEnd.from_event(json.loads(json.dumps(end.as_event()))) == end

    def test_has_no_empty_fields(self) -> None:
        task = VideoTask(video_id="a", state=TaskState.SUCCEEDED).as_json()
        (entry,) = ListEnd((Done(End.SUCCEEDED, "a", "video a is ready", task),)).as_event()["ends"]
        assert entry == {
            "end": "succeeded",
            "video_id": "a",
            "message": "video a is ready",
            "task": {"video_id": "a", "state": "succeeded", "video_urls": []},
        }


class TestTheResult:
    @given(lists)
    def test_has_an_entry_for_each_in_order(self, end: ListEnd) -> None:
        results = end.results()
        assert [(entry["end"], entry["message"]) for entry in results] == [
            (done.end, done.message) for done in end.ends
        ]
        assert all("video_id" in entry for entry in results)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, "0 videos"),
        ({"running": 1, "queued": 0}, "1 video: 1 running"),
        ({"failed": 1, "succeeded": 2, "gone": 1}, "4 videos: 2 succeeded, 1 failed, 1 gone"),
    ],
)
def test_counts_are_told_the_largest_first(counts: dict[str, int], said: str) -> None:
    assert counted(counts) == said
