"""How each family of endpoints is asked: data, and the pure functions that read it.

====================  ========================  ============================  =====================
dialect               create                    query                         bytes
====================  ========================  ============================  =====================
``unified`` (default) POST /v1/video/create     GET /v1/video/query?id=ID     the URL in the reply
``openai``            POST /v1/videos           GET /v1/videos/ID             the URL, else /content
``newapi``            POST /v1/video/generations GET /v1/video/generations/ID the URL, else /content
====================  ========================  ============================  =====================

The *request* follows the dialect. The *reply* may come in another family's shape (seed 003), so it is read by
one reader for all: :class:`~airflow_video_provider.gateway.task.VideoTask`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.request import ReferenceFile, VideoRequest

__all__ = ["DIALECTS", "Dialect", "WireRequest", "content_request", "create_request", "query_request"]

Spelling = tuple[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class WireRequest:
    """A request as it goes out, without host and headers."""

    method: str
    path: str
    """Path and query, already percent-encoded."""
    json: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    file: ReferenceFile | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Dialect:
    """One family of endpoints.

    :param query_path: with ``{id}`` where the percent-encoded id goes.
    :param spelling: knob of :class:`VideoRequest` -> field of the body and how its value is written. A knob
        that is not here cannot be expressed.
    """

    name: str
    create_path: str
    query_path: str
    spelling: Mapping[str, Spelling]
    content_path: str = "/v1/videos/{id}/content"
    multipart_reference: bool = False
    list_path: str | None = None
    """Where the newest tasks of the account are listed, if anywhere."""
    url_in_reply: bool = True
    """False where a finished task's reply need not hold a URL, because there is a content route for all."""


def _same(value: Any) -> Any:
    return value


def _one_image(images: tuple[str, ...]) -> str:
    if len(images) > 1:
        raise InvalidRequestError("images: the openai dialect takes one (as input_reference); give one image")
    return images[0]


_UNIFIED: dict[str, Spelling] = {
    "images": ("images", list),
    "aspect_ratio": ("aspect_ratio", _same),
    "size": ("size", _same),
    "seconds": ("duration", int),
    "orientation": ("orientation", _same),
    "enhance_prompt": ("enhance_prompt", _same),
    "enable_upsample": ("enable_upsample", _same),
    "watermark": ("watermark", _same),
    "private": ("private", _same),
}

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect("unified", "/v1/video/create", "/v1/video/query?id={id}", _UNIFIED),
        Dialect(
            "openai",
            "/v1/videos",
            "/v1/videos/{id}",
            {"images": ("input_reference", _one_image), "size": ("size", _same), "seconds": ("seconds", str)},
            multipart_reference=True,
            list_path="/v1/videos",
            url_in_reply=False,
        ),
        Dialect(
            "newapi",
            "/v1/video/generations",
            "/v1/video/generations/{id}",
            {
                "images": ("images", list),
                "size": ("size", _same),
                "seconds": ("duration", int),
                "metadata": ("metadata", _same),
            },
        ),
    )
}

# Where a dialect lacks a knob and another of ours says the same, the error names it.
_INSTEAD = {
    ("openai", "aspect_ratio"): "size, for example 1280x720 for 16:9",
    ("openai", "orientation"): "size, for example 1280x720 for landscape",
    ("newapi", "aspect_ratio"): "size, or metadata",
    ("newapi", "orientation"): "size, or metadata",
}

# What the unified documents allow, model family by model family: a wrong value is a paid video of the wrong
# kind, or a refusal after the queue. Sources: the create pages of az.gptplus5.com and QuickRouter.
_ALLOWED: tuple[tuple[str, Mapping[str, frozenset[Any]]], ...] = (
    (r"^veo", {"aspect_ratio": frozenset({"16:9", "9:16"})}),
    (r"^sora-2", {"size": frozenset({"small", "large"}), "seconds": frozenset({10, 15, 25})}),
    (r"^grok", {"aspect_ratio": frozenset({"2:3", "3:2", "1:1"}), "size": frozenset({"720P", "1080P"})}),
)
_MOST_IMAGES = ((r"^veo.*pro-frames", 1), (r"^veo.*frames", 2), (r"^veo.*components", 3))


def create_request(dialect: Dialect, request: VideoRequest) -> WireRequest:
    """The create call for a request.

    :raises InvalidRequestError: for a knob that the dialect cannot express, a value that the model does not
        take there, or an ``extra_body`` field that contradicts a knob; each is named, nothing was sent.
    """
    if dialect.name == "unified":
        _check_values(request)
    reference, file = request.input_reference, None
    knobs = request.model_dump(
        exclude={"prompt", "model", "input_reference", "extra_body"}, exclude_none=True, exclude_defaults=True
    )
    if isinstance(reference, ReferenceFile) and dialect.multipart_reference:
        file = reference
    elif reference is not None:
        # Without a field for a file, pictures go as URLs or base64.
        knobs["images"] = (
            *knobs.get("images", ()),
            reference if isinstance(reference, str) else _base64(reference),
        )
    body: dict[str, Any] = {"model": request.model, "prompt": request.prompt}
    for knob, value in knobs.items():
        if knob not in dialect.spelling:
            instead = _INSTEAD.get((dialect.name, knob))
            raise InvalidRequestError(
                f"{knob}: the {dialect.name} dialect has no such field; "
                + (
                    f"use {instead}"
                    if instead
                    else "leave it out, or pass the gateway's own field in extra_body"
                )
                + f" (it has: {', '.join(sorted(dialect.spelling))})"
            )
        name, spell = dialect.spelling[knob]
        body[name] = spell(value)
    for name, value in request.extra_body.items():
        if name in body and body[name] != value:
            raise InvalidRequestError(
                f"extra_body.{name}: contradicts the request's own {name}; give one of the two"
            )
        body[name] = value
    if file is None:
        return WireRequest("POST", dialect.create_path, json=body)
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
    return WireRequest("POST", dialect.create_path, form=form, file=file)


def query_request(dialect: Dialect, video_id: str) -> WireRequest:
    """The query for a task.

    :raises InvalidRequestError: ``video_id`` is empty or cannot be an id.
    """
    return WireRequest("GET", dialect.query_path.format(id=_segment(video_id)))


def content_request(dialect: Dialect, video_id: str) -> WireRequest:
    """The request for the bytes, for a finished task whose reply holds no URL."""
    return WireRequest("GET", dialect.content_path.format(id=_segment(video_id)))


def _segment(video_id: str) -> str:
    """An id as one path segment: ids hold ``:`` and may hold ``/``."""
    if (
        not isinstance(video_id, str)
        or not 0 < len(video_id) <= 1024
        or re.search(r"[\x00-\x20\x7f\ud800-\udfff]", video_id)
    ):
        raise InvalidRequestError(
            "video_id: must be the gateway's task id, text without spaces or line breaks"
        )
    if video_id in {".", ".."}:  # a client or proxy would resolve it as a path
        raise InvalidRequestError(f"video_id: {video_id!r} is no task id")
    return quote(video_id, safe="")


def _base64(reference: ReferenceFile) -> str:
    return f"data:{reference.content_type};base64,{base64.b64encode(reference.content).decode()}"


def _check_values(request: VideoRequest) -> None:
    for family, allowed in _ALLOWED:
        if not re.match(family, request.model, re.I):
            continue
        for knob, values in allowed.items():
            value = getattr(request, knob)
            if value is not None and value not in values:
                raise InvalidRequestError(
                    f"{knob}: {value!r} is not for {request.model}; allowed: "
                    f"{', '.join(map(str, sorted(values)))}. If this gateway takes it all the same, pass it "
                    f"in extra_body as {_UNIFIED[knob][0]!r}"
                )
    count = len(request.images) + (request.input_reference is not None)
    most = next((most for family, most in _MOST_IMAGES if re.match(family, request.model, re.I)), None)
    if most is not None and count > most:
        raise InvalidRequestError(f"images: {request.model} takes at most {most}, {count} are given")
