"""The HTML: Jinja2 templates that escape whatever they are given, and the headers that go with them.

Style and script stand in the page, allowed by their digests: so there is no further route, nothing is loaded
from anywhere, and text that looks like a script stays text even where an escape were missing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["as_bytes", "page", "page_headers"]

FOLDER = Path(__file__).parent / "page"
STYLE = (FOLDER / "page.css").read_text(encoding="utf-8")
SCRIPT = (FOLDER / "page.js").read_text(encoding="utf-8")

_SHOWN_FACTS = (
    ("Model", "model", str),
    ("Duration", "duration", lambda seconds: clock(seconds)),
    ("Picture", "picture", str),
    ("Size", "size", lambda size: in_bytes(size)),
    ("Video codec", "video_codec", str),
    ("Audio codec", "audio_codec", str),
    ("Container", "container", str),
    ("Type", "content_type", str),
    ("Fetched from", "source_host", str),
)


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


#: Of the pages. ``blob:`` is for the posters, which the page draws itself from the videos' first pictures.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_digest(SCRIPT)}",
        f"style-src {_digest(STYLE)}",
        "img-src blob:",
        "media-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'self'",
    )
)


def page_headers() -> dict[str, str]:
    """The headers of every page."""
    return {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "private, no-store",
    }


def as_bytes(text: str) -> bytes:
    """UTF-8. JSON may hold half of a surrogate pair, which is no character."""
    return text.encode("utf-8", "backslashreplace")


def page(name: str, **values: Any) -> bytes:
    """Render a template.

    :param name: of the file, without its ``.html``.
    """
    return as_bytes(_environment().get_template(f"{name}.html").render(now=datetime.now(tz=UTC), **values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ago": ago, "clock": clock, "in_bytes": in_bytes, "short": short}
    environment.globals |= {
        "facts_of": facts_of,
        # Ours, and not to be escaped: a browser reads these two as they are.
        "style": Markup(STYLE),  # noqa: S704
        "script": Markup(SCRIPT),  # noqa: S704
    }
    return environment


def facts_of(facts: Mapping[str, Any], usage: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The rows of a video's table, those that are known."""
    width, height, fps = (facts.get(name) for name in ("width", "height", "fps"))
    picture = f"{width} × {height}" + (f", {fps:g} fps" if isinstance(fps, int | float) else "")
    told = {**facts, "picture": picture if width and height else None}
    rows = [(title, show(told[name])) for title, name, show in _SHOWN_FACTS if told.get(name)]
    if usage:
        numbers = (f"{name} {number:g}" for name, number in usage.items() if isinstance(number, int | float))
        rows.append(("Cost", ", ".join(numbers)))
    return rows


def clock(seconds: object) -> str:
    """A playing time: ``0:08``, ``1:02:03``; below ten seconds with tenths where there are any."""
    if not isinstance(seconds, int | float):
        return ""
    whole = round(seconds)
    if seconds < 10 and abs(seconds - whole) >= 0.05:
        return f"{seconds:.1f} s"
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def in_bytes(size: object) -> str:
    """A size as people read it: ``12.4 MB``."""
    if not isinstance(size, int | float):
        return ""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago: ``12 s``, ``5 min``, ``3 h``, ``4 d``."""
    if moment is None:
        return ""
    seconds = max((now - moment).total_seconds(), 0.0)
    for unit, length, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def short(text: str | None, length: int) -> str:
    """The beginning of a text."""
    text = text or ""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
