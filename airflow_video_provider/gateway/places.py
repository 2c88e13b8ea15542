"""Where the facts of a task lie in a reply: the tables, and the one way to read them.

Gateways differ in *where* a fact lies, not in what it means. So each fact is a row of :data:`FACTS`: the
places where it may be, in order of preference, and how a value found there is read. The first place that
holds a *readable* value wins. A new gateway is a new place, at the end of its row, so that no reply that is
read today reads otherwise tomorrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from airflow_video_provider.gateway.values import (
    read_count,
    read_error_code,
    read_flag,
    read_fraction,
    read_http_url,
    read_identifier,
    read_instant,
    read_listed,
    read_non_loopback_url,
    read_operation,
    read_percent,
    read_reason,
    read_string,
    read_word,
)

__all__ = ["FACTS", "HOLDERS", "Place", "Row", "at", "every", "first", "parse_place"]

Place = tuple[str | int, ...]
Read = Callable[[object], Any]
#: Places below a common one, which most replies do not have.
Group = tuple[Place, tuple[Place, ...]]
Row = tuple[tuple[Group, ...], Read]


@cache
def parse_place(path: str) -> Place:
    """A dotted path as a place: numbers are positions in lists, ``*`` is every item of one."""
    return tuple(int(step) if step.isdigit() else step for step in path.split("."))


def _under(prefixes: tuple[str, ...], paths: tuple[str, ...]) -> tuple[Group, ...]:
    places = tuple(parse_place(path) for path in paths)
    return tuple((parse_place(prefix) if prefix else (), places) for prefix in prefixes)


def _places(*paths: str) -> tuple[Group, ...]:
    return _under(("",), paths)


def _nested(*paths: str) -> tuple[Group, ...]:
    """The same places at the top, under ``data`` and under ``data.data``, outermost first."""
    return _under(("", "data", "data.data"), paths)


#: What providers wrap a task in, by itself and as new-api hands it on: MiniMax V2's ``task``, DashScope's
#: ``output``, Kling's own ``data`` within that of new-api.
_WRAPPERS = (
    "task", "output", "data.task", "data.output", "data.data.task", "data.data.output", "data.data.data",
)  # fmt: skip


#: Where a task may be, outermost first.
HOLDERS = tuple(parse_place(path) if path else () for path in ("", "data", "data.data", *_WRAPPERS))


def _wrapped(*paths: str) -> tuple[Group, ...]:
    return _under(_WRAPPERS, paths)


def at(body: object, place: Place) -> object:
    """The value at a place, None where there is none."""
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


def every(body: object, place: Place) -> Iterator[object]:
    """The values at a place that may hold ``*``."""
    if "*" not in place:
        yield at(body, place)
        return
    star = place.index("*")
    items = at(body, place[:star])
    for item in items if isinstance(items, list) else ():
        yield from every(item, place[star + 1 :])


def first(body: object, rows: Iterable[Row]) -> Any:
    """The first readable value of a fact, None where there is none."""
    for groups, read in rows:
        for holder, place in places_in(body, groups):
            value = read(at(holder, place))
            if value is not None:
                return value
    return None


def places_in(body: object, groups: Iterable[Group]) -> Iterator[tuple[object, Place]]:
    """The places of a body that may be there, each below its holder."""
    for common, places in groups:
        holder = at(body, common) if common else body
        if isinstance(holder, Mapping):
            yield from ((holder, place) for place in places)


def video_url(body: object) -> str | None:
    """The URL of the video.

    A loopback address is the gateway's own, seen from inside: it loses to any other hit, and is still the
    right one when the gateway really is on this machine.
    """
    url: str | None = first(body, ((URLS, read_http_url),))
    if url is None or read_non_loopback_url(url):
        return url
    return first(body, ((URLS, read_non_loopback_url),)) or url


_LISTS_OF_URLS = (
    "task_result.videos.*.url", "videos.*.url", "videos.*.video_url", "videos.*.uri", "videos.*.gcsUri",
    "videos.*", "output.*", "output.*.url", "outputs.*", "outputs.*.url", "output.videos.*.url",
    "creations.*.url", "result_urls.*", "video_urls.*", "urls.*", "unsigned_urls.*", "results.*.url",
    "result.videos.*.url", "generations.*.url", "response.videos.*.uri", "response.videos.*.gcsUri",
    "response.generateVideoResponse.generatedSamples.*.video.uri",
)  # fmt: skip
URLS = (
    *_nested(
        "video_url", "url", "result_url", "output_url", "content_url", "download_url",
        "metadata.url", "video.url", "output", "output.url", "output.video_url", "result.video_url",
        "content.video_url", "detail.upsample_video_url", "detail.video_url", "detail.url",
        "task_result.videos.0.url",
    ),
    *_places("data.videos.0.url", "data.output", "data.outputs.0", "result_urls.0"),
    *_nested("assets.video", "content.url", "result.url", "file.download_url", "output_video.uri"),
    *_nested(*(path.replace("*", "0") for path in _LISTS_OF_URLS)),
    *_wrapped(
        "content.url", "content.video_url", "video_url", "url", "video.url", "task_result.videos.0.url"
    ),
)  # fmt: skip
_REASONS = (
    "error.message", "error", "fail_reason", "error_message", "message",
    "detail.video_generation_error", "detail.error_message", "detail.failure_reason",
    "detail.pending_info.failure_reason", "result_url",
)  # fmt: skip
_MORE_REASONS = (
    "task_status_msg", "failure_reason", "failureReason", "failure_message", "failureMessage", "failure",
    "error.msg", "error.reason", "error.detail", "error.error.message", "error_msg", "err_msg",
    "errorMessage", "status_msg", "status_message", "reason", "msg", "error_description",
    "base_resp.status_msg",
    "errors.0.message", "response.raiMediaFilteredReasons.0", "raiMediaFilteredReasons.0",
    "response.generateVideoResponse.raiMediaFilteredReasons.0",
)  # fmt: skip
_CODES = (
    "failureCode", "failure_code", "err_code", "error_code", "errorCode", "base_resp.status_code",
)  # fmt: skip

FACTS: dict[str, tuple[Row, ...]] = {
    "raw_status": (
        (_places("status", "data.status", "result.status", "task_status", "state"), read_word),
        (_places("data.task_status", "data.state", "data.data.status"), read_word),
        (_places("data.data.task_status", "data.data.state", "result.state"), read_word),
        (_wrapped("task_status", "status", "state"), read_word),
    ),
    "failure": (
        (_nested(*_REASONS), read_reason),
        (_nested(*_MORE_REASONS), read_reason),
        (_wrapped(*_REASONS, *_MORE_REASONS), read_reason),
        (_nested("detail", "errors", "error.details", "error"), read_listed),
    ),
    "failure_code": (
        (_nested("error.code"), read_error_code),
        (_nested(*_CODES), read_error_code),
        (_wrapped("error.code", "code", *_CODES), read_error_code),
    ),
    "progress": (
        (_places("progress"), read_percent),
        (_places("detail.pending_info.progress_pct", "data.detail.pending_info.progress_pct"), read_fraction),
        (_places("data.progress", "data.data.progress"), read_percent),
        (_places("task.progress", "output.progress"), read_percent),
    ),
    "model": ((_nested("model", "detail.req.model", "properties.origin_model_name"), read_string),),
    "enhanced_prompt": ((_nested("enhanced_prompt", "detail.enhanced_prompt"), read_string),),
    "thumbnail_url": (
        (_nested("thumbnail_url", "detail.gif_url", "cover_url", "creations.0.cover_url"), read_http_url),
    ),
    "created_at": (
        (
            _nested("created_at", "submit_time", "detail.created_at", "detail.pending_info.created_at"),
            read_instant,
        ),
        (_wrapped("created_at"), read_instant),
    ),
    "completed_at": (
        (
            _nested("completed_at", "finish_time", "detail.completed_at", "failed_at", "status_update_time"),
            read_instant,
        ),
        (_nested("finished_at", "completedAt", "finishedAt"), read_instant),
        (_wrapped("completed_at", "finished_at"), read_instant),
    ),
    "expires_at": ((_nested("expires_at"), read_instant), (_wrapped("expires_at"), read_instant)),
}  # fmt: skip
ORIGINAL_URLS: tuple[Row, ...] = ((_nested("detail.video_url"), read_http_url),)
#: Old new-api: the URL of a finished task [new-api < 0.9].
LATE_URLS: tuple[Row, ...] = ((_nested("fail_reason"), read_http_url),)
SEVERAL_URLS = (*_nested(*_LISTS_OF_URLS), *_wrapped(*_LISTS_OF_URLS))
IDS: tuple[Row, ...] = (
    # DashScope sends a request_id of its own beside the task's id.
    (_places("id", "task_id", "data.task_id", "data.id", "data.taskId"), read_string),
    (
        _places(
            "output.task_id",
            "task.task_id",
            "task.id",
            "data.task.task_id",
            "data.task.id",
            "data.output.task_id",
        ),
        read_string,
    ),
    (_places("request_id", "data"), read_string),
    (_places("id", "task_id", "data.task_id", "data.id", "data.taskId"), read_identifier),
    (_places("name"), read_operation),
)

#: A long-running operation of Google's says ``done`` and no word.
OPERATION: tuple[Row, ...] = ((_places("name"), read_operation),)
DONE: tuple[Row, ...] = ((_places("done"), read_flag),)
#: What a gateway says in `error`, of which a mere object is nothing.
ERROR: tuple[Row, ...] = ((_nested("error.message", "error", "error.code"), read_error_code),)
OPERATION_ERROR: tuple[Row, ...] = ((_places("error.message", "error.code"), read_error_code),)
#: Veo: how many of its videos Google's filters withheld, and why.
FILTERED: tuple[Row, ...] = (
    (
        _nested(
            "response.raiMediaFilteredCount", "raiMediaFilteredCount",
            "response.generateVideoResponse.raiMediaFilteredCount",
        ),
        read_count,
    ),
    (
        _nested(
            "response.raiMediaFilteredReasons.0", "raiMediaFilteredReasons.0",
            "response.generateVideoResponse.raiMediaFilteredReasons.0",
        ),
        read_reason,
    ),
)  # fmt: skip
#: xAI: a task that is done, of which false means that the video is withheld.
RESPECTS_MODERATION: tuple[Row, ...] = (
    (_nested("video.respect_moderation", "respect_moderation"), read_flag),
)
#: Sora: whether it was the output that moderation rejected.
REJECTED_OUTPUT: tuple[Row, ...] = (
    (_nested("detail.pending_info.moderation_result.is_output_rejection"), read_flag),
)
ERROR_TYPES: tuple[Row, ...] = ((_nested("error.type", "detail.0.type"), read_string),)
#: DashScope's UNKNOWN is an id that it does not know, where other gateways' "unknown" is a task under way.
DASHSCOPE_STATUS: tuple[Row, ...] = ((_places("output.task_status"), read_word),)
