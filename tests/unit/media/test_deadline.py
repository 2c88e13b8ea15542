from __future__ import annotations

import time
from datetime import timedelta

from airflow_video_provider.media.deadline import Deadline


def test_no_timeout_never_passes() -> None:
    deadline = Deadline.after(None)
    assert (deadline.left, deadline.passed, deadline.cap(7.0)) == (None, False, 7.0)


def test_what_is_left_bounds_every_wait() -> None:
    deadline = Deadline.after(timedelta(hours=1))
    assert not deadline.passed
    assert deadline.timeout == 3600.0
    assert deadline.cap(7.0) == 7.0
    assert deadline.cap(7200.0) <= 3600.0


def test_after_it_has_passed_nothing_is_left() -> None:
    deadline = Deadline(at=time.monotonic() - 1.0, timeout=1.0)
    assert (deadline.left, deadline.passed, deadline.cap(7.0)) == (0.0, True, 0.0)
