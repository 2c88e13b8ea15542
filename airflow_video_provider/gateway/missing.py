"""What a 404 says is missing: the task, or the route.

Taken for a missing task, a wrong path or dialect sends people to look for an id that is right; taken for a
missing route, a deleted task sends them to a connection that is. A framework's own 404 speaks of a route, a
404 that names a task, a video or an id speaks of that, and some say neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

__all__ = ["Missing", "is_missing_row", "names_a_task", "what_is_missing"]


class Missing(StrEnum):
    """What is not there."""

    TASK = "task"
    ROUTE = "route"
    UNCLEAR = "unclear"
    """The reply fits both: a bare "not found"."""


# At any status, and so narrow: a wrong request speaks of ids and videos, too.
_TASK = re.compile(
    r"task_not_exist|task_not_found|video_not_found|(task|video)\b.{0,40}\bnot (exist|found)", re.I
)
# Of a reply that certainly means "not there".
_TASK_OF_404 = re.compile(
    r"\b(?:task|video|generation|job|prediction|record|id)\b.{0,60}\b(?:not (?:exist|found)|unknown|expired)"
    r"|\b(?:no such|unknown) (?:task|video|generation|job|id)\b|(?:任务|视频|记录).{0,20}不存在"
    r"|(?:找不到|不存在).{0,10}(?:任务|视频)",
    re.I,
)
_ROUTE = re.compile(
    r"invalid url|no route|\broute\b.{0,200}\bnot (?:be )?found|\bcannot (?:get|post|delete|put) /"
    r"|404 page not found|\bno (?:handler|endpoint|static resource)\b|unknown (?:endpoint|path|route|url)"
    r"|\b(?:endpoint|path|url|uri)\b(?: \S*/\S*)? (?:(?:is|was|could|does) )?not (?:be )?(?:exist|found)"
    r"|method not allowed|unrecognized request url|(?:接口|路由|页面|路径)不存在",
    re.I,
)
# What a Go program's database says of a row that it has not: MiniMax's whole answer, a 500, to an unknown id.
_ROW = re.compile(r"(?:error: ?)?record not found\.?", re.I)
_PATH = re.compile(r"\S*/\S*")


def _fastapi(body: Mapping[str, Any]) -> bool:
    return set(body) == {"detail"} and body["detail"] == "Not Found"


def _spring(body: Mapping[str, Any]) -> bool:
    return {"timestamp", "path"} <= set(body)


def _apim(body: Mapping[str, Any]) -> bool:
    error = body.get("error")
    return (
        isinstance(error, dict)
        and str(error.get("code")) == "404"
        and str(error.get("message")).strip(". ").lower() == "resource not found"
    )


#: What frameworks say of a route that they do not have, and cannot be told by its words alone.
_FRAMEWORKS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("FastAPI, LiteLLM, vLLM, SGLang", _fastapi),
    ("Spring", _spring),
    ("Azure's API management", _apim),
)
# Words that say no more than the status.
_BARE = frozenset(
    {"404", "not", "found", "not_found", "notfound", "resource", "resource_not_found", "不存在", "未找到"}
)


def names_a_task(words: str) -> bool:
    """Whether an error's words say, at any status, that a task or a video is not there."""
    return bool(_TASK.search(words))


def is_missing_row(message: str) -> bool:
    """Whether an error says no more than that a database has no such row."""
    return bool(_ROW.fullmatch(message.strip()))


def what_is_missing(body: object, words: str, *, html: bool, wrapped: bool = False) -> Missing:
    """Read what a reply that means "not there" speaks of.

    :param body: the decoded body, None where it is no JSON.
    :param words: its code and message, "" where it has none.
    :param html: whether it is a page.
    :param wrapped: whether it came within an HTTP 200, so that the route is there.
    """
    if _ROUTE.search(words):
        return Missing.ROUTE
    plain = _PATH.sub(" ", words)  # "GET /v1/video/query: not found" names no video
    if _TASK.search(plain) or _TASK_OF_404.search(plain):
        return Missing.TASK
    if html or not words.strip():
        return Missing.ROUTE
    if isinstance(body, dict) and any(fits(body) for _, fits in _FRAMEWORKS):
        return Missing.ROUTE
    if wrapped:
        return Missing.TASK
    if body is None:  # a router's plain text: "Not Found" (Starlette, Axum), "default backend - 404"
        return Missing.ROUTE
    said = re.findall(r"\w+", words.lower())
    bare = all(word in _BARE or word.endswith("error") for word in said)
    return Missing.UNCLEAR if bare else Missing.TASK
