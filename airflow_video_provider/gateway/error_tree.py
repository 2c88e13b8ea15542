"""Everything that can go wrong between a request and a task, as one tree.

::

    GatewayError
    ├── AuthenticationError     401, or no usable key                            final
    ├── QuotaError              402, insufficient_user_quota, 余额不足            final
    ├── ModerationError         451, what refusals.py lists                      final
    │   └── BotCheckError       sentinel_block                                   final
    ├── InvalidRequestError     400, 422, 403, a redirect, bad settings          final
    ├── NotFoundError           404, task_not_exist                              final after a short grace
    ├── RateLimitError          429                                              retryable
    ├── ServerError             5xx, an HTTP 200 that wraps an error             retryable
    ├── TransportError          no reply: refused, timed out, cut off            retryable
    │   └── CertificateError    the server's TLS certificate is not trusted      final
    └── UnreadableReplyError    a reply that is not one of a gateway             retryable

``retryable`` says that asking *the same query* again can help. Whether a *create* may be sent again is
another question, because a create is billed and no gateway of the family has an idempotency key: that is
:attr:`GatewayError.maybe_accepted`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, ClassVar

from airflow_video_provider.gateway.missing import Missing
from airflow_video_provider.gateway.refusals import Refusal

__all__ = [
    "AuthenticationError",
    "BotCheckError",
    "CertificateError",
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
]

# new-api chooses a channel before it charges: these say that it found none.
NOT_CHARGED = re.compile(r"model_not_found|get_channel_failed|no available channel|无可用渠道", re.I)


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
    """Prompt or images were refused by moderation: final even where the text says "try again later".

    :param refusal: whether the input was refused, or what was made of it.
    """

    kind = ErrorKind.MODERATION
    meaning = "refused by moderation"

    def __init__(self, message: str, *, refusal: Refusal = Refusal.INPUT, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.refusal = refusal


class BotCheckError(ModerationError):
    """``sentinel_block``: final like moderation, and by one report not of the prompt but of the client."""

    meaning = (
        "refused by moderation, or by a bot check that another User-Agent "
        "in the connection's headers may pass"
    )


class InvalidRequestError(GatewayError):
    """The request itself is wrong, on the gateway's word or on ours."""

    kind = ErrorKind.INVALID_REQUEST


class NotFoundError(GatewayError):
    """The gateway knows no such task, or no such route: :attr:`missing` tells which.

    :param no_such_route: short for ``missing=Missing.ROUTE``.
    """

    kind = ErrorKind.NOT_FOUND

    def __init__(
        self, message: str, *, no_such_route: bool = False, missing: Missing | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.missing = missing or (Missing.ROUTE if no_such_route else Missing.TASK)

    @property
    def no_such_route(self) -> bool:
        """Whether the reply does not say that it is the task that is missing.

        A bare "not found" counts: to end the wait for a paid task, a gateway has to name it.
        """
        return self.missing is not Missing.TASK

    @property
    def meaning(self) -> str:  # type: ignore[override]
        """Which of the two is not there."""
        return {
            Missing.TASK: "the gateway knows no such task",
            Missing.ROUTE: "the gateway has no such route",
            Missing.UNCLEAR: "the gateway has no such route, or knows no such task",
        }[self.missing]


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
        no_channel = NOT_CHARGED.search(f"{self.code or ''} {self.message}")
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


class CertificateError(TransportError):
    """The server's TLS certificate is not trusted, so nothing was sent."""

    retryable = False


class UnreadableReplyError(GatewayError):
    """A reply came, and it is not one that a gateway of this family gives."""

    kind = ErrorKind.UNREADABLE
    retryable = True
