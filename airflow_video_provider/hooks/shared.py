"""One client for all waits of a connection on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_video_provider.gateway.pace import RateGate
from airflow_video_provider.hooks.connection import named, settings_from_connection

if TYPE_CHECKING:
    from airflow_video_provider.gateway.client import AsyncGateway, GatewaySettings

__all__ = ["shared_gateway"]


@dataclass
class _Shared:
    gateway: AsyncGateway
    gate: RateGate = field(default_factory=RateGate)
    users: int = 0


# A client belongs to the event loop it was made on; the loop's end must not be hindered by this table.
_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[GatewaySettings, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def shared_gateway(video_conn_id: str) -> AsyncIterator[tuple[AsyncGateway, RateGate]]:
    """The client and the rate gate that all users of a connection on this event loop share.

    A client costs 15 to 20 ms of CPU and 0.8 MB (its TLS context), so a triggerer with a thousand waiting
    tasks must not make a thousand. The last user closes it.

    :param video_conn_id: the connection; read anew each time, so a changed key is used by the next wait.
    :raises InvalidRequestError: the connection is not usable.
    """
    from airflow.providers.common.compat.connection import get_async_connection

    from airflow_video_provider.gateway.client import AsyncGateway

    settings = settings_from_connection(await get_async_connection(video_conn_id))
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    if settings not in of_loop:
        with named(video_conn_id):
            of_loop[settings] = _Shared(AsyncGateway(settings))
    shared = of_loop[settings]
    shared.users += 1
    try:
        yield shared.gateway, shared.gate
    finally:
        shared.users -= 1
        if not shared.users:
            del of_loop[settings]
            await shared.gateway.close()
