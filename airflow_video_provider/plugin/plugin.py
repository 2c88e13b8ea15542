"""The plugin: names and URLs. All of Airflow's processes load it, so that it imports nothing of the web."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_video_provider.plugin.links import PREFIX, TAB, GatewayLink, VideoLink

__all__ = ["VideoPlugin"]

#: Before 3.1 Airflow's UI has no place for pages of a plugin.
_HAS_VIEWS = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 1)

#: Lucide's "clapperboard" (ISC licence), in a grey that is readable on light and on dark.
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' "
    "stroke='%23808892' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'%3E"
    "%3Cpath d='M20.2 6 3 11l-.9-2.4c-.3-1.1.3-2.2 1.3-2.5l13.5-4c1.1-.3 2.2.3 2.5 1.3Z'/%3E"
    "%3Cpath d='m6.2 5.3 3.1 3.9'/%3E%3Cpath d='m12.4 3.4 3.1 4'/%3E"
    "%3Cpath d='M3 11h18v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2Z'/%3E%3C/svg%3E"
)

Message = MutableMapping[str, Any]


class LazyApp:
    """The web application, imported for its first request: Airflow mounts it at its own start."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one request (ASGI)."""
        if self._app is None:
            from airflow_video_provider.plugin.web import create_app

            self._app = create_app()
        await self._app(scope, receive, send)


def _views() -> list[dict[str, Any]]:
    # Relative to the page's <base>, so that an Airflow behind a path prefix finds them, too.
    root = f"{PREFIX.lstrip('/')}/dags/{{DAG_ID}}"
    places = {
        "task_instance": ("Video", TAB, f"{root}/runs/{{RUN_ID}}/tasks/{{TASK_ID}}/{{MAP_INDEX}}"),
        "dag_run": ("Videos", "videos", f"{root}/runs/{{RUN_ID}}/videos"),
        "dag": ("Videos", "all-videos", f"{root}/videos"),
    }
    return [
        {"name": name, "href": href, "destination": place, "url_route": route, "icon": _ICON}
        for place, (name, route, href) in places.items()
    ]


class VideoPlugin(AirflowPlugin):
    """Tab, galleries and links where the Airflow has a place for them."""

    name = "video_gateway"
    operator_extra_links = [GatewayLink(), *([VideoLink()] if _HAS_VIEWS else [])]  # noqa: RUF012
    external_views = _views() if _HAS_VIEWS else []
    fastapi_apps = [{"app": LazyApp(), "url_prefix": PREFIX, "name": "Video gateway"}] if _HAS_VIEWS else []
