"""What is left on a gateway's account, where it has a route that says so.

new-api has two (its documents, "Token Usage Query" and "Account Billing Dashboard Module"): the newer tells
units of the site, the older tells fields named ``usd`` that hold whatever the site is set to show. So no
currency is made up: a number comes with the name that the gateway gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_video_provider.gateway.dialect import Dialect
from airflow_video_provider.gateway.errors import (
    GatewayError,
    InvalidRequestError,
    NotFoundError,
    UnreadableReplyError,
    wrapped_error,
)
from airflow_video_provider.gateway.places import at, parse_place
from airflow_video_provider.gateway.values import read_flag, read_instant, read_number, read_text
from airflow_video_provider.gateway.wire import WireRequest

__all__ = ["Ask", "Balance", "balance_plan"]

#: new-api's hard limit of a token without one.
_UNLIMITED = 100_000_000


@dataclass(frozen=True)
class Balance:
    """What is left, in the gateway's own units."""

    left: float | None
    """None where there is no limit, or the gateway tells none."""
    unit: str
    """What the gateway calls the number: ``units``, ``usd``, ``credits``. Its name for it, not a currency."""
    used: float | None = None
    granted: float | None = None
    unlimited: bool = False
    expires_at: datetime | None = None
    """None where it does not expire, or the gateway does not say."""
    name: str | None = None
    """The key's name."""

    def __str__(self) -> str:
        if self.unlimited:
            told = "no limit"
        elif self.left is None:
            told = "not told"
        else:
            of = f" of {_plain(self.granted)}" if self.granted is not None else ""
            told = f"{_plain(self.left)}{of} {self.unit} left"
        until = f", until {self.expires_at:%Y-%m-%d %H:%M} UTC" if self.expires_at else ""
        return told + until


def _plain(number: float) -> str:
    return f"{number:,.4f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Ask:
    """One question of a plan: what to send, and how its reply is read."""

    wire: WireRequest
    read: Callable[[Any, Mapping[str, str]], Any]


Plan = Generator[Ask, Any, Any]


@dataclass(frozen=True)
class _Shape:
    """Where one route's reply has its numbers."""

    left: str | None = None
    used: str | None = None
    granted: str | None = None
    unit: str = "units"
    unlimited: str = "data.unlimited_quota"
    expires_at: str = "data.expires_at"
    name: str = "data.name"


#: Sources: new-api's documents; OpenRouter's and Luma's SDKs; Runway's documents.
_SHAPES = (
    _Shape("data.total_available", "data.total_used", "data.total_granted"),
    _Shape(None, "data.total_usage", "data.total_credits", unit="credits"),
    _Shape("creditBalance", unit="credits"),
    _Shape("credit_balance", unit="credits"),
    _Shape("data.balance"),
    _Shape("balance"),
)


def balance_plan(dialect: Dialect) -> Generator[Ask, Any, Balance | None]:
    """Ask the routes that may tell the balance, one after the other.

    Sent the readings of what it asked, or thrown their errors, it returns the balance, or None where no route
    tells one.

    :raises GatewayError: no route told one, and one refused the key, the rate or the connection.
    """
    routes: tuple[Callable[[], Generator[Ask, Any, Balance]], ...] = (_token, _billing)
    if dialect.balance_path is not None:
        path = dialect.balance_path
        routes = (lambda: _one(path),)
    refused: GatewayError | None = None
    for route in routes:
        try:
            return (yield from route())
        except (NotFoundError, UnreadableReplyError, InvalidRequestError):
            continue
        except GatewayError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return None


def _one(path: str) -> Generator[Ask, Any, Balance]:
    found: Balance = yield Ask(WireRequest("GET", path), _read_balance)
    return found


def _token() -> Generator[Ask, Any, Balance]:
    return (yield from _one("/api/usage/token/"))


def _billing() -> Generator[Ask, Any, Balance]:
    limit: float = yield Ask(
        WireRequest("GET", "/v1/dashboard/billing/subscription"), _number_at("hard_limit_usd")
    )
    if limit >= _UNLIMITED:
        return Balance(None, "usd", unlimited=True)
    cents: float = yield Ask(WireRequest("GET", "/v1/dashboard/billing/usage"), _number_at("total_usage"))
    # Whatever the unit, the usage is told in its hundredths.
    return Balance(limit - cents / 100, "usd", used=cents / 100, granted=limit)


def _refusal(body: Any, headers: Mapping[str, str]) -> GatewayError:
    """What a reply that holds no balance is: new-api reports errors with HTTP 200 and an ``error`` key, or as
    ``{"success": false, "message"}``."""
    if isinstance(body, Mapping) and body.get("success") is False:
        body = {"error": body.get("message") or "no balance is told"}
    return wrapped_error(body, headers=headers) or UnreadableReplyError("the reply holds no balance")


def _number_at(place: str) -> Callable[[Any, Mapping[str, str]], float]:
    def read(body: Any, headers: Mapping[str, str]) -> float:
        number = _number(body, place)
        if number is None:
            raise _refusal(body, headers)
        return number

    return read


def _number(body: object, place: str | None) -> float | None:
    number = read_number(at(body, parse_place(place))) if place else None
    return int(number) if number is not None and number.is_integer() else number


def _read_balance(body: Any, headers: Mapping[str, str]) -> Balance:
    for shape in _SHAPES:
        left, used, granted = (_number(body, place) for place in (shape.left, shape.used, shape.granted))
        if shape.left is None and used is not None and granted is not None:
            left = granted - used
        unlimited = read_flag(at(body, parse_place(shape.unlimited))) is True
        if left is None and not unlimited:
            continue
        return Balance(
            None if unlimited else left,
            shape.unit,
            used,
            None if unlimited else granted,
            unlimited,
            _expiry(at(body, parse_place(shape.expires_at))),
            read_text(at(body, parse_place(shape.name))),
        )
    raise _refusal(body, headers)


def _expiry(value: object) -> datetime | None:
    moment = read_instant(value)
    # new-api's -1 and 0 are "never".
    return moment if moment is not None and moment > datetime(2000, 1, 1, tzinfo=UTC) else None
