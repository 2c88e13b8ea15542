"""What goes out for a request: pure functions of a dialect, without host and headers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from airflow_video_provider.gateway.dialect import Dialect
from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.places import Place, parse_place
from airflow_video_provider.gateway.request import ReferenceFile, VideoRequest

__all__ = ["WireRequest", "cancel_request", "content_request", "create_request", "query_request"]


@dataclass(frozen=True)
class WireRequest:
    """A request as it goes out, without host and headers."""

    method: str
    path: str
    """Path and query, already percent-encoded."""
    json: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    """The fields of a multipart body."""
    file: ReferenceFile | None = field(default=None, repr=False)
    file_field: str = "input_reference"
    billed: bool = False
    """Whether sending it may cost money."""
    changes: bool = False
    """Whether it changes a task: like what is billed, it is sent once and not redirected."""

    @property
    def may_be_redirected(self) -> bool:
        """Whether a redirect within the gateway may be followed."""
        return not self.billed and not self.changes


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


def _written(dialect: Dialect, knob: str, value: Any) -> Any:
    spelling = dialect.spelling[knob]
    if spelling.write == "one":
        if len(value) > 1:
            raise InvalidRequestError(
                f"{knob}: the {dialect.name} dialect takes one (as {spelling.field}); give one image"
            )
        return value[0]
    writers: dict[str, Callable[[Any], Any]] = {
        "same": lambda each: each,
        "text": str,
        "integer": int,
        "list": list,
        "image_urls": lambda each: [{"type": "image_url", "image_url": {"url": url}} for url in each],
    }
    return writers[spelling.write](value)


def _put(body: Any, place: Place, value: Any) -> None:
    """Put a value at a place of a body, making what leads there."""
    step, rest = place[0], place[1:]
    if isinstance(step, int):
        body.extend([None] * (step + 1 - len(body)))
    if not rest:
        body[step] = value
        return
    inside = body[step] if isinstance(step, int) else body.get(step)
    kind = list if isinstance(rest[0], int) else dict
    if not isinstance(inside, kind):
        inside = body[step] = kind()
    _put(inside, rest, value)


def _with_extra(body: dict[str, Any], extra: Mapping[str, Any], dialect: Dialect) -> None:
    holder: Any = body
    for step in parse_place(dialect.extra_field) if dialect.extra_field else ():
        if not isinstance(inside := holder.setdefault(step, {}), dict):
            raise InvalidRequestError(
                f"dialect.extra_field: {dialect.extra_field} holds another field's value"
            )
        holder = inside
    for name, value in extra.items():
        if name in holder and holder[name] != value:
            raise InvalidRequestError(
                f"extra_body.{name}: contradicts the request's own {name}; give one of the two"
            )
        holder[name] = value


def create_request(dialect: Dialect, request: VideoRequest) -> WireRequest:
    """The create call for a request.

    :raises InvalidRequestError: for a knob that the dialect cannot express, a value that the model does not
        take there, or an ``extra_body`` field that contradicts a knob; each is named, nothing was sent.
    """
    if dialect.name == "unified":
        _check_values(dialect, request)
    reference, file = request.input_reference, None
    knobs = request.model_dump(
        exclude={"prompt", "model", "input_reference", "extra_body"}, exclude_none=True, exclude_defaults=True
    )
    if isinstance(reference, ReferenceFile) and dialect.create_encoding != "json":
        file = reference
    elif reference is not None:
        # Without a field for a file, pictures go as URLs or base64.
        knobs["images"] = (
            *knobs.get("images", ()),
            reference if isinstance(reference, str) else _base64(reference),
        )
    body: dict[str, Any] = {}
    if dialect.model_field:
        _put(body, parse_place(dialect.model_field), request.model)
    _put(body, parse_place(dialect.prompt_field), request.prompt)
    for place, value in dialect.constants.items():
        _put(body, parse_place(place), value)
    for knob, value in knobs.items():
        if knob not in dialect.spelling:
            raise _inexpressible(dialect, knob)
        _put(body, parse_place(dialect.spelling[knob].field), _written(dialect, knob, value))
    _with_extra(body, request.extra_body, dialect)
    path = dialect.create_path.replace("{model}", quote(request.model, safe="/"))
    if dialect.create_encoding == "json" or (
        dialect.create_encoding == "multipart_with_file" and file is None
    ):
        return WireRequest(dialect.create_method, path, json=body, billed=True)
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
    return WireRequest(
        dialect.create_method, path, form=form, file=file, file_field=dialect.file_field or "", billed=True
    )


def _inexpressible(dialect: Dialect, knob: str) -> InvalidRequestError:
    instead = _INSTEAD.get((dialect.name, knob))
    what = f"use {instead}" if instead else "leave it out, or pass the gateway's own field in extra_body"
    return InvalidRequestError(
        f"{knob}: the {dialect.name} dialect has no such field; {what} "
        f"(it has: {', '.join(sorted(dialect.spelling))})"
    )


def query_request(dialect: Dialect, video_id: str) -> WireRequest:
    """The query for a task.

    :raises InvalidRequestError: ``video_id`` is empty or cannot be an id.
    """
    path = dialect.query_path.replace("{id}", _segment(video_id))
    if dialect.query_body is None:
        return WireRequest(dialect.query_method, path)
    return WireRequest(dialect.query_method, path, json=_with_id(dialect.query_body, video_id))


def _with_id(value: Any, video_id: str) -> Any:
    if isinstance(value, str):
        return value.replace("{id}", video_id)
    if isinstance(value, Mapping):
        return {name: _with_id(each, video_id) for name, each in value.items()}
    return value


def content_request(dialect: Dialect, video_id: str) -> WireRequest:
    """The request for the bytes, for a finished task whose reply holds no URL.

    :raises InvalidRequestError: the dialect has no such route, or ``video_id`` cannot be an id.
    """
    segment = _segment(video_id)
    if dialect.content_path is None:
        raise InvalidRequestError(f"dialect: {dialect.name} has no route for a video's bytes (content_path)")
    return WireRequest("GET", dialect.content_path.replace("{id}", segment))


def cancel_request(dialect: Dialect, video_id: str) -> WireRequest:
    """The request that cancels or deletes a task.

    :raises InvalidRequestError: the dialect has no such route, or ``video_id`` cannot be an id.
    """
    segment = _segment(video_id)
    if dialect.cancel_path is None:
        raise InvalidRequestError(f"dialect: {dialect.name} has no route that cancels a task (cancel_path)")
    return WireRequest(dialect.cancel_method, dialect.cancel_path.replace("{id}", segment), changes=True)


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


def _check_values(dialect: Dialect, request: VideoRequest) -> None:
    for family, allowed in _ALLOWED:
        if not re.match(family, request.model, re.I):
            continue
        for knob, values in allowed.items():
            value = getattr(request, knob)
            if value is not None and value not in values:
                raise InvalidRequestError(
                    f"{knob}: {value!r} is not for {request.model}; allowed: "
                    f"{', '.join(map(str, sorted(values)))}. If this gateway takes it all the same, pass it "
                    f"in extra_body as {dialect.spelling[knob].field!r}"
                )
    count = len(request.images) + (request.input_reference is not None)
    most = next((most for family, most in _MOST_IMAGES if re.match(family, request.model, re.I)), None)
    if most is not None and count > most:
        raise InvalidRequestError(f"images: {request.model} takes at most {most}, {count} are given")
