"""Where the facts of a task lie in a reply: the tables, and the one way to read them.

Gateways differ in *where* a fact lies, not in what it means. So each fact is a row of :data:`FACTS`: the
places where it may be, in order of preference, and how a value found there is read. The first place that
holds a *readable* value wins. A new gateway is a new place, at the end of its row, so that no reply that is
read today reads otherwise tomorrow. The row of URLs is shared with downloads
(:mod:`~airflow_video_provider.reply_places`).
"""

from __future__ import annotations

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
    read_text,
    read_word,
)
from airflow_video_provider.reply_places import (
    HOLDERS,
    SEVERAL_URLS,
    URLS,
    Place,
    Row,
    at,
    every,
    first,
    nested,
    only,
    parse_place,
    places_in,
    wrapped,
)

__all__ = [
    "FACTS",
    "HOLDERS",
    "SEVERAL_URLS",
    "Place",
    "Row",
    "at",
    "every",
    "first",
    "parse_place",
    "places_in",
    "video_url",
]


def video_url(body: object) -> str | None:
    """The URL of the video.

    A loopback address is the gateway's own, seen from inside: it loses to any other hit, and is still the
    right one when the gateway really is on this machine.
    """
    url: str | None = first(body, ((URLS, read_http_url),))
    if url is None or read_non_loopback_url(url):
        return url
    return first(body, ((URLS, read_non_loopback_url),)) or url


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
    "response.generateVideoResponse.raiMediaFilteredReasons.0", "failMsg",
)  # fmt: skip
_CODES = (
    "failureCode", "failure_code", "err_code", "error_code", "errorCode", "base_resp.status_code", "failCode",
)  # fmt: skip

FACTS: dict[str, tuple[Row, ...]] = {
    "raw_status": (
        (only("status", "data.status", "result.status", "task_status", "state"), read_word),
        (only("data.task_status", "data.state", "data.data.status"), read_word),
        (only("data.data.task_status", "data.data.state", "result.state"), read_word),
        (wrapped("task_status", "status", "state"), read_word),
    ),
    "failure": (
        (nested(*_REASONS), read_reason),
        (nested(*_MORE_REASONS), read_reason),
        (wrapped(*_REASONS, *_MORE_REASONS), read_reason),
        (nested("detail", "errors", "error.details", "error"), read_listed),
    ),
    "failure_code": (
        (nested("error.code"), read_error_code),
        (nested(*_CODES), read_error_code),
        (wrapped("error.code", "code", *_CODES), read_error_code),
    ),
    "progress": (
        (only("progress"), read_percent),
        (only("detail.pending_info.progress_pct", "data.detail.pending_info.progress_pct"), read_fraction),
        (only("data.progress", "data.data.progress"), read_percent),
        (only("task.progress", "output.progress"), read_percent),
    ),
    "model": ((nested("model", "detail.req.model", "properties.origin_model_name"), read_text),),
    "enhanced_prompt": ((nested("enhanced_prompt", "detail.enhanced_prompt"), read_text),),
    "thumbnail_url": (
        (nested("thumbnail_url", "detail.gif_url", "cover_url", "creations.0.cover_url"), read_http_url),
    ),
    "created_at": (
        (
            nested("created_at", "submit_time", "detail.created_at", "detail.pending_info.created_at"),
            read_instant,
        ),
        (wrapped("created_at"), read_instant),
    ),
    "completed_at": (
        (
            nested("completed_at", "finish_time", "detail.completed_at", "failed_at", "status_update_time"),
            read_instant,
        ),
        (nested("finished_at", "completedAt", "finishedAt"), read_instant),
        (wrapped("completed_at", "finished_at"), read_instant),
    ),
    "expires_at": ((nested("expires_at"), read_instant), (wrapped("expires_at"), read_instant)),
}  # fmt: skip
ORIGINAL_URLS: tuple[Row, ...] = ((nested("detail.video_url"), read_http_url),)
#: Old new-api: the URL of a finished task [new-api < 0.9].
LATE_URLS: tuple[Row, ...] = ((nested("fail_reason"), read_http_url),)
IDS: tuple[Row, ...] = (
    # DashScope sends a request_id of its own beside the task's id.
    (only("id", "task_id", "data.task_id", "data.id", "data.taskId"), read_string),
    (
        only(
            "output.task_id",
            "task.task_id",
            "task.id",
            "data.task.task_id",
            "data.task.id",
            "data.output.task_id",
        ),
        read_string,
    ),
    (only("request_id", "data"), read_string),
    (only("id", "task_id", "data.task_id", "data.id", "data.taskId"), read_identifier),
    (only("name"), read_operation),
)

#: A long-running operation of Google's says ``done`` and no word.
OPERATION: tuple[Row, ...] = ((only("name"), read_operation),)
DONE: tuple[Row, ...] = ((only("done"), read_flag),)
#: What a gateway says in `error`, of which a mere object is nothing.
ERROR: tuple[Row, ...] = ((nested("error.message", "error", "error.code"), read_error_code),)
OPERATION_ERROR: tuple[Row, ...] = ((only("error.message", "error.code"), read_error_code),)
#: Veo: how many of its videos Google's filters withheld, and why.
FILTERED: tuple[Row, ...] = (
    (
        nested(
            "response.raiMediaFilteredCount", "raiMediaFilteredCount",
            "response.generateVideoResponse.raiMediaFilteredCount",
        ),
        read_count,
    ),
    (
        nested(
            "response.raiMediaFilteredReasons.0", "raiMediaFilteredReasons.0",
            "response.generateVideoResponse.raiMediaFilteredReasons.0",
        ),
        read_reason,
    ),
)  # fmt: skip
#: xAI: a task that is done, of which false means that the video is withheld.
RESPECTS_MODERATION: tuple[Row, ...] = (
    (nested("video.respect_moderation", "respect_moderation"), read_flag),
)
#: Sora: whether it was the output that moderation rejected.
REJECTED_OUTPUT: tuple[Row, ...] = (
    (nested("detail.pending_info.moderation_result.is_output_rejection"), read_flag),
)
ERROR_TYPES: tuple[Row, ...] = ((nested("error.type", "detail.0.type"), read_text),)
#: DashScope's UNKNOWN is an id that it does not know, where other gateways' "unknown" is a task under way.
DASHSCOPE_STATUS: tuple[Row, ...] = ((only("output.task_status"), read_word),)
