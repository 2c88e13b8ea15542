"""Videos that never end, for a person to kill: waited for in a worker and in the triggerer."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_video_provider.operators.video import VideoGenerateOperator


@dag(schedule=None, catchup=False)
def killed_videos() -> None:
    for task_id, deferrable in (("in_a_worker", False), ("in_the_triggerer", True), ("cleared", True)):
        VideoGenerateOperator(
            task_id=task_id,
            prompt=f"a moth {task_id} [never]",
            model="sora-2",
            video_conn_id="video_openai",
            deferrable=deferrable,
            poll_interval=1,
            schedule="fixed",
            cancel_on_kill=True,
        )


killed_videos()
