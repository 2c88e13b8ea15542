"""Many waits in one place: a list of videos on one event loop, each with its own decisions.

A list trigger and the sensor in the worker wait by it. Each video is a wait of its own at the connection's
gate (:mod:`~airflow_video_provider.hooks.shared`), so that a list is as polite as so many tasks, and costs
less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_video_provider.gateway.ends import FailIf, ListEnd, counted, left
from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.verdict import Done, End, Verdict
from airflow_video_provider.gateway.watch import TaskWatch
from airflow_video_provider.hooks.shared import SharedGateway, shared_gateway, waiting_at

__all__ = ["Awaited", "ListWait"]

#: Seconds between two summaries in the log; there is none while nothing changes.
SUMMARY_INTERVAL = 30.0
#: Waits that are begun before the event loop's other work gets its turn.
BEGUN_TOGETHER = 100
NOT_SEEN = "not seen yet"
FAILING = "whose queries fail"


@dataclass(frozen=True, slots=True)
class Awaited:
    """One video of a list.

    :param video_id: the gateway's task.
    :param submitted_at: seconds since the epoch, where that is known.
    :param model: that was asked for, where that is known.
    """

    video_id: str
    submitted_at: float | None = None
    model: str | None = None

    @classmethod
    def of(cls, value: str | Mapping[str, Any]) -> Awaited:
        """From an entry of the XCom that a list trigger reads: an id, or a mapping of these fields."""
        if isinstance(value, str):
            return cls(value)
        return cls(value["video_id"], value.get("submitted_at"), value.get("model"))


class _Enough(Exception):
    """The first video has failed, and nobody waits for the others any more."""


class _Tally:
    """Counts by state, for a log that has a summary instead of a line per change of each video."""

    def __init__(self, videos: int, log: Any) -> None:
        self._log = log
        self._states: dict[str, str] = {}
        self._counts: Counter[str] = Counter({NOT_SEEN: videos})
        self._error = ""
        self._told = ""

    def note(self, watch: TaskWatch, verdict: Verdict) -> None:
        """Note what the last query of a video has brought."""
        if isinstance(verdict, Done):
            state = str(verdict.end)
        elif watch.failures:
            state, self._error = FAILING, watch.news or self._error
        else:
            state = NOT_SEEN if watch.task is None else str(watch.task.state)
        before = self._states.get(watch.video_id, NOT_SEEN)
        self._states[watch.video_id] = state
        self._counts[before] -= 1
        self._counts[state] += 1

    def tell(self) -> None:
        """Log the counts, unless they are as they were."""
        line = counted(self._counts)
        if self._counts[FAILING]:
            line = f"{line}; lately: {self._error}"
        if line != self._told:
            self._told = line
            self._log.info("%s", line)

    async def tell_now_and_then(self) -> None:
        """Log them for as long as the wait goes on."""
        while True:
            await asyncio.sleep(SUMMARY_INTERVAL)
            self.tell()


class ListWait:
    """The wait for a list of videos.

    A video that is in the list twice is queried once and told twice.

    :param video_conn_id: connection to query through.
    :param videos: in the order of the result.
    :param log: takes a summary now and then, and a line for each video that ends.
    :param of_watch: arguments of each video's watch: see ``gateway.watch.watch_for``.
    """

    def __init__(
        self, video_conn_id: str, videos: Iterable[Awaited], *, log: Any, of_watch: Mapping[str, Any]
    ) -> None:
        self.video_conn_id = video_conn_id
        self.videos = tuple(videos)
        self._distinct = {video.video_id: video for video in self.videos}
        self._of_watch = of_watch
        self._log = log
        self._ends: dict[str, Done] = {}

    @property
    def running(self) -> list[str]:
        """The ids of the videos that have not ended."""
        return [video_id for video_id in self._distinct if video_id not in self._ends]

    async def until_all_end(self, fail_if: FailIf) -> ListEnd:
        """Query each until it ends; with ``fail_if="first"`` until one of them ends badly.

        Each end is a line in the log; beside them the counts by state are told from time to time.
        """
        return await self._unless_it_breaks_off(self._wait_for_all(fail_if))

    async def once(self) -> tuple[ListEnd, float | None]:
        """Query each once, and log the counts by state; those that go on count as left.

        :returns: the ends, and the seconds until the last of those that go on is due; None where none does.
        """
        due: list[float] = []
        tally = _Tally(len(self._distinct), self._log)

        async def ask(shared: SharedGateway, watch: TaskWatch) -> None:
            with waiting_at(shared, watch) as waiting:
                verdict = await shared.ask(waiting)
            tally.note(watch, verdict)
            if isinstance(verdict, Done):
                self._ends[verdict.video_id] = verdict
            else:
                due.append(verdict.seconds)

        async def ask_all() -> None:
            async with shared_gateway(self.video_conn_id) as shared, asyncio.TaskGroup() as group:
                async for watch in self._watches(shared):
                    group.create_task(ask(shared, watch))
            tally.tell()

        return await self._unless_it_breaks_off(ask_all()), max(due, default=None)

    async def _unless_it_breaks_off(self, work: Coroutine[Any, Any, None]) -> ListEnd:
        broke_off = None
        try:
            await work
        except (InvalidRequestError, AirflowNotFoundException) as error:
            # Somebody changed or deleted the connection: the videos themselves are well.
            broke_off = (
                f"the wait for {len(self._distinct)} videos broke off, the connection cannot be used: "
                f"{error}. They were left running at the gateway"
            )
        except BaseExceptionGroup as group:
            # What ends a task (execution_timeout) is raised into whatever runs, and looked for by its type.
            raise (group.split(Exception)[1] or group).exceptions[0] from group
        ends = (self._ends.get(video.video_id) or left(video.video_id) for video in self.videos)
        return ListEnd(tuple(ends), broke_off)

    async def _wait_for_all(self, fail_if: FailIf) -> None:
        tally = _Tally(len(self._distinct), self._log)
        try:
            async with shared_gateway(self.video_conn_id) as shared:
                telling = asyncio.create_task(tally.tell_now_and_then())
                try:
                    async with asyncio.TaskGroup() as group:
                        async for watch in self._watches(shared):
                            group.create_task(self._wait_for(shared, watch, tally, fail_if))
                finally:
                    telling.cancel()
        except* _Enough:
            pass
        tally.tell()

    async def _wait_for(
        self, shared: SharedGateway, watch: TaskWatch, tally: _Tally, fail_if: FailIf
    ) -> None:
        with waiting_at(shared, watch) as waiting:
            while True:
                verdict = await shared.ask(waiting)
                tally.note(watch, verdict)
                if isinstance(verdict, Done):
                    break
                await asyncio.sleep(verdict.seconds)
        self._end(verdict)
        if fail_if == "first" and verdict.end is not End.SUCCEEDED:
            raise _Enough

    def _end(self, done: Done) -> None:
        self._ends[done.video_id] = done
        self._log.info("%s", done.message)

    async def _watches(self, shared: SharedGateway) -> AsyncIterator[TaskWatch]:
        for number, video in enumerate(self._distinct.values(), 1):
            if number % BEGUN_TOGETHER == 0:
                await asyncio.sleep(0)
            known = {"started_at": video.submitted_at, "model": video.model}
            told = {name: value for name, value in known.items() if value is not None}
            yield shared.watch(video.video_id, **{**self._of_watch, **told})
