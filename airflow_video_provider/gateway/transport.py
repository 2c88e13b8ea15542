"""How the queries of one gateway reach it: httpx's transport seam, without the client's layers above it.

A query needs no cookies, no auth flow and no redirects of httpx's own (the exchange decides those), and there
are thousands of them: a request that is made once and handed straight to the transport costs a third of one
that goes through the client. Where ``httpx-aiohttp`` is installed (the extra ``fast``), its transport is
used, which costs less than half of httpx's own.

Only queries go this way. A create does not: of a connection that broke in mid-request ``httpx-aiohttp`` 0.2
says that it could not be made, which would be taken for "not accepted, nothing paid". (A query whose
connection breaks before a reply aiohttp 3.14 sends once more, which costs nobody anything.)
"""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
from typing import Any

import httpx

from airflow_video_provider.gateway.pace import MOST_CONNECTIONS
from airflow_video_provider.gateway.proxies import is_socks
from airflow_video_provider.gateway.settings import KEEPALIVE_SECONDS

__all__ = ["faults", "is_fast", "query_transport"]


def query_transport(verify: ssl.SSLContext | bool, proxy: httpx.Proxy | None) -> httpx.AsyncBaseTransport:
    """Make the transport for the queries of a gateway.

    :param verify: a TLS context, False to check no certificate, True for the usual authorities.
    :param proxy: between here and the gateway; None for none. A SOCKS proxy is for httpx's own transport.
    """
    options: dict[str, Any] = {
        "verify": verify,
        "limits": httpx.Limits(
            max_connections=MOST_CONNECTIONS,
            max_keepalive_connections=MOST_CONNECTIONS,
            keepalive_expiry=KEEPALIVE_SECONDS,
        ),
        "proxy": proxy,
    }
    if is_fast() and not is_socks(proxy):
        from httpx_aiohttp import AiohttpTransport

        fast: httpx.AsyncBaseTransport = AiohttpTransport(**options)
        return fast
    return httpx.AsyncHTTPTransport(**options)


def is_fast() -> bool:
    """Whether ``httpx-aiohttp`` is installed."""
    return importlib.util.find_spec("httpx_aiohttp") is not None


def faults() -> tuple[type[Exception], ...]:
    """What a query's transport raises when the network fails.

    ``httpx-aiohttp`` 0.2 lets some of aiohttp's own through, as for a reply that is no HTTP.
    """
    own = (httpx.RequestError, httpx.InvalidURL, OSError)
    if not is_fast():
        return own
    import aiohttp

    return (*own, aiohttp.ClientError, asyncio.TimeoutError)
