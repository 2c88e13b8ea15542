"""A parent whose retries clear the child's Dag run, without any person."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import Param, dag

from airflow_video_provider.operators.video import VideoGenerateOperator

try:
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
except ImportError:  # 2.11
    from airflow.operators.trigger_dagrun import TriggerDagRunOperator

PROMPT = Param("", type="string")


@dag(schedule=None, catchup=False, params={"prompt": PROMPT})
def reset_child() -> None:
    VideoGenerateOperator(
        task_id="film",
        prompt="{{ params.prompt }}",
        model="sora-2",
        deferrable=True,
        poll_interval=1,
        schedule="fixed",
    )


@dag(schedule=None, catchup=False, params={"prompt": PROMPT})
def reset_by_a_parent() -> None:
    TriggerDagRunOperator(
        task_id="child",
        trigger_dag_id="reset_child",
        trigger_run_id="of_the_parent",
        conf={"prompt": "{{ params.prompt }}"},
        reset_dag_run=True,
        wait_for_completion=True,
        poke_interval=1,
        allowed_states=["success"],
        failed_states=["failed"],
        retries=2,
        retry_delay=timedelta(seconds=1),
    )


reset_child()
reset_by_a_parent()
