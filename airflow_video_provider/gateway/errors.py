"""Everything that can go wrong between a request and a task, as one tree.

::

    GatewayError
    ├── AuthenticationError     401, or no usable key                            final
    ├── QuotaError              402, insufficient_user_quota, 余额不足            final
    ├── ModerationError         451, sentinel_block, moderation_blocked          final
    ├── InvalidRequestError     400, 422, 403, a redirect, bad settings          final
    ├── NotFoundError           404, task_not_exist                              final after a short grace
    ├── RateLimitError          429                                              retryable
    ├── ServerError             5xx, an HTTP 200 that wraps an error             retryable
    ├── TransportError          no reply: refused, timed out, cut off            retryable
    └── UnreadableReplyError    a reply that is not one of a gateway             retryable

``retryable`` says that asking *the same query* again can help. Whether a *create* may be sent again is
another question, because a create is billed and no gateway of the family has an idempotency key: that is
:attr:`GatewayError.maybe_accepted`.

Source of the table: the wire contract read from the gateways' documents, and the error bodies of new-api
(``tests/data/wire``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import httpx

__all__ = [
    "AuthenticationError",
    "ErrorKind",
    "GatewayError",
    "InvalidRequestError",
    "ModerationError",
    "NotFoundError",
    "QuotaError",
    "RateLimitError",
    "ServerError",
    "TransportError",
    "UnreadableReplyError",
    "error_from_reply",
    "error_from_transport",
    "refused_by_moderation",
    "wrapped_error",
]

_MAX_MESSAGE = 500


class ErrorKind(StrEnum):
    """What went wrong, for code that decides; the message is for people."""

    AUTHENTICATION = "authentication"
    QUOTA = "quota"
    RATE_LIMIT = "rate_limit"
    NOT_FOUND = "not_found"
    MODERATION = "moderation"
    INVALID_REQUEST = "invalid_request"
    SERVER = "server"
    TRANSPORT = "transport"
    UNREADABLE = "unreadable"


class GatewayError(Exception):
    """A gateway refused, failed or could not be reached.

    :param message: the gateway's own words where it gave any, at most 500 characters.
    :param status_code: HTTP status; None where there was no reply.
    :param code: the gateway's error code as text (``"insufficient_user_quota"``); None where it gave none.
    :param retry_after: seconds to wait as the gateway asked for; None where it did not.
    :param maybe_accepted: for a create, whether the gateway may have accepted, and billed, it.
    """

    kind: ClassVar[ErrorKind]
    retryable: ClassVar[bool] = False
    meaning: ClassVar[str] = ""
    """What the class means, said before the gateway's own words, which may be in any language."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        maybe_accepted: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.retry_after = retry_after
        self.maybe_accepted = maybe_accepted

    def __str__(self) -> str:
        where = ", ".join(
            part
            for part in (
                f"HTTP {self.status_code}" if self.status_code else "",
                f"code {self.code}" if self.code else "",
            )
            if part
        )
        said = f"{self.meaning}: {self.message}" if self.meaning else self.message
        return f"{said} ({where})" if where else said


class AuthenticationError(GatewayError):
    """The gateway does not accept the API key."""

    kind = ErrorKind.AUTHENTICATION
    meaning = "the gateway does not accept the API key"


class QuotaError(GatewayError):
    """The account has no balance left; some gateways say so with 403 or 429."""

    kind = ErrorKind.QUOTA
    meaning = "no balance left"


class ModerationError(GatewayError):
    """Prompt or images were refused by moderation: final even where the text says "try again later"."""

    kind = ErrorKind.MODERATION
    meaning = "refused by moderation"


class InvalidRequestError(GatewayError):
    """The request itself is wrong, on the gateway's word or on ours."""

    kind = ErrorKind.INVALID_REQUEST


class NotFoundError(GatewayError):
    """The gateway knows no such task, or no such route: :attr:`no_such_route` tells which."""

    kind = ErrorKind.NOT_FOUND

    def __init__(self, message: str, *, no_such_route: bool = False, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.no_such_route = no_such_route

    @property
    def meaning(self) -> str:  # type: ignore[override]
        """Which of the two is not there."""
        return "the gateway has no such route" if self.no_such_route else "the gateway knows no such task"


class RateLimitError(GatewayError):
    """Too many requests; every poll of the connection should slow down."""

    kind = ErrorKind.RATE_LIMIT
    retryable = True
    meaning = "too many requests"


class ServerError(GatewayError):
    """The gateway or a proxy before it failed."""

    kind = ErrorKind.SERVER
    retryable = True

    @property
    def meaning(self) -> str:  # type: ignore[override]
        """A model that nobody serves is mostly a model's name with a typo."""
        no_channel = _NOT_CHARGED.search(f"{self.code or ''} {self.message}")
        return "the gateway serves no such model now" if no_channel else "the gateway failed"


class TransportError(GatewayError):
    """There was no whole reply.

    :param maybe_sent: whether the request may have reached the gateway: False only where the connection was
        never made.
    """

    kind = ErrorKind.TRANSPORT
    retryable = True

    def __init__(self, message: str, *, maybe_sent: bool = True) -> None:
        super().__init__(message, maybe_accepted=maybe_sent)
        self.maybe_sent = maybe_sent


class UnreadableReplyError(GatewayError):
    """A reply came, and it is not one that a gateway of this family gives."""

    kind = ErrorKind.UNREADABLE
    retryable = True


_QUOTA = re.compile(
    r"insufficient_user_quota|insufficient_quota|余额不足|额度不足|额度已用尽|quota is not enough", re.I
)
_MODERATION = re.compile(r"sentinel_block|moderation_blocked|content_policy_violation|prompt_blocked", re.I)
# How gateways put it in the reason of a task that failed after it was accepted.
_MODERATED = re.compile(r"moderation|content.policy|unsafe (prompt|content|image)|nsfw|审核|违规|敏感", re.I)
_NO_TASK = re.compile(
    r"task_not_exist|task_not_found|video_not_found|(task|video)\b.{0,40}\bnot (exist|found)", re.I
)
_NO_MODEL = re.compile(r"model_not_found|\bmodel\b.{0,80}\bnot (exist|found)", re.I)
_NO_ROUTE = re.compile(r"invalid url|no route|route not found|<html|<!doctype", re.I)
# new-api chooses a channel before it charges: these say that it found none.
_NOT_CHARGED = re.compile(r"model_not_found|get_channel_failed|no available channel|无可用渠道", re.I)

_BY_STATUS: dict[int, type[GatewayError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: InvalidRequestError,
    404: NotFoundError,
    405: NotFoundError,
    408: ServerError,  # a proxy's timeout, like 504
    410: NotFoundError,
    422: InvalidRequestError,
    425: ServerError,
    429: RateLimitError,
    451: ModerationError,
}

# What a gateway says outranks the status it says it with (429 with insufficient_user_quota is a balance).
_BY_WORDS: tuple[tuple[re.Pattern[str], type[GatewayError]], ...] = (
    (_QUOTA, QuotaError),
    (_MODERATION, ModerationError),
)


_QUERY_IN_TEXT = re.compile(r"(https?://[^\s\"'<>?#]+)[?#][^\s\"'<>]*", re.I)


def fit_to_store(text: str) -> str:
    """A gateway's words as they may be logged and stored: no query of a URL, which may be a credential
    (Go's HTTP errors quote the whole URL), and no half of a surrogate pair, which no log can write."""
    return _QUERY_IN_TEXT.sub(r"\1", text.encode("utf-8", "replace").decode()).strip()


def _parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header (RFC 9110: delta-seconds or an HTTP date), never negative."""
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
    # A date in the year 9999 or "inf" is no wait that anybody means.
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else None


# Words in a code's place that say nothing went wrong; 1000 is the success of one gateway's envelope.
_NO_CODE = frozenset({"", "0", "200", "201", "202", "1000", "success", "ok"})


def _text(value: object) -> str:
    return fit_to_store(value) if isinstance(value, str) else ""


def _code(value: object) -> str | None:
    """A code as text; "", 0 and success are none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = fit_to_store(str(value))
    return None if text.lower() in _NO_CODE else text


def _envelope(body: object) -> tuple[str, str | None]:
    """Message and code from any of the error envelopes; the type stands in for a missing code."""
    if isinstance(body, str):
        return _text(body), None
    if not isinstance(body, Mapping):
        return "", None
    error = body.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    messages = (
        inner.get("message"), error, body.get("message"), body.get("msg"), body.get("detail"),
        body.get("error_message"), body.get("fail_reason"),
    )  # fmt: skip
    codes = (inner.get("code"), body.get("code"), inner.get("type"), body.get("type"))
    return (
        next((text for text in map(_text, messages) if text), ""),
        next((code for code in map(_code, codes) if code), None),
    )


def _readable(content: bytes) -> tuple[object, str]:
    """The body as JSON where it is, and as one line of text for a message where it is not."""
    try:
        return json.loads(content), ""
    except (ValueError, RecursionError):  # RecursionError: a reply of a hundred thousand opening brackets
        text = content[:4096].decode("utf-8", "replace")
        title = re.search(r"<title>(.*?)</title>", text, re.I | re.S)
        plain = title.group(1) if title else re.sub(r"<[^>]+>", " ", text)
        return None, fit_to_store(" ".join(plain.split()))[:120]


def error_from_reply(
    status_code: int, headers: Mapping[str, str], content: bytes, *, now: datetime | None = None
) -> GatewayError:
    """Read a reply that is an error into the one error that it means.

    :param status_code: HTTP status of the reply.
    :param headers: its headers, any case; ``Retry-After`` is read (seconds or an HTTP date).
    :param content: its body: any JSON envelope of the family, HTML, text or nothing.
    :param now: what an HTTP date in ``Retry-After`` is counted from; default the present.
    :returns: the error, not raised.
    """
    body, text = _readable(content)
    said, code = _envelope(body)
    html = body is None and b"<" in content[:512]
    words = f"{code or ''} {said or text}"
    asked = next((value for name, value in headers.items() if name.lower() == "retry-after"), None)
    retry_after = _parse_retry_after(asked, now or datetime.now(UTC))

    kind = next((error for pattern, error in _BY_WORDS if pattern.search(words)), None)
    # A 5xx is asked again whatever its words ("video service not found"), but for a code that says it all.
    if kind is None and _NO_TASK.search((code or "") if status_code >= 500 else words):
        kind = NotFoundError if status_code in {200, 400, 404, 410, 422, 500} else None
    if kind is None and status_code in {400, 404} and _NO_MODEL.search(words):
        kind = InvalidRequestError
    if kind is None:
        kind = _BY_STATUS.get(status_code, InvalidRequestError if 300 <= status_code < 500 else ServerError)

    message = (said or text or f"the gateway answered {status_code} and no words")[:_MAX_MESSAGE]
    facts: dict[str, Any] = {"status_code": status_code, "code": code, "retry_after": retry_after}
    if kind is NotFoundError:
        no_task = bool(_NO_TASK.search(words))
        return NotFoundError(
            message,
            no_such_route=not no_task and (html or not said or bool(_NO_ROUTE.search(words))),
            **facts,
        )
    if kind is ServerError:
        facts["maybe_accepted"] = not _NOT_CHARGED.search(words)
    return kind(message, **facts)


def refused_by_moderation(*words: str | None) -> bool:
    """Whether reason, code or status of a failed task speak of moderation, which no retry cures."""
    return any(word and (_MODERATED.search(word) or _MODERATION.search(word)) for word in words)


def wrapped_error(body: object, *, headers: Mapping[str, str]) -> GatewayError | None:
    """The error that an HTTP 200 body wraps (``{"code": 400, "msg": …}``), or None where it wraps none.

    To be asked only of a body that is no task: a healthy task may carry an ``error`` key.
    """
    if not isinstance(body, Mapping):
        return None
    # A healthy task may have a type of its own ("create", "video").
    _, code = _envelope({name: value for name, value in body.items() if name != "type"})
    error_words, _ = _envelope({"error": body.get("error")})
    if not code and not error_words:
        return None
    status = int(code) if code and re.fullmatch(r"[45]\d\d", code) else 200
    return error_from_reply(status, headers, json.dumps(body).encode())


def error_from_transport(error: httpx.RequestError | httpx.InvalidURL, *, origin: str) -> GatewayError:
    """Turn httpx's exception into ours.

    :param error: what httpx raised.
    :param origin: scheme, host and port that were asked, for the message (never the whole URL).
    """
    import httpx

    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.InvalidURL):
        return InvalidRequestError(f"the request to {origin} cannot be sent: {what}")
    if isinstance(error, httpx.DecodingError):
        return UnreadableReplyError(f"the reply from {origin} cannot be decoded: {what}")
    if isinstance(error, httpx.TimeoutException):
        what = f"timed out ({type(error).__name__})"
    # These are raised before a byte of the request can have left this machine.
    not_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
    return TransportError(f"no reply from {origin}: {what}", maybe_sent=not isinstance(error, not_sent))
