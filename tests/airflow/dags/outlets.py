"""Two videos in one download, told to Airflow as assets."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Asset, AssetAlias, Param, dag

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator


@dag(schedule=None, catchup=False, params={"destination": Param("", type="string")})
def outlets() -> None:
    generate = VideoGenerateOperator.partial(
        task_id="generate", model="grok-video-3", deferrable=True, poll_interval=2, schedule="fixed"
    ).expand(prompt=["a plum", "a quince"])
    VideoDownloadOperator(
        task_id="download",
        videos=generate.output,
        destination="{{ params.destination }}",
        sidecar=True,
        outlets=[Asset("file:///films/plums"), AssetAlias("films")],
    )


outlets()
