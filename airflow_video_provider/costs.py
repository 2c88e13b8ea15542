"""What a video cost, once it has ended: one line in the task's log, and Airflow's metrics.

====================================  =======  ==========================================================
metric                                kind     counts
====================================  =======  ==========================================================
``video_gateway.videos``              counter  videos that ended, by ``state``
``video_gateway.usage.NAME``          counter  the sum of one number of the gateway's ``usage``
====================================  =======  ==========================================================

Tags are ``conn_id`` and ``model``, and ``state`` for the first. A number keeps the gateway's name for it
(``cost``, ``quota``, ``duration_seconds``): no currency is made up, and a sum means something within one
gateway only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["report_end"]

PREFIX = "video_gateway"


def report_end(task: Mapping[str, Any] | None, *, conn_id: str, model: str | None, log: Any) -> None:
    """Log and count a video that has ended. It raises nothing: a metric must not fail a video that is paid.

    :param task: the task as plain JSON; None where it was never seen.
    :param model: for a gateway that does not tell it.
    :param log: the task's.
    """
    if not task:
        return
    usage: Mapping[str, int | float] = task.get("usage") or {}
    if usage:
        log.info(
            "video %s used, as the gateway tells: %s",
            task.get("video_id"),
            ", ".join(f"{name} {number:g}" for name, number in usage.items()),
        )
    tags = {"conn_id": _tag(conn_id), "model": _tag(task.get("model") or model)}
    try:
        from airflow.providers.common.compat.sdk import Stats

        Stats.incr(f"{PREFIX}.videos", tags={**tags, "state": _tag(task.get("state"))})
        for name, number in usage.items():
            if number > 0:  # a counter only counts up
                # Airflow's signature says int; its backends add what they get.
                Stats.incr(f"{PREFIX}.usage.{name}", number, tags=tags)  # type: ignore[arg-type,unused-ignore]
    except Exception as error:  # whatever a metrics backend raises
        log.debug("what the video cost could not be counted: %r", error)


def _tag(value: object) -> str:
    """A value that every backend takes: models have names such as ``kling/v2,5``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", str(value or "unknown"))[:100]
