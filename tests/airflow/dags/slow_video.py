"""Videos that take longer than the first wait, and one attempt that dies of it."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_video_provider.operators.video import VideoGenerateOperator


@dag(
    schedule=None,
    catchup=False,
    params={"ledger": Param("", type="string"), "timeout": Param(600, type="number")},
)
def slow_video() -> None:
    VideoGenerateOperator(
        task_id="patient",
        prompt="a snail [time=20]",
        model="veo3.1-fast",
        deferrable=True,
        poll_interval=1,
        schedule="fixed",
    )
    VideoGenerateOperator(
        task_id="hasty",
        # The triggerer that the test restarts may be a quarter of a minute away.
        prompt="a snail in haste [time=40]",
        model="sora-2",
        deferrable=True,
        poll_interval=1,
        schedule="fixed",
        timeout=7,
        retries=60,
        retry_delay=timedelta(seconds=1),
        ledger_path="{{ params.ledger }}",
    )


slow_video()
