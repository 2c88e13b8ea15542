"""Generate a video, let a person look at it, and publish it only once it is approved. Airflow 3.1 and later.

Set up the connection `video_default` (type "Video gateway"). The video lands where reviewers can read and
the public cannot; the Dag then waits, without a worker, for an answer under "Required Actions" in Airflow's
UI. "Reject" skips the rest; the video stays in the review directory, and is not paid for again.

What is published is a copy of the file that was reviewed: the gateway's own link may have expired by then.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import ObjectStoragePath, Param, dag, task
from airflow.providers.standard.operators.hitl import ApprovalOperator

from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator


@dag(
    schedule=None,
    catchup=False,
    default_args={"retries": 5, "retry_delay": timedelta(minutes=1)},  # they re-attach, and cost nothing
    params={
        "prompt": Param("A heron lifts off from a still lake", type="string", minLength=1),
        "review": Param("file:///tmp/videos/review/", type="string"),
        "published": Param("file:///tmp/videos/published/", type="string"),
    },
    tags=["video"],
)
def video_approve_before_publishing() -> None:
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
        destination="{{ params.review }}",
    )
    approve = ApprovalOperator(
        task_id="approve",
        subject="Publish this video?",
        body="""
{{ params.prompt }}

{% set landed = ti.xcom_pull(task_ids="download") %}
`{{ landed.uri }}`, {{ landed.duration }} s, {{ landed.width }} x {{ landed.height }}
""",
        response_timeout=timedelta(days=3),
        retries=0,  # nobody is asked twice
    )

    @task
    def publish(landed: dict[str, Any], **context: Any) -> str:
        name = landed["uri"].rpartition("/")[2]
        published = ObjectStoragePath(context["params"]["published"]) / name
        published.parent.mkdir(parents=True, exist_ok=True)
        (ObjectStoragePath(context["params"]["review"]) / name).copy(published)
        return str(published)

    download >> approve >> publish(download.output)


video_approve_before_publishing()
