"""Many videos at once into an object store, with retries: what the tests on a distributed Airflow run.

Airflow finds it in the Dags folder of the test; it is no test module itself.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task, task_group

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator

# Enough for one task to meet every fault of a run; a retry of ours pays nothing.
RETRIES = {"retries": 8, "retry_delay": timedelta(seconds=2)}


@dag(
    schedule=None,
    catchup=False,
    params={
        "prompts": Param([], type="array", items={"type": "string"}),
        "destination": Param("", type="string"),
        "temp_dir": Param("", type="string"),
    },
)
def many_videos() -> None:
    @task(**RETRIES)
    def prompts(**context: Any) -> list[str]:
        return list(context["params"]["prompts"])

    @task_group
    def video(prompt: str) -> None:
        generate = VideoGenerateOperator(
            task_id="generate",
            prompt=prompt,
            model="veo3.1-fast",
            deferrable=True,
            poll_interval=3,
            schedule="fixed",
            timeout=900,
            unreachable_after=300,
            **RETRIES,
        )
        VideoDownloadOperator(
            task_id="download",
            video=generate.output,
            destination="{{ params.destination }}",
            temp_dir="{{ params.temp_dir }}",
            timeout=120,
            **RETRIES,
        )

    video.expand(prompt=prompts())


many_videos()
