"""Wait for a video that was submitted elsewhere, or by an earlier task."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_video_provider.costs import report_end
from airflow_video_provider.exceptions import VideoGatewayUnreachable
from airflow_video_provider.gateway.errors import GatewayError
from airflow_video_provider.gateway.pace import PollSchedule
from airflow_video_provider.gateway.watch import UNREACHABLE_AFTER, Done, End, TaskWatch
from airflow_video_provider.hooks.video import DEFAULT_CONN_ID, VideoHook
from airflow_video_provider.triggers.video import VideoTaskTrigger
from airflow_video_provider.video_status import VideoStatus, failures_told, tell
from airflow_video_provider.waiting import (
    SAFETY_NET,
    check_seconds,
    first_poll_at,
    poll_every,
    url_asks,
    video_id_of,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

__all__ = ["VideoTaskSensor"]

_RAISED: dict[End, type[Exception]] = {
    # Asking again would hear the same, so Airflow's retries are not spent on it.
    End.FAILED: AirflowFailException,
    End.REFUSED: AirflowFailException,
    End.GONE: AirflowFailException,
    End.TIMED_OUT: AirflowSensorTimeout,
    End.UNREACHABLE: VideoGatewayUnreachable,
}


class VideoTaskSensor(BaseSensorOperator):
    """Wait until a gateway has finished a video; return the task as plain JSON.

    Asking is free: a retry of the sensor asks again and pays nothing. A failed generation fails the sensor
    for good, with the gateway's reason.

    :param video_id: the gateway's task id, or the XCom of the task that submitted it (templated; also with
        ``.expand()``).
    :param video_conn_id: connection of type ``video_gateway`` (templated).
    :param deferrable: wait in the triggerer, without a worker slot. Default: Airflow's
        ``[operators] default_deferrable``.
    :param poke_interval: seconds between queries, default 10; gateways' documents advise 5 to 30.
    :param timeout: seconds, as on every sensor (default: ``[sensors] default_timeout``).
    :param unreachable_after: seconds of failed queries in a row after which to give up, default 600; until
        then a failing gateway is asked on. In ``reschedule`` mode only ``timeout`` bounds it.
    :param kwargs: those of every sensor (``mode``, ``soft_fail``, …).
    :returns: (XCom) ``video_id``, ``state``, ``video_url`` (None if it is signed; the download asks for a
        fresh one), ``video_urls`` (of all videos of the task; empty if one is signed), ``progress``,
        ``model``, ``enhanced_prompt``, ``thumbnail_url``, ``created_at``, ``completed_at``, ``expires_at``,
        ``usage`` (what it cost: numbers as the gateway names them), ``raw_status``, ``failure``,
        ``failure_code``, ``refusal`` (``input`` or ``output``, where moderation refused).
    """

    template_fields: Sequence[str] = ("video_id", "video_conn_id")
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        video_id: str | Mapping[str, Any] | XComArg,
        video_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool | None = None,
        poke_interval: timedelta | float = 10,
        unreachable_after: timedelta | float = UNREACHABLE_AFTER,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=check_seconds("poke_interval", poke_interval, least=1), **kwargs)
        self.video_id = video_id
        self.video_conn_id = video_conn_id
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.unreachable_after = check_seconds("unreachable_after", unreachable_after)
        self._watch: TaskWatch | None = None

    def ui_status(self) -> VideoStatus:
        """What Airflow's UI is told before the gateway was asked."""
        return VideoStatus("wait", conn_id=self.video_conn_id)

    @failures_told
    def execute(self, context: Context) -> Any:
        """Ask once; then defer, or poke as the mode says."""
        with self._skipping():
            return self._ask_then_defer(context) if self.deferrable else super().execute(context)

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """Honour ``soft_fail`` and ``never_fail`` alike in all modes.

        Airflow itself does not before a deferral, in ``poke`` for some errors only, and on 2.11 after a
        deferral for ``soft_fail`` only.
        """
        try:
            yield
        except (AirflowFailException, AirflowSensorTimeout, VideoGatewayUnreachable) as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(str(error)) from error
            raise

    def _ask_then_defer(self, context: Context) -> dict[str, Any] | None:
        deadline = time.time() + self.timeout
        with VideoHook(self.video_conn_id) as hook:
            watch = self._new_watch(hook, deadline)
            self._tell(context["ti"], hook, watch)
            done = hook.wait(watch, first_contact_only=True)
        if done is None:
            self._defer(watch)
        return self._result(done)

    def _defer(self, watch: TaskWatch) -> NoReturn:
        self.defer(
            trigger=VideoTaskTrigger(
                video_conn_id=self.video_conn_id,
                video_id=watch.video_id,
                poll_interval=watch.schedule.interval,
                deadline=watch.deadline,
                first_poll_at=first_poll_at(watch.schedule.interval),
                unreachable_after=self.unreachable_after,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + SAFETY_NET,
        )

    @failures_told
    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any] | None:
        """Resume after the trigger's one event, in a fresh instance."""
        with self._skipping():
            return self._result(Done.from_event(event))

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask once."""
        with VideoHook(self.video_conn_id) as hook:
            if self._watch is None:
                # The sensor's own timeout is the deadline here.
                self._watch = self._new_watch(hook, deadline=None)
                self._tell(context["ti"], hook, self._watch)
                # Airflow sleeps for it after this: no less than the gateway asks for.
                self.poke_interval = max(self.poke_interval, self._watch.schedule.interval)
                if self.reschedule:  # every poke is a process of its own: there is no "a few more times"
                    self._watch.url_asks, self._watch.gone_after = 0, 0.0
            verdict = hook.ask(self._watch)
        if isinstance(verdict, Done):
            return PokeReturnValue(is_done=True, xcom_value=self._result(verdict))
        return PokeReturnValue(is_done=False)

    def _tell(self, ti: Any, hook: VideoHook, watch: TaskWatch) -> None:
        page = hook.get_conn().settings.console_page(watch.video_id)
        tell(self, ti, replace(self.ui_status(), video_id=watch.video_id, console_url=page))

    def _new_watch(self, hook: VideoHook, deadline: float | None) -> TaskWatch:
        try:
            settings = hook.get_conn().settings
            return TaskWatch(
                video_id=video_id_of(self.video_id),
                deadline=deadline,
                schedule=PollSchedule(poll_every(settings, self.poke_interval)),
                unreachable_after=self.unreachable_after,
                contact_made=False,
                url_asks=url_asks(settings),
            )
        except GatewayError as error:
            raise AirflowFailException(str(error)) from None

    def _result(self, done: Done) -> dict[str, Any] | None:
        if done.end in {End.SUCCEEDED, End.FAILED}:
            report_end(done.task, conn_id=self.video_conn_id, model=None, log=self.log)
        if done.end is End.SUCCEEDED:
            self.log.info("%s", done.message)
            return done.task
        raise _RAISED[done.end](done.message)
