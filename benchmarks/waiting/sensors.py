"""The row of a whole Airflow: from "completed" at the gateway to success of the task.

A scheduler, a triggerer and workers; twenty mapped waits of 20 to 60 s, of a model that nothing is known of,
with our sensor and with those of the http and dbt-cloud providers, each with its defaults, one kind after the
other. The gateway notes when it first answered that a task is completed: what passed before that is the
sensor's doing, what passed after it is Airflow's own.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.waiting.control import MeasuredGateway
from scripts.local_airflow import LocalAirflow

__all__ = ["sensors"]

Record = dict[str, Any]
WAITS = 20
DAGS = f"""
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow.providers.dbt.cloud.sensors.dbt import DbtCloudJobRunSensor
from airflow.providers.http.sensors.http import HttpSensor
from airflow_video_provider.sensors.video import VideoTaskSensor

def numbers(first):
    return range(first, first + {WAITS})

with DAG("ours", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks={WAITS}):
    VideoTaskSensor.partial(task_id="wait", video_conn_id="gateway", deferrable=True).expand(
        video_id=[str(number) for number in numbers(1000)]
    )
with DAG("http", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks={WAITS}):
    HttpSensor.partial(task_id="wait", http_conn_id="wait_http", deferrable=True).expand(
        endpoint=[f"http/{{number}}" for number in numbers(2000)]
    )
with DAG("dbt", schedule=None, start_date=datetime(2026, 1, 1), catchup=False, max_active_tasks={WAITS}):
    DbtCloudJobRunSensor.partial(task_id="wait", dbt_cloud_conn_id="wait_dbt", deferrable=True).expand(
        run_id=list(numbers(3000))
    )
"""
#: By their Dags: how the tables name them, and the number of the first task.
SENSORS = {
    "ours": ("`VideoTaskSensor`", 1000),
    "dbt": ("`DbtCloudJobRunSensor`", 3000),
    "http": ("`HttpSensor`", 2000),
}


def sensors(folder: Path, gateway: MeasuredGateway, quick: bool, python: str) -> Iterator[Record]:
    """The sensors one after the other; a task begins with the first query of it."""
    dags = folder / "dags"
    dags.mkdir()
    (dags / "waiting.py").write_text(DAGS)
    airflow = LocalAirflow(home=folder / "home", dags_folder=dags, env=gateway.environment(), python=python)
    with airflow:
        for dag_id in ("ours",) if quick else SENSORS:
            gateway.ask(
                plan={"shortest": 20.0, "longest": 60.0, "from_number": False, "model": "a-new-model"}
            )
            run = airflow.run(dag_id, timeout=240)
            yield _figures(airflow, gateway, dag_id, run.run_id)


def _figures(airflow: LocalAirflow, gateway: MeasuredGateway, dag_id: str, run_id: str) -> Record:
    label, first = SENSORS[dag_id]
    told, counts = gateway.ask(told=True), gateway.ask()
    rows = airflow.query(
        "SELECT map_index, state, end_date FROM task_instance WHERE dag_id = ? AND run_id = ?", dag_id, run_id
    )
    seen, own, whole = [], [], []
    for row in rows:
        if row["state"] != "success":
            continue
        completed, first_told = told[str(first + row["map_index"])]
        success = datetime.fromisoformat(str(row["end_date"])).replace(tzinfo=UTC).timestamp()
        seen.append(first_told - completed)
        own.append(success - first_told)
        whole.append(success - completed)
    return {
        "who": label,
        "succeeded": len(whole),
        "detection_median": statistics.median(seen),
        "detection_most": max(seen),
        "airflow_median": statistics.median(own),
        "whole_median": statistics.median(whole),
        "whole_most": max(whole),
        "polls_per_video": counts["requests"] / WAITS,
        "connections": counts["accepted"],
    }
