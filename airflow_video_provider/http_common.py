"""What the gateway client and the downloads share about HTTP, one floor below both.

Loads nothing but Python's own library until a TLS context is made, so that a Dag file can import it.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

__all__ = [
    "DEFAULT_PORTS",
    "HEADER_NAME",
    "check_headers",
    "doubled",
    "excerpt",
    "format_origin",
    "origin_of",
    "parse_retry_after",
    "printable",
    "quiet_httpx",
    "tls_context",
    "without_secrets",
]

DEFAULT_PORTS = {"http": 80, "https": 443}
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""What a header may be called (RFC 9110, token)."""
_HEADER_VALUE = re.compile(r"([\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
LONGEST_RETRY_AFTER = 3600.0
"""Seconds. A date in the year 9999 or "inf" is no wait that anybody means."""


# -- origins, headers, waits --------------------------------------------------------------------------------


def format_origin(scheme: str, host: str, port: int) -> str:
    """Write scheme, host and port as one text, an IPv6 host in brackets: ``https://api.example:443``."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, the port always written: ``https://api.example:443``."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return format_origin(scheme, (parts.hostname or "").lower(), parts.port or DEFAULT_PORTS.get(scheme, 0))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110: delta-seconds or an HTTP date).

    :param now: what a date is counted from.
    :returns: seconds from 0 to :data:`LONGEST_RETRY_AFTER`; None for no header or an unreadable one.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):  # OverflowError: a year of 20 digits
            return None
        seconds = ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if seconds == seconds else None


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ValueError, naming the header, for one that cannot be sent.

    The libraries' own errors tell the value, which may be a credential.
    """
    for name, value in headers.items():
        if not (HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
            raise ValueError(
                f"headers: {name!r}, or its value, cannot be sent; is there a line end in it, or white space "
                "around it?"
            )


def doubled(first: float, failures: int, longest: float) -> float:
    """The wait in seconds after so many failures in a row: *first*, doubled after each, at most *longest*."""
    return min(first * 2.0 ** min(max(failures - 1, 0), 20), longest)


# -- TLS ---------------------------------------------------------------------------------------------------


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """Make a client's TLS context; it takes some 20 ms of CPU.

    :param verify: True for the usual authorities, False to check nothing, or the path of a CA file.
    :raises OSError: the file cannot be read, or holds no certificate.
    """
    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    import httpx

    return httpx.create_ssl_context(verify=verify)


# -- nothing secret in messages and logs -------------------------------------------------------------------

# Each runs in linear time over whatever a gateway sends: none begins anew within what it has read.
_WORD = re.compile(r"[^\s\"'<>]+")
_QUERY = re.compile(r"[?#]")
#: What stands before the query of a URL: a scheme, or a host or address and a slash. Also as JSON writes it.
_ADDRESS = re.compile(r":(?://|\\+/)|\.[\w-]+(?::\d+)?(?:/|\\+/)")
_USER = re.compile(r"(:(?://|\\+/\\+/))[^\s/@\"'<>?#\\]+@")
_VALUE = r"[^\s\"'<>,;&\\]+"
_NO_TOKENS = (
    r"(?:tokens?|auth|authenti\w+|authori\w+|schemes?|keys?|credentials?|realm|headers?|format|is|was|must"
    r"|or|and|in|not|error|prefix|type)(?![\w~+/=-])"
)
_IN_QUERIES = (
    r"(?:\w+[-_])?(?:signature|sig|token)|sign|upsig|policy|key-pair-id|q-ak|q-sign\w*|hdn(?:ts|ea)"
    r"|auth[-_]?key|(?:google|oss)?access_?(?:key_?)?id|security[-_]token"
)
_NAMED = (
    r"(?:x-(?:amz|goog|oss|tos|cos|ms)-[a-z0-9-]{1,40}|api[-_ ]?key(?: provided)?"
    r"|(?:aws_?)?(?:secret|access)_?(?:access_?)?key(?:_?id)?|client[-_]?secret|secret|passw(?:or)?d"
    r"|(?:access|auth|refresh|session|security)[-_]?token|accountkey|sharedaccess\w*|credential)"
)
_CREDENTIALS = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"(\bbearer[\s:=]+\\*[\"']?)(?!{_NO_TOKENS}){_VALUE}",
        rf"(\bauthorization\\*[\"']?\s*[:=]\s*\\*[\"']?)(?:[a-z0-9]+\s+)?{_VALUE}",
        rf"(\b(?:{_IN_QUERIES})(?:=|%3d)){_VALUE}",
        rf"(\b{_NAMED}\\*[\"']?\s*(?:[:=]|%3d)\s*\\*[\"']?){_VALUE}",
        # Keys that are known by their looks: of OpenAI's kind, of Google, and signed tokens.
        r"()\b(?:sk|rk|gsk|xai|r8)[-_][\w-]{16,}",
        r"()\bAIza[\w-]{30,}",
        r"()\beyJ[\w-]{10,512}\.[\w-]+\.[\w-]*",
    )
)
#: Without one of these in it a text holds no secret that is known here; nearly all texts end at this.
_SUSPECT = re.compile(r"[?#@=:%]|bearer|(?:sk|rk|gsk|xai|r8)[-_]|AIza|eyJ", re.I)
_URL_IN_TEXT = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]{1,20}:(?://|\\/\\/)[^\s\"'<>]+")
_SECRET_IN_TEXT = re.compile(
    r"(?i)\b((?:[a-z]+_)?token|signature|sig|x-amz-[a-z-]+|x-goog-[a-z-]+|credential|authorization|bearer"
    r"|api[_-]?key|accountkey|sharedaccesskey|sharedkey|awsaccesskeyid|accesskeyid|signatureprovided"
    r"|stringtosign\w*|canonicalrequest\w*)\b[\"'>]*\s*[:=> ]"
    r"\s*(?:(?:bearer|basic|sharedkey) )?[^\s<,;&\"]+"
)


def without_secrets(text: str) -> str:
    """Cut and mask what may be a credential in a foreign text: it is logged and stored.

    URLs lose their query, fragment, user and password, whether they have a scheme or not; signatures, keys
    and tokens that a name, a header or their own looks tell are replaced by ``***``.
    """
    if not _SUSPECT.search(text):
        return text
    text = _USER.sub(r"\1", _WORD.sub(_without_query, text))
    for credential in _CREDENTIALS:
        text = credential.sub(r"\1***", text)
    return text


def _without_query(word: re.Match[str]) -> str:
    said, seen = word.group(), 0
    for query in _QUERY.finditer(said):
        if _ADDRESS.search(said, seen, query.start()):
            # What escapes the quote after it in a text of JSON is no part of the query.
            return said[: query.start()] + said[len(said.rstrip("\\")) :]
        seen = query.end()
    return said


def printable(url: str) -> str:
    """Return *url* as it may be shown: without query, fragment, user name and password.

    A ``data:`` URL is shown by its media type only.
    """
    if url[:5].lower() == "data:":
        return url[:64].split(",", 1)[0].split(";", 1)[0] + ",…"
    try:
        parts = urlsplit(url)
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(unreadable URL)"
    hidden = "?…" if parts.query else ""
    path = parts.path if len(parts.path) <= 200 else parts.path[:200] + "…"
    return f"{parts.scheme}://{netloc}{path}{hidden}" if netloc else f"{parts.scheme}:{path}{hidden}"


def excerpt(text: str, limit: int = 200) -> str:
    """Return the start of a foreign text on one line, its URLs shortened and its signatures removed."""
    flat = " ".join(text[: limit * 8].split())
    flat = _URL_IN_TEXT.sub(lambda hit: printable(hit.group().replace("\\/", "/")), flat)
    flat = _SECRET_IN_TEXT.sub(lambda hit: f"{hit.group(1)} …", without_secrets(flat))
    flat = "".join(c for c in flat if c.isprintable())
    return flat if len(flat) <= limit else flat[:limit] + "…"


# httpx logs every request's full URL at INFO (httpx/_client.py, all versions since 0.24). Airflow 3 silences
# that logger, Airflow 2.11 does not: there each poll would be a line of the task's log. At DEBUG, httpcore
# logs the headers of every reply, and a redirect's Location is a presigned URL as well.
_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy")
_quiet: ContextVar[bool] = ContextVar("airflow_video_provider_quiet_httpx", default=False)


class _DropOurs(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not (_quiet.get() and record.levelno <= logging.INFO)


_filter = _DropOurs()


@contextmanager
def quiet_httpx() -> Iterator[None]:
    """Drop the records at INFO and below that httpx and httpcore make in this context.

    Only records of the calling context are dropped, so another library's use of them logs as before.
    A thread does not inherit the context: enter it inside the thread, or run the thread's target with
    :func:`contextvars.copy_context`.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # a filter is added once however often this runs
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
