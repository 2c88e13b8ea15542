"""What Airflow's database knows of videos: task instances, their XCom ``video_status``, waiting triggers.

Read by the api-server alone. Columns are selected, not objects: a gallery is some hundred rows, and an object
of Airflow's models brings others with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import and_, select

from airflow_video_provider.video_status import KEY, VideoStatus

__all__ = ["Recorded", "TaskKey", "Wait", "recorded", "returned", "rows_of", "stored_status"]

#: What a download task is called in Airflow's database, one of a derived class as well.
DOWNLOAD = "VideoDownloadOperator"
#: Of the triggers that wait for videos. That of a list names none in its row.
TRIGGERS = tuple(
    f"airflow_video_provider.triggers.{name}"
    for name in (
        "video.VideoTaskTrigger",
        "video_list.VideoTaskListTrigger",
        "video_templated.TemplatedVideoTaskTrigger",
    )
)

_TI = TaskInstance.__table__.c
_XCOM = XComModel.__table__.c
_OF_ONE = ("dag_id", "run_id", "task_id", "map_index")


@dataclass(frozen=True)
class TaskKey:
    """Which task instance; *map_index* is -1 for one that is not mapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1


@dataclass(frozen=True)
class Wait:
    """A wait in the triggerer, as its row tells. Times are seconds since the epoch.

    :param video_id: None for a list of videos, and for a template that the triggerer renders.
    :param conn_id: None for such a template.
    :param polled_every: the shortest and the longest time between two queries, in seconds.
    :param is_taken: whether a triggerer has it.
    """

    video_id: str | None
    conn_id: str | None
    submitted_at: float | None
    deadline: float | None
    first_poll_at: float
    polled_every: tuple[float, float]
    is_taken: bool


@dataclass(frozen=True)
class Recorded:
    """A task instance that may be about a video.

    :param label: the mapped index as Airflow's grid shows it.
    :param recorded_at: when the status was pushed.
    """

    key: TaskKey
    operator: str
    state: str | None
    try_number: int
    max_tries: int
    label: str | None
    started_at: datetime | None
    ended_at: datetime | None
    status: VideoStatus | None
    recorded_at: datetime | None
    wait: Wait | None = None


def recorded(key: TaskKey) -> Recorded | None:
    """Read one task instance; None where there is no such."""
    own = (_TI.dag_id == key.dag_id, _TI.run_id == key.run_id)
    statement = _select(outer=True).where(*own, _TI.task_id == key.task_id, _TI.map_index == key.map_index)
    with create_session(scoped=False) as session:
        row = session.execute(statement).first()
        if row is None:
            return None
        waits = session.get(Trigger, row.trigger_id) if row.trigger_id is not None else None
        return _recorded(row, _wait(waits))


def rows_of(dag_id: str, run_id: str | None = None, *, limit: int) -> list[Recorded]:
    """Read what a Dag, or one of its runs, has recorded of videos, the newest first.

    :param limit: how many videos: the record of a list has hundreds.
    """
    statement = _select(outer=False).where(_XCOM.key == KEY, _XCOM.dag_id == dag_id)
    if run_id is not None:
        statement = statement.where(_XCOM.run_id == run_id)
    statement = statement.order_by(_XCOM.timestamp.desc(), _XCOM.map_index.desc()).limit(limit)
    rows: list[Recorded] = []
    with create_session(scoped=False) as session:
        for row in session.execute(statement.execution_options(yield_per=100)):
            rows.append(_recorded(row))
            limit -= max(1, len(rows[-1].status.items) if rows[-1].status else 0)
            if limit <= 0:
                break
    return rows


def returned(key: TaskKey) -> dict[str, Any]:
    """What a task instance returned; {} where that is no JSON object."""
    value = _xcom(key, "return_value")
    return value if isinstance(value, dict) else {}


def stored_status(dag_id: str, run_id: str, task_id: str, map_index: int) -> Any:
    """The XCom ``video_status`` of a task instance as it is stored; None where there is none."""
    return _xcom(TaskKey(dag_id, run_id, task_id, map_index), KEY)


def _xcom(key: TaskKey, name: str) -> Any:
    own = [_XCOM[column] == getattr(key, column) for column in _OF_ONE]
    with create_session(scoped=False) as session:
        return _decoded(session.scalar(select(_XCOM.value).where(*own, _XCOM.key == name)))


def _select(*, outer: bool) -> Any:
    same = and_(_XCOM.key == KEY, *(_TI[column] == _XCOM[column] for column in _OF_ONE))
    tables = TaskInstance.__table__.join(XComModel.__table__, same, isouter=outer)
    columns = (
        *(_TI[column] for column in _OF_ONE),
        *(_TI[column] for column in ("operator", "state", "try_number", "max_tries", "rendered_map_index")),
        _TI.custom_operator_name,
        *(_TI[column] for column in ("start_date", "end_date", "trigger_id")),
        _XCOM.value,
        _XCOM.timestamp,
    )
    return select(*columns).select_from(tables)


def _recorded(row: Any, wait: Wait | None = None) -> Recorded:
    return Recorded(
        key=TaskKey(row.dag_id, row.run_id, row.task_id, row.map_index),
        operator=row.operator or "",
        state=row.state,
        try_number=row.try_number,
        max_tries=row.max_tries,
        label=row.rendered_map_index,
        started_at=row.start_date,
        ended_at=row.end_date,
        status=_status(row),
        recorded_at=row.timestamp,
        wait=wait,
    )


def _status(row: Any) -> VideoStatus | None:
    """What a task tells of its videos. Any task can push this XCom: of files, only a download can tell."""
    status = VideoStatus.from_json(_decoded(row.value))
    is_download = DOWNLOAD in (row.operator, row.custom_operator_name)
    tells_files = status is not None and (status.kind == "download" or bool(status.files))
    return None if tells_files and not is_download else status


def _decoded(value: Any) -> Any:
    """An XCom's value: Airflow stores JSON as JSON, or as a text of JSON, by who pushed it."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _wait(trigger: Trigger | None) -> Wait | None:
    if trigger is None or trigger.classpath not in TRIGGERS:
        return None
    kwargs = trigger.kwargs
    shortest, longest = (kwargs.get("poll_interval"), kwargs.get("max_poll_interval"))
    return Wait(
        video_id=_rendered(kwargs.get("video_id")),
        conn_id=_rendered(kwargs.get("video_conn_id")),
        submitted_at=next(_numbers(kwargs.get("submitted_at")), None),
        deadline=next(_numbers(kwargs.get("deadline")), None),
        first_poll_at=next(_numbers(kwargs.get("first_poll_at")), 0.0),
        polled_every=(next(_numbers(shortest), 10.0), next(_numbers(longest, shortest), 10.0)),
        is_taken=trigger.triggerer_id is not None,
    )


def _rendered(value: object) -> str | None:
    return value if isinstance(value, str) and "{{" not in value else None


def _numbers(*values: object) -> Iterator[float]:
    return (float(value) for value in values if isinstance(value, int | float))
