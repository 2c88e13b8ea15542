"""How a value in a reply is read: each function takes anything and gives what it means, or None.

Null, "", {}, [] and values of an odd kind are None, so that they do not hide the next place of a fact.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from urllib.parse import urlsplit

from airflow_video_provider.gateway.envelope import fit_to_store, problems_in, says_nothing, unwrapped


def read_word(value: object) -> str | None:
    """Words of an outer envelope such as 200 or "ok" are no status, so numbers do not count."""
    text = read_text(value)
    return None if text is None or text.isdigit() else text


def read_string(value: object) -> str | None:
    # JSON can spell half of a surrogate pair, which no database or log can store.
    return value.encode("utf-8", "replace").decode().strip() or None if isinstance(value, str) else None


def read_text(value: object) -> str | None:
    """Words for people, which are logged and stored; an id or an address is none."""
    return fit_to_store(value) or None if isinstance(value, str) else None


def read_identifier(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    return str(value) if isinstance(value, int) else read_string(value)


def read_error_code(value: object) -> str | None:
    text = read_identifier(value)
    return None if text in {"0", None} else read_text(text)


_HTTP = re.compile(r"https?://[^\x00-\x20\x7f\ud800-\udfff]+", re.I)


def read_http_url(value: object) -> str | None:
    """Byte for byte as it came, white space around it cut: presigned URLs break when ``%2F`` is touched."""
    if not isinstance(value, str) or not _HTTP.fullmatch(value := value.strip()):
        return None
    try:
        return value if urlsplit(value).hostname else None
    except ValueError:  # an unclosed [ of an IPv6 address
        return None


def read_non_loopback_url(value: object) -> str | None:
    url = read_http_url(value)
    return None if url and urlsplit(url).hostname in {"localhost", "127.0.0.1", "::1"} else url


def read_reason(value: object) -> str | None:
    """A URL is no reason: old new-api versions put the finished video's URL into ``fail_reason``."""
    text = read_string(value)
    if text is None or read_http_url(text) or says_nothing(text):
        return None
    return unwrapped(fit_to_store(text))


def read_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_percent(value: object) -> int | None:
    number = read_number(value.strip().removesuffix("%") if isinstance(value, str) else value)
    return None if number is None else round(min(max(number, 0.0), 100.0))


def read_fraction(value: object) -> int | None:
    number = read_number(value)
    return None if number is None else read_percent(number * 100)


def read_instant(value: object) -> datetime | None:
    """Seconds, milliseconds (over 1e11) or ISO 8601, mixed within one reply; 0 is none."""
    number = read_number(value)
    try:
        if number is not None:
            return (
                datetime.fromtimestamp(number / 1000 if number > 1e11 else number, tz=UTC)
                if number > 0
                else None
            )
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value.strip())
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def read_listed(value: object) -> str | None:
    """What a list of problems says (``[{"loc", "msg", "type"}]``)."""
    return read_reason("; ".join(dict.fromkeys(text for text, _ in problems_in(value))))


def read_operation(value: object) -> str | None:
    """The name of a long-running operation of Google's (``projects/p/…/operations/o1``)."""
    text = read_string(value)
    return text if text and re.search(r"(^|/)operations/[^/]+$", text) else None


def read_flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def read_count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
