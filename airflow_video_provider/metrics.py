"""Airflow's metrics of this package; a backend that fails fails no wait and no video.

====================================  =======  ===========================================================
metric                                kind     measures
====================================  =======  ===========================================================
``video_gateway.polls``               counter  queries that were answered with a task
``video_gateway.poll_errors``         counter  queries that failed, by ``kind`` (``rate_limit``,
                                               ``transport``, …)
``video_gateway.rate_limit_pauses``   counter  times that a connection's queries were stopped by 429 or 503
``video_gateway.waits``               gauge    waits in flight in this process
``video_gateway.detection_delay``     timer    from the end, by the gateway's clock, to the query that finds
                                               it; where the gateway tells the time
``video_gateway.generation_seconds``  timer    from the submission to the end of a video that succeeded, by
                                               ``model``
``video_gateway.videos``              counter  videos that ended, by ``model`` and ``state``
``video_gateway.usage.NAME``          counter  the sum of one number of the gateway's ``usage``, by ``model``
====================================  =======  ===========================================================

All have the tag ``conn_id``. The last two are counted in the worker (:mod:`~airflow_video_provider.costs`),
the others wherever the wait is.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_video_provider.gateway.errors import GatewayError
    from airflow_video_provider.gateway.watch import TaskWatch

__all__ = ["count", "ended", "in_flight", "paused", "polled", "tag"]

PREFIX = "video_gateway"

log = logging.getLogger(__name__)

_in_flight: Counter[str] = Counter()


def count(name: str, number: float, tags: Mapping[str, str]) -> None:
    """Add to a counter."""
    _send("incr", name, number, tags)


def polled(conn_id: str, error: GatewayError | None = None) -> None:
    """Count a query."""
    if error is None:
        count("polls", 1, {"conn_id": tag(conn_id)})
    else:
        count("poll_errors", 1, {"conn_id": tag(conn_id), "kind": str(error.kind)})


def paused(conn_id: str) -> None:
    """Count a stop of all queries of a connection."""
    count("rate_limit_pauses", 1, {"conn_id": tag(conn_id)})


def in_flight(conn_id: str, change: int) -> None:
    """Note that a wait has begun (+1) or ended (-1)."""
    _in_flight[conn_id] += change
    _send("gauge", "waits", _in_flight[conn_id], {"conn_id": tag(conn_id)})


def ended(conn_id: str, model: str | None, watch: TaskWatch) -> None:
    """Measure a wait whose video has ended."""
    if watch.found_after is not None:
        _send("timing", "detection_delay", timedelta(seconds=watch.found_after), {"conn_id": tag(conn_id)})
    if watch.took is not None:
        took = timedelta(seconds=watch.took)
        _send("timing", "generation_seconds", took, {"conn_id": tag(conn_id), "model": tag(model)})


@lru_cache(maxsize=1024)
def tag(value: str | None) -> str:
    """A value that every backend takes: models have names such as ``kling/v2,5``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", value or "unknown")[:100]


def _send(kind: str, name: str, value: Any, tags: Mapping[str, str]) -> None:
    try:
        from airflow.providers.common.compat.sdk import Stats

        getattr(Stats, kind)(f"{PREFIX}.{name}", value, tags=tags)
    except Exception as error:  # whatever a metrics backend raises
        log.debug("%s could not be measured: %r", name, error)
