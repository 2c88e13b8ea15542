"""What a reply to each kind of call means: pure functions of its body."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from airflow_video_provider.gateway.dialect import Dialect
from airflow_video_provider.gateway.envelope import claimed_status, fit_to_store
from airflow_video_provider.gateway.errors import InvalidRequestError, UnreadableReplyError, wrapped_error
from airflow_video_provider.gateway.task import VideoTask, read_created_id, says_something_of_a_task
from airflow_video_provider.gateway.values import read_non_loopback_url

__all__ = [
    "task_in_an_error",
    "understand_cancel",
    "understand_create",
    "understand_list",
    "understand_query",
]

_UNDER_WAY = frozenset({"queued", "pending", "submitted", "running", "processing", "in_progress"})

Understand = Callable[[Any, Mapping[str, str]], VideoTask]


def understand_create(dialect: Dialect) -> Understand:
    """Read the reply to a create: the task, or the error that HTTP 200 wraps."""

    def understand(body: Any, headers: Mapping[str, str]) -> VideoTask:
        video_id = read_created_id(body, dialect)
        # An error envelope may hold an id as well ("request_id"), so it is looked for first.
        error = wrapped_error(body, headers=headers)
        if error is not None and (video_id is None or not _looks_accepted(body)):
            raise error
        if video_id is None:
            raise UnreadableReplyError("the reply to the create holds no task id")
        return VideoTask.from_reply(body, video_id=video_id, dialect=dialect)

    return understand


def understand_query(dialect: Dialect, video_id: str, content_url: str | None) -> Understand:
    """Read the reply to a query.

    :param content_url: where the gateway serves the bytes, at the address that is asked; None for nowhere.
    """

    def understand(body: Any, headers: Mapping[str, str]) -> VideoTask:
        if not _is_of_a_task(body) and (error := wrapped_error(body, headers=headers)) is not None:
            raise error
        task = VideoTask.from_reply(body, video_id=video_id, dialect=dialect)
        return _at_our_address(task, content_url, dialect) if content_url else task

    return understand


def _is_of_a_task(body: object) -> bool:
    """Whether a body tells of a task. An id is no sign of life beside a status that claims an error."""
    if not isinstance(body, dict):
        return False
    inner = _without_envelope(body)
    if says_something_of_a_task(inner, beside_an_id=True):
        return True
    return claimed_status(body) is None and says_something_of_a_task(inner)


def task_in_an_error(content: bytes) -> str | None:
    """The id of a task that waits or runs, from a reply whose HTTP status is an error; None for none.

    Whatever the status says, such a create is not one that was provably not accepted.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or not isinstance(word := body.get("status"), str):
        return None
    video_id = next((body[name] for name in ("id", "task_id") if isinstance(body.get(name), str)), None)
    if not video_id or word.lower() not in _UNDER_WAY:
        return None
    return fit_to_store(video_id)[:200]


def understand_list(body: Any, headers: Mapping[str, str]) -> list[VideoTask]:
    """Read a page of tasks; what has no id is left out."""
    listed = body.get("data") if isinstance(body, dict) else body
    if not isinstance(listed, list):
        raise wrapped_error(body, headers=headers) or UnreadableReplyError("the reply holds no list of tasks")
    return [
        VideoTask.from_reply(task, video_id=video_id)
        for task in listed
        if isinstance(task, dict) and (video_id := read_created_id(task)) is not None
    ]


def understand_cancel(video_id: str) -> Callable[[Any, Mapping[str, str]], bool]:
    """Read the reply to a cancel; True where it was accepted."""

    def understand(body: Any, headers: Mapping[str, str]) -> bool:
        if (error := wrapped_error(body, headers=headers)) is not None:
            raise error
        if isinstance(body, dict) and (body.get("deleted") is False or body.get("success") is False):
            raise InvalidRequestError(f"the gateway did not cancel {video_id}")
        return True

    return understand


def _looks_accepted(body: Any) -> bool:
    """A word in place of data, a number in place of a status, a request_id: an error envelope has them."""
    return isinstance(body, dict) and (
        any(body.get(name) for name in ("id", "task_id"))
        or isinstance(body.get("status"), str)
        or isinstance(body.get("data"), dict)
    )


def _without_envelope(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without what an error's envelope holds as well and a create's reply may give as the id."""
    return {
        name: value
        for name, value in body.items()
        if name != "request_id" and not (name == "data" and isinstance(value, str))
    }


def _at_our_address(task: VideoTask, content_url: str, dialect: Dialect) -> VideoTask:
    """With the gateway's own content route at the address that we ask, the only one that gets the key.

    new-api tells it at its server address, which is http://localhost:3000 until it is set, or is another of
    the gateway's names.
    """
    urls = {url: _ours(url, content_url, dialect) for url in task.video_urls}
    if all(url == ours for url, ours in urls.items()):
        return task
    return task.model_copy(
        update={"video_url": urls.get(task.video_url or ""), "video_urls": tuple(urls.values())}
    )


def _ours(url: str, content_url: str, dialect: Dialect) -> str:
    said, ours = urlsplit(url), urlsplit(content_url)
    route = unquote(ours.path)
    # A prefix of ours need not be known to the server, nor one of its own to us.
    same_route = unquote(said.path).endswith(route[route.rfind("/v1/") :] if "/v1/" in route else route)
    # A query is a signature elsewhere, unless the dialect says that the route wants the key.
    is_its_own = dialect.file_needs_key or not said.query or read_non_loopback_url(url) is None
    if not same_route or not is_its_own or said[:2] == ours[:2]:
        return url
    return ours._replace(query=said.query or ours.query).geturl()
