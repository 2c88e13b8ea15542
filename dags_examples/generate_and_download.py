"""Generate a video for each prompt, wait without a worker, and land the files.

Set up one connection, `video_default`, of type "Video gateway": the gateway's base URL as host, your API
key as password. Then trigger the Dag; the form asks for prompts, model and destination.

Each prompt is a mapped task group of its own: a file lands as soon as its video is finished, and a
prompt that the gateway refuses stops none of the others. The grid names each by its prompt.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task, task_group

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator

PROMPTS = [
    "A paper boat drifts down a rainy street at dusk",
    "A lighthouse in a storm, seen from the sea",
    "Time-lapse of a sunflower opening at dawn",
]


@dag(
    schedule=None,
    catchup=False,
    # A retry re-attaches to the video that is paid for, and costs nothing; without any, nothing does.
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1)},
    params={
        "prompts": Param(PROMPTS, type="array", items={"type": "string"}),
        "model": Param("veo3.1-fast", type="string"),
        "destination": Param(
            "file:///tmp/videos/",
            type="string",
            description="A directory: file:///…/, s3://conn_id@bucket/…/, gs://…/ or abfs://…/",
        ),
    },
    tags=["video"],
)
def video_generate_and_download() -> None:
    @task
    def prompts(**context: Any) -> list[str]:
        return list(context["params"]["prompts"])

    @task_group
    def video(prompt: str) -> None:
        generate = VideoGenerateOperator(
            task_id="generate",
            prompt=prompt,
            model="{{ params.model }}",
            aspect_ratio="16:9",
            deferrable=True,
            poll_interval=5,
            max_poll_interval=10,  # the sandbox is quicker than any model: leave it out for a real gateway
            map_index_template="{{ ti.task.prompt | truncate(60) }}",
        )
        VideoDownloadOperator(
            task_id="download",
            video=generate.output,
            destination="{{ params.destination }}",
            map_index_template="{{ (ti.task.video.prompt or ti.task.video.video_id) | truncate(60) }}",
        )

    video.expand(prompt=prompts())


video_generate_and_download()
