"""How a video stands at the gateway, for a page that somebody looks at.

A trigger cannot write to Airflow's database, and its row tells of no progress. So the api-server queries the
gateway itself, through the connection that the task waits through. That is free; it is done only for ids that
a task recorded, only while a page is open, and at most once in :data:`FRESH` seconds for a video, whoever
looks at it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from airflow.providers.common.compat.sdk import AirflowException, conf

from airflow_video_provider.gateway.errors import GatewayError
from airflow_video_provider.hooks.shared import shared_gateway
from airflow_video_provider.http_common import excerpt, without_secrets

__all__ = ["Seen", "is_allowed", "look"]

#: Seconds for which an answer is shown again, and after which the page asks anew.
FRESH = 5.0
#: Seconds after which a page goes without.
TIMEOUT = 10.0

_looks: dict[tuple[str, str], tuple[float, asyncio.Task[Seen]]] = {}


@dataclass(frozen=True)
class Seen:
    """What the gateway says.

    :param line: state and progress as a person reads them; None where it could not be asked.
    :param progress: percent; None where the gateway tells none.
    :param problem: why it could not be asked.
    """

    line: str | None = None
    progress: int | None = None
    problem: str | None = None


def is_allowed() -> bool:
    """Whether the api-server may query gateways: ``[video_gateway] ui_queries_gateway``, by default True."""
    return bool(conf.getboolean("video_gateway", "ui_queries_gateway", fallback=True))


async def look(conn_id: str, video_id: str) -> Seen:
    """Query the gateway, or answer what it said a moment ago."""
    now = time.monotonic()
    for stale in [key for key, (until, task) in _looks.items() if until <= now and task.done()]:
        del _looks[stale]
    key = (conn_id, video_id)
    if key not in _looks:
        _looks[key] = (now + FRESH, asyncio.create_task(_look(conn_id, video_id)))
    # Whoever looks may go away; the query is not only theirs.
    return await asyncio.shield(_looks[key][1])


async def _look(conn_id: str, video_id: str) -> Seen:
    try:
        async with asyncio.timeout(TIMEOUT), shared_gateway(conn_id) as shared:
            with shared.client() as gateway:
                task = await gateway.get_task(video_id)
    except TimeoutError:
        return Seen(problem=f"the gateway did not answer within {TIMEOUT:g} s")
    except (GatewayError, AirflowException) as error:
        return Seen(problem=excerpt(without_secrets(str(error))))
    return Seen(task.line, task.progress)
