"""The provider's metadata, as data: Airflow reads it at start, without importing a hook."""

from __future__ import annotations

from typing import Any

from airflow_video_provider import __version__
from airflow_video_provider.connection_fields import CONNECTION_FIELDS

HIDDEN_FIELDS = ["login", "schema", "extra"]
RELABELING = {"host": "Base URL", "password": "API key"}
PLACEHOLDERS = {
    "host": "https://az.gptplus5.com",
    "password": "sk-…",
    "port": "only if it is not in the base URL",
    **{field.name: field.placeholder for field in CONNECTION_FIELDS},
}
CONN_FIELDS: dict[str, dict[str, Any]] = {
    field.name: {"label": field.label, "description": field.description, "schema": field.schema}
    for field in CONNECTION_FIELDS
}

CONFIG: dict[str, Any] = {
    "video_gateway": {
        "description": "What Airflow's UI shows of videos.",
        "options": {
            "ui_queries_gateway": {
                "description": (
                    "Whether the api-server may query the gateway, through the task's connection, "
                    "for the progress of a video whose Video tab is open."
                ),
                "version_added": "0.1.0",
                "type": "boolean",
                "example": None,
                "default": "True",
            }
        },
    }
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
            {
                "integration-name": "Video gateway",
                "python-modules": [
                    "airflow_video_provider.triggers.video",
                    "airflow_video_provider.triggers.video_list",
                ],
            }
        ],
        "task-decorators": [
            {"class-name": "airflow_video_provider.decorators.video.video_task", "name": "video"}
        ],
        "config": CONFIG,
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
