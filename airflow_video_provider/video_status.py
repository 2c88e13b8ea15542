"""What the operators leave for Airflow's UI: one XCom, ``video_status``, of plain JSON.

Airflow's own tables tell the state of a task; this tells what it is about. The operators write it once they
know a video's id, and once more where they end badly (generate, sensor) or in any way (download, lists).
Keys, tokens and signed URLs are in none of its fields. A UI without it shows less, so that nothing here
raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import wraps
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeGuard, TypeVar, get_args

from airflow.providers.common.compat.sdk import AirflowException

__all__ = [
    "KEY",
    "Kind",
    "VideoStatus",
    "download_status",
    "failures_told",
    "list_status",
    "tell",
    "usage_of",
]

#: The XCom's key.
KEY = "video_status"
#: Videos of a list that are told of, and characters of a prompt in it: the XCom is read for every gallery.
MOST_ITEMS = 500
LONGEST_PROMPT = 1000

#: What is told of a file in any case, and which facts are numbers; the others are texts or yes or no, but
#: for ``usage``.
_FILE = {"uri", "size", "sha256"}
_NUMBERS = {"size", "duration", "width", "height", "fps", "seconds"}

Kind = Literal["generate", "wait", "download"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class VideoStatus:
    """What a task instance is about.

    :param kind: what the task does: ``generate``, ``wait`` (the sensor) or ``download``.
    :param video_id: the gateway's task; None before there is one, and for a download of several.
    :param conn_id: the connection of the gateway.
    :param model: as it was asked for.
    :param prompt: as it was asked for.
    :param submitted_at: seconds since the epoch, where this task submitted it.
    :param console_url: the gateway's page about it, where the connection has a ``console_url``.
    :param failure: why the attempt failed, what became of the video and what a retry does, as the exception
        says it.
    :param files: what landed, each with the facts of the download's result, and
        ``prompt``, ``model``, ``usage`` and ``console_url`` where the download was told of them.
    :param missed: of a download of several, what did not land: ``video_id`` and ``error``.
    :param items: of a list that is generated or waited for, each video: ``video_id``, ``prompt``, ``model``,
        ``state`` as the gateway has told it, and ``error`` for one that failed.
    :param unlisted: how many more the list has.
    """

    kind: Kind
    video_id: str | None = None
    conn_id: str | None = None
    model: str | None = None
    prompt: str | None = None
    submitted_at: float | None = None
    console_url: str | None = None
    failure: str | None = None
    files: tuple[dict[str, Any], ...] = ()
    missed: tuple[dict[str, Any], ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    unlisted: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, without what is not known."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value not in (None, ())
        }

    @classmethod
    def from_json(cls, value: object) -> Self | None:
        """The counterpart of :meth:`as_json`; None for what is none. Anybody can write an XCom."""
        if not isinstance(value, Mapping) or value.get("kind") not in get_args(Kind):
            return None
        told: dict[str, Any] = {"kind": value["kind"]}
        for field in fields(cls):
            found = value.get(field.name)
            if field.name in {"files", "missed", "items"}:
                items = found if isinstance(found, list | tuple) else ()
                told[field.name] = tuple(_facts(item) for item in items if isinstance(item, Mapping))
            elif field.name == "submitted_at":
                if _is_number(found) and 0 <= found < 1e11:
                    told[field.name] = float(found)
            elif field.name == "unlisted":
                if _is_number(found) and isinstance(found, int):
                    told[field.name] = found
            elif isinstance(found, str):
                told[field.name] = found
        told["files"] = tuple(file for file in told["files"] if file.keys() >= _FILE)
        return cls(**told)


def usage_of(value: object) -> dict[str, float] | None:
    """The numbers of a ``usage``; None where there are none."""
    if not isinstance(value, Mapping):
        return None
    return {str(name): number for name, number in value.items() if _is_number(number)} or None


def _is_number(value: object) -> TypeGuard[int | float]:
    """One that a page can show: JSON as Python reads it has NaN, infinity and integers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def _facts(told: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of one video, without what is not of the kind that it ought to be."""
    usage = usage_of(told.get("usage"))
    facts = {
        name: value
        for name, value in told.items()
        if (_is_number(value) if name in _NUMBERS else name != "usage" and isinstance(value, str | bool))
    }
    return facts if usage is None else {**facts, "usage": usage}


def list_status(status: VideoStatus, videos: Sequence[Mapping[str, Any]]) -> VideoStatus:
    """What a list that is generated or waited for has come to.

    :param status: of the task, as it is told before there is a video.
    :param videos: in order, each as the XCom of the list has it, as far as it is known by now.
    """
    items = []
    for video in videos[:MOST_ITEMS]:
        error = None if video.get("end") in {"succeeded", "left"} else video.get("message")
        prompt = video.get("prompt")
        told = {
            "video_id": video.get("video_id"),
            "prompt": prompt[:LONGEST_PROMPT] if isinstance(prompt, str) else None,
            "model": video.get("model"),
            "state": video.get("state"),
            "error": error,
        }
        items.append({name: value for name, value in told.items() if value is not None})
    return replace(status, items=tuple(items), unlisted=max(len(videos) - MOST_ITEMS, 0) or None)


def download_status(
    conn_id: str,
    outcomes: Iterable[tuple[str, Any]],
    told: Mapping[str, Mapping[str, Any]],
    *,
    several: bool,
    page: Callable[[str], str | None] = lambda _: None,
) -> VideoStatus:
    """What a download has come to.

    :param outcomes: a video id and its :class:`~airflow_video_provider.media.VideoFile`, or the exception,
        for each file.
    :param told: by video id, the XCom of the task that waited for it; empty where only the id was given.
    :param several: whether there may be several files, some of which land and others not.
    :param page: the gateway's own page about a video.
    """
    status = VideoStatus("download", conn_id=conn_id)
    files, missed = [], []
    outcomes = list(outcomes)
    for video_id, outcome in outcomes:
        if isinstance(outcome, Exception):
            missed.append({"video_id": video_id, "error": str(outcome)})
            continue
        known = {name: told[video_id].get(name) for name in ("prompt", "model", "usage")}
        known["console_url"] = page(video_id)
        files.append({**outcome.as_dict(), **{name: value for name, value in known.items() if value}})
    if not several and len(outcomes) == 1:
        ((video_id, _),) = outcomes
        prompt, model = told[video_id].get("prompt"), told[video_id].get("model")
        status = replace(status, video_id=video_id, console_url=page(video_id), prompt=prompt, model=model)
    return replace(status, files=tuple(files), missed=tuple(missed) if several else ())


class _Operator(Protocol):
    task_id: str
    do_xcom_push: bool

    @property
    def log(self) -> Any: ...

    def ui_status(self) -> VideoStatus: ...


def tell(operator: _Operator, ti: Any, status: VideoStatus) -> None:
    """Push the XCom. What prevents it is logged: no video fails for want of a line in the UI."""
    if not operator.do_xcom_push:
        return
    try:
        ti.xcom_push(key=KEY, value=status.as_json())
    except Exception as error:  # whatever Airflow's API and an XCom backend raise
        operator.log.warning("the XCom %s, which Airflow's UI shows, could not be pushed: %r", KEY, error)


def failures_told(method: Callable[P, T]) -> Callable[P, T]:
    """Have a method of an operator, whose context is its first argument, tell the UI why it failed.

    The operator's ``ui_status()`` says what the task is about where this attempt has told nothing yet.
    """

    @wraps(method)
    def telling(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except AirflowException as error:
            if hasattr(error, "reschedule_date"):  # a sensor's way of waiting, which is an exception, too
                raise
            operator: Any = args[0]
            context: Any = args[1] if len(args) > 1 else kwargs["context"]
            ti = context["ti"]
            tell(operator, ti, replace(_told_before(operator, ti), failure=str(error)))
            raise

    return telling


def _told_before(operator: _Operator, ti: Any) -> VideoStatus:
    """What this attempt has told; an attempt begins without XComs."""
    if not operator.do_xcom_push:
        return operator.ui_status()
    try:
        stored = ti.xcom_pull(task_ids=operator.task_id, key=KEY, map_indexes=ti.map_index)
    except Exception as error:  # as in tell(): what failed is more important than this
        operator.log.warning("the XCom %s could not be read: %r", KEY, error)
        stored = None
    return VideoStatus.from_json(stored) or operator.ui_status()
