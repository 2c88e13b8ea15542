"""Land a video in S3, or in anything that speaks S3 (MinIO, Ceph, R2, ...).

Set up two connections: `video_default` (type "Video gateway"), and `aws_default` (type "Amazon Web
Services"; for other stores than AWS with `{"endpoint_url": "https://..."}` as extra). Install the
package with its extra: `pip install "airflow-video-provider[s3]"`.

The bucket's readers never see half a file: the object appears once it is whole.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1)},  # they re-attach, and cost nothing
    params={
        "prompt": Param("A glass of water, sunlight moving through it", type="string", minLength=1),
        "destination": Param("s3://aws_default@my-bucket/videos/", type="string"),
    },
    tags=["video"],
)
def video_land_in_s3() -> None:
    generate = VideoGenerateOperator(
        task_id="generate",
        prompt="{{ params.prompt }}",
        model="veo3.1-fast",
        aspect_ratio="16:9",
        deferrable=True,
        max_poll_interval=10,  # the sandbox is quicker than any model: leave it out for a real gateway
    )
    download = VideoDownloadOperator(
        task_id="download",
        video=generate.output,
        destination="{{ params.destination }}",
    )

    @task
    def use(landed: dict[str, str]) -> str:
        """What comes next: `landed` also holds size, sha256, content_type and video_id."""
        return landed["uri"]

    use(download.output)


video_land_in_s3()
