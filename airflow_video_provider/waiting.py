"""What operators, sensors and triggers share in reading their arguments."""

from __future__ import annotations

import ast
import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.pace import LONGEST_INTERVAL, LOWEST_INTERVAL, ScheduleMode
from airflow_video_provider.gateway.watch import UNREACHABLE_AFTER, TaskWatch

#: How much later than the trigger's own deadline Airflow ends a deferral: only for a triggerer that is gone.
SAFETY_NET = timedelta(minutes=15)
#: Seconds: a deferral that ends sooner can be failed by the scheduler of LocalExecutor (2.11 and 3.3).
SHORTEST_DEFERRAL = 5.0


@dataclass(frozen=True)
class Waits:
    """How a task waits, as its arguments say; checked while the Dag is parsed, so before anything is paid.

    :param poll_interval: seconds, the lowest interval between two queries of a video.
    :param max_poll_interval: seconds, the longest.
    :param schedule: ``adaptive`` or ``fixed``.
    :param unreachable_after: seconds of failed queries in a row after which to give up.
    """

    poll_interval: float
    max_poll_interval: float
    schedule: ScheduleMode
    unreachable_after: float

    @classmethod
    def of(
        cls,
        *,
        poll_interval: timedelta | float = LOWEST_INTERVAL,
        max_poll_interval: timedelta | float = LONGEST_INTERVAL,
        schedule: ScheduleMode = "adaptive",
        unreachable_after: timedelta | float = UNREACHABLE_AFTER,
        name: str = "poll_interval",
    ) -> Waits:
        """Check the arguments.

        :param name: that the user knows *poll_interval* by.
        :raises ValueError: naming the argument.
        """
        if schedule not in get_args(ScheduleMode):
            raise ValueError(f"schedule: {schedule!r} must be one of {', '.join(get_args(ScheduleMode))}")
        return cls(
            check_seconds(name, poll_interval, least=1),
            check_seconds("max_poll_interval", max_poll_interval, least=1),
            schedule,
            check_seconds("unreachable_after", unreachable_after),
        )

    def of_watch(self) -> dict[str, Any]:
        """As arguments of :func:`~airflow_video_provider.gateway.watch.watch_for`."""
        return {
            "interval": self.poll_interval,
            "max_interval": self.max_poll_interval,
            "mode": self.schedule,
            "unreachable_after": self.unreachable_after,
        }

    def of_list_trigger(self, deadline: float | None) -> dict[str, Any]:
        """As arguments of a trigger that is made now."""
        return {**asdict(self), "deadline": deadline, "first_poll_at": time.time() + SHORTEST_DEFERRAL}

    def of_trigger(self, watch: TaskWatch) -> dict[str, Any]:
        """As arguments of a trigger that goes on with a watch."""
        made_now = self.of_list_trigger(watch.deadline)
        return {
            **made_now,
            "poll_interval": watch.schedule.interval,
            "submitted_at": watch.started_at,
            "model": watch.model,
            "first_poll_at": max(watch.next_at or 0.0, made_now["first_poll_at"]),
        }


def xcom_of(ti: Any, key: str) -> dict[str, Any]:
    """Where an XCom of a task instance is, as what reads it takes it."""
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index,
        "key": key,
    }


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


def value_of_text(text: str) -> Any:
    """What a text holds as JSON or as Python writes it; the text itself where that is nothing."""
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            return read(text)
    return text


def video_id_of(video: object) -> str:
    """The gateway's id from what users pass: an id, a task's XCom, or that XCom as text.

    Jinja renders it as Python writes it, or as JSON (``| tojson``).

    :raises InvalidRequestError: there is no id in it.
    """
    if isinstance(video, str) and video.lstrip().startswith("{"):
        video = value_of_text(video)
    if isinstance(video, Mapping):
        video = video.get("video_id")
    if not isinstance(video, str) or not video.strip() or video.strip() == "None":
        raise InvalidRequestError(
            f"video id: there is none in {video!r}; give the gateway's task id, or the XCom of the task that "
            "submitted it"
        )
    return video.strip()


def submitted(videos: Iterable[Any], log: Any) -> Iterator[tuple[int, Any]]:
    """The entries of a list that are of videos, with their places.

    What a task's XCom list tells of an item that was never submitted is passed over: the task that submits
    has failed for it. Anything else is an entry, also where it is none that can be read.

    :param log: takes a warning for each that is passed over.
    """
    for place, video in enumerate(videos):
        why = _why_not_submitted(video)
        if why is None:
            yield place, video
        else:
            log.warning("entry %d of the list has no video, and is passed over: %s", place, why)


def _why_not_submitted(video: object) -> str | None:
    if isinstance(video, str) and video.lstrip().startswith("{"):
        video = value_of_text(video)
    if not isinstance(video, Mapping) or "video_id" not in video or video["video_id"] is not None:
        return None
    message = video.get("message")
    return message if isinstance(message, str) and message.strip() else None


def video_ids_of(videos: object, log: Any) -> list[str]:
    """The gateway's ids, in order, from what users pass: a list of what :func:`video_id_of` takes, or such a
    list as text.

    The XCom list of a task, and the XComs of a mapped one, are such lists; see :func:`submitted`.

    :param log: takes a warning for each entry that is passed over.
    :raises InvalidRequestError: it is no list, or an entry holds no id.
    """
    read = value_of_text(videos) if isinstance(videos, str) else videos
    if isinstance(read, str | bytes | Mapping) or not isinstance(read, Iterable):
        raise InvalidRequestError(
            f"video_ids: {videos!r} is no list; give the gateway's task ids, or the XComs of the tasks that "
            "submitted them (a template of a mapped task's needs `| list`)"
        )
    ids = []
    for place, video in submitted(read, log):
        try:
            ids.append(video_id_of(video))
        except InvalidRequestError as error:
            raise InvalidRequestError(f"video_ids, entry {place}: {error}") from None
    return ids
