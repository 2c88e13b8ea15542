"""`@task.video`, found by its name in the provider's metadata: mapped, deferred, with and without a dict."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import dag, task

WAYS = {
    "model": "veo3.1-fast",
    "deferrable": True,
    "poll_interval": 1,
    "schedule": "fixed",
    "retries": 3,
    "retry_delay": timedelta(seconds=1),
}


@dag(schedule=None, catchup=False)
def decorated_videos() -> None:
    @task
    def fruits() -> list[str]:
        return ["a fig", "a kumquat"]

    @task.video(**WAYS, map_index_template="{{ ti.task.prompt | truncate(60) }}")
    def mapped(fruit: str) -> str:
        return f"{fruit} rolls off a table"

    @task.video(**WAYS)
    def described(*, run_id: str) -> dict[str, Any]:
        # A template that comes from outside must arrive as it is.
        return {"prompt": f"{{{{ ds }}}} a medlar in {run_id}", "model": "sora-2", "seconds": 10}

    mapped.expand(fruit=fruits())
    described()


decorated_videos()
