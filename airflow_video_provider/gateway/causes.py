"""What a fault of the network was, whichever transport reports it.

httpx's own transport says "All connection attempts failed" of a refused connection, its blocking one
"[Errno 111] Connection refused"; and ``httpx-aiohttp`` 0.2 calls everything that breaks a connection, or
hinders one, a timeout. What has really happened stands in the chain of causes of all three.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any

import httpx

__all__ = ["Cause"]

_CLOSED = "Server disconnected without sending a response"
#: How non-blocking sockets say that there is nothing yet.
_NO_FAULTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
#: Raised before a byte of a request can have left this machine.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class Cause:
    """What is behind an exception of a transport.

    :param error: as it came.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error
        # The innermost first: it says most, and nothing that wraps it adds to it.
        self._chain = [each for each in _chain(error) if not isinstance(each, _NO_FAULTS)][::-1]
        # Its exceptions can only be there where it is loaded; where it is not installed, nothing is.
        self._aiohttp: Any = sys.modules.get("aiohttp")

    @property
    def untrusted(self) -> str | None:
        """Why the server's certificate is not trusted; None where that is not what happened."""
        refused = self._find(ssl.SSLCertVerificationError)
        if refused is not None:
            return str(getattr(refused, "verify_message", "") or _said(refused))
        return _said(self._error) if "CERTIFICATE_VERIFY_FAILED" in str(self._error) else None

    @property
    def never_sent(self) -> bool:
        """Whether the request has certainly not left this machine."""
        broken = self._broken
        if broken is not None:
            return isinstance(broken, self._aiohttp.ClientConnectorError)
        return isinstance(self._error, _NOT_SENT)

    @property
    def words(self) -> str:
        """What happened, in words that are the same for every transport."""
        broken = self._broken
        if isinstance(self._error, httpx.TimeoutException) and broken is None:
            return f"timed out ({type(self._error).__name__})"
        if (tls := self._find(ssl.SSLError)) is not None:
            return f"TLS: {_reason(tls)}"
        if (unknown := self._find(socket.gaierror)) is not None:
            return f"the name does not resolve ({unknown.strerror or _said(unknown)})"
        if isinstance(broken, self._of_aiohttp("ClientConnectorDNSError")):
            return f"the name does not resolve ({broken.os_error.strerror})"  # by a resolver of its own
        if isinstance(broken, self._of_aiohttp("ServerDisconnectedError")):
            return _CLOSED
        system = [each for each in self._chain if isinstance(each, OSError) and (each.errno or 0) > 0]
        return os.strerror(system[0].errno or 0) if system else _said(self._error).removesuffix(".")

    @property
    def _broken(self) -> Any:
        """The exception of aiohttp that ``httpx-aiohttp`` takes for a timeout, and that is none."""
        found = self._find(*self._of_aiohttp("ClientConnectionError"))
        return None if isinstance(found, TimeoutError) else found

    def _of_aiohttp(self, name: str) -> Any:
        kind = getattr(self._aiohttp, name, None)
        return () if kind is None else (kind,)

    def _find(self, *kinds: type[BaseException]) -> Any:
        return next((each for each in self._chain if isinstance(each, kinds)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from; of several attempts at once the first.

    httpcore raises its exceptions "from None", and their cause is in their context all the same.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's own words: "wrong version number" of a server that speaks no TLS."""
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if isinstance(reason, str) else _said(error)
