"""How each family of gateways tells a task: shapes taken from real replies, as pure functions.

The shapes differ on purpose, for the real ones do: milliseconds here and seconds there, progress as a
number, as "50%", as 0..1 or not at all, the error texts of an earlier try on a task that succeeded. A
reader that gets along with all of them gets along with the gateways.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_video_provider.sandbox.tasks import Dialect, Phase, Task, View

Json = dict[str, Any]

UNKNOWN_WORD = "dreaming_of_electric_sheep"
"""The status word that is in no document; see the fault ``unknown-word``."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where the files of a task lie. An empty one is not told (yet).

    :param video: the best file there is.
    :param lower: the ordinary file when ``video`` is the upsampled one, else the same.
    :param content: the gateway's own route to the bytes, which needs the key.
    :param more: the other videos, of a task that makes several.
    """

    video: str = ""
    lower: str = ""
    thumbnail: str = ""
    content: str = ""
    more: tuple[str, ...] = ()


# --- errors -----------------------------------------------------------------------------------------


def error_body(dialect: Dialect, code: str, message: str, kind: str = "new_api_error") -> Json:
    """The envelope in which a dialect's gateways wrap an error."""
    if dialect is Dialect.NEWAPI:
        return {"code": code, "message": message, "data": None}
    return {"error": {"message": message, "type": kind, "param": "", "code": code}}


def invalid_url(method: str, path: str) -> Json:
    """What new-api says of a route that it does not have."""
    text = f"Invalid URL ({method} {path})"
    return {"error": {"message": text, "type": "invalid_request_error", "param": "", "code": ""}}


def bad_key(request_id: str) -> Json:
    """What new-api says of a wrong or missing key, whatever the dialect."""
    text = f"无效的令牌 (request id: {request_id})"
    return {"error": {"message": text, "type": "new_api_error", "code": ""}}


def unknown_task(dialect: Dialect) -> tuple[int, Json]:
    """HTTP status and body for an id that no task has: a 400 on new-api, a 404 in the OpenAI format."""
    if dialect is Dialect.OPENAI:
        return 404, error_body(dialect, "task_not_exist", "task_not_exist", "invalid_request_error")
    return 400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}


def not_completed(view: View) -> Json:
    """What new-api's content route says before the end."""
    text = f"Task is not completed yet, current status: {_NEWAPI_WORDS[view.phase]}"
    return {"error": {"message": text, "type": "invalid_request_error"}}


UNITS_PER_DOLLAR = 500_000
"""What new-api counts in, unless a site changes it."""


def token_usage(dollars: float | None, spent_cents: int) -> Json:
    """What new-api says of a key's balance."""
    used = spent_cents * UNITS_PER_DOLLAR // 100
    granted = 0 if dollars is None else int(dollars * UNITS_PER_DOLLAR)
    data = {
        "object": "token_usage",
        "name": "sandbox",
        "total_granted": granted,
        "total_used": used,
        "total_available": max(granted - used, 0),
        "unlimited_quota": dollars is None,
        "expires_at": 0,
    }
    return {"code": True, "message": "ok", "data": data}


# --- words ------------------------------------------------------------------------------------------

_OPENAI_WORDS: Mapping[Phase, str] = {
    Phase.QUEUED: "queued",
    Phase.RUNNING: "in_progress",
    Phase.SUCCEEDED: "completed",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
    Phase.EXPIRED: "expired",
}
_NEWAPI_WORDS: Mapping[Phase, str] = {
    Phase.QUEUED: "NOT_START",
    Phase.RUNNING: "IN_PROGRESS",
    Phase.SUCCEEDED: "SUCCESS",
    Phase.FAILED: "FAILURE",
    Phase.CANCELLED: "CANCELLED",
    Phase.EXPIRED: "EXPIRED",
}


def _ms(moment: float) -> int:
    return int(moment * 1000)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _enhanced(task: Task) -> str:
    return f"```\nA richly lit, cinematic scene with soft camera movement: {task.prompt}\n```"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# --- unified ----------------------------------------------------------------------------------------

_STALE = {
    "error_message": (
        "[403] Request failed with status code 403 | Message: reCAPTCHA evaluation failed | Code: 403 | "
        "Status: PERMISSION_DENIED | Reason: PUBLIC_ERROR_SOMETHING_WENT_WRONG | "
        "Type: type.googleapis.com/google.rpc.ErrorInfo | URL: /v1/video:batchAsyncGenerateVideoStartImage"
    ),
    "video_generation_error": (
        "your request contains unsafe prompt or images, such as porn, violence, minors etc., has been "
        "rejected by google, please change your prompt or images and try again"
    ),
}
"""Seed 000: what is left of an earlier try on a task that succeeded in the end."""

_REQ_FIELDS = ("images", "aspect_ratio", "enhance_prompt", "enable_upsample")


def _unified_veo(task: Task, view: View, links: Links) -> Json:
    detail: Json = {
        "id": task.id,
        "req": {
            "model": task.base,
            "prompt": task.prompt,
            **{name: task.body[name] for name in _REQ_FIELDS if name in task.body},
        },
        "images": [
            {"url": url[:200], "status": "completed", "mediaId": _digest(url)}
            for url in task.body.get("images") or ()
        ],
        "status": view.step,
        "running": view.ended is None,
        "created_at": _ms(task.created),
        "error_sleep": 5000,
        "max_retries": 3,
        "retry_count": 0,
        "status_update_time": _ms(view.changed),
    }
    if view.fraction > 0.2:
        detail["enhanced_prompt"] = _enhanced(task)
    if view.ended is not None:
        detail["completed_at"] = _ms(view.ended)
    reply: Json = {"id": task.id, "detail": detail, "status": view.step}
    if view.phase is Phase.SUCCEEDED:
        detail |= {
            **_STALE,
            "retry_count": 3,
            "video_media_id": _digest(task.id, "media"),
            "video_generation_id": _digest(task.id)[:32],
            "needs_safe_enhancement": True,
            "video_generation_status": "MEDIA_GENERATION_STATUS_SUCCESSFUL",
        }
        if links.lower:
            detail["video_url"] = links.lower
        if task.upsampled:
            detail["upsample_status"] = "MEDIA_GENERATION_STATUS_SUCCESSFUL"
            if links.video:
                detail["upsample_video_url"] = links.video
        if links.video:
            reply["video_url"] = links.video
    elif view.reason:
        detail["video_generation_error"] = view.reason
        detail["video_generation_status"] = "MEDIA_GENERATION_STATUS_FAILED"
    reply["status_update_time"] = _ms(view.changed)
    return reply


def _unified_sora(task: Task, view: View, links: Links) -> Json:
    short_id = task.id.partition(":")[2]
    portrait = task.body.get("orientation") == "portrait"
    failed = view.ended is not None and view.phase is not Phase.SUCCEEDED
    detail: Json = {
        "id": short_id,
        "input": {
            "size": task.body.get("size", "small"),
            "model": "sy_ore",
            "images": list(task.body.get("images") or ()),
            "prompt": task.prompt,
            "orientation": "portrait" if portrait else "landscape",
        },
        "status": view.step,
    }
    if view.phase is Phase.SUCCEEDED:
        detail |= {"completed_at": _iso(view.changed), "url": links.video or None, "gif_url": None}
    else:
        detail["pending_info"] = {
            "id": short_id,
            "seed": None,
            "type": "video_gen",
            "user": "user-sandbox",
            "model": "sy_8",
            "title": "New Video",
            "width": 352 if portrait else 640,
            "height": 640 if portrait else 352,
            "prompt": task.prompt,
            "status": "failed" if failed else "queued" if view.phase is Phase.QUEUED else "processing",
            "actions": None,
            "n_frames": 450,
            "priority": 2,
            "operation": "simple_compose",
            "created_at": _iso(task.created),
            "n_variants": 1,
            "generations": [],
            "progress_pct": view.fraction,
            "failure_reason": view.reason or None,
            "moderation_result": {
                "code": view.code or None,
                "type": "blocked" if view.code == "moderation_blocked" else "passed",
                "task_id": short_id,
                "is_output_rejection": view.code == "moderation_blocked",
                "results_by_frame_index": {},
            },
            "needs_user_review": False,
            "queue_status_message": None,
            "progress_pos_in_queue": None,
            "estimated_queue_wait_time": None,
        }
    reply: Json = {"id": task.id, "detail": detail, "status": view.step}
    if view.phase is Phase.SUCCEEDED:
        reply |= {
            "video_url": links.video or None,
            "thumbnail_url": links.thumbnail or None,
            "enhanced_prompt": _enhanced(task),
        }
    reply["status_update_time"] = _ms(view.changed)
    return reply


def _unified_grok(task: Task, view: View, links: Links) -> Json:
    if view.ended is None:
        return {
            "id": task.id,
            "status": view.step,
            "video_url": None,
            "status_update_time": int(view.changed),
            "progress": view.percent,
        }
    asset = task.id.partition(":")[2]
    return {
        "id": task.id,
        "mode": "text",
        "type": "create",
        "error": view.reason,
        "model": task.base,
        "ratio": task.body.get("aspect_ratio", "3:2"),
        "prompt": f"{task.prompt}  --mode=custom",
        "status": view.step,
        "post_id": asset,
        "asset_id": asset,
        "progress": view.percent,
        "trace_id": _digest(task.id)[:32],
        "upscaled": False,
        "video_id": asset,
        "video_url": links.video or None,
        "completed_at": int(view.ended),
        "thumbnail_url": links.thumbnail or None,
        "status_update_time": int(view.changed),
        "upscale_on_complete": False,
    }


def _unified_flat(task: Task, view: View, links: Links) -> Json:
    reply: Json = {
        "id": task.id,
        "status": view.step,
        "video_url": links.video or None,
        "enhanced_prompt": _enhanced(task) if view.fraction > 0.2 else "",
        "status_update_time": _ms(view.changed),
    }
    return reply | ({"fail_reason": view.reason} if view.reason else {})


# --- openai -----------------------------------------------------------------------------------------


def _openai_basis(task: Task, view: View) -> Json:
    reply: Json = {
        "id": task.id,
        "object": "video",
        "model": task.base,
        "status": _OPENAI_WORDS[view.phase],
        "progress": view.percent,
        "created_at": int(task.created),
        "seconds": str(task.body.get("seconds") or task.body.get("duration") or task.family.seconds),
        "size": str(task.body.get("size") or "1280x720"),
    }
    if view.phase is Phase.SUCCEEDED and view.ended is not None:
        reply["completed_at"] = int(view.ended)
    if view.reason:
        reply["error"] = {"code": view.code, "message": view.reason}
    return reply


def _openai_veo(task: Task, view: View, links: Links) -> Json:
    """Every field always there, with 0 and "" for what is not."""
    blank: Json = {
        "completed_at": 0,
        "expires_at": int(task.created) + 86_400,
        "remixed_from_video_id": "",
        "error": {"message": "", "code": ""},
        "video_url": links.video,
    }
    return blank | _openai_basis(task, view)


def _openai_sora(task: Task, view: View, links: Links) -> Json:
    """Seed 003: the unified shape while it waits, the OpenAI shape in the end; a failure in milliseconds."""
    if view.ended is None:
        return _unified_sora(task, view, links)
    reply = _openai_basis(task, view)
    if view.phase is Phase.SUCCEEDED:
        return reply | ({"video_url": links.video} if links.video else {})
    return reply | {"progress": 0, "created_at": _ms(task.created), "failed_at": _ms(view.ended)}


def _openai_kling(task: Task, view: View, links: Links) -> Json:
    """new-api's own translation into the OpenAI format: the URL lies in the metadata."""
    return _openai_basis(task, view) | {"task_id": task.id, "metadata": {"url": links.video}}


def _openai_bare(task: Task, view: View, _: Links) -> Json:
    """The format of OpenAI itself: no URL ever, the bytes are at the content route."""
    return {"error": None} | _openai_basis(task, view)


# --- newapi -----------------------------------------------------------------------------------------


def _newapi_row(task: Task, view: View, links: Links) -> Json:
    """The row of new-api's database, as it is. Its ``id`` is the row's, not the task's."""
    done = view.phase is Phase.SUCCEEDED
    in_reason = done and "url-in-fail-reason" in task.faults
    started = view.phase is not Phase.QUEUED
    row: Json = {
        "id": task.row,
        "created_at": int(task.created),
        "updated_at": int(view.changed),
        "task_id": task.id,
        "platform": "54",
        "user_id": 1,
        "group": "default",
        "channel_id": 8,
        "quota": task.family.cents * 5000,
        "action": "generate",
        "status": _NEWAPI_WORDS[view.phase],
        "fail_reason": links.video if in_reason else view.reason,
        # new-api writes one column for both: of a failed task, the reason stands where the URL would.
        "result_url": "" if in_reason else view.reason or links.video,
        "submit_time": int(task.created),
        "start_time": int(task.created + 0.1 * task.seconds) if started else 0,
        "finish_time": int(view.ended) if view.ended is not None else 0,
        "progress": f"{100 if view.ended is not None else view.percent}%",
        "properties": {"input": "", "upstream_model_name": task.base, "origin_model_name": task.base},
        "data": {},
    }
    if done and links.video and not in_reason:
        row["data"] = {"content": {"video_url": links.video}}
    return {"code": "success", "message": "", "data": row}


def _newapi_lean(task: Task, view: View, links: Links) -> Json:
    """Two gateways in one: a lean row while it runs, a plain result that points at the content route."""
    if view.ended is None:
        inner = {"status": "processing", "duration": 5, "resolution": "720p", "content": {}, "usage": {}}
        data: Json = {
            "task_id": task.id,
            "status": _NEWAPI_WORDS[view.phase],
            "progress": f"{view.percent}%",
            "submit_time": int(task.created),
            "start_time": int(task.created),
            "finish_time": 0,
            "data": inner,
        }
        return {"code": "success", "data": data}
    data = {
        "error": {"message": view.reason, "code": view.code} if view.reason else None,
        "format": "mp4",
        "metadata": None,
        "status": "succeeded" if view.phase is Phase.SUCCEEDED else view.step,
        "task_id": task.id,
        "url": links.video and links.content,
    }
    return {"code": "success", "message": "", "data": data}


def openai_strict(task: Task, view: View, _: Links) -> Json:
    """``Video`` of OpenAI's API, from its documents: every field, null where there is nothing to tell.

    It has four words for the status, so what was cancelled or has expired is "failed".
    """
    reply = _openai_basis(task, view)
    ended_badly = view.ended is not None and view.phase is not Phase.SUCCEEDED
    return {
        "id": task.id,
        "object": "video",
        "model": task.base,
        "status": "failed" if ended_badly else reply["status"],
        "progress": view.percent,
        "created_at": int(task.created),
        "completed_at": reply.get("completed_at"),
        "expires_at": None,
        "prompt": task.prompt,
        "seconds": reply["seconds"],
        "size": reply["size"],
        "remixed_from_video_id": None,
        "error": reply.get("error"),
    }


# --- the tables -------------------------------------------------------------------------------------

SHAPES: Mapping[tuple[Dialect, str], Callable[[Task, View, Links], Json]] = {
    (Dialect.UNIFIED, "veo"): _unified_veo,
    (Dialect.UNIFIED, "sora"): _unified_sora,
    (Dialect.UNIFIED, "grok"): _unified_grok,
    (Dialect.UNIFIED, "kling"): _unified_flat,
    (Dialect.UNIFIED, "generic"): _unified_flat,
    (Dialect.OPENAI, "veo"): _openai_veo,
    (Dialect.OPENAI, "sora"): _openai_sora,
    (Dialect.OPENAI, "grok"): _openai_bare,
    (Dialect.OPENAI, "kling"): _openai_kling,
    (Dialect.OPENAI, "generic"): _openai_bare,
    (Dialect.NEWAPI, "veo"): _newapi_row,
    (Dialect.NEWAPI, "sora"): _newapi_row,
    (Dialect.NEWAPI, "grok"): _newapi_lean,
    (Dialect.NEWAPI, "kling"): _newapi_row,
    (Dialect.NEWAPI, "generic"): _newapi_row,
}
"""(dialect of the question, family of the model) -> shape of the reply."""


def told(dialect: Dialect, task: Task, view: View, links: Links, *, strict: bool = False) -> Json:
    """The reply to "how is this task?"; ``strict``: as OpenAI's own API has it, in that dialect."""
    by_the_book = strict and dialect is Dialect.OPENAI
    shape = openai_strict if by_the_book else SHAPES[dialect, task.family.name]
    reply = shape(task, view, links)
    if links.more and not by_the_book:
        return _of_several(dialect, reply, links)
    if view.ended is not None:
        return reply
    if "no-status" in task.faults:
        return _with_status(reply, None)
    return _with_status(reply, UNKNOWN_WORD) if "unknown-word" in task.faults else reply


def _of_several(dialect: Dialect, reply: Json, links: Links) -> Json:
    """The reply with the URLs of all videos: new-api hands on what Kling says, others have a list for it."""
    urls = (links.video, *links.more)
    if dialect is not Dialect.NEWAPI:
        return reply | {"video_url": links.video, "video_urls": list(urls)}
    videos = [{"id": str(number), "url": url, "duration": "5"} for number, url in enumerate(urls)]
    kling = {"task_status": "succeed", "task_result": {"videos": videos}}
    row = {name: value for name, value in reply["data"].items() if name != "url"}
    return reply | {"data": row | {"result_url": links.video, "data": kling}}


def listed(tasks: Iterable[tuple[Task, View]], *, strict: bool = False) -> Json:
    """A page of tasks in the format of OpenAI, newest first."""
    data = [
        openai_strict(task, view, Links()) if strict else _openai_basis(task, view) for task, view in tasks
    ]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"object": "list", "data": data, "has_more": False, **ends}


def _with_status(reply: Json, word: str | None) -> Json:
    """The reply with every status in it replaced, or left out."""
    return {
        name: word if name == "status" else _with_status(value, word) if isinstance(value, dict) else value
        for name, value in reply.items()
        if word is not None or name != "status"
    }


_CREATED_NEWAPI: Mapping[str, Callable[[Task, View], tuple[int, Json]]] = {
    "veo": lambda task, _: (200, {"task_id": task.id}),
    "sora": lambda task, view: (200, _openai_basis(task, view) | {"task_id": task.id}),
    "grok": lambda task, _: (202, {"request_id": task.id}),
    "kling": lambda task, _: (200, {"code": "success", "message": "", "data": task.id}),
    "generic": lambda task, _: (
        201,
        {"code": "success", "message": "", "data": {"task_id": task.id, "status": "SUBMITTED"}},
    ),
}


def created(task: Task, view: View, *, strict: bool = False) -> tuple[int, Json]:
    """HTTP status and body of an accepted create call: the id is always in it, though not in one place."""
    match task.dialect:
        case Dialect.NEWAPI:
            return _CREATED_NEWAPI[task.family.name](task, view)
        case Dialect.OPENAI:
            return 200, openai_strict(task, view, Links()) if strict else _openai_basis(task, view)
        case Dialect.UNIFIED if task.family.name == "grok":
            return 200, {"id": task.id, "status": "processing", "status_update_time": int(task.created)}
        case _:
            return 200, {"id": task.id, "status": "pending", "status_update_time": _ms(task.created)}
