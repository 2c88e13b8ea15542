"""Each task fails in its own way; the tests read what a person on call would read."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import dag

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor

GENERATIONS: dict[str, dict[str, Any]] = {
    "bad_key": {"prompt": "a cat", "video_conn_id": "video_bad_key"},
    "no_balance": {"prompt": "a cat [quota]"},
    "unknown_model": {"prompt": "a cat", "model": "no-such-model"},
    "wrong_host": {"prompt": "a cat", "video_conn_id": "video_wrong_host"},
    "refused_prompt": {"prompt": "a cat [moderation]"},
    "empty_prompt": {"prompt": "{{ '' }}"},
    "bad_value": {"prompt": "a cat", "aspect_ratio": "4:3"},
}


@dag(schedule=None, catchup=False)
def honest_failures() -> None:
    for task_id, arguments in GENERATIONS.items():
        VideoGenerateOperator(task_id=task_id, **{"model": "veo3.1-fast", "deferrable": True, **arguments})
    # Asked once only: elsewhere "no such task" is doubted for a minute.
    VideoTaskSensor(task_id="unknown_id", video_id="veo3.1-fast:none", mode="reschedule")
    VideoDownloadOperator(task_id="bad_destination", video="veo3.1-fast:none", destination="videos/")
    VideoDownloadOperator(
        task_id="no_such_store", video="veo3.1-fast:none", destination="s3://no_such_conn@videos/x/"
    )


honest_failures()
