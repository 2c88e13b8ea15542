"""Videos for people to look at: some that land, and on request some that wait or fail."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Param, dag, task, task_group

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor


@dag(
    schedule=None,
    catchup=False,
    params={
        "prompts": Param(["a red kite"], type="array", items={"type": "string"}),
        "model": Param("veo3.1-fast", type="string"),
        "destination": Param("file:///tmp/videos/", type="string"),
    },
)
def ui_films() -> None:
    @task
    def prompts(**context: Any) -> list[str]:
        return list(context["params"]["prompts"])

    @task_group
    def film(prompt: str) -> None:
        generate = VideoGenerateOperator(
            task_id="generate", prompt=prompt, model="{{ params.model }}", deferrable=True, poll_interval=5
        )
        VideoDownloadOperator(
            task_id="download", video=generate.output, destination="{{ params.destination }}"
        )

    film.expand(prompt=prompts())


@dag(schedule=None, catchup=False, params={"destination": Param("file:///tmp/videos/", type="string")})
def ui_one_of_each() -> None:
    submitted = VideoGenerateOperator(
        task_id="submit", prompt="a lantern in the fog", model="veo3.1-fast", wait_for_completion=False
    )
    waited_for = VideoTaskSensor(task_id="wait", video_id=submitted.output, deferrable=True)
    other = VideoGenerateOperator(
        task_id="other", prompt="a boat in the reeds", model="sora-2", deferrable=True
    )
    VideoDownloadOperator(
        task_id="several",
        videos=[waited_for.output, other.output],
        destination="{{ params.destination }}",
    )
    VideoGenerateOperator(
        task_id="slow", prompt="a glacier [time=600]", model="sora-2", deferrable=True, poll_interval=5
    )
    VideoGenerateOperator(
        task_id="refused", prompt="a riddle [fail]", model="grok-video-3", deferrable=True, max_generations=1
    )

    @task
    def no_video() -> None:
        pass

    no_video()


@dag(schedule=None, catchup=False, params={"destination": Param("file:///tmp/videos/", type="string")})
def ui_lists() -> None:
    how = {"model": "veo3.1-fast", "deferrable": True, "poll_interval": 5, "max_generations": 1}
    listed = VideoGenerateOperator(
        task_id="listed", prompts=["a lighthouse at dawn", "a glass of water", "a fox in the snow"], **how
    )
    VideoDownloadOperator(task_id="land", videos=listed.output, destination="{{ params.destination }}")
    VideoGenerateOperator(task_id="half", prompts=["a heron at a pond", "a riddle [fail]"], **how)
    VideoGenerateOperator(
        task_id="slow",
        prompts=["a glacier [time=600]", "a river of ice [time=900]"],
        **{**how, "model": "sora-2"},
    )

    @task.video(**how)
    def decorated() -> str:
        return "two foxes [videos=2]"

    VideoDownloadOperator(
        task_id="land_all", video=decorated(), all_videos=True, destination="{{ params.destination }}"
    )


ui_films()
ui_lists()
ui_one_of_each()
