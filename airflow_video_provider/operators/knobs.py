"""The operator's arguments that go to the gateway, as a request.

The table of knobs is :class:`~airflow_video_provider.gateway.request.VideoRequest`; the operator's signature
is written by hand, for IDEs and mypy. ``tests/airflow/test_knobs.py`` holds the two, :data:`KNOBS` and the
documents together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.ledger import request_digests
from airflow_video_provider.submitting import Asked
from airflow_video_provider.waiting import value_of_text

if TYPE_CHECKING:
    from airflow_video_provider.gateway.client import Gateway
    from airflow_video_provider.gateway.request import ReferenceFile

__all__ = ["KNOBS", "asked_of", "asked_of_each", "given", "items_of"]

#: The fields of ``VideoRequest``, which a Dag file must not import: pydantic costs at parse.
KNOBS = (
    "prompt",
    "model",
    "images",
    "aspect_ratio",
    "size",
    "seconds",
    "orientation",
    "enhance_prompt",
    "enable_upsample",
    "watermark",
    "private",
    "input_reference",
    "metadata",
    "callback_url",
    "extra_body",
)
MAX_REFERENCE_BYTES = 64 * 2**20


def given(value: Any) -> Any:
    """None for a template that rendered to nothing; "None" is what Jinja makes of None."""
    return None if isinstance(value, str) and value.strip() in {"", "None"} else value


def asked_of(operator: Any, gateway: Gateway) -> Asked:
    """What an operator's arguments ask for, or what is wrong with them."""
    return _asked({name: getattr(operator, name) for name in KNOBS}, gateway, _reference)


def asked_of_each(operator: Any, gateway: Gateway) -> list[Asked]:
    """What each item of an operator's ``prompts`` asks for, or what is wrong with it.

    :raises InvalidRequestError: they are no list.
    """
    shared = {name: getattr(operator, name) for name in KNOBS}
    # Most items share one picture, which is read once.
    read = cache(_reference)
    return [_asked({**shared, **item}, gateway, read) for item in items_of(operator.prompts)]


def items_of(prompts: object) -> list[Mapping[str, Any]]:
    """The items of ``prompts``, each as the arguments in which it differs from the operator's.

    :param prompts: a list of texts or mappings, or such a list as text, as a template renders it.
    :raises InvalidRequestError: they are no list.
    """
    read = value_of_text(prompts) if isinstance(prompts, str) else prompts
    if isinstance(read, str | bytes | Mapping) or not isinstance(read, Iterable):
        raise InvalidRequestError(
            f"prompts: {type(prompts).__name__} is no list of prompts, nor of mappings of a request's fields"
        )
    return [item if isinstance(item, Mapping) else {"prompt": item} for item in read]


def _asked(knobs: Mapping[str, Any], gateway: Gateway, read: Callable[[Any], Any]) -> Asked:
    from airflow_video_provider.gateway.request import request_from

    values = {str(name): given(value) for name, value in knobs.items()}
    address, problem = values.pop("input_reference"), None
    if not isinstance(address, str | None):
        return Asked(None, None, "not submitted, nothing was paid: input_reference: must be text")
    reference = None
    try:
        reference = read(address)
    except InvalidRequestError as error:
        problem = f"not submitted, nothing was paid: {error}"
    try:
        request = request_from(**values, input_reference=reference)
        gateway.check_request(request)
    except InvalidRequestError as error:
        return Asked(None, None, problem or str(error))
    digests = request_digests(request, address)
    return Asked(None if problem else request, digests, problem)


def _reference(value: str | None) -> str | ReferenceFile | None:
    """A URL as it is; anything else is read from object storage.

    :raises InvalidRequestError: it cannot be read, or is too large.
    """
    if value is None or re.match(r"https?://", value, re.I):
        return value
    import mimetypes

    from airflow_video_provider.gateway.request import ReferenceFile

    try:
        path = ObjectStoragePath(value)
        if path.stat().st_size > MAX_REFERENCE_BYTES:
            raise InvalidRequestError(f"input_reference: {value} is larger than {MAX_REFERENCE_BYTES} bytes")
        content = path.read_bytes()
    except (OSError, ValueError, ImportError) as error:
        raise InvalidRequestError(f"input_reference: {value} cannot be read: {error}") from None
    return ReferenceFile(path.name, content, mimetypes.guess_type(path.name)[0] or "application/octet-stream")
