"""Which proxy the environment names for a gateway: one reading of it, for both clients and both transports.

httpx would read every variable itself, also those that are not for this gateway, and raise from deep inside
on the first that it cannot use.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from airflow_video_provider.gateway.error_tree import InvalidRequestError

__all__ = ["is_socks", "proxy_for"]

_SOCKS = frozenset({"socks5", "socks5h"})


def proxy_for(base_url: str) -> httpx.Proxy | None:
    """The proxy to a gateway; None for none.

    :param base_url: of the gateway: its scheme chooses between ``HTTPS_PROXY`` and ``HTTP_PROXY``, before
        ``ALL_PROXY``, and its host is looked for in ``NO_PROXY``.
    :raises InvalidRequestError: naming the variable that cannot be used; it does not repeat its value, which
        may hold a password.
    """
    parts = urlsplit(base_url)
    # NO_PROXY has an IPv6 address with brackets or without.
    if proxy_bypass(parts.netloc) or proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    kind = next((kind for kind in (parts.scheme, "all") if proxies.get(kind)), None)
    return None if kind is None else _read(_variable(kind), proxies[kind])


def is_socks(proxy: httpx.Proxy | None) -> bool:
    """Whether it is one of a kind that aiohttp does not speak."""
    return proxy is not None and proxy.url.scheme in _SOCKS


def _variable(kind: str) -> str:
    lower = f"{kind}_proxy"
    return lower if os.environ.get(lower) else lower.upper()


def _read(variable: str, value: str) -> httpx.Proxy:
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
    except (httpx.InvalidURL, ValueError):  # ValueError: a scheme that is none of a proxy
        proxy = None
    if proxy is None or not proxy.url.host:
        raise InvalidRequestError(
            f"{variable}: this variable of the environment names no proxy that can be used; write "
            "http://host:port, https://host:port or socks5://host:port, or remove it"
        )
    if is_socks(proxy) and find_spec("socksio") is None:
        raise InvalidRequestError(
            f"{variable}: this variable of the environment names a SOCKS proxy, for which the package "
            "socksio is missing; install httpx[socks], name an HTTP proxy, or add the gateway's host to "
            "NO_PROXY"
        )
    return proxy
