"""Which addresses may be fetched from, decided where the socket is opened.

The URL of a video is chosen by a third party. Checking a host name before handing it to an HTTP client
proves nothing: the client asks DNS again, and the second answer may be ``127.0.0.1``. So the name is
resolved here, each address is judged, and the connection is made to the very address that was judged. As
every connection of a download (first request, redirect, range, reconnect) goes through
:class:`GuardedBackend`, there is no other way out.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore

from airflow_video_provider.media.errors import BadDestination, UnsafeAddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

TLS_RECORD = 16 * 1024
FEW = 3
"""Connections that are read in pieces of the full size; any more in quarters of it."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def plain(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that an IPv6 address stands for, else the address itself.

    IPv4-mapped, IPv4-compatible, NAT64, 6to4 and Teredo addresses all lead to an IPv4 host, which is the
    one to judge.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    if address.teredo:
        return address.teredo[1]
    number = int(address)
    if address in NAT64 or 1 < number < 2**32:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return address


def is_public(address: IPAddress) -> bool:
    """Whether *address* is one that anybody on the internet could have been given."""
    real = plain(address)
    site_local = isinstance(real, ipaddress.IPv6Address) and real.is_site_local
    return real.is_global and not real.is_multicast and not real.is_reserved and not site_local


class AddressGuard:
    """Judge addresses: public ones pass, others only when they were allowed by name or network.

    :param allowed: host names (``minio.internal``), domains (``.internal``: every host below), addresses
        and networks (``10.0.0.0/8``); each name or address may carry a port (``127.0.0.1:9000``,
        ``[::1]:9000``) and then holds for that port only.
    :raises BadDestination: an entry that is none of these.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        if isinstance(allowed, str):
            raise BadDestination(f"allowed_hosts: {allowed!r} is one text; give a list of them")
        self._networks: list[tuple[IPNetwork, int | None]] = []
        self._names: list[tuple[str, int | None]] = []
        for entry in allowed:
            host, port = _split_port(entry)
            try:
                self._networks.append((ipaddress.ip_network(host, strict=False), port))
            except ValueError:
                if not host or "/" in host or "*" in host.lstrip("*"):
                    raise BadDestination(
                        f"allowed_hosts: {entry!r} is neither a host, a .domain, an address nor a network"
                    ) from None
                self._names.append((host.lstrip("*").rstrip(".").lower(), port))

    def allows(self, host: str, port: int, address: IPAddress) -> bool:
        """Whether a connection to *address*, found under the name *host*, may be opened."""
        if is_public(address):
            return True
        name = host.rstrip(".").lower()
        for known, only_port in self._names:
            fits = name == known or (known.startswith(".") and name.endswith(known))
            if fits and only_port in (None, port):
                return True
        candidates = {address, plain(address)}
        return any(
            only_port in (None, port) and any(candidate in network for candidate in candidates)
            for network, only_port in self._networks
        )

    def resolve(self, host: str, port: int) -> list[str]:
        """Resolve *host* and return the addresses that may be connected to, in the resolver's order.

        :raises UnsafeAddress: none of its addresses may.
        :raises OSError: the name does not resolve.
        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        good = [a for a in addresses if self.allows(host, port, ipaddress.ip_address(a.split("%")[0]))]
        if not good:
            shown = host if host in addresses else f"{host} (which is {', '.join(addresses[:3])})"
            raise UnsafeAddress(
                f"not fetching from {shown}: the address is not a public one. If this host is yours, add it "
                "or its network to allowed_hosts."
            )
        return good


def _split_port(entry: str) -> tuple[str, int | None]:
    text = entry.strip()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest[1:]) if rest[1:].isdigit() else None
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return host, int(port)
    return text, None


class GuardedStream(httpcore.NetworkStream):
    """An open connection that is read in large pieces.

    :param read_size: bytes taken at a time.
    :param opened: receives each stream, also the one that TLS makes of it, so that it can be aborted.
    """

    def __init__(
        self, inner: httpcore.NetworkStream, read_size: int, opened: Callable[[GuardedStream], None]
    ) -> None:
        self._inner = inner
        self._read_size = read_size
        self._opened = opened
        self._socket: socket.socket = inner.get_extra_info("socket")
        self._tls = isinstance(self._socket, ssl.SSLSocket)
        self._buffer = bytearray(max(read_size, TLS_RECORD)) if self._tls else bytearray()
        opened(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what there is: up to ``read_size`` bytes, however little *max_bytes* asks for."""
        if not self._tls or max_bytes < TLS_RECORD:
            return self._inner.read(max(max_bytes, self._read_size), timeout)
        return self._read_records(timeout)

    def _read_records(self, timeout: float | None) -> bytes:
        # TLS hands out one record of at most 16 KiB per read, and all the layers above cost more than the
        # decryption of so little. So records are gathered here as long as more of them are waiting.
        first = self._inner.read(TLS_RECORD, timeout)
        view = memoryview(self._buffer)
        got = len(first)
        view[:got] = first
        while first and got <= len(self._buffer) - TLS_RECORD and self._more_is_waiting():
            try:
                more = self._socket.recv_into(view[got:], TLS_RECORD)
            except OSError:  # what came before the fault still counts; the next read meets the fault
                break
            if not more:
                break
            got += more
        return bytes(view[:got]) if got > len(first) else first

    def _more_is_waiting(self) -> bool:
        pending = self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0
        return pending > 0 or bool(select.select([self._socket], [], [], 0)[0])

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def abort(self) -> None:
        """Wake a thread that is blocked in :meth:`read`; to be called from another one."""
        with contextlib.suppress(OSError):
            # The SSL object's own shutdown would free what the reading thread is using.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        # The handshake takes the connection out of the socket that abort() knows: it gets another name of it.
        self._socket = self._socket.dup()
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, timeout)
        finally:
            self._socket.close()
        return GuardedStream(inner, self._read_size, self._opened)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class GuardedBackend(httpcore.NetworkBackend):
    """Open the connections of a download, each to an address that :class:`AddressGuard` lets pass."""

    def __init__(self, guard: AddressGuard, read_size: int) -> None:
        self._guard = guard
        self._read_size = read_size
        self._tcp = httpcore.SyncBackend()
        self._open: weakref.WeakSet[GuardedStream] = weakref.WeakSet()
        self._lock = threading.Lock()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._guard.resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the name {host} does not resolve ({error.strerror})") from error
        options: Sequence[Any] = list(socket_options or ())
        for position, address in enumerate(addresses):
            try:
                inner = self._tcp.connect_tcp(address, port, timeout, local_address, options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if position == len(addresses) - 1:
                    raise
                continue
            # What one connection needs for its speed, many do not need each, and it adds up.
            read_size = self._read_size if len(self._open) < FEW else self._read_size // 4
            return GuardedStream(inner, read_size, self._remember)
        raise httpcore.ConnectError(f"{host} has no address")

    def _remember(self, stream: GuardedStream) -> None:
        with self._lock:
            self._open.add(stream)

    def abort(self) -> None:
        """Break every open connection, so that no thread stays blocked on one."""
        with self._lock:
            for stream in list(self._open):
                stream.abort()
