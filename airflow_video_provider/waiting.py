"""What operators, sensor and trigger share in reading their arguments and in waiting."""

from __future__ import annotations

import ast
import contextlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.watch import URL_ASKS

if TYPE_CHECKING:
    from airflow_video_provider.gateway.client import GatewaySettings

#: How much later than the trigger's own deadline Airflow ends a deferral: only for a triggerer that is gone.
SAFETY_NET = timedelta(minutes=15)
#: Seconds: a deferral that ends sooner can be failed by the scheduler of LocalExecutor (2.11 and 3.3).
SHORTEST_DEFERRAL = 5.0


def first_poll_at(interval: float) -> float:
    """When a trigger may ask first, in seconds since the epoch."""
    return time.time() + max(interval, SHORTEST_DEFERRAL)


def utc(seconds: float) -> str:
    """A time as it stands in logs and messages: ISO 8601, UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")


def check_seconds(name: str, value: timedelta | float, *, least: float = 0) -> float:
    """Seconds from an argument that may be a timedelta.

    :raises ValueError: naming the argument; while the Dag is parsed, so before anything is paid.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds <= 10**9:
        raise ValueError(f"{name}: {value!r} must be a number of seconds, at least {least:g}, or a timedelta")
    return float(seconds)


def video_id_of(video: object) -> str:
    """The gateway's id from what users pass: an id, a task's XCom, or that XCom as text.

    Jinja renders it as Python writes it, or as JSON (``| tojson``).

    :raises InvalidRequestError: there is no id in it.
    """
    if isinstance(video, str) and video.lstrip().startswith("{"):
        text = video
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError):
                video = read(text)
                break
    if isinstance(video, Mapping):
        video = video.get("video_id")
    if not isinstance(video, str) or not video.strip() or video.strip() == "None":
        raise InvalidRequestError(
            f"video id: there is none in {video!r}; give the gateway's task id, or the XCom of the task that "
            "submitted it"
        )
    return video.strip()


def url_asks(settings: GatewaySettings) -> int:
    """How many more times to ask a finished task for its URL; see :class:`TaskWatch`."""
    return URL_ASKS if settings.spoken.url_in_reply else 0


def poll_every(settings: GatewaySettings, interval: float) -> float:
    """Seconds between two queries of a task: what the user asks for, and no less than the gateway does."""
    return max(interval, settings.spoken.poll_floor)
