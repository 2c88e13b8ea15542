"""The extra of a connection, as one table: what is read, what the form shows, what the documents list.

A new setting is a row here and a field of
:class:`~airflow_video_provider.gateway.settings.GatewaySettings`, which is what the clients are made of;
``tests/unit/test_connection_fields.py`` holds the two and the table of docs/connection.md together. Nothing
is imported that costs: Airflow reads the provider's metadata at start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

__all__ = ["CONNECTION_FIELDS", "ConnectionField"]


def _boolean_or_path(value: object) -> bool | str:
    if isinstance(value, str):
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            value.strip().lower(), value.strip()
        )
    if isinstance(value, bool):
        return value
    raise ValueError("must be true, false or the path of a CA file")


def _number(value: object, what: str = "a number") -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {what}")
    return float(value)


_seconds = partial(_number, what="a number of seconds")


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):  # the form of Airflow 2 has text fields only
        value = json.loads(value)
    if not isinstance(value, Mapping) or not all(isinstance(v, str | int | float) for v in value.values()):
        raise ValueError('must be an object of texts, {"X-Team": "films"} for example')
    return tuple((str(name), str(text)) for name, text in value.items())


def _hosts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, list) or not all(isinstance(host, str) for host in value):
        raise ValueError(
            'must be a list of hosts or networks, ["10.0.0.0/8", "minio.internal:9000"] for example'
        )
    return tuple(host.strip() for host in value if host.strip())


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value.strip()


def _name_or_object(value: object) -> str | Mapping[str, Any]:
    if isinstance(value, str) and value.lstrip().startswith("{"):  # a form has a text field for it
        value = json.loads(value)
    return value if isinstance(value, Mapping) else _text(value)


@dataclass(frozen=True)
class ConnectionField:
    """One field of the extra.

    :param name: its key, and the field of ``GatewaySettings`` it goes to.
    :param label: in the form.
    :param description: in the form.
    :param meaning: in the table of docs/connection.md.
    :param placeholder: in the form: a value that works.
    :param schema: JSON schema of what the form of Airflow 3 may store.
    :param read: makes the setting of the stored value; a ValueError says what it must be.
    :param of_gateway: it is a field of ``GatewaySettings``; else only of what fetches files.
    """

    name: str
    label: str
    description: str
    meaning: str
    placeholder: str
    schema: dict[str, Any]
    read: Callable[[object], Any]
    of_gateway: bool = True


_ENCODINGS = ["json", "multipart", "multipart_with_file"]

CONNECTION_FIELDS: tuple[ConnectionField, ...] = (
    ConnectionField(
        "dialect",
        "Dialect",
        "Family of endpoints: unified (/v1/video/create; az.gptplus5.com, QuickRouter), openai (/v1/videos), "
        "newapi (/v1/video/generations), openrouter, one that another package adds, or a JSON object with "
        "the fields of one. Empty: unified.",
        "`unified` (default), `openai`, `newapi`, `openrouter`, one that another package adds, or "
        '[an object](dialects.md): `{"base": "openai", …}`',
        "unified",
        # No enum: the form of Airflow 3 would offer these alone.
        {
            "type": ["string", "null"],
            "examples": ["unified", "openai", "newapi", "openrouter"],
            "default": "unified",
        },
        _name_or_object,
    ),
    ConnectionField(
        "create_encoding",
        "Encoding of a create",
        "json, multipart (vLLM-Omni takes nothing else) or multipart_with_file (JSON unless a file is sent). "
        "Empty: as the dialect has it.",
        "how a create is sent, where not as the dialect says: `json`, `multipart` (vLLM-Omni), "
        "`multipart_with_file` (JSON unless there is a file)",
        "json",
        {"type": ["string", "null"], "examples": _ENCODINGS},
        _text,
    ),
    ConnectionField(
        "timeout",
        "Timeout (seconds)",
        "For connecting and for each wait on a reply. Empty: 120, because proxies give up on a create after "
        "100, and their verdict beats a guess.",
        "seconds, for connecting and for each wait on a reply; default 120: proxies give up on a create "
        "after 100, and their verdict beats a guess",
        "120",
        {"type": ["number", "null"]},
        _seconds,
    ),
    ConnectionField(
        "headers",
        "Headers",
        "JSON object of headers for every request to the gateway; none goes to another host.",
        "object of more headers, sent to this host only",
        '{"X-Team": "films"}',
        {"type": ["object", "null"]},
        _headers,
    ),
    ConnectionField(
        "forwarded_host",
        "X-Forwarded-Host",
        "Value of the X-Forwarded-Host header, for the gateways that ask for one.",
        "value of `X-Forwarded-Host`",
        "api.quickrouter.ai",
        {"type": ["string", "null"], "examples": ["api.quickrouter.ai"]},
        _text,
    ),
    ConnectionField(
        "verify",
        "Verify TLS",
        "true, false, or the path of a CA file on the workers and triggerers. Empty: true.",
        "`true`, `false`, or the path of a CA file",
        "true",
        {"type": ["string", "null"], "examples": ["true", "false", "/etc/ssl/my-ca.pem"]},
        _boolean_or_path,
    ),
    ConnectionField(
        "max_requests_per_second",
        "Queries a second",
        "The most queries that one triggerer sends to this gateway in a second. Empty: as many as become "
        "due, evenly spread.",
        "the most queries a second that one triggerer sends; default: as many as become due, evenly spread",
        "5",
        {"type": ["number", "null"]},
        _number,
    ),
    ConnectionField(
        "allowed_hosts",
        "Allowed hosts",
        "Hosts or networks that videos may be fetched from though their addresses are not public. The "
        "gateway's own host and port always may.",
        "hosts, `host:port` or networks that files may be fetched from though their addresses are not public",
        "minio.internal:9000, 10.0.0.0/8",
        {"type": ["array", "null"], "items": {"type": "string"}},
        _hosts,
        of_gateway=False,
    ),
    ConnectionField(
        "console_url",
        "Console URL",
        'The gateway\'s own page about a task, for people: Airflow shows it as the link "Gateway" of a task. '
        "{video_id} stands for the task's id.",
        "the gateway's page about a task, for people, with `{video_id}` in it: the link *Gateway* "
        "[in Airflow's UI](ui.md)",
        "https://console.example.com/tasks/{video_id}",
        {"type": ["string", "null"]},
        _text,
    ),
)
