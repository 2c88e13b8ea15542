"""What the triggers for one video and for many have in common: the arguments of a wait."""

from __future__ import annotations

from typing import Any

from airflow_video_provider.gateway.pace import ScheduleMode
from airflow_video_provider.triggers.kills import KillableTrigger

__all__ = ["PollingTrigger"]


class PollingTrigger(KillableTrigger):
    """A trigger that polls. Its arguments are those of ``VideoTaskTrigger``, all of them given."""

    def __init__(
        self,
        *,
        video_conn_id: str,
        poll_interval: float,
        max_poll_interval: float,
        schedule: ScheduleMode,
        deadline: float | None,
        first_poll_at: float,
        submitted_at: float | None,
        model: str | None,
        unreachable_after: float,
        cancel_on_kill: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.video_conn_id = video_conn_id
        self.poll_interval = poll_interval
        self.max_poll_interval = max_poll_interval
        self.schedule = schedule
        self.deadline = deadline
        self.first_poll_at = first_poll_at
        self.submitted_at = submitted_at
        self.model = model
        self.unreachable_after = unreachable_after
        self.cancel_on_kill = cancel_on_kill

    def arguments(self) -> dict[str, Any]:
        """The arguments of the constructor, for the trigger's row."""
        return {
            "video_conn_id": self.video_conn_id,
            "poll_interval": self.poll_interval,
            "max_poll_interval": self.max_poll_interval,
            "schedule": self.schedule,
            "deadline": self.deadline,
            "first_poll_at": self.first_poll_at,
            "submitted_at": self.submitted_at,
            "model": self.model,
            "unreachable_after": self.unreachable_after,
            "cancel_on_kill": self.cancel_on_kill,
        }

    def of_watch(self) -> dict[str, Any]:
        """As arguments of :func:`~airflow_video_provider.gateway.watch.watch_for`."""
        return {
            "deadline": self.deadline,
            "interval": self.poll_interval,
            "max_interval": self.max_poll_interval,
            "mode": self.schedule,
            "unreachable_after": self.unreachable_after,
            "started_at": self.submitted_at,
            "model": self.model,
        }
