"""Wait for a video that another system submitted, and land it.

Set up the connection `video_default` (type "Video gateway") with the key that the video was submitted
with: gateways show a task only to its owner. Then trigger the Dag with the gateway's task id. Asking
costs nothing, so the sensor may be cleared and retried at will.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_video_provider.operators.video import VideoDownloadOperator
from airflow_video_provider.sensors.video import VideoTaskSensor


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1)},  # they query again, and cost nothing
    params={
        "video_id": Param("", type="string", minLength=1, description="veo3.1-fast:1770350082-trii1OXZc3"),
        "destination": Param("file:///tmp/videos/", type="string"),
    },
    tags=["video"],
)
def video_sensor_on_submitted_id() -> None:
    wait = VideoTaskSensor(
        task_id="wait",
        video_id="{{ params.video_id }}",
        deferrable=True,
        max_poll_interval=10,  # the sandbox is quicker than any model: leave it out for a real gateway
        timeout=timedelta(minutes=30).total_seconds(),
    )
    VideoDownloadOperator(task_id="download", video=wait.output, destination="{{ params.destination }}")


video_sensor_on_submitted_id()
