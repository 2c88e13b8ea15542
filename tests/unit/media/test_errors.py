from __future__ import annotations

import pickle

from airflow_video_provider.media import LinkExpired


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(LinkExpired("gone", status_code=410, retry_after=3.0)))  # noqa: S301
    assert (error.message, error.status_code, error.retry_after, error.retryable) == ("gone", 410, 3.0, True)
