"""What a video cost, once it has ended: one line in the task's log, and Airflow's metrics.

The counters are in the table of :mod:`~airflow_video_provider.metrics`. A number keeps the gateway's name for
it (``cost``, ``quota``, ``duration_seconds``): no currency is made up, and a sum means something within one
gateway only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_video_provider.metrics import count, tag

__all__ = ["report_end", "report_ends"]


def report_end(task: Mapping[str, Any] | None, *, conn_id: str, model: str | None, log: Any) -> None:
    """Log and count a video that has ended. It raises nothing: a metric must not fail a video that is paid.

    :param task: the task as plain JSON; None where it was never seen.
    :param model: for a gateway that does not tell it.
    :param log: the task's.
    """
    if task:
        _log(f"video {task.get('video_id')}", _count(task, conn_id, model), log)


def report_ends(
    tasks: Iterable[Mapping[str, Any] | None], *, conn_id: str, model: str | None, log: Any
) -> None:
    """Log and count the videos of a list, with one line for their sum; see :func:`report_end`."""
    total: Counter[str] = Counter()
    seen = 0
    for task in filter(None, tasks):
        seen += 1
        total.update(_count(task, conn_id, model))
    _log(f"{seen} videos together", total, log)


def _count(task: Mapping[str, Any], conn_id: str, model: str | None) -> Mapping[str, int | float]:
    usage: Mapping[str, int | float] = task.get("usage") or {}
    tags = {"conn_id": tag(conn_id), "model": tag(task.get("model") or model)}
    count("videos", 1, {**tags, "state": tag(task.get("state"))})
    for name, number in usage.items():
        if number > 0:  # a counter only counts up
            count(f"usage.{name}", number, tags)
    return usage


def _log(what: str, usage: Mapping[str, int | float], log: Any) -> None:
    if usage:
        numbers = ", ".join(f"{name} {number:g}" for name, number in usage.items())
        log.info("%s used, as the gateway tells: %s", what, numbers)
