"""How to point Airflow at a sandbox: the lines that are printed and shown."""

from __future__ import annotations

import json
from urllib.parse import quote, urlsplit


def connection_json(host: str, key: str) -> str:
    """The Airflow connection as JSON, for ``AIRFLOW_CONN_VIDEO_DEFAULT``.

    :param host: base URL of the gateway.
    """
    return json.dumps({"conn_type": "video_gateway", "host": host, "password": key, "extra": _extra(host)})


def connection_uri(host: str, key: str) -> str:
    """The same as a URI."""
    extra = quote(json.dumps(_extra(host)), safe="")
    return f"video-gateway://:{quote(key, safe='')}@{quote(host, safe='')}/?__extra__={extra}"


def _extra(host: str) -> dict[str, list[str]]:
    # Videos are not fetched from private addresses unless the connection says so, and this one is.
    return {"allowed_hosts": [urlsplit(host).hostname or "127.0.0.1"]}
