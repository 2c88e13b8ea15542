"""The trigger of a wait that Airflow begins itself, without a worker before it (``start_from_trigger``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.triggers.video import VideoTaskTrigger
from airflow_video_provider.waiting import video_id_of

__all__ = ["TemplatedVideoTaskTrigger"]


class TemplatedVideoTaskTrigger(VideoTaskTrigger):
    """A :class:`VideoTaskTrigger` whose id and connection Airflow renders in the triggerer (3.3+).

    :param deadline_before_end: seconds from the deadline to the time at which Airflow ends the deferral. Who
        writes the Dag knows no absolute deadline; Airflow stores the end of the deferral when it begins it,
        so a triggerer that is restarted finds the same deadline.
    :param kwargs: those of :class:`VideoTaskTrigger`; ``video_id`` may be rendered to all that
        :func:`~airflow_video_provider.waiting.video_id_of` reads.
    """

    def __init__(self, *, deadline_before_end: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deadline_before_end = deadline_before_end
        self.timeout_after: datetime | None = None
        """When Airflow ends the deferral; the triggerer sets it."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments: everything that the constructor takes."""
        _, kwargs = super().serialize()
        return (
            "airflow_video_provider.triggers.video_templated.TemplatedVideoTaskTrigger",
            {**kwargs, "deadline_before_end": self.deadline_before_end},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Read what was rendered, then wait as :class:`VideoTaskTrigger` does."""
        if self.timeout_after is not None:
            end = self.timeout_after if self.timeout_after.tzinfo else self.timeout_after.replace(tzinfo=UTC)
            self.deadline = end.timestamp() - self.deadline_before_end
        try:
            self.video_id = video_id_of(self.video_id)
        except InvalidRequestError as error:
            yield TriggerEvent(Done(End.REFUSED, str(self.video_id), str(error)).as_event())
            return
        async for event in super().run():
            yield event
