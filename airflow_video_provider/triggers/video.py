"""The trigger that waits for a task: polls, nothing else; asked to, it cancels for a person who kills."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import TriggerEvent

from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.pace import LONGEST_INTERVAL, ScheduleMode
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.gateway.watch import FAR, UNREACHABLE_AFTER
from airflow_video_provider.hooks.shared import shared_gateway, waiting_at
from airflow_video_provider.triggers.polling import PollingTrigger
from airflow_video_provider.waiting import utc

__all__ = ["VideoTaskTrigger"]


class VideoTaskTrigger(PollingTrigger):
    """Ask until the task ends or the deadline passes, and yield exactly one event.

    It never submits and never downloads. All arguments are plain JSON and absolute, so a restarted triggerer
    finds the same wait with the same deadline.

    :param video_conn_id: connection to ask through.
    :param video_id: the gateway's task.
    :param poll_interval: seconds, the lowest interval between queries.
    :param max_poll_interval: seconds, the longest.
    :param schedule: ``adaptive`` or ``fixed``; see ``gateway.pace.Schedule``.
    :param deadline: seconds since the epoch; None waits for ever.
    :param first_poll_at: seconds since the epoch before which not to ask. Airflow can lose a task whose
        deferral lasts only a few seconds (LocalExecutor, seen on 2.11 and 3.3).
    :param submitted_at: seconds since the epoch at which the task was submitted, where that is known.
    :param model: that was asked for, where that is known: how long its videos take, the schedule learns.
    :param unreachable_after: seconds of failed queries in a row after which to give up.
    :param cancel_on_kill: cancel the video when a person marks the task as failed or success (Airflow 3.3+).
    """

    def __init__(
        self,
        *,
        video_conn_id: str,
        video_id: str,
        poll_interval: float,
        max_poll_interval: float = LONGEST_INTERVAL,
        schedule: ScheduleMode = "adaptive",
        deadline: float | None = None,
        first_poll_at: float = 0.0,
        submitted_at: float | None = None,
        model: str | None = None,
        unreachable_after: float = UNREACHABLE_AFTER,
        cancel_on_kill: bool = False,
    ) -> None:
        super().__init__(
            video_conn_id=video_conn_id,
            poll_interval=poll_interval,
            max_poll_interval=max_poll_interval,
            schedule=schedule,
            deadline=deadline,
            first_poll_at=first_poll_at,
            submitted_at=submitted_at,
            model=model,
            unreachable_after=unreachable_after,
            cancel_on_kill=cancel_on_kill,
        )
        self.video_id = video_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments: everything that the constructor takes."""
        return (
            "airflow_video_provider.triggers.video.VideoTaskTrigger",
            {**self.arguments(), "video_id": self.video_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the one event: :meth:`Done.as_event`."""
        try:
            done = await self._wait()
        except (InvalidRequestError, AirflowNotFoundException) as error:
            # Somebody changed or deleted the connection while the task ran: the task itself is well.
            done = Done(
                End.UNREACHABLE,
                self.video_id,
                f"the wait for video {self.video_id} broke off, the connection cannot be used: {error}. "
                "The task was left running at the gateway",
            )
        yield TriggerEvent(done.as_event())

    @property
    def running(self) -> list[str]:
        """The video that it waits for."""
        return [self.video_id]

    async def _wait(self) -> Done:
        self.log.info(
            "waiting for video %s%s%s",
            self.video_id,
            f", submitted at {utc(self.submitted_at)}" if self.submitted_at else "",
            f", until {utc(self.deadline)}" if self.deadline else "",
        )
        late = time.time() - self.first_poll_at
        await asyncio.sleep(max(-late, 0.0))
        async with shared_gateway(self.video_conn_id) as shared:
            watch = shared.watch(self.video_id, **self.of_watch())
            with waiting_at(shared, watch) as waiting:
                if self.first_poll_at and late > self.poll_interval:
                    # The triggerer was started anew, and all of its waits with it.
                    await asyncio.sleep(watch.delay_after_restart(now=time.time()))
                while True:
                    if (pause := shared.pause()) > FAR:
                        told = "video %s: the gateway asked for a pause; the next query goes out in %.0f s"
                        self.log.info(told, self.video_id, pause)
                    verdict = await shared.ask(waiting)
                    if watch.news:
                        self.log.info("video %s: %s", self.video_id, watch.news)
                    if isinstance(verdict, Done):
                        return verdict
                    await asyncio.sleep(verdict.seconds)
