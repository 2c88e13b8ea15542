"""What a create call asks for: read and validated as a gateway would, before anything is paid."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from airflow_video_provider.sandbox.tasks import Dialect, Family, family_of


class RefusedError(Exception):
    """A create call that is turned down; nothing is paid."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Order:
    """A valid create call."""

    model: str
    prompt: str
    family: Family
    body: Mapping[str, Any]


TEXT, BOOLEAN, INTEGER, TEXTS, OBJECT, REFERENCE = (
    "string",
    "boolean",
    "integer",
    "string[]",
    "object",
    "file",
)

FIELDS: Mapping[Dialect, Mapping[str, str]] = {
    Dialect.UNIFIED: {
        "images": TEXTS,
        "aspect_ratio": TEXT,
        "enhance_prompt": BOOLEAN,
        "enable_upsample": BOOLEAN,
        "orientation": TEXT,
        "size": TEXT,
        "duration": INTEGER,
        "watermark": BOOLEAN,
        "private": BOOLEAN,
    },
    # The OpenAI format has its seconds as a string, and gateways written in Go refuse a number.
    Dialect.OPENAI: {"seconds": TEXT, "size": TEXT, "input_reference": REFERENCE},
    Dialect.NEWAPI: {
        "image": TEXT,
        "images": TEXTS,
        "size": TEXT,
        "duration": INTEGER,
        "metadata": OBJECT,
    },
}
"""The types of the fields that each dialect knows. A field that is not here passes, as on the gateways."""

CHOICES: Mapping[tuple[Dialect, str], Mapping[str, tuple[str, ...]]] = {
    (Dialect.UNIFIED, "veo"): {"aspect_ratio": ("16:9", "9:16")},
    (Dialect.UNIFIED, "sora"): {
        "orientation": ("portrait", "landscape"),
        "size": ("small", "large"),
        "duration": ("10", "15", "25"),
    },
    (Dialect.UNIFIED, "grok"): {"aspect_ratio": ("2:3", "3:2", "1:1"), "size": ("720p", "1080p")},
}
"""The values that the gateways' documents allow, where they allow few."""

MOST_IMAGES = (("pro-frames", 1), ("components", 3), ("frames", 2))
"""(part of a veo model's name, how many images it takes), first hit wins."""


LONGEST = 4000
"""Characters of one field that are kept; the prompt is kept whole besides."""


def read_order(dialect: Dialect, content_type: str, content: bytes) -> Order:
    """Reads the body of a create call.

    :raises RefusedError: with the reply that a gateway would give.
    """
    body = _multipart(content_type, content) if _is_form(dialect, content_type) else _json(content)
    model, prompt = body.get("model"), body.get("prompt")
    if not isinstance(model, str) or not model.strip():
        raise _invalid("model is required")
    family = family_of(model)
    if family is None:
        raise RefusedError(
            503,
            "model_not_found",
            f"No available channel for model {model} under group default (distributor)",
        )
    if not isinstance(prompt, str) or not prompt.strip():
        raise _invalid("prompt is required")
    for name, kind in FIELDS[dialect].items():
        if (value := body.get(name)) is not None and not _is(kind, value):
            raise _invalid(f"{name} must be of type {kind}")
    for name, allowed in CHOICES.get((dialect, family.name), {}).items():
        if (value := body.get(name)) is not None and str(value).casefold() not in allowed:
            raise _invalid(f"{name} must be one of {', '.join(allowed)}, not {value}")
    if dialect is Dialect.OPENAI:
        _check_openai(body)
    most = next((n for part, n in MOST_IMAGES if family.name == "veo" and part in model), None)
    if most is not None and len(body.get("images") or ()) > most:
        raise _invalid(f"{model} takes at most {most} images")
    return Order(model, prompt, family, {name: _kept(value) for name, value in body.items()})


def _kept(value: Any) -> Any:
    """What is remembered of a field: an image in base64 is megabytes that nobody will read again."""
    if isinstance(value, list):
        return [_kept(item) for item in value]
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:80]}… ({len(value)} characters)"
    return value


def _invalid(message: str) -> RefusedError:
    return RefusedError(400, "invalid_request", message)


def _check_openai(body: Mapping[str, Any]) -> None:
    for name, pattern in (("seconds", r"\d+"), ("size", r"\d+x\d+")):
        if (value := body.get(name)) is not None and not re.fullmatch(pattern, value):
            raise _invalid(f"{name} must look like {pattern}, not {value}")


def _is(kind: str, value: object) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "string[]":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case "object":
            return isinstance(value, dict)
        case _:
            is_link = isinstance(value, str) and value.startswith(("http://", "https://", "data:"))
            return is_link or (isinstance(value, dict) and "bytes" in value)


def _is_form(dialect: Dialect, content_type: str) -> bool:
    return dialect is Dialect.OPENAI and content_type.casefold().startswith("multipart/form-data")


def _json(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError as error:
        raise _invalid(f"invalid JSON body: {error}") from None
    if not isinstance(body, dict):
        raise _invalid("the body must be a JSON object")
    return body


def _multipart(content_type: str, content: bytes) -> dict[str, Any]:
    """Form fields as strings, files as a description: what they hold is not looked at."""
    header = _header("content-type", content_type)
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str):
        raise _invalid("multipart body without a boundary")
    body: dict[str, Any] = {}
    for part in content.split(b"--" + boundary.encode())[1:-1]:
        head, found, data = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        lines = (line.partition(":") for line in head.decode("utf-8", "replace").splitlines())
        headers = {name.strip().casefold(): value.strip() for name, _, value in lines}
        disposition = _header("content-disposition", headers.get("content-disposition", ""))
        name = disposition.get_param("name", header="content-disposition")
        if not found or not isinstance(name, str):
            raise _invalid("a part of the multipart body has no name")
        if (filename := disposition.get_filename()) is None:
            body[name] = data.decode("utf-8", "replace")
        else:
            kind = headers.get("content-type", "application/octet-stream")
            body[name] = {"filename": filename, "content_type": kind, "bytes": len(data)}
    return body


def _header(name: str, value: str) -> Message:
    message = Message()
    message[name] = value
    return message
