"""Gateway and AsyncGateway: thin shells around the same pure request and reply functions.

What is sent and how a reply is read is decided in :class:`_Exchange`, which does no I/O; the two clients only
move bytes. So they cannot drift apart.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from airflow_video_provider import __version__
from airflow_video_provider.gateway.dialects import (
    DIALECTS,
    WireRequest,
    content_request,
    create_request,
    query_request,
)
from airflow_video_provider.gateway.envelope import claimed_status
from airflow_video_provider.gateway.errors import (
    AuthenticationError,
    GatewayError,
    InvalidRequestError,
    UnreadableReplyError,
    error_from_reply,
    error_from_transport,
    wrapped_error,
)
from airflow_video_provider.gateway.request import VideoRequest
from airflow_video_provider.gateway.task import VideoTask, read_created_id, says_something_of_a_task
from airflow_video_provider.httplog import quiet_httpx

__all__ = ["AsyncGateway", "Gateway", "GatewaySettings", "normalise_base_url", "origin_of"]

Answer = TypeVar("Answer")

MAX_REPLY_BYTES = 4 * 2**20
MAX_REDIRECTS = 5
#: Longer than any sensible poll interval: a connection is kept from one poll to the next, where httpx's
#: default of 5 s would make a TLS handshake of each.
KEEPALIVE_SECONDS = 90.0


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _is_header_value(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL, the port always written: ``https://api.example:443``."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme.lower(), 0)
    return f"{parts.scheme.lower()}://{f'[{host}]' if ':' in host else host}:{port}"


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
    :param dialect: ``unified``, ``openai`` or ``newapi``.
    :param timeout: seconds, for connecting and for each wait on the reply.
    :param headers: more headers (name, value) for every request, to this origin only.
    :param forwarded_host: value of ``X-Forwarded-Host``, which some gateways ask for.
    :param verify: False to check no certificate, a path for a CA file of your own.
    :raises InvalidRequestError: naming the setting that is wrong.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    dialect: str = "unified"
    timeout: float = 120.0
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    forwarded_host: str | None = None
    verify: bool | str = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", normalise_base_url(self.base_url))
        if self.dialect not in DIALECTS:
            raise InvalidRequestError(f"dialect: {self.dialect!r} is none; allowed: {', '.join(DIALECTS)}")
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout <= 3600:
            raise InvalidRequestError(f"timeout: {self.timeout!r} is not a number of seconds from 0 to 3600")
        for name, value in self.request_headers().items():
            # httpx would raise from deep inside, and with the value in its message.
            if not _HEADER_NAME.fullmatch(name) or not _is_header_value(value):
                what = {
                    "Authorization": "password (the API key)",
                    "X-Forwarded-Host": "forwarded_host",
                }.get(name, f"headers.{name}")
                raise InvalidRequestError(
                    f"{what}: has a line break, a space at its end, or what else no HTTP header can carry"
                )

    def request_headers(self) -> dict[str, str]:
        """The headers of every request. They carry the key: for this gateway's origin only."""
        headers = (
            ("Accept", "application/json"),
            ("User-Agent", f"airflow-video-provider/{__version__}"),
            *((("X-Forwarded-Host", self.forwarded_host),) if self.forwarded_host else ()),
            *self.headers,
            *((("Authorization", f"Bearer {self.api_key}"),) if self.api_key else ()),
        )
        # The last of a name counts, however it is spelt: httpx would send both.
        last = {name.lower(): (name, value) for name, value in headers}
        return dict(last.values())

    def client_options(self) -> dict[str, Any]:
        """Arguments that both httpx clients are made with."""
        return {
            "timeout": httpx.Timeout(self.timeout, connect=min(self.timeout, 15.0)),
            "limits": httpx.Limits(
                max_connections=64, max_keepalive_connections=32, keepalive_expiry=KEEPALIVE_SECONDS
            ),
            "verify": self._trust(),
            "follow_redirects": False,
        }

    def _trust(self) -> ssl.SSLContext | bool:
        if isinstance(self.verify, bool):
            return self.verify
        try:
            return ssl.create_default_context(cafile=self.verify)
        except OSError as error:
            raise InvalidRequestError(f"verify: {self.verify!r} is no readable CA file: {error}") from None


@dataclass
class _Exchange(Generic[Answer]):
    """One call without its I/O: the request to send next, and what the replies mean.

    A shell sends :attr:`url` for as long as :meth:`read` returns None, which is while a redirect is followed.
    """

    settings: GatewaySettings
    wire: WireRequest
    understand: Callable[[Any, Mapping[str, str]], Answer]
    url: str = field(init=False)
    redirects: int = field(default=0, init=False)
    content: bytearray = field(default_factory=bytearray, init=False)
    give_up_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.settings.base_url + self.wire.path
        # httpx bounds each wait; a reply that trickles would never meet that bound.
        self.give_up_at = time.monotonic() + 2 * self.settings.timeout

    @property
    def options(self) -> dict[str, Any]:
        headers = self.settings.request_headers()
        if self.wire.file is not None:
            file = self.wire.file
            return {
                "headers": headers,
                "data": self.wire.form,
                "files": {"input_reference": (file.name, file.content, file.content_type)},
            }
        # The documents mark the type as required on GET as well.
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        headers["Content-Type"] = "application/json"
        if self.wire.json is None:
            return {"headers": headers}
        return {"headers": headers, "content": json.dumps(self.wire.json, ensure_ascii=False).encode()}

    @property
    def _billed(self) -> bool:
        return self.wire.method == "POST"

    def receive(self, chunk: bytes) -> None:
        """Take a piece of the reply, within bounds on its size and on the time that all of it may take."""
        self.content += chunk
        if len(self.content) > MAX_REPLY_BYTES:
            self._unreadable(f"more than {MAX_REPLY_BYTES} bytes")
        if time.monotonic() > self.give_up_at:
            self.too_slow()

    def too_slow(self) -> NoReturn:
        self._unreadable(f"so slowly that the reply was not whole after {2 * self.settings.timeout:g} s")

    def _unreadable(self, what: str, **facts: Any) -> NoReturn:
        self._raise(UnreadableReplyError(f"{origin_of(self.url)} answered {what}", **facts))

    def read(self, status_code: int, headers: Mapping[str, str]) -> Answer | None:
        content, self.content = bytes(self.content), bytearray()
        if 300 <= status_code < 400:
            self._follow(status_code, headers.get("location", ""))
            return None
        if status_code >= 400:
            if self.settings.api_key:  # before the message is cut, which could leave half of the key
                content = content.replace(self.settings.api_key.encode(), b"***")
            self._raise(error_from_reply(status_code, headers, content))
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            what = "HTML" if b"<" in content[:256] else "no JSON" if content else "nothing"
            self._unreadable(f"{what} where a gateway answers JSON", status_code=status_code)
        try:
            return self.understand(body, headers)
        except GatewayError as error:
            error.status_code = error.status_code or status_code
            self._raise(error)

    def _raise(self, error: GatewayError) -> NoReturn:
        if isinstance(error, UnreadableReplyError):
            error.maybe_accepted = True
        if not self._billed:
            error.maybe_accepted = False
        if isinstance(error, AuthenticationError) and not self.settings.api_key:
            error.message = f"the connection has none; {error.message}"
        if self.settings.api_key:  # some gateways repeat it: "incorrect API key provided: …"
            error.message = error.message.replace(self.settings.api_key, "***")
            error.code = error.code and error.code.replace(self.settings.api_key, "***")
        error.args = (error.message,)
        raise error from None

    def fault(self, error: httpx.RequestError | httpx.InvalidURL) -> NoReturn:
        self._raise(error_from_transport(error, origin=origin_of(self.url)))

    def _follow(self, status_code: int, location: str) -> None:
        """Follow a query's redirect within the origin and refuse any other: the key goes nowhere else."""
        self.redirects += 1
        try:
            target = urljoin(self.url, location)
            same = origin_of(target) == origin_of(self.url)
        except ValueError:
            target, same = "an address that is none", False
        if self._billed or not same or not location or self.redirects > MAX_REDIRECTS:
            elsewhere = "" if same else f" to {target.split('?')[0][:200]}"
            error = InvalidRequestError(
                f"{origin_of(self.url)} redirects{elsewhere}, which is not followed "
                "with the key; set the connection's host to the address that answers",
                status_code=status_code,
            )
            self._raise(error)
        self.url = target


def _understand_create(body: Any, headers: Mapping[str, str]) -> VideoTask:
    video_id = read_created_id(body)
    # An error envelope may hold an id as well ("request_id"), so it is looked for first.
    error = wrapped_error(body, headers=headers)
    if error is not None and (video_id is None or not _looks_accepted(body)):
        raise error
    if video_id is None:
        raise UnreadableReplyError("the reply to the create holds no task id")
    return VideoTask.from_reply(body, video_id=video_id)


def _looks_accepted(body: Any) -> bool:
    """A word in place of data, a number in place of a status, a request_id: an error envelope has them."""
    return isinstance(body, Mapping) and (
        any(body.get(name) for name in ("id", "task_id"))
        or isinstance(body.get("status"), str)
        or isinstance(body.get("data"), Mapping)
    )


def _without_envelope(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without what an error's envelope holds as well and a create's reply may give as the id."""
    return {
        name: value
        for name, value in body.items()
        if name != "request_id" and not (name == "data" and isinstance(value, str))
    }


def _understand_query(video_id: str) -> Callable[[Any, Mapping[str, str]], VideoTask]:
    def understand(body: Any, headers: Mapping[str, str]) -> VideoTask:
        error = wrapped_error(body, headers=headers)
        # An id is no sign of life beside a status that claims an error.
        claimed = claimed_status(body) is not None
        if error is not None and not says_something_of_a_task(_without_envelope(body), beside_an_id=claimed):
            raise error
        return VideoTask.from_reply(body, video_id=video_id)

    return understand


def _understand_list(body: Any, headers: Mapping[str, str]) -> list[VideoTask]:
    listed = body.get("data") if isinstance(body, Mapping) else body
    if not isinstance(listed, list):
        raise wrapped_error(body, headers=headers) or UnreadableReplyError("the reply holds no list of tasks")
    return [
        VideoTask.from_reply(task, video_id=video_id)
        for task in listed
        if isinstance(task, Mapping) and (video_id := read_created_id(task)) is not None
    ]


class _Shell:
    """What both clients share: settings, and the exchanges to carry out."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        dialect: str = "unified",
        timeout: float = 120.0,
        headers: Mapping[str, str] | None = None,
        forwarded_host: str | None = None,
        verify: bool | str = True,
    ) -> None:
        self.settings = GatewaySettings(
            base_url, api_key, dialect, timeout, tuple((headers or {}).items()), forwarded_host, verify
        )

    @classmethod
    def from_settings(cls, settings: GatewaySettings) -> Self:
        """Make a client from settings that are already checked."""
        return cls(
            settings.base_url,
            settings.api_key,
            dialect=settings.dialect,
            timeout=settings.timeout,
            headers=dict(settings.headers),
            forwarded_host=settings.forwarded_host,
            verify=settings.verify,
        )

    def content_url(self, video_id: str) -> str:
        """Where the gateway itself serves a finished task's bytes; to be fetched with its headers."""
        return self.settings.base_url + content_request(DIALECTS[self.settings.dialect], video_id).path

    def check(self, request: VideoRequest) -> None:
        """Check that the dialect can express a request; nothing is sent.

        :raises InvalidRequestError: naming the field.
        """
        create_request(DIALECTS[self.settings.dialect], request)

    def _create(self, request: VideoRequest) -> _Exchange[VideoTask]:
        wire = create_request(DIALECTS[self.settings.dialect], request)
        return _Exchange(self.settings, wire, _understand_create)

    def _list(self) -> _Exchange[list[VideoTask]] | None:
        path = DIALECTS[self.settings.dialect].list_path
        return None if path is None else _Exchange(self.settings, WireRequest("GET", path), _understand_list)

    def _query(self, video_id: str) -> _Exchange[VideoTask]:
        wire = query_request(DIALECTS[self.settings.dialect], video_id)
        return _Exchange(self.settings, wire, _understand_query(video_id))


class Gateway(_Shell):
    """A gateway, asked from ordinary code. Open for as long as it is used; close it or use ``with``.

    Parameters are those of :class:`GatewaySettings`.
    """

    def __init__(self, base_url: str, api_key: str | None = None, **settings: Any) -> None:
        super().__init__(base_url, api_key, **settings)
        self._client = httpx.Client(**self.settings.client_options())

    def submit(self, request: VideoRequest) -> VideoTask:
        """Send one create call. It is billed, and never sent a second time from here.

        :raises InvalidRequestError: before anything is sent, for what the dialect cannot express.
        :raises GatewayError: with ``maybe_accepted`` telling whether it may have been paid for.
        """
        return self._run(self._create(request))

    def get_task(self, video_id: str) -> VideoTask:
        """Ask once how a task stands.

        :raises GatewayError: ``retryable`` tells whether to ask again.
        """
        return self._run(self._query(video_id))

    def list_tasks(self) -> list[VideoTask]:
        """List the account's newest tasks; empty where the dialect cannot.

        Source: OpenAI's Videos API, ``GET /v1/videos`` → ``{"object": "list", "data": [...]}``.

        :raises GatewayError: the gateway does not tell.
        """
        exchange = self._list()
        return [] if exchange is None else self._run(exchange)

    def _run(self, exchange: _Exchange[Answer]) -> Answer:
        with quiet_httpx():
            while True:
                try:
                    with self._client.stream(exchange.wire.method, exchange.url, **exchange.options) as reply:
                        for chunk in reply.iter_bytes():
                            exchange.receive(chunk)
                except (httpx.RequestError, httpx.InvalidURL) as error:
                    exchange.fault(error)
                if (task := exchange.read(reply.status_code, reply.headers)) is not None:
                    return task

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncGateway(_Shell):
    """A gateway, asked from an event loop. Parameters and errors are those of :class:`Gateway`."""

    def __init__(self, base_url: str, api_key: str | None = None, **settings: Any) -> None:
        super().__init__(base_url, api_key, **settings)
        self._client = httpx.AsyncClient(**self.settings.client_options())

    async def submit(self, request: VideoRequest) -> VideoTask:
        """Send one create call; see :meth:`Gateway.submit`."""
        return await self._run(self._create(request))

    async def get_task(self, video_id: str) -> VideoTask:
        """Ask once how a task stands; see :meth:`Gateway.get_task`."""
        return await self._run(self._query(video_id))

    async def list_tasks(self) -> list[VideoTask]:
        """List the account's newest tasks; see :meth:`Gateway.list_tasks`."""
        exchange = self._list()
        return [] if exchange is None else await self._run(exchange)

    async def _run(self, exchange: _Exchange[Answer]) -> Answer:
        with quiet_httpx():
            while True:
                try:
                    async with (
                        asyncio.timeout(exchange.give_up_at - time.monotonic()),  # headers can trickle, too
                        self._client.stream(exchange.wire.method, exchange.url, **exchange.options) as reply,
                    ):
                        async for chunk in reply.aiter_bytes():
                            exchange.receive(chunk)
                except TimeoutError:
                    exchange.too_slow()
                except (httpx.RequestError, httpx.InvalidURL) as error:
                    exchange.fault(error)
                if (task := exchange.read(reply.status_code, reply.headers)) is not None:
                    return task

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
