"""A sensor whose wait begins in the triggerer, without a worker before it (``start_from_trigger``).

Airflow reads two attributes of the task when it schedules it: ``start_from_trigger`` and
``start_trigger_args``. It renders the trigger's templates in the triggerer from 3.3 on, and never maps them.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, StartTriggerArgs

from airflow_video_provider.waiting import SAFETY_NET, Waits

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseSensorOperator

__all__ = ["start_trigger_args", "why_not_from_trigger"]

_TRIGGER = "airflow_video_provider.triggers.video_templated.TemplatedVideoTaskTrigger"


def why_not_from_trigger(sensor: BaseSensorOperator, video_id: object, conn_id: object) -> str | None:
    """Why Airflow cannot begin the wait in the triggerer; None where it can.

    :param video_id: the template; None for a list of videos.
    :param conn_id: the template of the connection's id.
    """
    if not hasattr(BaseTrigger, "render_template_fields"):
        return "Airflow renders a trigger's templates from 3.3 on"
    if video_id is None:
        return "a list of videos goes to its trigger through an XCom, which a worker writes"
    if _is_mapped(sensor):
        return "Airflow does not do it for mapped tasks"
    if _reads_xcoms(video_id) or _reads_xcoms(conn_id):
        return "Airflow cannot read another task's XCom in the triggerer"
    return None


def _reads_xcoms(template: object) -> bool:
    """Whether a template is an XComArg, or pulls XComs by itself.

    xcom_pull asks for all map indexes, which the triggerer's parent process of 3.3.2 does not understand: the
    rendering waits for an answer for ever.
    """
    return not isinstance(template, str) or ("{" in template and "xcom" in template.lower())


def _is_mapped(sensor: Any) -> bool:
    return bool(getattr(sensor, "_BaseOperator__from_mapped", False)) or (
        sensor.get_closest_mapped_task_group() is not None
    )


def start_trigger_args(sensor: BaseSensorOperator, video_id: object, conn_id: str, waits: Waits) -> Any:
    """The trigger that Airflow itself is to start, with the templates that it renders.

    Nobody knows here when that will be, so the deadline is told as its distance from the end of the deferral,
    which Airflow stores: a triggerer that is restarted finds the same.
    """
    longest = timedelta(seconds=sensor.timeout) + SAFETY_NET
    # Airflow ends the deferral at execution_timeout if that comes first.
    ends_after = min(longest, sensor.execution_timeout or longest)
    return StartTriggerArgs(
        trigger_cls=_TRIGGER,
        trigger_kwargs={
            "video_conn_id": conn_id,
            "video_id": video_id,
            **asdict(waits),
            "deadline_before_end": ends_after.total_seconds() - sensor.timeout,
        },
        next_method="execute_complete",
        timeout=longest,
    )
