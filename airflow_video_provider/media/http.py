"""One GET, asked safely: redirects, credentials and addresses in one place.

Built on ``httpcore``, the part of ``httpx`` that opens connections, because only there can the guard stand
between the resolver and the socket; and because a presigned URL must be sent byte for byte, which a client
that normalises URLs does not promise. ``httpx``'s client, which logs each URL with its signature, is not
in the path at all.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from airflow_video_provider.http_common import quiet_httpx
from airflow_video_provider.media.errors import (
    BadURL,
    MediaError,
    RedirectRefused,
    UntrustedCertificate,
    printable,
)
from airflow_video_provider.media.guard import AddressGuard, GuardedBackend

MAX_REDIRECTS = 5
CONNECT_TIMEOUT = 15.0
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
USER_AGENT = "airflow-video-provider"

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")

Origin = tuple[str, str, int]


@dataclass(frozen=True)
class Url:
    """An http(s) URL that has been looked at. ``target`` is sent exactly as the URL spelled it."""

    text: str
    scheme: str
    host: str
    port: int
    target: bytes

    @classmethod
    def parse(cls, url: str) -> Url:
        """Read *url*.

        :raises BadURL: it is not an absolute http(s) URL, has credentials in it, or characters that
            different readers of URLs read differently.
        """
        shown = printable(url)
        text = url.strip()
        if _FORBIDDEN.search(text.replace(" ", "%20")):
            raise BadURL(f"{shown} holds control characters or a backslash: not a URL that can be fetched")
        try:
            parts = urlsplit(text)
            port = parts.port
            host = _ascii_host(parts.hostname or "")
        except ValueError:
            raise BadURL(f"{shown} is not a URL that can be read") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise BadURL(f"only http and https URLs are fetched, not {shown}")
        if not host:
            raise BadURL(f"{shown} names no host")
        if parts.username is not None or parts.password is not None:
            raise BadURL(f"{shown} has credentials in it; such URLs are not fetched")
        target = (parts.path or "/") + (f"?{parts.query}" if "?" in text.split("#", 1)[0] else "")
        return cls(
            text=text,
            scheme=parts.scheme,
            host=host,
            port=port if port is not None else DEFAULT_PORTS[parts.scheme],
            # Only what cannot stand in a request line is touched: spaces and letters beyond ASCII.
            target=quote(target, safe="".join(chr(c) for c in range(0x21, 0x7F))).encode("ascii"),
        )

    @property
    def origin(self) -> Origin:
        """Scheme, host and port: what credentials belong to."""
        return self.scheme, self.host, self.port

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return printable(self.text)


def _ascii_host(host: str) -> str:
    if host.isascii():
        return host.lower()
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(str(error)) from error


class Response:
    """An answer whose body is still to be read. Close it, or use it as a context manager."""

    def __init__(self, response: httpcore.Response, link: Url, *, trusted: bool) -> None:
        self._response = response
        self.link = link
        self.trusted = trusted
        self.status = response.status
        self.headers: dict[str, str] = {}
        for raw_name, raw_value in response.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self._body = response.iter_stream()
        self._ahead = b""

    def peek(self, size: int, within: float = 30.0) -> bytes:
        """Return the first *size* bytes of the body, fewer when it is shorter; they stay to be read.

        :param within: seconds after which a server that sends them one by one is given up.
        :raises httpcore.ReadTimeout: it took longer.
        """
        begin = time.monotonic()
        while len(self._ahead) < size:
            chunk = next(self._body, b"")
            if not chunk:
                break
            self._ahead += chunk
            if time.monotonic() - begin > within:
                raise httpcore.ReadTimeout("the answer begins too slowly")
        return self._ahead[:size]

    def stream(self) -> Iterator[bytes]:
        """Yield the body as it comes, as the server encoded it. To be called once."""
        if self._ahead:
            yield self._ahead
        yield from self._body

    def read(self, limit: int) -> bytes:
        """Read up to *limit* bytes of the body and close the reply; a broken end ends the reading."""
        try:
            return self.peek(limit)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
            return self._ahead
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back, or drop it when the body was not read to its end."""
        self._response.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Client:
    """Ask for URLs, following redirects, with the caller's headers going to their own origin only.

    :param guard: judges each address before a connection to it is opened.
    :param headers: headers to send to *headers_origin*, and to no other origin.
    :param headers_origin: the scheme, host and port that may see *headers*.
    :param verify: True, False (certificates are not checked), or the path of a file of authorities.
    :param stall_timeout: seconds to wait for the next bytes of an answer.
    """

    def __init__(
        self,
        *,
        guard: AddressGuard,
        headers: Mapping[str, str] | None = None,
        headers_origin: Origin | None = None,
        verify: bool | str = True,
        stall_timeout: float = 30.0,
    ) -> None:
        self._backend = GuardedBackend(guard)
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        self._headers = dict(headers or {})
        self._headers_origin = headers_origin
        self._verify = verify
        self._timeouts = {
            "connect": min(CONNECT_TIMEOUT, stall_timeout),
            "read": stall_timeout,
            "write": stall_timeout,
            "pool": None,
        }

    def get(self, link: Url, extra: Mapping[str, str], *, trusted: bool = True) -> Response:
        """Send one GET and follow its redirects.

        :param link: where to; it may be the end of an earlier chain of redirects.
        :param extra: headers that go along to every origin (Range, If-Range).
        :param trusted: whether credentials may be sent at all: False once a redirect has left their origin.
        :raises RedirectRefused: a redirect that is not followed.
        :raises UnsafeAddress: a host on the way is not public.
        :raises httpcore.NetworkError: and its siblings, when the connection fails.
        """
        here = link
        for _ in range(MAX_REDIRECTS + 1):
            trusted = trusted and here.origin == self._headers_origin
            with quiet_httpx():
                reply = self._ask(here, extra, trusted=trusted)
            location = reply.headers.get("location")
            if reply.status not in REDIRECTS or not location:
                return reply
            reply.close()
            here = _next_hop(here, location)
        raise RedirectRefused(f"{link} redirects more than {MAX_REDIRECTS} times; the last hop was {here}")

    def _ask(self, link: Url, extra: Mapping[str, str], *, trusted: bool) -> Response:
        headers = {"host": link.host_header, "user-agent": USER_AGENT, "accept": "*/*"}
        if trusted:
            headers.update({name.lower(): value for name, value in self._headers.items()})
        headers.update({name.lower(): value for name, value in extra.items()})
        # A compressed answer cannot be resumed by byte, and a video does not get smaller.
        headers["accept-encoding"] = "identity"
        request = httpcore.Request(
            "GET",
            httpcore.URL(
                scheme=link.scheme.encode(), host=link.host.encode(), port=link.port, target=link.target
            ),
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            extensions={"timeout": dict(self._timeouts)},
        )
        try:
            response = self._pool(link.scheme).handle_request(request)
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError):
                raise UntrustedCertificate(
                    f"the certificate of {link.host} does not verify ({error}). If the host has a "
                    "certificate of your own authority, pass the authority's file as verify."
                ) from None
            raise
        return Response(response, link, trusted=trusted)

    def _pool(self, scheme: str) -> httpcore.ConnectionPool:
        if scheme not in self._pools:
            context = None
            if scheme == "https":  # some 20 ms, so only when it is needed
                import httpx

                context = _tls_context(self._verify) if isinstance(self._verify, str) else None
                context = context or httpx.create_ssl_context(verify=self._verify)
            self._pools[scheme] = httpcore.ConnectionPool(
                ssl_context=context,
                max_connections=None,
                keepalive_expiry=30.0,
                network_backend=self._backend,
            )
        return self._pools[scheme]

    def abort(self) -> None:
        """Break every open connection, also those that another thread is reading; new ones may be opened."""
        self._backend.abort()

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()


def _tls_context(path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise UntrustedCertificate(
            f"verify: the file of authorities {path} cannot be read ({error})"
        ) from None


def _next_hop(here: Url, location: str) -> Url:
    try:
        there = Url.parse(urljoin(here.text, location))
    except (MediaError, ValueError) as error:
        raise RedirectRefused(f"{here} redirects to a place that is not followed: {error}") from None
    if here.scheme == "https" and there.scheme == "http":
        raise RedirectRefused(f"{here} redirects from https to http ({there}); that is not followed")
    return there


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read ``Retry-After`` as seconds from *now* (epoch seconds): a number or an HTTP date, else None."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdigit():
        return float(text)
    try:
        then = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
    return max(0.0, then - (time.time() if now is None else now))
