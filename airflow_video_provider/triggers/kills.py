"""What a trigger does when its task is ended from outside: say what runs on, or cancel it where asked to."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger

from airflow_video_provider.gateway.errors import GatewayError
from airflow_video_provider.hooks.shared import shared_gateway

if TYPE_CHECKING:
    from airflow_video_provider.gateway.client import AsyncGateway

__all__ = ["KillableTrigger"]

#: The event loop keeps no strong reference to a task.
_at_work: set[asyncio.Task[None]] = set()
_OVER = frozenset({"failed", "success", "skipped"})
#: Cancellations of a list that are sent at the same time.
TOGETHER = 8


class KillableTrigger(BaseTrigger):
    """A trigger that waits for videos, which a kill leaves running unless ``cancel_on_kill`` is set."""

    video_conn_id: str
    cancel_on_kill: bool

    @property
    @abstractmethod
    def running(self) -> list[str]:
        """The ids of the videos that it waits for."""

    async def on_kill(self) -> None:
        """Cancel the videos where that was asked for and the task is over; else say what goes on.

        Airflow calls it from 3.3 on, and after a Clear, too, when the next attempt may wait for the same
        video already. It also cancels this call about a second later (seen with 3.3.2), so what takes longer
        is a task of its own, which is not cancelled.
        """
        work = asyncio.create_task(self._ended_from_outside())
        _at_work.add(work)
        work.add_done_callback(_at_work.discard)
        await asyncio.shield(work)

    async def _ended_from_outside(self) -> None:
        running = self.running
        if self.cancel_on_kill and running and await self._task_is_over():
            running = await self._cancelled(running)
        if running:
            self.log.warning(
                "the wait was ended from outside; %s at the gateway, and costs what it costs. The next "
                "attempt queries it again and pays nothing",
                f"video {running[0]} runs on"
                if len(running) == 1
                else f"each of {len(running)} videos runs on",
            )

    async def _cancelled(self, videos: list[str]) -> list[str]:
        """Cancel videos; returns those that run on."""
        turns = asyncio.Semaphore(TOGETHER)

        async def cancel(client: AsyncGateway, video_id: str) -> str | None:
            async with turns:
                try:
                    await client.cancel(video_id)
                except GatewayError as error:
                    self.log.warning("video %s could not be cancelled: %s", video_id, error)
                    return video_id
            self.log.warning(
                "video %s was cancelled at the gateway, as cancel_on_kill says; what it cost so far is the "
                "gateway's affair",
                video_id,
            )
            return None

        try:
            async with shared_gateway(self.video_conn_id) as shared:
                with shared.client() as client:
                    done = await asyncio.gather(*(cancel(client, video_id) for video_id in videos))
        except (GatewayError, AirflowNotFoundException) as error:
            self.log.warning("nothing could be cancelled, the connection cannot be used: %s", error)
            return videos
        return [video_id for video_id in done if video_id is not None]

    async def _task_is_over(self) -> bool:
        """Whether the task instance is in a state in which no attempt waits or will by itself.

        A task that was cleared is in none of them from then on. What cannot be found out is not over.
        """
        ti: Any = self.task_instance
        try:
            from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

            # In a thread: this call blocks until the triggerer's parent process has answered.
            states = await asyncio.to_thread(
                RuntimeTaskInstance.get_task_states,
                dag_id=ti.dag_id,
                task_ids=[ti.task_id],
                run_ids=[ti.run_id],
                map_index=ti.map_index,
            )
            key = ti.task_id if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"
            state = states[ti.run_id][key]
        except Exception as error:  # whatever Airflow raises, and a trigger that belongs to no task instance
            self.log.warning("the state of the task cannot be read: %r", error)
            return False
        return str(getattr(state, "value", state)) in _OVER
