"""What an answer says about the file at a URL. Pure: statuses, headers and texts in, a judgement out.

An answer is either the file (:class:`Representation`), a piece of it, or a :class:`Setback`: a value that
says what to do next, so that the loop that does it is in one place (:mod:`.source`).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from urllib.parse import parse_qsl, urljoin, urlsplit

from airflow_video_provider.http_common import parse_retry_after
from airflow_video_provider.media.errors import (
    LinkExpired,
    NotAVideo,
    SourceRefused,
    excerpt,
)
from airflow_video_provider.media.http import Url
from airflow_video_provider.reply_places import URLS, first, only

REFUSED_LINK = frozenset({401, 403, 404, 410})
TRY_LATER = frozenset({202, 408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
TOO_MANY = frozenset({429, 503})

NOT_COMPRESSED = frozenset({"", "identity", "none", "binary", "utf-8", "aws-chunked"})
"""What servers send as Content-Encoding that changes no byte. The last is one of S3's ways to upload."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
# A gateway that has completed a task may serve its file a moment later, and says so with a 400.
_NOT_READY = re.compile(
    r"not (yet )?(been )?(ready|available|complete|finish|generated|done)|\bstill\b|in.progress|processing"
    r"|generating|being generated|pending|queued|未完成|未就绪|处理中|生成中|进行中|排队",
    re.I,
)
# The gateway's reader does not take the first of a list of tasks for the task; a file's answer lists files.
_LINKS = (*URLS, *only("data.0.url"))


class Next(StrEnum):
    """What a setback leaves to do."""

    LATER = "later"
    """Send the same request again after a pause."""
    FRESH_LINK = "fresh link"
    """The link is refused or gone."""
    ANEW = "anew"
    """What came does not continue what is there: begin at the first byte."""
    GIVE_UP = "give up"


@dataclass(frozen=True)
class Setback:
    """Why an answer does not bring the file on, and what is left to do.

    :ivar reason: for the log.
    :ivar error: to raise when that does not help; None for one whose message tells how far the download was.
    :ivar retry_after: seconds that the server asked to wait.
    :ivar ranges_lie: whether to begin anew without ranges.
    :ivar lost: whether to begin anew because a connection was lost, not because the file changed.
    :ivar crowded: whether fewer connections may help.
    """

    next: Next
    reason: str
    error: SourceRefused | NotAVideo | None = None
    retry_after: float | None = None
    ranges_lie: bool = False
    lost: bool = False
    crowded: bool = False


@dataclass(frozen=True)
class Representation:
    """One version of the file, as the first answer describes it.

    :ivar url: where it came from, after redirects.
    :ivar total: bytes; None when the server did not say.
    :ivar validator: what ``If-Range`` may hold; None when the answer names no version, or offers no ranges.
    """

    url: Url
    total: int | None
    validator: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def can_resume(self) -> bool:
        """Whether a range of this very version can be asked for."""
        return self.validator is not None and self.total is not None


# -- answers -----------------------------------------------------------------------------------------------


def judge_status(
    url: Url, status: int, headers: Mapping[str, str], text: str, now: datetime
) -> Setback | None:
    """Judge what an answer is before its body is looked at: None for 200 and 206.

    :param text: the beginning of the body of any other answer.
    """
    if status in (200, 206):
        encoding = headers.get("content-encoding", "")
        if {part.strip() for part in encoding.lower().split(",")} <= NOT_COMPRESSED:
            return None
        error = NotAVideo(
            f"{url} answered with Content-Encoding {excerpt(encoding, 40)}, although identity was asked for; "
            "a compressed video is not unpacked"
        )
        return Setback(Next.GIVE_UP, str(error), error)
    said = excerpt(text)
    shown = f"{url} answered HTTP {status}" + (f": {said}" if said else "")
    wait = parse_retry_after(headers.get("retry-after"), now)
    if status in REFUSED_LINK:
        return Setback(Next.FRESH_LINK, shown, LinkExpired(shown, status_code=status, retry_after=wait), wait)
    later = status in TRY_LATER or (status == 400 and _NOT_READY.search(text))
    refused = SourceRefused(shown, status_code=status, retry_after=wait)
    return Setback(Next.LATER if later else Next.GIVE_UP, shown, refused, wait, crowded=status in TOO_MANY)


def judge_first(
    url: Url, status: int, headers: Mapping[str, str], *, with_range: bool
) -> Representation | Setback:
    """Judge the answer to a request for the whole file, 200, 206 or 416.

    :param with_range: whether the request was for ``bytes=0-``.
    """
    if status == 416:
        if headers.get("content-range", "").endswith("/0"):
            error = NotAVideo(f"{url} holds an empty file; there is no video in it")
            return Setback(Next.GIVE_UP, str(error), error)
        return Setback(Next.ANEW, "the server refuses a range of the whole file", ranges_lie=True)
    total = span = None
    if status == 206:
        span = content_range(headers)
        if span is None and (with_range or "content-range" in headers):
            return Setback(
                Next.ANEW, "the server answered 206 without a readable Content-Range", ranges_lie=True
            )
    if span is not None:
        begin, end, total = span
        if total is None and not with_range:
            total = end + 1  # it answers 206 to everything and never tells the length: this is its all
        if begin != 0 or total is None or end != total - 1:
            return Setback(
                Next.ANEW, "the server answered another range than the one asked for", ranges_lie=True
            )
    length = headers.get("content-length")
    if (fault := judge_length(headers, total)) is not None:
        return fault
    if total is None and length is not None:
        total = int(length)
    validator = validator_of(headers) if status == 206 and with_range else None
    return Representation(url, total, validator, headers)


def judge_range(
    known: Representation, status: int, headers: Mapping[str, str], begin: int, end: int | None
) -> Setback | None:
    """Judge the answer to a request for the bytes from *begin* up to *end* (exclusive) of a known version."""
    if status == 416:
        return Setback(Next.ANEW, "the file became shorter")
    if status != 206:
        same = headers.get("etag", "") == known.headers.get("etag", "")
        reason = "the server stopped honouring ranges" if same else "the file changed"
        return Setback(Next.ANEW, reason, ranges_lie=same)
    span = content_range(headers)
    if span is None:
        return Setback(Next.ANEW, "the server answered 206 without a readable Content-Range", ranges_lie=True)
    first, last, total = span
    if first != begin or last < first or (end is not None and last >= end):
        return Setback(Next.ANEW, "the server answered another range than the one asked for", ranges_lie=True)
    if total is not None and total != known.total:
        return Setback(Next.ANEW, "the file's length changed")
    if not _same_version(known.validator or "", headers):
        return Setback(Next.ANEW, "the file changed")
    return judge_length(headers, last - first + 1)


def judge_length(headers: Mapping[str, str], expected: int | None) -> Setback | None:
    """Compare Content-Length with what Content-Range makes *expected*."""
    told = headers.get("content-length")
    if told is not None and not told.isdigit():
        return Setback(Next.ANEW, "the server sent an unreadable Content-Length", ranges_lie=True)
    if expected is not None and told is not None and int(told) != expected:
        return Setback(Next.ANEW, "the server's Content-Length and Content-Range disagree", ranges_lie=True)
    return None


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """First byte, last byte and length (None for ``*``) of a 206; None when it does not say."""
    hit = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if hit is None:
        return None
    begin, end, total = hit.groups()
    return int(begin), int(end), None if total == "*" else int(total)


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return what ``If-Range`` may hold for this answer: a strong ETag, else a Last-Modified that is one."""
    etag = headers.get("etag", "")
    if etag.startswith('"') and etag.endswith('"') and len(etag) > 2:
        return etag
    try:
        modified = parsedate_to_datetime(headers["last-modified"])
        answered = parsedate_to_datetime(headers["date"])
        # A file that changed within its own last minute may have changed twice under one date.
        return headers["last-modified"] if (answered - modified).total_seconds() >= 60 else None
    except (KeyError, ValueError, TypeError):
        return None


def _same_version(validator: str, headers: Mapping[str, str]) -> bool:
    name = "etag" if validator.startswith('"') else "last-modified"
    return headers.get(name, validator) == validator


def announced_digest(headers: Mapping[str, str]) -> tuple[str, bytes] | None:
    """Return the digest of the whole file that a server announces, as (algorithm, bytes)."""
    for name, pattern, algorithm in (
        ("repr-digest", r"sha-256=:([A-Za-z0-9+/=]+):", "sha256"),
        ("digest", r"(?i)sha-256=([A-Za-z0-9+/=]+)", "sha256"),
        ("x-goog-hash", r"md5=([A-Za-z0-9+/=]+)", "md5"),
        ("x-ms-blob-content-md5", r"([A-Za-z0-9+/=]+)", "md5"),
    ):
        hit = re.search(pattern, headers.get(name, ""))
        if hit is None:
            continue
        try:
            value = base64.b64decode(hit.group(1), validate=True)
        except binascii.Error:
            continue
        if len(value) == (32 if algorithm == "sha256" else 16):
            return algorithm, value
    return None


# -- links -------------------------------------------------------------------------------------------------


def expiry_of(url: str) -> float | None:
    """Return the time (epoch seconds) at which a presigned URL says it expires, None when it does not say."""
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    for signed, lasts in (("x-amz-date", "x-amz-expires"), ("x-goog-date", "x-goog-expires"),
                          ("x-tos-date", "x-tos-expires")):  # fmt: skip
        if signed in query and query.get(lasts, "").isdigit():
            try:
                begin = datetime.strptime(query[signed], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            except ValueError:
                return None
            return begin.timestamp() + int(query[lasts])
    if "se" in query and "sig" in query:
        try:
            moment = datetime.fromisoformat(query["se"])
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    for name in ("expires", "e", "exp", "x-expires", "expires_at"):
        # Anything before 2001 or after 2286 is some other number that happens to have this name.
        if len(query.get(name, "")) == 10 and query[name].isdigit():
            return float(query[name])
    return None


def link_in_json(body: bytes, base: str) -> str | None:
    """Return the link of the video in a JSON answer, None when the body is no JSON or holds none.

    It lies where a task's URL lies, or is the whole answer. Unlike a task's it may be relative to *base*, or
    the video itself as a ``data:`` URL.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    link: str | None = _read_link(found) if isinstance(found, str) else first(found, ((_LINKS, _read_link),))
    return urljoin(base, link) if link and link.startswith("/") else link


def _read_link(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    link = value.strip()
    return link if re.match(r"(?i)(https?://|data:video/|/)", link) else None
