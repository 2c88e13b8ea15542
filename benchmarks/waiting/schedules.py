"""Our decisions as the simulation drives them: those of the trigger, without its network and its clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from airflow_video_provider.gateway.durations import Expectation, History, expected_of_family
from airflow_video_provider.gateway.pace import Schedule
from airflow_video_provider.gateway.task import VideoTask
from airflow_video_provider.gateway.verdict import Done
from airflow_video_provider.gateway.watch import TaskWatch

__all__ = ["Poller"]


@lru_cache(maxsize=4096)
def _running(model: str, percent: int | None) -> VideoTask:
    reply = {"id": "1", "status": "processing", "model": model, "progress": percent}
    return VideoTask.from_reply(reply, video_id="1")


class Poller:
    """When to query one video next, with the defaults of operator and trigger.

    :param model: what the gateway names as its model.
    :param earlier: seconds that videos of this model took before.
    :param uniform: what jitter is drawn with.
    """

    def __init__(
        self, model: str, earlier: Sequence[float], uniform: Callable[[float, float], float]
    ) -> None:
        self._model, self._history = model, History()
        for seconds in earlier:
            self._history.note("", model, seconds)
        self._schedule = Schedule(uniform=uniform)
        self._watch = TaskWatch(
            video_id="1", deadline=None, schedule=self._schedule, started_at=0.0, expected=self._expected
        )

    def first_delay(self) -> float:
        """Seconds from the submission to the first query.

        The worker that submits decides on it, and has seen no earlier videos.
        """
        return self._schedule.delay(0.0, expected_of_family(self._model))

    def next_delay(self, age: float, percent: int | None) -> float:
        """Seconds until the next query of a video that goes on.

        :param age: seconds since the submission.
        :param percent: what the reply at this age told of the progress.
        """
        verdict = self._watch.on_task(_running(self._model, percent), now=age)
        if isinstance(verdict, Done):
            raise TypeError(f"given up on a video that goes on: {verdict}")
        return verdict.seconds

    def _expected(self, model: str | None) -> Expectation:
        return self._history.expected("", model)
