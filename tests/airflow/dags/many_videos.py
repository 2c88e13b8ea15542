"""A list of videos that another system submitted, waited for by one task in each of the ways."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Param, dag

from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor

HOW = {"poke_interval": 1, "schedule": "fixed", "timeout": 240, "retries": 0}


@dag(
    schedule=None,
    catchup=False,
    params={"video_ids": Param([], type="array"), "doomed": Param([], type="array")},
)
def many_videos() -> None:
    ids = "{{ params.video_ids | tojson }}"
    deferred = VideoTaskSensor(task_id="deferred", video_ids=ids, deferrable=True, **HOW)
    VideoTaskSensor(task_id="poked", video_ids=deferred.output, **HOW)
    VideoTaskSensor(task_id="rescheduled", video_ids=ids, mode="reschedule", **HOW)
    VideoTaskSensor(task_id="with_a_failure", video_ids="{{ params.doomed }}", deferrable=True, **HOW)


@dag(schedule=None, catchup=False, params={"video_id": Param("", type="string")})
def begun_in_the_triggerer() -> None:
    how = {**HOW, "start_from_trigger": True}
    VideoTaskSensor(task_id="template", video_id="{{ params.video_id }}", **how)
    film = VideoGenerateOperator(
        task_id="film", prompt="a marmot", model="veo3.1-fast", wait_for_completion=False
    )
    VideoTaskSensor(task_id="xcom", video_id=film.output, **how)
    VideoTaskSensor.partial(task_id="mapped", **how).expand(video_id=["{{ params.video_id }}"])
    VideoTaskSensor(task_id="late", video_id="{{ params.video_id }}", **{**how, "timeout": 0})


many_videos()
begun_in_the_triggerer()
