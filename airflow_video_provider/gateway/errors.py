"""A reply that is an error, or a fault of the transport, as one typed error of the tree.

Source of the tables: the wire contract read from the gateways' documents, and the error bodies of new-api
(``tests/data/wire``). The tree itself is :mod:`~airflow_video_provider.gateway.error_tree`, and all of it can
be imported from here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_video_provider.gateway.envelope import (
    claimed_status,
    fit_to_store,
    read_content,
    read_envelope,
    says_nothing,
)
from airflow_video_provider.gateway.error_tree import (
    NOT_CHARGED,
    AuthenticationError,
    BotCheckError,
    CertificateError,
    ErrorKind,
    GatewayError,
    InvalidRequestError,
    ModerationError,
    NotFoundError,
    QuotaError,
    RateLimitError,
    ServerError,
    TransportError,
    UnreadableReplyError,
)
from airflow_video_provider.gateway.missing import Missing, is_missing_row, names_a_task, what_is_missing
from airflow_video_provider.gateway.refusals import LONGEST, Refusal, is_bot_check, refusal_of
from airflow_video_provider.http_common import parse_retry_after

if TYPE_CHECKING:
    pass

__all__ = [
    "AuthenticationError",
    "BotCheckError",
    "CertificateError",
    "ErrorKind",
    "GatewayError",
    "InvalidRequestError",
    "Missing",
    "ModerationError",
    "NotFoundError",
    "QuotaError",
    "RateLimitError",
    "Refusal",
    "ServerError",
    "TransportError",
    "UnreadableReplyError",
    "error_from_reply",
    "error_from_transport",
    "fit_to_store",
    "wrapped_error",
]

_MAX_MESSAGE = 500


_QUOTA = re.compile(
    r"insufficient_user_quota|insufficient_quota|余额不足|额度不足|额度已用尽|quota is not enough"
    r"|\bArrearage\b",
    re.I,
)
# In plain words, which a failing gateway may also say of an account of its own.
_QUOTA_IN_WORDS = re.compile(
    r"insufficient (?:balance|credits?|funds)|balance (?:is )?(?:not enough|insufficient)|not enough credits?"
    r"|out of credits?|欠费",
    re.I,
)
_BAD_KEY = re.compile(
    r"\binvalid_?api_?key\b|\b(?:invalid|incorrect|wrong|missing|no) "
    r"(?:api|access|auth\w*)[- ]?(?:key|token)\b"
    r"|\binvalid (?:key|token)\W*$"
    r"|\bunauthorized\b|\bunauthenticated\b|authentication_error|无效的令牌|未提供令牌|令牌已过期|令牌无效",
    re.I,
)
# LiteLLM without a database, of a key that is not its master key: it has nowhere to look for it.
_NO_PLACE_FOR_KEYS = re.compile(r"No connected db\.?", re.I)
_NO_MODEL = re.compile(r"model_not_found|\bmodel\b.{0,80}\bnot (exist|found)", re.I)
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
    body, text = read_content(content)
    said = _Said.of(body, text, html=body is None and b"<" in content[:512], status=status_code)
    return _error(said, status_code, headers, now)


def wrapped_error(body: object, *, headers: Mapping[str, str]) -> GatewayError | None:
    """The error that an HTTP 200 body wraps (``{"code": 400, "msg": …}``), or None where it wraps none.

    To be asked only of a body that is no task: a healthy task may carry an ``error`` key.
    """
    if not isinstance(body, dict):
        return None
    claimed = claimed_status(body)
    # A healthy task may have a type of its own ("create", "video"), and MiniMax says "success" with a 0.
    envelope = read_envelope({name: value for name, value in body.items() if name not in ("type", "output")})
    complaint = read_envelope({"error": body["error"]}).message if body.get("error") else ""
    if claimed is None and not envelope.code and (not complaint or says_nothing(complaint)):
        return None
    said = _Said.of(body, "", html=False, status=claimed or 200, wrapped=True)
    in_base_resp = isinstance(body.get("base_resp"), dict)
    return _error(said, 200 if in_base_resp else claimed or 200, headers, None)


@dataclass(frozen=True)
class _Said:
    """What there is to judge an error by.

    :param status: the HTTP status, or the one that a body within HTTP 200 claims.
    """

    status: int
    body: object
    message: str
    code: str | None
    words: str
    html: bool
    wrapped: bool

    @classmethod
    def of(cls, body: object, text: str, *, html: bool, status: int, wrapped: bool = False) -> _Said:
        envelope = read_envelope(body)
        message = (envelope.message or text)[:LONGEST]
        words = " ".join((envelope.code or "", message, *envelope.types))
        return cls(status, body, message, envelope.code, words, html, wrapped)

    @property
    def refusal(self) -> Refusal | None:
        """What moderation refused: a failing server and a firewall's page are believed by a code alone."""
        codes_only = self.html or self.status >= 500 or self.status in {401, 404, 405, 408, 410, 425, 429}
        return refusal_of(self.code, self.message, self.words, codes_only=codes_only)

    def kind(self) -> type[GatewayError]:
        """What a gateway says outranks the status it says it with (429 with no quota is a balance)."""
        status, words = self.status, self.words
        if _QUOTA.search(words) or (status < 500 and _QUOTA_IN_WORDS.search(words)):
            return QuotaError
        if self.refusal:
            return BotCheckError if is_bot_check(words) else ModerationError
        # A 5xx is asked again whatever its words ("video service not found"), but for those that say all.
        no_task = names_a_task((self.code or "") if status >= 500 else words)
        no_task = no_task or (status == 500 and is_missing_row(self.message))
        if no_task and status in {200, 400, 404, 410, 422, 500}:
            return NotFoundError
        if status in {400, 404} and _NO_MODEL.search(words):
            return InvalidRequestError
        named = (self.code or "") if status == 400 else words
        no_place = status == 400 and _NO_PLACE_FOR_KEYS.fullmatch(self.message)
        if no_place or (status in {200, 400} and _BAD_KEY.search(named)):
            return AuthenticationError
        return _BY_STATUS.get(status, InvalidRequestError if 300 <= status < 500 else ServerError)


def _error(said: _Said, status_code: int, headers: Mapping[str, str], now: datetime | None) -> GatewayError:
    asked = next((value for name, value in headers.items() if name.lower() == "retry-after"), None)
    # In one line: it becomes a line of a log.
    message = " ".join((said.message or f"the gateway answered {status_code} and no words").split())[
        :_MAX_MESSAGE
    ]
    facts: dict[str, Any] = {
        "status_code": status_code,
        "code": said.code,
        "retry_after": parse_retry_after(asked, now or datetime.now(UTC)),
    }
    kind = said.kind()
    if kind is NotFoundError:
        words = f"{said.code or ''} {said.message}"
        missing = what_is_missing(said.body, words, html=said.html, wrapped=said.wrapped)
        # Of a create a failing server proves nothing, whatever it cannot find.
        return NotFoundError(message, missing=missing, maybe_accepted=said.status >= 500, **facts)
    if issubclass(kind, ModerationError):
        return kind(message, refusal=said.refusal or Refusal.INPUT, **facts)
    if kind is ServerError:
        facts["maybe_accepted"] = not NOT_CHARGED.search(said.words)
    return kind(message, **facts)


def error_from_transport(error: Exception, *, origin: str) -> GatewayError:
    """Turn httpx's exception, or another of its transport, into ours.

    :param error: what was raised.
    :param origin: scheme, host and port that were asked, for the message (never the whole URL).
    """
    import httpx

    from airflow_video_provider.gateway.causes import Cause

    cause = Cause(error)
    what = fit_to_store(" ".join(str(error).split())) or type(error).__name__
    if (why := cause.untrusted) is not None:
        return CertificateError(f"the certificate of {origin} is not trusted: {why}", maybe_sent=False)
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.InvalidURL):
        return InvalidRequestError(f"the request to {origin} cannot be sent: {what}")
    if isinstance(error, httpx.DecodingError):
        return UnreadableReplyError(f"the reply from {origin} cannot be decoded: {what}")
    return TransportError(
        f"no reply from {origin}: {fit_to_store(cause.words)}", maybe_sent=not cause.never_sent
    )
