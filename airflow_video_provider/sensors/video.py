"""Wait for a video, or for thousands, that were submitted elsewhere or by an earlier task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_video_provider.costs import report_end, report_ends
from airflow_video_provider.exceptions import VideoGatewayUnreachable
from airflow_video_provider.gateway.ends import FailIf, ListEnd
from airflow_video_provider.gateway.errors import ErrorKind, GatewayError
from airflow_video_provider.gateway.pace import LONGEST_INTERVAL, LOWEST_INTERVAL, ScheduleMode
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.gateway.watch import UNREACHABLE_AFTER, TaskWatch
from airflow_video_provider.hooks.many import Awaited, ListWait
from airflow_video_provider.hooks.video import DEFAULT_CONN_ID, VideoHook
from airflow_video_provider.resuming import ResumesItsOwnAttempt
from airflow_video_provider.sensors.from_trigger import start_trigger_args, why_not_from_trigger
from airflow_video_provider.triggers.video import VideoTaskTrigger
from airflow_video_provider.triggers.video_list import VideoTaskListTrigger
from airflow_video_provider.video_status import VideoStatus, failures_told, list_status, tell
from airflow_video_provider.waiting import Waits, video_id_of, video_ids_of, xcom_of

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
#: Ends that the gateway has told of.
_BY_THE_GATEWAY = frozenset({End.SUCCEEDED, End.FAILED})
#: Of a watch in a poke that is a process of its own: there is no "a few more times".
_OF_ONE_ROUND: dict[str, Any] = {"url_asks": 0, "gone_after": 0.0}
#: The XCom from which a list trigger reads what it waits for.
IDS_KEY = "video_ids"
_NOT_GIVEN: Any = object()


class VideoTaskSensor(ResumesItsOwnAttempt, BaseSensorOperator):
    """Wait until a gateway has finished a video, or a list of them; return the task as plain JSON.

    Asking is free: a retry of the sensor asks again and pays nothing. A failed generation fails the sensor
    for good, with the gateway's reason.

    Exactly one of *video_id* and *video_ids* is given.

    :param video_id: the gateway's task id, or the XCom of the task that submitted it (templated; also with
        ``.expand()``).
    :param video_ids: a list of those, or a template or XCom that is one (templated): thousands of videos in
        one task instance and one trigger. What an earlier task tells of an item that it could not submit is
        passed over, with a warning.
    :param fail_if: for a list. ``any``, the default, waits for all, and then fails if one did not succeed,
        with all results told; ``first`` fails as soon as one does not succeed, and leaves the others running;
        ``all`` fails only if none succeeded.
    :param video_conn_id: connection of type ``video_gateway`` (templated).
    :param deferrable: wait in the triggerer, without a worker slot. Default: Airflow's
        ``[operators] default_deferrable``.
    :param start_from_trigger: begin in the triggerer: no worker before the wait (Airflow 3.3+, one video, not
        mapped; elsewhere the log says why not, and the wait begins in a worker). It implies *deferrable*.
        What Airflow skips then is in docs/waiting.md.
    :param poke_interval: seconds, the lowest interval between two queries, default 5; gateways' documents
        advise 5 to 30.
    :param max_poll_interval: seconds, the longest, default 60.
    :param schedule: ``adaptive``, the default, queries often when the video is likely to end (by its
        progress, by earlier videos of the model, by the model's family) and seldom when it is not; ``fixed``
        queries at the lowest interval.
    :param timeout: seconds, as on every sensor (default: ``[sensors] default_timeout``).
    :param unreachable_after: seconds of failed queries in a row after which to give up, default 600; until
        then a failing gateway is asked on. In ``reschedule`` mode only ``timeout`` bounds it.
    :param kwargs: those of every sensor (``mode``, ``soft_fail``, …).
    :returns: (XCom) ``video_id``, ``state``, ``video_url`` (None if it is signed; the download asks for a
        fresh one), ``video_urls`` (of all videos of the task; empty if one is signed), ``progress``,
        ``model``, ``enhanced_prompt``, ``thumbnail_url``, ``created_at``, ``completed_at``, ``expires_at``,
        ``usage`` (what it cost: numbers as the gateway names them), ``raw_status``, ``failure``,
        ``failure_code``, ``refusal`` (``input`` or ``output``, where moderation refused). For a list: a list
        of those in the order of the ids, each with ``end`` (``succeeded``, ``failed``, ``refused``, ``gone``,
        ``timed_out``, ``unreachable``, ``left``) and ``message``; also where the sensor fails. Of a video
        that was never seen it has the ``video_id`` alone.
    :raises ValueError: while the Dag is parsed, naming the argument that is wrong.
    """

    template_fields: Sequence[str] = ("video_id", "video_ids", "video_conn_id")
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        video_id: str | Mapping[str, Any] | XComArg = _NOT_GIVEN,
        video_ids: Iterable[str | Mapping[str, Any]] | str | XComArg = _NOT_GIVEN,
        fail_if: FailIf = "any",
        video_conn_id: str = DEFAULT_CONN_ID,
        deferrable: bool | None = None,
        start_from_trigger: bool = False,
        poke_interval: timedelta | float = LOWEST_INTERVAL,
        max_poll_interval: timedelta | float = LONGEST_INTERVAL,
        schedule: ScheduleMode = "adaptive",
        unreachable_after: timedelta | float = UNREACHABLE_AFTER,
        **kwargs: Any,
    ) -> None:
        self.waits = Waits.of(
            poll_interval=poke_interval,
            max_poll_interval=max_poll_interval,
            schedule=schedule,
            unreachable_after=unreachable_after,
            name="poke_interval",
        )
        if (video_id is _NOT_GIVEN) is (video_ids is _NOT_GIVEN):
            raise ValueError("video_id, video_ids: give exactly one of them")
        if fail_if not in get_args(FailIf):
            raise ValueError(f"fail_if: {fail_if!r} must be one of {', '.join(get_args(FailIf))}")
        if start_from_trigger and deferrable is False:
            raise ValueError("start_from_trigger: it waits in the triggerer, so deferrable cannot be False")
        super().__init__(poke_interval=self.waits.poll_interval, **kwargs)
        self.many = video_ids is not _NOT_GIVEN
        self.video_id = None if video_id is _NOT_GIVEN else video_id
        self.video_ids = video_ids if self.many else None
        self.fail_if = fail_if
        self.video_conn_id = video_conn_id
        if deferrable is None:
            deferrable = start_from_trigger or conf.getboolean(
                "operators", "default_deferrable", fallback=False
            )
        self.deferrable = deferrable
        self._watch: TaskWatch | None = None
        self._why_not_from_trigger: str | None = None
        if start_from_trigger:
            self._start_from_trigger()

    def _start_from_trigger(self) -> None:
        video_id = None if self.many else self.video_id
        self._why_not_from_trigger = why_not_from_trigger(self, video_id, self.video_conn_id)
        if self._why_not_from_trigger is None:
            self.start_trigger_args = start_trigger_args(self, video_id, self.video_conn_id, self.waits)
            self.start_from_trigger = True

    def ui_status(self) -> VideoStatus:
        """What Airflow's UI is told before the gateway was queried."""
        return VideoStatus("wait", conn_id=self.video_conn_id)

    @failures_told
    def execute(self, context: Context) -> Any:
        """Ask once; then defer, or poke as the mode says."""
        if self._why_not_from_trigger is not None:
            self.log.info("the wait begins in a worker: %s", self._why_not_from_trigger)
        with self._skipping():
            if self.many and (self.deferrable or not self.reschedule):
                return self._wait_for_many(context)
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
            self._defer(watch, context)
        return self._result(done)

    def _defer(self, watch: TaskWatch, context: Context) -> NoReturn:
        trigger = VideoTaskTrigger(
            video_conn_id=self.video_conn_id, video_id=watch.video_id, **self.waits.of_trigger(watch)
        )
        self.defer_for(self.timeout, trigger, context)

    @failures_told
    def execute_complete(
        self, context: Context, event: dict[str, Any]
    ) -> dict[str, Any] | list[dict[str, Any]] | None:
        """Resume after the trigger's one event, in a fresh instance."""
        with self._skipping():
            if self.many:
                return self._results(ListEnd.from_event(event), context)
            done = Done.from_event(event)
            if self.start_from_trigger:  # no worker has told of it before
                tell(self, context["ti"], replace(self.ui_status(), video_id=done.video_id))
            return self._result(done)

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask once."""
        if self.many:
            return self._poke_many(context)
        with VideoHook(self.video_conn_id) as hook:
            if self._watch is None:
                # Of a wait that is rescheduled this process knows no beginning: Airflow keeps the timeout.
                deadline = None if self.reschedule else time.time() + self.timeout
                self._watch = self._new_watch(hook, deadline, **(_OF_ONE_ROUND if self.reschedule else {}))
                self._tell(context["ti"], hook, self._watch)
            verdict = hook.ask(self._watch)
        if isinstance(verdict, Done):
            return PokeReturnValue(is_done=True, xcom_value=self._result(verdict))
        return self._poke_again_in(verdict)

    def _poke_again_in(self, seconds: float) -> PokeReturnValue:
        """Let Airflow sleep for it, or reschedule.

        A first contact that fails is tried again within seconds, but not where each try is a worker process.
        """
        self.poke_interval = max(seconds, self.waits.poll_interval) if self.reschedule else seconds
        return PokeReturnValue(is_done=False)

    def _tell(self, ti: Any, hook: VideoHook, watch: TaskWatch) -> None:
        page = hook.get_conn().settings.console_page(watch.video_id)
        tell(self, ti, replace(self.ui_status(), video_id=watch.video_id, console_url=page))

    def _new_watch(
        self, hook: VideoHook, deadline: float | None, video_id: str | None = None, **more: Any
    ) -> TaskWatch:
        try:
            return hook.watch(
                video_id or video_id_of(self.video_id),
                deadline=deadline,
                contact_made=False,
                **{**self.waits.of_watch(), **more},
            )
        except GatewayError as error:
            raise AirflowFailException(str(error)) from None

    def _result(self, done: Done) -> dict[str, Any] | None:
        if done.end in _BY_THE_GATEWAY:
            report_end(done.task, conn_id=self.video_conn_id, model=None, log=self.log)
        if done.end is End.SUCCEEDED:
            self.log.info("%s", done.message)
            return done.task
        raise _RAISED[done.end](done.message)

    # -- a list of videos ------------------------------------------------------------------------------------

    def _wait_for_many(self, context: Context) -> list[dict[str, Any]]:
        if not (ids := self._ids()):
            self.log.info("video_ids names no video: there is nothing to wait for")
            return []
        self._tell_of_list(context, [{"video_id": video_id} for video_id in ids])
        deadline = time.time() + self.timeout
        if self.deferrable:
            self._defer_many(ids, deadline, context)
        waits = self._list_wait(ids, deadline=deadline)
        return self._results(asyncio.run(waits.until_all_end(self.fail_if)), context)

    def _defer_many(self, ids: list[str], deadline: float, context: Context) -> NoReturn:
        with VideoHook(self.video_conn_id) as hook:
            watch = self._new_watch(hook, deadline, ids[0])
            done = hook.wait(watch, first_contact_only=True)
        # What is wrong with the connection is wrong for all; what is wrong with one video the trigger finds.
        if done is not None and (done.end is End.UNREACHABLE or done.error_kind == ErrorKind.AUTHENTICATION):
            raise _RAISED[done.end](done.message)
        ti = context["ti"]
        ti.xcom_push(key=IDS_KEY, value=ids)
        trigger = VideoTaskListTrigger(
            video_conn_id=self.video_conn_id,
            video_ids=xcom_of(ti, IDS_KEY),
            fail_if=self.fail_if,
            **self.waits.of_list_trigger(watch.deadline),
        )
        self.defer_for(self.timeout, trigger, context)

    def _poke_many(self, context: Context) -> PokeReturnValue:
        ids = self._ids()
        self._tell_of_list(context, [{"video_id": video_id} for video_id in ids])
        waits = self._list_wait(ids, deadline=None, **_OF_ONE_ROUND)
        end, due_in = asyncio.run(waits.once())
        failed = end.broke_off or (self.fail_if == "first" and end.failure("first"))
        if due_in is not None and not failed:
            return self._poke_again_in(due_in)  # the result is told once the last of them has ended
        for done in end.ends:
            self.log.info("%s", done.message)
        return PokeReturnValue(is_done=True, xcom_value=self._results(end, context))

    def _ids(self) -> list[str]:
        try:
            return video_ids_of(self.video_ids, self.log)
        except GatewayError as error:
            raise AirflowFailException(str(error)) from None

    def _list_wait(self, ids: list[str], **more: Any) -> ListWait:
        of_watch = {**self.waits.of_watch(), "contact_made": False, **more}
        return ListWait(self.video_conn_id, map(Awaited, ids), log=self.log, of_watch=of_watch)

    def _results(self, end: ListEnd, context: Context) -> list[dict[str, Any]]:
        report_ends(
            [done.task for done in end.ends if done.end in _BY_THE_GATEWAY],
            conn_id=self.video_conn_id,
            model=None,
            log=self.log,
        )
        if results := end.results():
            self._tell_of_list(context, results)
        if (failure := end.failure(self.fail_if)) is not None:
            if results:
                context["ti"].xcom_push(key="return_value", value=results)
            raise _RAISED[failure.end](failure.message)
        self.log.info("%s", end.summary())
        return results

    def _tell_of_list(self, context: Context, videos: Sequence[Mapping[str, Any]]) -> None:
        tell(self, context["ti"], list_status(self.ui_status(), videos))
