"""The trigger that waits for many tasks at once: polls, nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_video_provider.gateway.ends import FailIf, ListEnd
from airflow_video_provider.gateway.pace import LONGEST_INTERVAL, ScheduleMode
from airflow_video_provider.gateway.watch import UNREACHABLE_AFTER
from airflow_video_provider.hooks.many import Awaited, ListWait
from airflow_video_provider.triggers.polling import PollingTrigger
from airflow_video_provider.waiting import utc

__all__ = ["VideoTaskListTrigger"]


class _ListEvent(TriggerEvent):
    """An event of which Airflow's triggerer, which logs each, logs a few words: the list may be megabytes."""

    def __repr__(self) -> str:
        return f"TriggerEvent<ends of videos: {len(self.payload['ends'])}>"

    __str__ = __repr__


class VideoTaskListTrigger(PollingTrigger):
    """Query a list of tasks until each has ended or the deadline passes, and yield exactly one event.

    The ids are not in the trigger's row but in an XCom, which whoever defers has pushed before: thousands of
    waits are one small row. The event is :meth:`ListEnd.as_event
    <airflow_video_provider.gateway.ends.ListEnd.as_event>`, in the order of the ids.

    :param video_conn_id: connection to query through.
    :param video_ids: where the ids are: ``dag_id``, ``run_id``, ``task_id``, ``map_index`` and ``key`` of an
        XCom that is a list of ids, or of mappings with ``video_id`` and, where they are known,
        ``submitted_at`` (seconds since the epoch) and ``model``.
    :param poll_interval: seconds, the lowest interval between two queries of a video.
    :param max_poll_interval: seconds, the longest.
    :param schedule: ``adaptive`` or ``fixed``; see ``gateway.pace.Schedule``.
    :param deadline: seconds since the epoch; None waits for ever.
    :param first_poll_at: seconds since the epoch before which not to query.
    :param submitted_at: seconds since the epoch at which the videos were submitted, where the list does not
        say it for each.
    :param model: that was asked for, where the list does not say it for each.
    :param unreachable_after: seconds of failed queries of a video in a row after which to give it up.
    :param fail_if: ``first`` ends the wait for all with the first video that does not succeed; ``any`` and
        ``all`` wait for the end of each.
    :param cancel_on_kill: cancel the videos that have not ended when a person marks the task as failed or
        success (Airflow 3.3+).
    """

    def __init__(
        self,
        *,
        video_conn_id: str,
        video_ids: Mapping[str, Any],
        poll_interval: float,
        max_poll_interval: float = LONGEST_INTERVAL,
        schedule: ScheduleMode = "adaptive",
        deadline: float | None = None,
        first_poll_at: float = 0.0,
        submitted_at: float | None = None,
        model: str | None = None,
        unreachable_after: float = UNREACHABLE_AFTER,
        fail_if: FailIf = "any",
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
        self.video_ids = dict(video_ids)
        self.fail_if = fail_if
        self._waits: ListWait | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments: everything that the constructor takes."""
        return (
            "airflow_video_provider.triggers.video_list.VideoTaskListTrigger",
            {**self.arguments(), "video_ids": self.video_ids, "fail_if": self.fail_if},
        )

    @property
    def running(self) -> list[str]:
        """The videos that it waits for, once it has read which these are."""
        return self._waits.running if self._waits is not None else []

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for all, then yield the one event."""
        await asyncio.sleep(max(self.first_poll_at - time.time(), 0.0))
        end = await self._wait()
        # In a thread: thousands of results would hold up the other triggers.
        yield _ListEvent(payload=await asyncio.to_thread(end.as_event))

    async def _wait(self) -> ListEnd:
        entries = await self._entries()
        if entries is None:
            return ListEnd(
                (),
                f"the wait broke off, the list of videos is no longer in XCom ({self.video_ids}): somebody "
                "has deleted or cleared it. The videos were left running at the gateway; a retry writes the "
                "list anew",
            )
        self.log.info(
            "waiting for %d videos%s", len(entries), f" until {utc(self.deadline)}" if self.deadline else ""
        )
        videos = map(Awaited.of, entries)
        self._waits = ListWait(self.video_conn_id, videos, log=self.log, of_watch=self.of_watch())
        return await self._waits.until_all_end(self.fail_if)

    async def _entries(self) -> list[Any] | None:
        """The list of videos, None if there is none.

        Airflow reads it by a call that blocks: 2.11 from the database, 3.x from the triggerer's parent
        process. ``sync_to_async``, not ``asyncio.to_thread``: 3.1 finds the way back to its event loop by it.
        """
        from airflow.providers.common.compat.sdk import XCom
        from asgiref.sync import sync_to_async

        entries: list[Any] | None = await sync_to_async(XCom.get_one)(**self.video_ids)
        return entries
