"""The links of a task instance. Airflow's web server asks for them, at the time at which it shows them.

All of Airflow's processes import this with the plugin, so that what a link needs is imported when it is asked
for. For the same reason they are no subclasses of ``BaseOperatorLink``: name, operators and ``get_link`` are
all that Airflow uses of a plugin's link.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

__all__ = ["OPERATORS", "PREFIX", "TAB", "GatewayLink", "VideoLink", "tab_path"]

#: Where Airflow mounts the pages.
PREFIX = "/video-gateway"
#: The tab's own part of the URL of a task instance in Airflow's UI.
TAB = "video"

# Airflow compares names. The classes themselves would cost the import of every operator in all its processes.
# A class of ``@task.video`` is none that a Dag file names, but Airflow knows its tasks by it.
OPERATORS: list[Any] = [
    SimpleNamespace(__name__=name, __module__=f"airflow_video_provider.{module}")
    for name, module in (
        ("VideoGenerateOperator", "operators.generate"),
        ("VideoDownloadOperator", "operators.download"),
        ("VideoTaskSensor", "sensors.video"),
        ("_VideoDecoratedOperator", "decorators.video"),
    )
]


def tab_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The path of a task instance's Video tab, below Airflow's root."""
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    parts = (quote(part, safe=":+") for part in (dag_id, run_id, task_id))
    return "dags/{}/runs/{}/tasks/{}".format(*parts) + f"{mapped}/plugin/{TAB}"


class VideoLink:
    """*Video*: the tab of the task instance."""

    name = "Video"
    operators = OPERATORS

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL."""
        from airflow.providers.common.compat.sdk import conf

        root = conf.get("api", "base_url", fallback="/").rstrip("/")
        return f"{root}/{tab_path(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)}"


class GatewayLink:
    """*Gateway*: the gateway's own page about the video, where the connection has a ``console_url``."""

    name = "Gateway"
    operators = OPERATORS

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL, "" where there is none (yet)."""
        from airflow_video_provider.video_status import VideoStatus

        status = VideoStatus.from_json(_stored(ti_key))
        if status is None:
            return ""
        several = (file.get("console_url") for file in status.files)
        page = status.console_url or next((page for page in several if page), None)
        # Anybody who may write XComs can write this one.
        return page if isinstance(page, str) and page.startswith(("http://", "https://")) else ""


def _stored(ti_key: Any) -> Any:
    try:
        from airflow_video_provider.plugin.recorded import stored_status
    except ImportError:  # Airflow 2, whose web server reads XComs thus
        from airflow.models.xcom import XCom

        from airflow_video_provider.video_status import KEY

        return XCom.get_value(ti_key=ti_key, key=KEY)
    return stored_status(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
