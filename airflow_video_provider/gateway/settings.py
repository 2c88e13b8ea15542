"""How to reach one gateway: address, key, dialect and the rest, checked before anything is sent."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import quote, urlsplit

import httpx

from airflow_video_provider import __version__
from airflow_video_provider.gateway.dialect import Dialect, Encoding
from airflow_video_provider.gateway.dialects import dialect_from
from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.proxies import proxy_for
from airflow_video_provider.http_common import HEADER_NAME, origin_of, tls_context

__all__ = ["GatewaySettings", "normalise_base_url", "origin_of"]

#: Longer than any sensible poll interval: a connection is kept from one poll to the next, where httpx's
#: default of 5 s would make a TLS handshake of each.
KEEPALIVE_SECONDS = 90.0
#: Seconds, for each wait on the reply to a query. A gateway that is longer about one is overloaded, and a
#: query that hangs keeps one of few connections from the others.
QUERY_TIMEOUT = 30.0
#: Seconds, for opening a connection.
CONNECT_TIMEOUT = 15.0

_SHORTEST_KEY, _SHORTEST_HEADER = 8, 16
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie", re.I)


def _is_header_value(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()


def _is_console_url(url: str) -> bool:
    """Whether a browser may be sent there: ``javascript:`` is a URL, too."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    named = "{video_id}" in parts.path + parts.query + parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and url.isprintable() and named


def normalise_base_url(base_url: str) -> str:
    """Check a base URL and cut what the routes bring themselves: a trailing slash, a trailing ``/v1``.

    :raises InvalidRequestError: not an http(s) URL, or one with credentials, a query or a fragment.
    """
    shown = re.sub(r"[^/@]*@", "***@", base_url.partition("?")[0])
    try:
        parts = urlsplit(base_url.strip())
        usable = (
            parts.scheme.lower() in {"http", "https"}
            and parts.hostname
            and (parts.port is None or parts.port)
        )
    except ValueError:
        raise InvalidRequestError(f"host: {shown!r} is no URL") from None
    if not usable:
        raise InvalidRequestError(f"host: {shown!r} is no http:// or https:// base URL")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidRequestError("host: the base URL may have a path, but no user, query or fragment")
    path = parts.path.rstrip("/")
    return f"{parts.scheme.lower()}://{parts.netloc}{path.removesuffix('/v1')}"


@dataclass(frozen=True)
class GatewaySettings:
    """How to reach one gateway.

    :param base_url: http(s) URL; a path prefix is honoured, a trailing ``/v1`` is cut.
    :param api_key: sent as ``Authorization: Bearer``; None or "" sends no such header (self-hosted servers).
    :param dialect: the name of one, ``unified`` for example, a :class:`Dialect`, or an object of its fields.
    :param timeout: seconds, for connecting (at most 15) and for each wait on the reply; a query's reply is
        waited for at most 30.
    :param headers: more headers (name, value) for every request, to this origin only; may be a mapping.
    :param forwarded_host: value of ``X-Forwarded-Host``, which some gateways ask for.
    :param verify: False to check no certificate, a path for a CA file of your own.
    :param create_encoding: ``json``, ``multipart`` (vLLM-Omni) or ``multipart_with_file`` where the gateway
        wants another than its dialect says; None for the dialect's.
    :param console_url: http(s) URL of the gateway's own page about a task, for people; ``{video_id}`` stands
        for the task's id.
    :param max_requests_per_second: a ceiling on the queries of one triggerer; None for none.
    :raises InvalidRequestError: naming the setting that is wrong.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    dialect: str | Dialect | Mapping[str, Any] = "unified"
    timeout: float = 120.0
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    forwarded_host: str | None = None
    verify: bool | str = True
    create_encoding: str | None = None
    max_requests_per_second: float | None = None
    console_url: str | None = None
    spoken: Dialect = field(init=False, repr=False, compare=False)
    """The dialect as data."""
    secrets: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The key, and what the headers hold of its kind."""
    _masked: tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", normalise_base_url(self.base_url))
        if isinstance(self.headers, Mapping):  # settings are compared and hashed
            object.__setattr__(self, "headers", tuple(self.headers.items()))
        object.__setattr__(self, "spoken", self._spoken())
        if self.console_url is not None and not _is_console_url(self.console_url):
            raise InvalidRequestError(
                f"console_url: {self.console_url!r} is no http:// or https:// URL with {{video_id}} in its "
                "path, query or fragment"
            )
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout <= 3600:
            raise InvalidRequestError(f"timeout: {self.timeout!r} is not a number of seconds from 0 to 3600")
        rate = self.max_requests_per_second
        if rate is not None and not (isinstance(rate, int | float) and 0.01 <= rate <= 10_000):
            raise InvalidRequestError(f"max_requests_per_second: {rate!r} is not a number from 0.01 to 10000")
        for name, value in self.request_headers().items():
            # httpx would raise from deep inside, and with the value in its message.
            if not HEADER_NAME.fullmatch(name) or not _is_header_value(value):
                what = {
                    self.spoken.auth_header: "password (the API key)",
                    "X-Forwarded-Host": "forwarded_host",
                }.get(name, f"headers.{name}")
                raise InvalidRequestError(
                    f"{what}: has a line break, a space at its end, or what else no HTTP header can carry"
                )
        object.__setattr__(self, "secrets", self._secrets())
        object.__setattr__(self, "_masked", tuple(self._spellings()))

    def _spoken(self) -> Dialect:
        dialect = dialect_from(self.dialect)
        if isinstance(self.dialect, Mapping):
            object.__setattr__(self, "dialect", dialect)
        if self.create_encoding is None:
            return dialect
        if self.create_encoding not in get_args(Encoding):
            raise InvalidRequestError(
                f"create_encoding: {self.create_encoding!r} is none; allowed: {', '.join(get_args(Encoding))}"
            )
        file_field = dialect.file_field or "input_reference"
        return dialect.model_copy(update={"create_encoding": self.create_encoding, "file_field": file_field})

    def _secrets(self) -> tuple[str, ...]:
        named = [
            str(value)
            for name, value in (*self.spoken.headers.items(), *self.headers)
            if _SECRET_HEADER.search(str(name))
        ]
        # A header may hold a scheme and a key, of which a gateway repeats the key alone.
        keys = (self.api_key, *named, *(value.rpartition(" ")[2] for value in named))
        return tuple(dict.fromkeys(key for key in keys if key))

    def masked(self, content: bytes) -> bytes:
        """What a gateway sent, without the secrets of this connection that it repeats.

        They are masked before anything is read or cut, so that no half of one stays. A key shorter than eight
        characters and a header's value shorter than sixteen are left: they may be words that stand anywhere.
        """
        for secret in self._masked:
            content = content.replace(secret, b"***")
        return content

    def _spellings(self) -> Iterator[bytes]:
        for secret in self.secrets:
            if len(secret) >= (_SHORTEST_KEY if secret == self.api_key else _SHORTEST_HEADER):
                yield secret.encode()
                if "/" in secret:  # as some write it in JSON
                    yield secret.replace("/", "\\/").encode()

    def console_page(self, video_id: str) -> str | None:
        """The gateway's own page about a task; None where the settings name none."""
        return self.console_url and self.console_url.replace("{video_id}", quote(video_id, safe=""))

    def request_headers(self) -> dict[str, str]:
        """The headers of every request. They carry the key: for this gateway's origin only."""
        headers = (
            ("Accept", "application/json"),
            ("User-Agent", f"airflow-video-provider/{__version__}"),
            *((("X-Forwarded-Host", self.forwarded_host),) if self.forwarded_host else ()),
            *self.spoken.headers.items(),
            *self.headers,
            *(
                ((self.spoken.auth_header, f"{self.spoken.auth_scheme} {self.api_key}".lstrip()),)
                if self.api_key
                else ()
            ),
        )
        # The last of a name counts, however it is spelt: httpx would send both.
        last = {name.lower(): (name, value) for name, value in headers}
        return dict(last.values())

    def client_options(self) -> dict[str, Any]:
        """Arguments that both httpx clients are made with.

        :raises InvalidRequestError: the CA file, or the proxy that the environment names, cannot be used.
        """
        return {
            "timeout": httpx.Timeout(self.timeout, connect=min(self.timeout, CONNECT_TIMEOUT)),
            "limits": httpx.Limits(
                max_connections=64, max_keepalive_connections=32, keepalive_expiry=KEEPALIVE_SECONDS
            ),
            "verify": self._trust(),
            "proxy": proxy_for(self.base_url),
            "trust_env": False,  # httpx would look for proxies itself
            "follow_redirects": False,
        }

    def _trust(self) -> ssl.SSLContext:
        try:
            return tls_context(self.verify)
        except OSError as error:
            raise InvalidRequestError(f"verify: {self.verify!r} is no readable CA file: {error}") from None
