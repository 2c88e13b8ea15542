"""The dialects there are, and where others come from.

====================  ========================  ============================  =====================
dialect               create                    query                         bytes
====================  ========================  ============================  =====================
``unified`` (default) POST /v1/video/create     GET /v1/video/query?id=ID     the URL in the reply
``openai``            POST /v1/videos           GET /v1/videos/ID             the URL, else /content
``newapi``            POST /v1/video/generations GET /v1/video/generations/ID the URL, else /content
====================  ========================  ============================  =====================

The *request* follows the dialect. The *reply* may come in another family's shape (seed 003), so it is read by
one reader for all: :class:`~airflow_video_provider.gateway.task.VideoTask`.

Other packages add dialects through the entry point group :data:`ENTRY_POINTS`: a
:class:`~airflow_video_provider.gateway.dialect.Dialect`, or an object of its fields. ``openrouter`` comes
that way.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from airflow_video_provider.gateway.dialect import Dialect, Spelling
from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.wire import (
    WireRequest,
    cancel_request,
    content_request,
    create_request,
    query_request,
)

__all__ = [
    "DIALECTS",
    "ENTRY_POINTS",
    "Dialect",
    "WireRequest",
    "cancel_request",
    "content_request",
    "create_request",
    "dialect_from",
    "known_dialects",
    "query_request",
]

#: The entry point group in which other packages name their dialects.
ENTRY_POINTS = "airflow_video_provider.dialects"


def _spelt(**fields: str | tuple[str, str]) -> dict[str, Spelling]:
    return {
        knob: Spelling(field=how) if isinstance(how, str) else Spelling(field=how[0], write=how[1])  # type: ignore[arg-type]
        for knob, how in fields.items()
    }


_UNIFIED = Dialect(
    name="unified",
    create_path="/v1/video/create",
    query_path="/v1/video/query?id={id}",
    spelling=_spelt(
        images=("images", "list"),
        aspect_ratio="aspect_ratio",
        size="size",
        seconds=("duration", "integer"),
        orientation="orientation",
        enhance_prompt="enhance_prompt",
        enable_upsample="enable_upsample",
        watermark="watermark",
        private="private",
    ),
)
_OPENAI = Dialect(
    name="openai",
    create_path="/v1/videos",
    query_path="/v1/videos/{id}",
    spelling=_spelt(images=("input_reference", "one"), size="size", seconds=("seconds", "text")),
    create_encoding="multipart_with_file",
    file_field="input_reference",
    list_path="/v1/videos",
    # vLLM-Omni aborts the job, SGLang forgets it; LiteLLM has no such route.
    cancel_path="/v1/videos/{id}",
    url_in_reply=False,
)
_NEWAPI = Dialect(
    name="newapi",
    create_path="/v1/video/generations",
    query_path="/v1/video/generations/{id}",
    spelling=_spelt(
        images=("images", "list"),
        size="size",
        seconds=("duration", "integer"),
        metadata="metadata",
        # Its task adaptors lay metadata over the request to Kling, Ark or Vidu, which all have this field.
        callback_url="metadata.callback_url",
    ),
)


class _Dialects(dict[Any, Dialect]):
    """The dialects of this package by name; one of another package is loaded when it is first asked for."""

    def __missing__(self, name: object) -> Dialect:
        if isinstance(name, Dialect):
            return name
        point = _entry_points().get(name) if isinstance(name, str) else None
        if point is None:
            raise KeyError(name)
        return _loaded(point)


DIALECTS: dict[Any, Dialect] = _Dialects({each.name: each for each in (_UNIFIED, _OPENAI, _NEWAPI)})


def _entry_points() -> dict[str, EntryPoint]:
    return _entry_points_on(tuple(sys.path))


@lru_cache(maxsize=4)
def _entry_points_on(_: tuple[str, ...]) -> dict[str, EntryPoint]:
    # Tens of milliseconds where many packages are installed, and asked for by each wait in a triggerer.
    return {point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in DIALECTS}


def _loaded(point: EntryPoint) -> Dialect:
    try:
        value = point.load()
    except Exception as error:  # another package's module: it may raise anything
        raise InvalidRequestError(
            f"dialect: the entry point {point.name} = {point.value} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from None
    if isinstance(value, Dialect):
        return value
    if not isinstance(value, Mapping):
        raise InvalidRequestError(
            f"dialect: the entry point {point.name} = {point.value} is no Dialect and no object of its fields"
        )
    try:
        return Dialect.from_object({"name": point.name, **value}, known=DIALECTS)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"dialect: the entry point {point.name} = {point.value} is not one: {error.message}"
        ) from None


def known_dialects() -> tuple[str, ...]:
    """The names of all dialects: those of this package, then those of others."""
    return (*DIALECTS, *sorted(_entry_points()))


def dialect_from(value: object) -> Dialect:
    """The dialect that a connection names or brings.

    :param value: a name, a :class:`Dialect`, or an object of its fields; ``base`` names the dialect whose
        fields hold where the object has none.
    :raises InvalidRequestError: naming the field that is wrong and what it may be.
    """
    if isinstance(value, Dialect):
        return value
    if isinstance(value, Mapping):
        named = {} if "name" in value else {"name": str(value.get("base") or "custom")}
        return Dialect.from_object({**named, **value}, known=DIALECTS)
    try:
        return DIALECTS[value]
    except (KeyError, TypeError):
        raise InvalidRequestError(
            f"dialect: {value!r} is none; allowed: {', '.join(known_dialects())}"
        ) from None
