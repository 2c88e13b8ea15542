"""One call to a gateway without its I/O: what to send, and what comes of the reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar
from urllib.parse import urljoin

import httpx

from airflow_video_provider.gateway.envelope import fit_to_store
from airflow_video_provider.gateway.errors import (
    AuthenticationError,
    GatewayError,
    InvalidRequestError,
    UnreadableReplyError,
    error_from_reply,
    error_from_transport,
)
from airflow_video_provider.gateway.replies import task_in_an_error
from airflow_video_provider.gateway.settings import (
    CONNECT_TIMEOUT,
    QUERY_TIMEOUT,
    GatewaySettings,
    origin_of,
)
from airflow_video_provider.gateway.wire import WireRequest

__all__ = ["Exchange"]

MAX_REPLY_BYTES = 4 * 2**20
MAX_REDIRECTS = 5

T = TypeVar("T")


@dataclass
class Exchange(Generic[T]):
    """One call without its I/O: the request to send next, and what the replies mean.

    A shell sends :meth:`request` for as long as :meth:`read` returns None, which is while a redirect is
    followed.
    """

    settings: GatewaySettings
    wire: WireRequest
    understand: Callable[[Any, Mapping[str, str]], T]
    clock: Callable[[], float]
    """Seconds of a monotonic clock."""
    url: str = field(init=False)
    redirects: int = field(default=0, init=False)
    content: bytearray = field(default_factory=bytearray, init=False)
    give_up_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.settings.base_url + self.wire.path
        # httpx bounds each wait; a reply that trickles would never meet that bound.
        self.give_up_at = self.clock() + 2 * self.timeout

    @property
    def timeout(self) -> float:
        """Seconds, for each wait on the reply."""
        lasts = self.wire.billed or self.wire.changes
        return self.settings.timeout if lasts else min(self.settings.timeout, QUERY_TIMEOUT)

    def request(self) -> httpx.Request:
        """The request to send, also again and again: nothing of it is used up, unless it holds a file."""
        limits = httpx.Timeout(self.timeout, connect=min(self.timeout, CONNECT_TIMEOUT))
        return httpx.Request(
            self.wire.method, self.url, extensions={"timeout": limits.as_dict()}, **self._options()
        )

    def _options(self) -> dict[str, Any]:
        headers = self.settings.request_headers()
        headers = {name: value for name, value in headers.items() if name.lower() != "content-type"}
        if self.wire.form is not None:
            parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in self.wire.form.items()]
            if (file := self.wire.file) is not None:
                parts.append((self.wire.file_field, (file.name, file.content, file.content_type)))
            return {"headers": headers, "files": parts}
        # The documents mark the type as required on GET as well.
        headers["Content-Type"] = "application/json"
        if self.wire.json is None:
            return {"headers": headers}
        return {"headers": headers, "content": json.dumps(self.wire.json, ensure_ascii=False).encode()}

    def receive(self, chunk: bytes) -> None:
        """Take a piece of the reply, within bounds on its size and on the time that all of it may take."""
        self.content += chunk
        if len(self.content) > MAX_REPLY_BYTES:
            self._unreadable(f"more than {MAX_REPLY_BYTES} bytes")
        if self.clock() > self.give_up_at:
            self.too_slow()

    def too_slow(self) -> NoReturn:
        self._unreadable(f"so slowly that the reply was not whole after {2 * self.timeout:g} s")

    def _unreadable(self, what: str, **facts: Any) -> NoReturn:
        self._raise(UnreadableReplyError(f"{origin_of(self.url)} answered {what}", **facts))

    def read(self, status_code: int, headers: Mapping[str, str]) -> T | None:
        content, self.content = self.settings.masked(bytes(self.content)), bytearray()
        accepted = task_in_an_error(content) if self.wire.billed and status_code >= 300 else None
        if 300 <= status_code < 400 and not accepted:
            self._follow(status_code, headers.get("location", ""))
            return None
        if status_code >= 300:
            error = error_from_reply(status_code, headers, content)
            if accepted:
                error.maybe_accepted = True
                error.message += f"; yet the reply names task {accepted}"
            self._raise(error)
        try:
            # A DELETE may be answered without a word.
            body = json.loads(content or (b"{}" if self.wire.changes else b""))
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
        if not self.wire.billed:
            error.maybe_accepted = False
        if isinstance(error, AuthenticationError) and not self.settings.api_key:
            error.message = f"the connection has none; {error.message}"
        if self.settings.api_key:  # some gateways repeat it: "incorrect API key provided: …"
            error.message = error.message.replace(self.settings.api_key, "***")
            error.code = error.code and error.code.replace(self.settings.api_key, "***")
        error.args = (error.message,)
        raise error from None

    def fault(self, error: Exception) -> NoReturn:
        """Raise what a fault of the network or of the transport means."""
        self._raise(error_from_transport(error, origin=origin_of(self.url)))

    def _follow(self, status_code: int, location: str) -> None:
        """Follow a query's redirect within the origin and refuse any other: the key goes nowhere else."""
        self.redirects += 1
        try:
            target = urljoin(self.url, location)
            same = origin_of(target) == origin_of(self.url)
        except ValueError:
            target, same = "an address that is none", False
        if not self.wire.may_be_redirected or not same or not location or self.redirects > MAX_REDIRECTS:
            elsewhere = "" if same else f" to {fit_to_store(target)[:200]}"
            error = InvalidRequestError(
                f"{origin_of(self.url)} redirects{elsewhere}, which is not followed "
                "with the key; set the connection's host to the address that answers",
                status_code=status_code,
            )
            self._raise(error)
        self.url = target
