"""A video for every prompt that an upstream task made, however many those are.

Set up the connection `video_default` (type "Video gateway"). Put what makes your prompts (a query, a
language model, a sheet) in place of `write_prompts`. Each mapped task waits in the triggerer, so a
hundred videos hold no worker slot; `max_active_tis_per_dag` keeps the submissions to what the gateway
takes at a time. `map_index_template` is what the grid shows for each instead of a number.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1)},  # they re-attach, and cost nothing
    params={
        "animals": Param(["fox", "heron"], type="array", items={"type": "string"}),
        "destination": Param("file:///tmp/videos/", type="string"),
    },
    tags=["video"],
)
def video_map_prompts() -> None:
    @task
    def write_prompts(**context: Any) -> list[str]:
        return [f"A {animal} crosses a snowy field, long shot" for animal in context["params"]["animals"]]

    generate = VideoGenerateOperator.partial(
        task_id="generate",
        model="veo3.1-fast",
        aspect_ratio="16:9",
        deferrable=True,
        max_poll_interval=10,  # the sandbox is quicker than any model: leave it out for a real gateway
        max_active_tis_per_dag=10,
        map_index_template="{{ ti.task.prompt | truncate(60) }}",
    ).expand(prompt=write_prompts())

    VideoDownloadOperator.partial(
        task_id="download",
        destination="{{ params.destination }}",
        map_index_template="{{ (ti.task.video.prompt or ti.task.video.video_id) | truncate(60) }}",
    ).expand(video=generate.output)


video_map_prompts()
