"""Waits that end as soon as the gateway fails, in each form that is deferred, with retries."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor

RETRIES = {"retries": 30, "retry_delay": timedelta(seconds=1), "deferrable": True}
HOW = {"schedule": "fixed", "max_poll_interval": 2, "unreachable_after": 0, **RETRIES}
GENERATED = {"model": "veo3.1-fast", "poll_interval": 1, **HOW}


@dag(schedule=None, catchup=False, params={"video_id": Param("", type="string")})
def interrupted_waits() -> None:
    VideoTaskSensor(task_id="sensor", video_id="{{ params.video_id }}", poke_interval=1, **HOW)
    VideoTaskSensor(task_id="sensor_of_a_list", video_ids=["{{ params.video_id }}"], poke_interval=1, **HOW)
    VideoGenerateOperator(task_id="generate_a_list", prompts=["an eel, listed [time=90]"], **GENERATED)

    @task.video(**GENERATED)
    def decorated() -> str:
        return "an eel, returned [time=90]"

    decorated()


interrupted_waits()
