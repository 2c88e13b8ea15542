"""One safe GET: redirects, credentials and addresses in one place.

Built on ``httpcore``, the part of ``httpx`` that opens connections, because only there can the guard stand
between the resolver and the socket; and because a presigned URL must be sent byte for byte, which a client
that normalises URLs does not promise. Only this module and :mod:`.guard` name ``httpcore``: its exceptions
leave here as :class:`NetworkFault`.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import quote, urljoin, urlsplit

import httpcore

from airflow_video_provider.http_common import (
    DEFAULT_PORTS,
    check_headers,
    format_origin,
    quiet_httpx,
    tls_context,
)
from airflow_video_provider.media.errors import (
    BadURL,
    MediaError,
    RedirectRefused,
    UntrustedCertificate,
    excerpt,
    printable,
)
from airflow_video_provider.media.guard import AddressGuard, GuardedBackend
from airflow_video_provider.media.options import DownloadOptions

REDIRECTS = frozenset({301, 302, 303, 307, 308})
USER_AGENT = "airflow-video-provider"

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_PRINTABLE_ASCII = "".join(chr(c) for c in range(0x21, 0x7F))


class NetworkFault(Exception):
    """A connection could not be made, stalled, or ended before its answer did.

    :ivar not_connected: whether there never was a connection.
    """

    def __init__(self, reason: str, *, not_connected: bool = False) -> None:
        super().__init__(reason)
        self.not_connected = not_connected


@contextmanager
def _network_faults() -> Iterator[None]:
    """Turn httpcore's exceptions into :class:`NetworkFault`; many of them have no text of their own."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        texts: dict[type[Exception], str] = {
            httpcore.ReadTimeout: "no bytes, or hardly any, came within the stall timeout",
            httpcore.ConnectTimeout: "no connection within the connect timeout",
            httpcore.WriteTimeout: "the request could not be sent in time",
        }
        reason = texts.get(type(error)) or excerpt(str(error)) or type(error).__name__
        raise NetworkFault(reason, not_connected=isinstance(error, httpcore.ConnectError)) from error


@dataclass(frozen=True)
class Url:
    """An http(s) URL that has been checked. ``target`` is sent exactly as the URL spelled it."""

    text: str
    scheme: str
    host: str
    port: int
    target: bytes

    @classmethod
    def parse(cls, url: str) -> Url:
        """Read *url*; white space around it is cut.

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
            target=quote(target, safe=_PRINTABLE_ASCII).encode("ascii"),
        )

    @property
    def origin(self) -> str:
        """Scheme, host and port: what credentials belong to."""
        return format_origin(self.scheme, self.host, self.port)

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return printable(self.text)


def _ascii_host(host: str) -> str:
    if host.isascii():
        host.encode("idna")  # what the resolver does, and raises in the middle of a download
        return host.lower()
    import idna

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(str(error)) from error


class Response:
    """An answer whose body is still to be read. Close it, or use it as a context manager.

    :ivar url: where it came from, after redirects.
    :ivar trusted: whether credentials went along.
    :ivar headers: by lower-case name.
    """

    def __init__(self, response: httpcore.Response, url: Url, *, trusted: bool) -> None:
        self._response = response
        self.url = url
        self.trusted = trusted
        self.status = response.status
        self.headers: dict[str, str] = {}
        for raw_name, raw_value in response.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self._body = response.iter_stream()
        self._ahead = b""

    def peek(self, size: int, within: float) -> bytes:
        """Return the first *size* bytes of the body, fewer when it is shorter; they stay to be read.

        :param within: seconds after which a server that sends them one by one is given up.
        :raises NetworkFault: the connection failed, or it took longer.
        """
        begin = time.monotonic()
        with _network_faults():
            while len(self._ahead) < size:
                chunk = next(self._body, b"")
                if not chunk:
                    break
                self._ahead += chunk
                if time.monotonic() - begin > within:
                    raise NetworkFault("the answer begins too slowly")
        return self._ahead[:size]

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes, as the server encoded it. To be called once.

        :raises NetworkFault: the connection failed or stalled.
        """
        if self._ahead:
            yield self._ahead
        with _network_faults():
            yield from self._body

    def read(self, limit: int, within: float) -> bytes:
        """Read up to *limit* bytes of the body and close the response; a broken end ends the reading."""
        try:
            return self.peek(limit, within)
        except NetworkFault:
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
    """Send GETs, following redirects, with the caller's headers going to their own origin only.

    :param guard: judges each address before a connection to it is opened.
    :param options: ``verify`` and the times.
    :param headers: headers to send to *headers_origin*, and to no other origin.
    :param headers_origin: the origin that may see *headers*; see :attr:`Url.origin`.
    :raises ValueError: a header that cannot be sent.
    """

    def __init__(
        self,
        *,
        guard: AddressGuard,
        options: DownloadOptions,
        headers: Mapping[str, str] | None = None,
        headers_origin: str | None = None,
    ) -> None:
        self._backend = GuardedBackend(guard, options.read_size)
        self._pools: dict[str, httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()
        self._options = options
        self._headers = dict(headers or {})
        check_headers(self._headers)
        self._headers_origin = headers_origin
        self._timeouts = {
            "connect": min(options.connect_timeout, options.stall_timeout),
            "read": options.stall_timeout,
            "write": options.stall_timeout,
            "pool": None,
        }

    def get(self, url: Url, extra: Mapping[str, str], *, trusted: bool = True) -> Response:
        """Send one GET and follow its redirects.

        :param url: where to; it may be the end of an earlier chain of redirects.
        :param extra: headers that go along to every origin (Range, If-Range).
        :param trusted: whether credentials may be sent at all: False once a redirect has left their origin.
        :raises RedirectRefused: a redirect that is not followed.
        :raises UnsafeAddress: a host on the way is not public.
        :raises UntrustedCertificate: a server's certificate does not verify.
        :raises NetworkFault: the connection failed.
        """
        here = url
        for _ in range(self._options.max_redirects + 1):
            trusted = trusted and here.origin == self._headers_origin
            with quiet_httpx(), _network_faults():
                raw = self._send(here, extra, trusted=trusted)
            response = Response(raw, here, trusted=trusted)
            location = _location(raw)
            if response.status not in REDIRECTS or not location:
                return response
            response.close()
            here = _next_hop(here, location)
        raise RedirectRefused(
            f"{url} redirects more than {self._options.max_redirects} times; the last hop was {here}"
        )

    def _send(self, url: Url, extra: Mapping[str, str], *, trusted: bool) -> httpcore.Response:
        headers = {"host": url.host_header, "user-agent": USER_AGENT, "accept": "*/*"}
        if trusted:
            headers.update({name.lower(): value for name, value in self._headers.items()})
        headers.update({name.lower(): value for name, value in extra.items()})
        # A compressed answer cannot be resumed by byte, and a video does not get smaller.
        headers["accept-encoding"] = "identity"
        request = httpcore.Request(
            "GET",
            httpcore.URL(
                scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target
            ),
            headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            extensions={"timeout": dict(self._timeouts)},
        )
        try:
            return self._pool(url.scheme).handle_request(request)
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError):
                raise UntrustedCertificate(
                    f"the certificate of {url.host} does not verify ({error}). If the host has a "
                    "certificate of your own authority, pass the authority's file as verify."
                ) from None
            raise

    def _pool(self, scheme: str) -> httpcore.ConnectionPool:
        with self._lock:
            if scheme not in self._pools:
                self._pools[scheme] = httpcore.ConnectionPool(
                    ssl_context=self._tls() if scheme == "https" else None,
                    max_connections=None,
                    keepalive_expiry=30.0,
                    network_backend=self._backend,
                )
            return self._pools[scheme]

    def _tls(self) -> ssl.SSLContext:
        try:
            return tls_context(self._options.verify)
        except OSError as error:
            raise UntrustedCertificate(
                f"verify: the file of authorities {self._options.verify} cannot be read ({error})"
            ) from None

    def abort(self) -> None:
        """Break every open connection, also those that another thread is reading; new ones may be opened."""
        self._backend.abort()

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools.values():
            pool.close()


def _location(response: httpcore.Response) -> str | None:
    """The Location header as a URL: raw bytes beyond ASCII are percent-encoded, as browsers do."""
    raw = next((value for name, value in response.headers if name.lower() == b"location"), b"").strip()
    try:
        return raw.decode("utf-8") or None
    except UnicodeDecodeError:
        return quote(raw.decode("latin-1"), safe=_PRINTABLE_ASCII + " ", encoding="latin-1")


def _next_hop(here: Url, location: str) -> Url:
    try:
        there = Url.parse(urljoin(here.text, location))
    except (MediaError, ValueError) as error:
        raise RedirectRefused(f"{here} redirects to a place that is not followed: {error}") from None
    if here.scheme == "https" and there.scheme == "http":
        raise RedirectRefused(f"{here} redirects from https to http ({there}); that is not followed")
    return there
