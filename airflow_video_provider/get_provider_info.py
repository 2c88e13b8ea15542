"""The provider's metadata, as data: Airflow reads it at start, without importing a hook."""

from __future__ import annotations

from typing import Any

from airflow_video_provider import __version__

HIDDEN_FIELDS = ["login", "schema", "extra"]
RELABELING = {"host": "Base URL", "password": "API key"}
PLACEHOLDERS = {
    "host": "https://az.gptplus5.com",
    "password": "sk-…",
    "port": "only if it is not in the base URL",
    "dialect": "unified",
    "timeout": "120",
    "headers": '{"X-Team": "films"}',
    "forwarded_host": "api.quickrouter.ai",
    "verify": "true",
    "allowed_hosts": "minio.internal:9000, 10.0.0.0/8",
}
CONN_FIELDS: dict[str, dict[str, Any]] = {
    "dialect": {
        "label": "Dialect",
        "description": (
            "Family of endpoints: unified (/v1/video/create; az.gptplus5.com, QuickRouter), "
            "openai (/v1/videos) or newapi (/v1/video/generations). Empty: unified."
        ),
        "schema": {"type": "string", "enum": ["unified", "openai", "newapi"], "default": "unified"},
    },
    "timeout": {
        "label": "Timeout (seconds)",
        "description": (
            "For connecting and for each wait on a reply. Empty: 120, because proxies give up on a create "
            "after 100, and their verdict beats a guess."
        ),
        "schema": {"type": ["number", "null"]},
    },
    "headers": {
        "label": "Headers",
        "description": "JSON object of headers for every request to the gateway; none goes to another host.",
        "schema": {"type": ["object", "null"]},
    },
    "forwarded_host": {
        "label": "X-Forwarded-Host",
        "description": "Value of the X-Forwarded-Host header, for the gateways that ask for one.",
        "schema": {"type": ["string", "null"], "examples": ["api.quickrouter.ai"]},
    },
    "verify": {
        "label": "Verify TLS",
        "description": "true, false, or the path of a CA file on the workers and triggerers. Empty: true.",
        "schema": {"type": ["string", "null"], "examples": ["true", "false", "/etc/ssl/my-ca.pem"]},
    },
    "allowed_hosts": {
        "label": "Allowed hosts",
        "description": (
            "Hosts or networks that videos may be fetched from though their addresses are not public. "
            "The gateway's own host and port always may."
        ),
        "schema": {"type": ["array", "null"], "items": {"type": "string"}},
    },
}


def get_provider_info() -> dict[str, Any]:
    """What ``airflow providers list``, ``providers hooks`` and the connection form show."""
    return {
        "package-name": "airflow-video-provider",
        "name": "Video",
        "description": "Generate videos through a gateway: pay once, wait for nothing, land whole.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Video gateway",
                "tags": ["service"],
            }
        ],
        "operators": [
            {
                "integration-name": "Video gateway",
                "python-modules": ["airflow_video_provider.operators.video"],
            }
        ],
        "sensors": [
            {"integration-name": "Video gateway", "python-modules": ["airflow_video_provider.sensors.video"]}
        ],
        "hooks": [
            {"integration-name": "Video gateway", "python-modules": ["airflow_video_provider.hooks.video"]}
        ],
        "triggers": [
            {"integration-name": "Video gateway", "python-modules": ["airflow_video_provider.triggers.video"]}
        ],
        "connection-types": [
            {
                "hook-class-name": "airflow_video_provider.hooks.video.VideoHook",
                "hook-name": "Video gateway",
                "connection-type": "video_gateway",
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN_FIELDS,
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
                "conn-fields": CONN_FIELDS,
            }
        ],
    }
