"""The Range header, as players and people who mean no good send it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.plugin.ranges import Part, Unsatisfiable, requested


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-", Part(0, 100)),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=10-19", Part(10, 20)),
        ("bytes=90-500", Part(90, 100)),
        ("bytes=-30", Part(70, 100)),
        ("bytes=-500", Part(0, 100)),
        ("Bytes = 5-6", Part(5, 7)),
        ("bytes=20-10", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("lines=0-1", None),
        ("bytes=٠-١", None),
    ],
)
def test_is_read_as_the_rfc_has_it(header: str | None, part: Part | None) -> None:
    assert requested(header, 100) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_what_lies_behind_the_end_is_refused(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        requested(header, 100)


@given(st.text() | st.from_regex(r"bytes=[0-9]{0,25}-[0-9]{0,25}", fullmatch=True), st.integers(1, 10**12))
def test_whatever_is_sent_a_part_lies_within_the_file(header: str, size: int) -> None:
    try:
        part = requested(header, size)
    except Unsatisfiable:
        return
    assert part is None or 0 <= part.begin < part.end <= size
