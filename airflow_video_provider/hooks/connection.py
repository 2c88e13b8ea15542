"""An Airflow connection of type ``video_gateway`` as settings of a gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_video_provider.connection_fields import CONNECTION_FIELDS
from airflow_video_provider.gateway.errors import InvalidRequestError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

    from airflow_video_provider.gateway.settings import GatewaySettings

__all__ = ["allowed_hosts_from_connection", "named", "secrets_of", "settings_from_connection"]

_FIELDS = {field.name: field for field in CONNECTION_FIELDS}


def settings_from_connection(connection: Connection) -> GatewaySettings:
    """Read a connection, whichever way it was made: a form, JSON or a URI.

    :raises InvalidRequestError: naming the field of the connection that is wrong.
    """
    from airflow_video_provider.gateway.settings import GatewaySettings

    with named(connection.conn_id):
        given = _extra(connection.extra)
        return GatewaySettings(
            base_url=_base_url(connection),
            api_key=connection.password or None,
            **{name: value for name, value in given.items() if _FIELDS[name].of_gateway},
        )


@contextmanager
def named(conn_id: str) -> Iterator[None]:
    """Put the connection's id before what is wrong with it."""
    try:
        yield
    except InvalidRequestError as error:
        raise InvalidRequestError(f"connection {conn_id!r}: {error.message}") from None


def allowed_hosts_from_connection(connection: Connection) -> tuple[str, ...]:
    """Hosts and networks that a file may be fetched from though their addresses are not public.

    Those of the connection's extra, and the gateway itself: who made the connection trusts that host and
    port.
    """
    from airflow_video_provider.gateway.settings import origin_of

    gateway = urlsplit(origin_of(settings_from_connection(connection).base_url))
    return (*_extra(connection.extra).get("allowed_hosts", ()), gateway.netloc)


def secrets_of(settings: GatewaySettings) -> list[str]:
    """What Airflow has to mask beside the password: headers of the connection, and of its dialect."""
    return [secret for secret in settings.secrets if secret != settings.api_key]


def _base_url(connection: Connection) -> str:
    host = (connection.host or "").strip()
    if not host:
        raise InvalidRequestError(
            "host: is missing; give the gateway's base URL, https://az.gptplus5.com for example"
        )
    schema = (connection.schema or "").strip()
    # Airflow's http connections keep the scheme in "schema"; a connection URI puts its path there.
    scheme, prefix = (
        (schema.lower(), "") if schema.lower() in {"http", "https"} else ("https", schema.strip("/"))
    )
    if "://" not in host:
        host = f"{scheme}://{host}"
    head, slash, path = host.partition("://")[2].partition("/")
    if connection.port and not re.search(r":\d+$", head):
        head = f"{head}:{connection.port}"
    return f"{host.partition('://')[0]}://{head}{slash}{path.rstrip('/')}" + (f"/{prefix}" if prefix else "")


def _extra(text: str | None) -> dict[str, Any]:
    try:
        extra = json.loads(text) if text else {}
    except ValueError as error:
        raise InvalidRequestError(f"extra: is no JSON: {error}") from None
    if not isinstance(extra, dict):
        raise InvalidRequestError("extra: must be a JSON object")
    unknown = sorted(set(extra) - set(_FIELDS))
    if unknown:
        raise InvalidRequestError(f"extra.{unknown[0]}: is unknown; allowed: {', '.join(_FIELDS)}")
    settings = {}
    for name, value in extra.items():
        if value is None or value in ("", {}, []):  # a form stores what was left empty
            continue
        try:
            settings[name] = _FIELDS[name].read(value)
        except ValueError as error:
            raise InvalidRequestError(f"extra.{name}: {error}") from None
    return settings
