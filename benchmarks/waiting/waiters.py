"""Who waits: our trigger and those of other providers, each their own class, made for a task of the gateway.

Nothing is imported before a waiter is asked for: a process measures one of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LIST", "MODEL", "WAITERS", "Waiter", "list_trigger"]

#: Seconds from now until which a wait may last: longer than any row.
_LONG = 7200.0
#: Of the videos that end while they are measured.
MODEL = "grok-video-3"


@dataclass(frozen=True)
class Waiter:
    """One kind of wait.

    :param label: how the tables name it.
    :param trigger: makes the trigger of a task from its number and the seconds between its queries.
    :param succeeded: whether the payload of its event says that the task succeeded.
    :param without: modules that are not to be found in its process.
    """

    label: str
    trigger: Callable[[int, float], Any]
    succeeded: Callable[[Any], bool]
    without: tuple[str, ...] = ()


def _video(number: int, interval: float, *, first_poll_in: float, **more: Any) -> Any:
    from airflow_video_provider.triggers.video import VideoTaskTrigger

    now = time.time()
    return VideoTaskTrigger(
        video_conn_id="gateway",
        video_id=str(number),
        poll_interval=interval,
        deadline=now + _LONG,
        first_poll_at=now + first_poll_in,
        **more,
    )


def _fixed(number: int, interval: float) -> Any:
    """As the sensor defers, which has queried once."""
    return _video(number, interval, first_poll_in=interval, schedule="fixed")


def _adaptive(number: int, interval: float) -> Any:
    """As the generate operator defers, right after the submission, knowing nothing but the model."""
    from airflow_video_provider.gateway.durations import expected_of_family
    from airflow_video_provider.gateway.pace import Schedule

    first = Schedule(interval).delay(0.0, expected_of_family(MODEL))
    return _video(number, interval, first_poll_in=first, submitted_at=time.time(), model=MODEL)


def list_trigger(numbers: Sequence[int], interval: float) -> Any:
    """One trigger for many tasks, its ids at hand instead of in an XCom, which takes a whole Airflow."""
    from airflow_video_provider.triggers.video_list import VideoTaskListTrigger

    class AtHand(VideoTaskListTrigger):
        async def _entries(self) -> list[Any]:
            return [str(number) for number in numbers]

    return AtHand(
        video_conn_id="gateway",
        video_ids={},
        poll_interval=interval,
        schedule="fixed",
        deadline=time.time() + _LONG,
        first_poll_at=time.time() + interval,
    )


def _http(number: int, interval: float) -> Any:
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    return HttpSensorTrigger(endpoint=f"http/{number}", http_conn_id="wait_http", poke_interval=interval)


def _dbt(number: int, interval: float) -> Any:
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    return DbtCloudRunJobTrigger(
        conn_id="wait_dbt",
        run_id=number,
        end_time=time.time() + _LONG,
        poll_interval=interval,
        account_id=None,
    )


def _databricks(number: int, interval: float) -> Any:
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

    # It takes whole seconds by its annotation, and sleeps for what it is given.
    period: Any = interval
    return DatabricksExecutionTrigger(
        run_id=number, databricks_conn_id="wait_databricks", polling_period_seconds=period
    )


def _batch(number: int, interval: float) -> Any:
    from airflow.providers.common.ai.triggers.llm_batch import LLMBatchTrigger

    period: Any = interval
    return LLMBatchTrigger(
        llm_conn_id="wait_batch",
        adapter="openai",
        batch_id=f"batch_{number}",
        poll_interval=period,
        end_time=time.time() + _LONG,
        cancel_on_kill=False,
        cancel_on_timeout=False,
    )


def _says(key: str, word: str) -> Callable[[Any], bool]:
    return lambda payload: word in str(payload[key])


_SUCCEEDED = _says("end", "succeeded")
_WITHOUT_FAST = ("httpx_aiohttp",)
#: The waiter that is one trigger for all tasks.
LIST = "ours-list"
WAITERS = {
    "ours": Waiter("ours, `fast`", _fixed, _SUCCEEDED),
    "ours-httpx": Waiter("ours, without `fast`", _fixed, _SUCCEEDED, _WITHOUT_FAST),
    "ours-adaptive": Waiter("ours, `fast`", _adaptive, _SUCCEEDED),
    LIST: Waiter("one list trigger, `fast`", lambda number, interval: list_trigger([number], interval), bool),
    "http": Waiter("`HttpSensorTrigger`", _http, bool),
    "dbt": Waiter("`DbtCloudRunJobTrigger`", _dbt, _says("status", "success")),
    "databricks": Waiter("`DatabricksExecutionTrigger`", _databricks, _says("run_state", "SUCCESS")),
    "common-ai": Waiter("`LLMBatchTrigger` (common-ai)", _batch, _says("status", "success")),
}
"""By the names that an order knows."""
