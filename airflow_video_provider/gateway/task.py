"""The one reading of any reply that speaks of a task.

Gateways differ in *where* a fact lies, not in what it means. So each fact is a row of :data:`_FACTS`: the
places where it may be, in order of preference, and how a value found there is read. The first place that
holds a *readable* value wins; null, "", {}, [] and values of an odd kind do not count as there. A new gateway
is a new place in a row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SkipValidation

from airflow_video_provider.gateway.errors import UnreadableReplyError, fit_to_store
from airflow_video_provider.gateway.state import TaskState

__all__ = ["TaskState", "VideoTask", "read_created_id", "says_something_of_a_task"]


# Every word that is not here, and no word at all, is "running": a word that a gateway invents tomorrow must
# not end a task that is paid for. The deadline ends the waiting.
_STATE_OF_WORD: dict[str, TaskState] = {
    word: state
    for state, words in {
        TaskState.QUEUED: (
            "queued pending submitted not_start initializing created queueing preparing waiting in_queue"
        ),
        TaskState.SUCCEEDED: "completed success succeeded succeed done finished ready",
        TaskState.FAILED: (
            "failed failure fail error video_generation_failed video_upsampling_failed "
            "nsfw rejected not_found"
        ),
        TaskState.CANCELLED: "cancelled canceled deleted",
        TaskState.EXPIRED: "expired",
    }.items()
    for word in words.split()
}
_SUCCEEDED_ONCE_THERE_IS_A_URL = "video_upsampling_completed"


# -- values ------------------------------------------------------------------------------------------------


def _word(value: object) -> str | None:
    """Words of an outer envelope such as 200 or "ok" are no status, so numbers do not count."""
    text = _string(value)
    return None if text is None or text.isdigit() else text


def _string(value: object) -> str | None:
    # JSON can spell half of a surrogate pair, which no database or log can store.
    return value.encode("utf-8", "replace").decode().strip() or None if isinstance(value, str) else None


def _identifier(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    return str(value) if isinstance(value, int) else _string(value)


def _error_code(value: object) -> str | None:
    text = _identifier(value)
    return None if text in {"0", None} else text


_URL = re.compile(r"https?://[^\x00-\x20\x7f\ud800-\udfff]+", re.I)
# What an envelope says beside a failed task inside it.
_NO_REASON = frozenset({"success", "ok", "failed", "failure", "error"})


def _http_url(value: object) -> str | None:
    """Byte for byte as it came: presigned URLs break when ``%2F`` or the query is touched."""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        return None
    try:
        return value if urlsplit(value).hostname else None
    except ValueError:  # an unclosed [ of an IPv6 address
        return None


def _non_loopback_url(value: object) -> str | None:
    url = _http_url(value)
    return None if url and urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"} else url


def _reason(value: object) -> str | None:
    """A URL is no reason: old new-api versions put the finished video's URL into ``fail_reason``."""
    text = _string(value)
    return None if text is None or _http_url(text) or text.lower() in _NO_REASON else fit_to_store(text)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _percent(value: object) -> int | None:
    number = _number(value.strip().removesuffix("%") if isinstance(value, str) else value)
    return None if number is None else round(min(max(number, 0.0), 100.0))


def _fraction(value: object) -> int | None:
    number = _number(value)
    return None if number is None else _percent(number * 100)


def _instant(value: object) -> datetime | None:
    """Seconds, milliseconds (over 1e11) or ISO 8601, mixed within one reply; 0 is none."""
    number = _number(value)
    try:
        if number is not None:
            return (
                datetime.fromtimestamp(number / 1000 if number > 1e11 else number, tz=UTC)
                if number > 0
                else None
            )
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value.strip())
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


# -- places ------------------------------------------------------------------------------------------------

Place = tuple[str | int, ...]
Read = Callable[[object], Any]


def _places(*paths: str) -> tuple[Place, ...]:
    return tuple(tuple(int(step) if step.isdigit() else step for step in path.split(".")) for path in paths)


def _nested(*paths: str) -> tuple[Place, ...]:
    """The same places at the top, under ``data`` and under ``data.data``, outermost first."""
    return tuple(
        (*prefix, *place) for prefix in ((), ("data",), ("data", "data")) for place in _places(*paths)
    )


def _at(body: object, place: Place) -> object:
    for step in place:
        if isinstance(step, int):
            if not isinstance(body, list) or step >= len(body):
                return None
            body = body[step]
        elif isinstance(body, Mapping):
            body = body.get(step)
        else:
            return None
    return body


def _first(body: object, rows: Iterable[tuple[tuple[Place, ...], Read]]) -> Any:
    for places, read in rows:
        for place in places:
            value = read(_at(body, place))
            if value is not None:
                return value
    return None


_URLS = _nested(
    "video_url", "url", "result_url", "output_url", "content_url", "download_url",
    "metadata.url", "video.url", "output", "output.url", "output.video_url", "result.video_url",
    "content.video_url", "detail.upsample_video_url", "detail.video_url", "detail.url",
    "task_result.videos.0.url",
)  # fmt: skip
_MORE_URLS = _places("data.videos.0.url", "data.output", "data.outputs.0", "result_urls.0")

_FACTS: dict[str, tuple[tuple[tuple[Place, ...], Read], ...]] = {
    "raw_status": (
        (_places("status", "data.status", "result.status", "task_status", "state"), _word),
        (_places("data.task_status", "data.state", "data.data.status"), _word),
    ),
    "video_url": (
        # A loopback address is the gateway's own, seen from inside: it loses to any other hit, and is still
        # the right one when the gateway really is on this machine.
        (_URLS + _MORE_URLS, _non_loopback_url),
        (_URLS + _MORE_URLS, _http_url),
    ),
    "failure": (
        (
            _nested(
                "error.message", "error", "fail_reason", "error_message", "message",
                "detail.video_generation_error", "detail.error_message", "detail.failure_reason",
                "detail.pending_info.failure_reason", "result_url",
            ),
            _reason,
        ),
    ),
    "failure_code": ((_nested("error.code"), _error_code),),
    "progress": (
        (_places("progress"), _percent),
        (_places("detail.pending_info.progress_pct", "data.detail.pending_info.progress_pct"), _fraction),
        (_places("data.progress", "data.data.progress"), _percent),
    ),
    "model": ((_nested("model", "detail.req.model", "properties.origin_model_name"), _string),),
    "enhanced_prompt": ((_nested("enhanced_prompt", "detail.enhanced_prompt"), _string),),
    "thumbnail_url": ((_nested("thumbnail_url", "detail.gif_url", "cover_url"), _http_url),),
    "created_at": (
        (
            _nested("created_at", "submit_time", "detail.created_at", "detail.pending_info.created_at"),
            _instant,
        ),
    ),
    "completed_at": (
        (
            _nested("completed_at", "finish_time", "detail.completed_at", "failed_at", "status_update_time"),
            _instant,
        ),
    ),
    "expires_at": ((_nested("expires_at"), _instant),),
}  # fmt: skip
_ORIGINAL_URLS = ((_nested("detail.video_url"), _http_url),)
_LATE_URLS = ((_nested("fail_reason"), _http_url),)  # old new-api: the URL of a finished task [new-api < 0.9]
_IDS = (
    (_places("id", "task_id", "data.task_id", "data.id", "data.taskId", "request_id", "data"), _string),
    (_places("id", "task_id", "data.task_id", "data.id", "data.taskId"), _identifier),
)
_MARKS_OF_A_TASK = ("raw_status", "video_url", "progress")


def says_something_of_a_task(body: object) -> bool:
    """Whether a reply body holds a status, a video URL, a progress, or at least an id."""
    return any(_first(body, _FACTS[fact]) is not None for fact in _MARKS_OF_A_TASK) or (
        _first(body, _IDS) is not None
    )


def read_created_id(body: object) -> str | None:
    """The id in the reply to a create, or None where it holds none."""
    return _string(body) if isinstance(body, str) else _first(body, _IDS)


class VideoTask(BaseModel):
    """A generation as a gateway tells of it.

    Made by :meth:`from_reply`. Frozen; times are aware and in UTC.
    """

    model_config = ConfigDict(frozen=True)

    video_id: str
    """The id that was submitted or asked for; the reply's own may differ (seed 001's ``detail.id``)."""
    state: TaskState
    raw_status: str | None = None
    """The gateway's own word, None where it gave none."""
    video_url: str | None = None
    """http(s) URL, byte for byte; the upsampled file where there is one."""
    progress: int | None = None
    """Percent, 0 to 100; None where the gateway tells none (veo)."""
    failure: str | None = None
    """The gateway's reason, only on a task that did not succeed."""
    failure_code: str | None = None
    model: str | None = None
    enhanced_prompt: str | None = None
    thumbnail_url: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    """When it ended, well or badly; None while it has not."""
    expires_at: datetime | None = None
    raw: SkipValidation[dict[str, Any]] = Field(default_factory=dict, repr=False)
    """The whole reply."""

    @classmethod
    def from_reply(cls, body: object, *, video_id: str) -> VideoTask:
        """Read a reply of any dialect.

        The state is decided by the status word alone, never by an error key: a completed task may carry the
        error of an earlier try (seed 000), a healthy one an empty error object.

        :param body: the decoded JSON body of a create or query reply.
        :param video_id: the id that was submitted or asked for.
        :raises UnreadableReplyError: the body is no task at all. Odd values in known fields never raise.
        """
        if isinstance(body, str) and body.strip():
            return cls(video_id=video_id, state=TaskState.RUNNING, raw={"data": body})
        if not isinstance(body, dict) or not says_something_of_a_task(body):
            raise UnreadableReplyError(
                f"the reply about {video_id} holds neither a status nor a URL nor an id"
            )
        facts = {fact: _first(body, rows) for fact, rows in _FACTS.items()}
        word = (facts["raw_status"] or "").lower()
        state = _STATE_OF_WORD.get(word, TaskState.RUNNING)
        if word == _SUCCEEDED_ONCE_THERE_IS_A_URL and facts["video_url"]:
            state = TaskState.SUCCEEDED
        if state is TaskState.SUCCEEDED:
            facts["video_url"] = facts["video_url"] or _first(body, _LATE_URLS)
        if state not in {TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED}:
            facts["failure"] = facts["failure_code"] = None
        if not state.is_final:
            facts["completed_at"] = None
        return cls(video_id=video_id, state=state, raw=body, **facts)

    @property
    def original_url(self) -> str | None:
        """The file before upsampling, where a reply tells of both (seed 000); else :attr:`video_url`."""
        return _first(self.raw, _ORIGINAL_URLS) or self.video_url

    def as_json(self) -> dict[str, Any]:
        """The task as plain JSON for XCom, a trigger's event or a log.

        ``raw`` is left out, and so are URLs with a query: a presigned query is a credential, and what holds
        this dict is stored and shown. A signed URL is asked for afresh when the file is fetched.
        """
        facts = self.model_dump(mode="json", exclude={"raw"})
        for name in ("video_url", "thumbnail_url"):
            if facts[name] and not _is_plain_url(facts[name]):
                facts[name] = None
        return facts

    @property
    def line(self) -> str:
        """State and progress as a person reads them: ``running (video_upsampling), 93 %``."""
        word = f" ({self.raw_status})" if self.raw_status and self.raw_status.lower() != self.state else ""
        return f"{self.state}{word}" + ("" if self.progress is None else f", {self.progress} %")


def _is_plain_url(url: str) -> bool:
    parts = urlsplit(url)
    return not (parts.query or parts.fragment or "@" in parts.netloc)
