"""Submit a generation, once, and wait for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator, conf

from airflow_video_provider.cancelling import Cancellation
from airflow_video_provider.costs import report_end
from airflow_video_provider.gateway.pace import LONGEST_INTERVAL, LOWEST_INTERVAL, ScheduleMode
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.gateway.watch import UNREACHABLE_AFTER, TaskWatch
from airflow_video_provider.hooks.video import DEFAULT_CONN_ID, VideoHook
from airflow_video_provider.ledger import (
    Attempt,
    Ended,
    Ledger,
    Policy,
    Submission,
    digest,
    ledger_for,
    once_succeeded,
)
from airflow_video_provider.operators.endings import failure, queried, remembered
from airflow_video_provider.operators.generate_many import VideoList
from airflow_video_provider.operators.knobs import KNOBS, asked_of, given
from airflow_video_provider.operators.list_items import check_arguments
from airflow_video_provider.paying import NotRemembered
from airflow_video_provider.remembering import not_remembered, noted, read, tidied_up
from airflow_video_provider.resuming import ResumesItsOwnAttempt
from airflow_video_provider.submitting import Submitter
from airflow_video_provider.triggers.video import VideoTaskTrigger
from airflow_video_provider.video_status import VideoStatus, failures_told, tell
from airflow_video_provider.waiting import Waits, check_seconds

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.ledger.decision import OnClear, OnUnknownSubmission

__all__ = ["VideoGenerateOperator"]


class VideoGenerateOperator(ResumesItsOwnAttempt, BaseOperator):
    """Submit a video generation, wait for it without a worker slot, and return the task as plain JSON.

    The generation is paid for once. A retry re-attaches to what the attempt before it paid for, and a create
    call whose outcome is unknown is never repeated: the task fails for good and says how to find out. So
    ``retries`` cost nothing, and are needed: with Airflow's default of 0 nothing ever re-attaches. What was
    submitted is remembered in Airflow's task state store (3.3+), before that in an Airflow Variable, or in
    ``ledger_path``.

    :param prompt: what to show (templated, as all arguments that go to the gateway).
    :param model: the gateway's model name, ``veo3.1-fast`` for example.
    :param images: URLs or base64 of first/last frames or components.
    :param aspect_ratio: ``16:9``, ``9:16``, …
    :param size: ``1280x720``, ``small``, ``720P``: as model and dialect have it.
    :param seconds: length of the video.
    :param orientation: ``portrait`` or ``landscape``.
    :param enhance_prompt: let the gateway rewrite the prompt.
    :param enable_upsample: ask for the upsampled file.
    :param watermark: ask for a watermark, or none.
    :param private: keep the video out of the model's public gallery.
    :param input_reference: an http(s) URL, or a file in any object storage (``s3://conn_id@bucket/cat.png``),
        at most 64 MiB.
    :param metadata: settings of the ``newapi`` dialect.
    :param callback_url: where the gateway reports the end, too, in dialects that have it. The operator
        queries the gateway all the same, and believes nothing else.
    :param extra_body: the gateway's own fields, passed through untouched.
    :param prompts: instead of ``prompt``, a list of prompts, or of mappings of the arguments above in which
        an item differs: one task instance, which waits for all videos at once and fails in the end if one
        is missing. A retry pays only for what was never paid for, or failed.
    :param parallel: how many create calls of a list are under way at a time, default 4, at most 32.
    :param video_conn_id: connection of type ``video_gateway``.
    :param wait_for_completion: False returns right after submitting.
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :param poll_interval: seconds, the lowest interval between two queries, default 5; gateways' documents
        advise 5 to 30.
    :param max_poll_interval: seconds, the longest, default 60.
    :param schedule: ``adaptive``, the default, queries often when the video is likely to end (by its
        progress, by earlier videos of the model, by the model's family) and seldom when it is not; ``fixed``
        queries at the lowest interval.
    :param timeout: seconds from the submission after which to give up waiting, default 1800, all attempts
        together; a Clear begins a new wait. The gateway's task is left running.
    :param unreachable_after: seconds of failed queries in a row after which to give up, default 600.
    :param max_generations: how many generations the task instance may pay for between two Clears, default 2:
        the first, and one more after one that *failed* at the gateway. 1 means never again. Of a list it
        holds for each item.
    :param max_total_generations: how many the items of a list may pay for together; None for no limit.
    :param on_clear: what a Clear does. None, the default, re-attaches where the request is unchanged and the
        memory is still there (a Variable is removed at success); ``"reuse"`` keeps a Variable beyond success;
        ``"new"`` submits, and pays for, a new generation each time.
    :param on_unknown_submission: what a retry does after a create call whose outcome is not known.
        ``"fail"``, the default, fails for good; ``"resubmit"`` submits again, and may so pay twice for one
        video.
    :param retry_refused_output: a video that moderation made and then withheld counts as a failed generation,
        of which ``max_generations`` may be paid for: the same prompt may pass. By default it fails for good,
        as a refused prompt always does.
    :param cancel_on_kill: cancel the video at the gateway when the task is killed, in dialects that can: by a
        person, by ``execution_timeout``, and while it waits in a worker also by the end of that worker. The
        next attempt then pays for another. Not where another attempt waits for it already, nor on a Clear of
        a deferred task; a deferred task that is marked as failed or success needs Airflow 3.3.
    :param ledger_path: directory URL in object storage where to remember what was submitted, instead of in
        Airflow.
    :returns: (XCom) see :class:`~airflow_video_provider.sensors.video.VideoTaskSensor`, and ``prompt``. The
        XCom ``video_id`` is there as soon as the gateway accepted. Of a list: a list of these in its order,
        also where it fails, with ``message`` for what failed; and the XCom ``video_ids``, with None for
        what was not submitted.
    """

    template_fields: Sequence[str] = (*KNOBS, "prompts", "video_conn_id", "ledger_path")
    template_fields_renderers = {"metadata": "json", "extra_body": "json", "prompts": "json"}  # noqa: RUF012  as in BaseOperator
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        prompt: str | None = None,
        model: str,
        images: Sequence[str] | str | None = None,
        aspect_ratio: str | None = None,
        size: str | None = None,
        seconds: int | str | None = None,
        orientation: str | None = None,
        enhance_prompt: bool | str | None = None,
        enable_upsample: bool | str | None = None,
        watermark: bool | str | None = None,
        private: bool | str | None = None,
        input_reference: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        callback_url: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        prompts: Sequence[str | Mapping[str, Any]] | str | XComArg | None = None,
        parallel: int = 4,
        video_conn_id: str = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        poll_interval: timedelta | float = LOWEST_INTERVAL,
        max_poll_interval: timedelta | float = LONGEST_INTERVAL,
        schedule: ScheduleMode = "adaptive",
        timeout: timedelta | float = 1800,
        unreachable_after: timedelta | float = UNREACHABLE_AFTER,
        max_generations: int = 2,
        max_total_generations: int | None = None,
        on_clear: OnClear | None = None,
        on_unknown_submission: OnUnknownSubmission = "fail",
        retry_refused_output: bool = False,
        cancel_on_kill: bool = False,
        ledger_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_arguments(prompt, prompts, parallel, max_total_generations, cancel_on_kill)
        self.prompt = prompt
        self.model = model
        self.images = images
        self.aspect_ratio = aspect_ratio
        self.size = size
        self.seconds = seconds
        self.orientation = orientation
        self.enhance_prompt = enhance_prompt
        self.enable_upsample = enable_upsample
        self.watermark = watermark
        self.private = private
        self.input_reference = input_reference
        self.metadata = metadata
        self.callback_url = callback_url
        self.extra_body = extra_body
        self.prompts = prompts
        self.is_list = prompts is not None
        self.parallel = parallel
        self.max_total_generations = max_total_generations
        self.video_conn_id = video_conn_id
        self.wait_for_completion = wait_for_completion
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.waits = Waits.of(
            poll_interval=poll_interval,
            max_poll_interval=max_poll_interval,
            schedule=schedule,
            unreachable_after=unreachable_after,
        )
        self.timeout = check_seconds("timeout", timeout, least=1)
        self.policy = Policy(max_generations, on_clear, on_unknown_submission, retry_refused_output)
        self.cancel_on_kill = cancel_on_kill
        self.ledger_path = ledger_path
        self._video_id: str | None = None
        self._cancellation: Cancellation | None = None
        self._list: VideoList | None = None

    def ui_status(self) -> VideoStatus:
        """What Airflow's UI is told before there is a video."""
        return VideoStatus("generate", conn_id=self.video_conn_id, model=self.model, prompt=self.prompt)

    @failures_told
    def execute(self, context: Context) -> dict[str, Any] | list[dict[str, Any]] | None:
        """Validate, submit or re-attach, then wait."""
        if self.is_list:
            self._list = VideoList(self, context)
            return self._list.execute()
        ledger = self._ledger(context)
        history = read(ledger)
        with VideoHook(self.video_conn_id) as hook:
            submitter = Submitter(hook, ledger, self.policy, Attempt.of(context), self.log)
            try:
                submission, task = submitter.settle(history, partial(asked_of, self))
            except NotRemembered as lost:
                self._push_id(context["ti"], lost.submission)
                raise not_remembered(ledger, lost) from lost.__cause__
            self._video_id = submission.video_id
            if self.do_xcom_push:
                context["ti"].xcom_push(key="video_id", value=submission.video_id)
            tell(self, context["ti"], self._status_of(submission, hook))
            if not self.wait_for_completion:
                task = task or queried(hook, submission)
                return self._returned(task.as_json(), ledger, submission, context)
            watch = self._watch(hook, submission, contact_made=task is not None)
            if self.cancel_on_kill:
                settings = hook.get_conn().settings
                self._cancellation = Cancellation(settings, ledger, submission, self.log)
            done = self._look(hook, watch, task)
            self._cancellation = None
        if done is None:
            self._defer(watch, context)
        return self._result(done, ledger, submission, context)

    @failures_told
    def execute_complete(
        self, context: Context, event: dict[str, Any]
    ) -> dict[str, Any] | list[dict[str, Any]] | None:
        """Resume after the trigger's one event, in a fresh instance."""
        if self.is_list:
            return VideoList(self, context).resume(event)
        done = Done.from_event(event)
        self._video_id = done.video_id
        ledger = self._ledger(context)
        try:
            history = read(ledger)
        except AirflowException as error:  # the video is there all the same
            self.log.warning("%s", error)
            history = ()
        submission = next((s for s in reversed(history) if s.video_id == done.video_id), None)
        return self._result(done, ledger, submission, context)

    def on_kill(self) -> None:
        """Cancel the video where that was asked for and nobody else waits for it; else say what goes on.

        It is called in the middle of whatever this process does.
        """
        if self._list is not None:
            self._list.on_kill()
        elif self._cancellation is not None and self._cancellation.carry_out():
            self._cancellation = None
        elif self._video_id:
            self.log.warning(
                "this process is ended; video %s runs on at the gateway, and is paid for. The next attempt "
                "re-attaches to it and pays nothing",
                self._video_id,
            )

    # -- what to wait for ----------------------------------------------------------------------------------

    def _ledger(self, context: Context) -> Ledger:
        return ledger_for(context, given(self.ledger_path), keep=self.policy.on_clear == "reuse")

    def _status_of(self, submission: Submission, hook: VideoHook) -> VideoStatus:
        video_id = str(submission.video_id)
        page = hook.get_conn().settings.console_page(video_id)
        begun = submission.begun_at
        return replace(self.ui_status(), video_id=video_id, submitted_at=begun, console_url=page)

    def _push_id(self, ti: Any, submission: Submission) -> None:
        """The last resort of a video that is not remembered: it must not hide why."""
        try:
            ti.xcom_push(key="video_id", value=submission.video_id)
        except Exception as error:
            self.log.warning("the XCom video_id could not be pushed either: %r", error)

    # -- the wait ------------------------------------------------------------------------------------------

    def _watch(self, hook: VideoHook, submission: Submission, *, contact_made: bool) -> TaskWatch:
        return hook.watch(
            str(submission.video_id),
            deadline=(submission.waiting_since or submission.begun_at) + self.timeout,
            started_at=submission.begun_at,
            model=self.model,
            contact_made=contact_made,
            **self.waits.of_watch(),
        )

    def _look(self, hook: VideoHook, watch: TaskWatch, task: VideoTask | None) -> Done | None:
        """Wait here as far as it has to be here; None to defer."""
        if task is None:
            # The video of an earlier attempt may be there already: a query is cheaper than a deferral.
            return hook.wait(watch, first_contact_only=self.deferrable)
        verdict = watch.on_task(task, now=time.time())
        if isinstance(verdict, Done):
            return verdict
        return None if self.deferrable else hook.wait(watch, delay=verdict.seconds)

    def _defer(self, watch: TaskWatch, context: Context) -> NoReturn:
        trigger = VideoTaskTrigger(
            video_conn_id=self.video_conn_id,
            video_id=watch.video_id,
            cancel_on_kill=self.cancel_on_kill,
            **self.waits.of_trigger(watch),
        )
        self.defer_for(max((watch.deadline or 0.0) - time.time(), 0.0), trigger, context)

    # -- the end -------------------------------------------------------------------------------------------

    def _result(
        self, done: Done, ledger: Ledger, submission: Submission | None, context: Context
    ) -> dict[str, Any] | None:
        if done.end in {End.SUCCEEDED, End.FAILED} and (submission is None or not submission.counted):
            report_end(done.task, conn_id=self.video_conn_id, model=self.model, log=self.log)
            submission = submission and replace(submission, counted=True)
        if done.end is End.SUCCEEDED:
            self.log.info("%s", done.message)
            return self._returned(done.task or {}, ledger, submission, context)
        after = submission and remembered(done, submission, self.policy)
        if after is not None:
            noted(ledger, after, self.log)
        raise failure(done, submission, self.policy)

    def _returned(
        self, task: dict[str, Any], ledger: Ledger, submission: Submission | None, context: Context
    ) -> dict[str, Any]:
        """The XCom: the task, and the prompt unless a retry renders it differently from what was paid for."""
        if submission is not None:
            noted(ledger, submission.ended_as(Ended.SUCCEEDED), self.log)
        if ledger.forgets:
            once_succeeded(context["ti"], partial(tidied_up, ledger, self.log))
        paid_for = None if submission is None else submission.request.get("prompt")
        same = paid_for in (None, digest(str(self.prompt).strip()))
        return {**task, "prompt": self.prompt if same else None}
