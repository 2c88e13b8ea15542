"""Submit a generation, once, and wait for it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseOperator,
    ObjectStoragePath,
    conf,
)

from airflow_video_provider.exceptions import (
    VideoGatewayUnreachable,
    VideoSubmitFailed,
    VideoTaskFailed,
    VideoTaskTimeout,
    sentences,
)
from airflow_video_provider.gateway.errors import GatewayError, InvalidRequestError, refused_by_moderation
from airflow_video_provider.gateway.pace import PollSchedule
from airflow_video_provider.gateway.watch import UNREACHABLE_AFTER, Done, End, TaskWatch
from airflow_video_provider.hooks.video import DEFAULT_CONN_ID, VideoHook
from airflow_video_provider.ledger import (
    Attempt,
    Ended,
    Ledger,
    Policy,
    State,
    Submission,
    digest,
    ledger_for,
    once_succeeded,
    request_digests,
)
from airflow_video_provider.paying import NotRemembered
from airflow_video_provider.submitting import Asked, Submitter, not_remembered, read, stored
from airflow_video_provider.triggers.video import VideoTaskTrigger
from airflow_video_provider.waiting import SAFETY_NET, check_seconds, first_poll_at, url_asks

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_video_provider.gateway.client import Gateway
    from airflow_video_provider.gateway.request import ReferenceFile
    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.ledger.decision import OnClear, OnUnknownSubmission

__all__ = ["VideoGenerateOperator"]

MAX_REFERENCE_BYTES = 64 * 2**20


class VideoGenerateOperator(BaseOperator):
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
    :param extra_body: the gateway's own fields, passed through untouched.
    :param video_conn_id: connection of type ``video_gateway``.
    :param wait_for_completion: False returns right after submitting.
    :param deferrable: wait in the triggerer. Default: Airflow's ``[operators] default_deferrable``.
    :param poll_interval: seconds between queries, default 10; gateways' documents advise 5 to 30.
    :param timeout: seconds from the submission after which to give up waiting, default 1800, all attempts
        together; a Clear begins a new wait. The gateway's task is left running.
    :param unreachable_after: seconds of failed queries in a row after which to give up, default 600.
    :param max_generations: how many generations the task instance may pay for between two Clears, default 2:
        the first, and one more after one that *failed* at the gateway. 1 means never again.
    :param on_clear: what a Clear does. None, the default, re-attaches where the request is unchanged and the
        memory is still there (a Variable is removed at success); ``"reuse"`` keeps a Variable beyond success;
        ``"new"`` submits, and pays for, a new generation each time.
    :param on_unknown_submission: what a retry does after a create call whose outcome is not known.
        ``"fail"``, the default, fails for good; ``"resubmit"`` submits again, and may so pay twice for one
        video.
    :param ledger_path: directory URL in object storage where to remember what was submitted, instead of in
        Airflow.
    :returns: (XCom) see :class:`~airflow_video_provider.sensors.video.VideoTaskSensor`, and ``prompt``. The
        XCom ``video_id`` is there as soon as the gateway accepted.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "model",
        "images",
        "aspect_ratio",
        "size",
        "seconds",
        "orientation",
        "enhance_prompt",
        "enable_upsample",
        "watermark",
        "private",
        "input_reference",
        "metadata",
        "extra_body",
        "video_conn_id",
        "ledger_path",
    )
    template_fields_renderers = {"metadata": "json", "extra_body": "json"}  # noqa: RUF012  as in BaseOperator
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        prompt: str,
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
        extra_body: Mapping[str, Any] | None = None,
        video_conn_id: str = DEFAULT_CONN_ID,
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        poll_interval: timedelta | float = 10,
        timeout: timedelta | float = 1800,
        unreachable_after: timedelta | float = UNREACHABLE_AFTER,
        max_generations: int = 2,
        on_clear: OnClear | None = None,
        on_unknown_submission: OnUnknownSubmission = "fail",
        ledger_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
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
        self.extra_body = extra_body
        self.video_conn_id = video_conn_id
        self.wait_for_completion = wait_for_completion
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.poll_interval = check_seconds("poll_interval", poll_interval, least=1)
        self.timeout = check_seconds("timeout", timeout, least=1)
        self.unreachable_after = check_seconds("unreachable_after", unreachable_after)
        self.policy = Policy(max_generations, on_clear, on_unknown_submission)
        self.ledger_path = ledger_path
        self._video_id: str | None = None

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Validate, submit or re-attach, then wait."""
        ledger = self._ledger(context)
        history = read(ledger)
        with VideoHook(self.video_conn_id) as hook:
            submitter = Submitter(hook, ledger, self.policy, Attempt.of(context), self.log)
            try:
                submission, task = submitter.settle(history, self._asked)
            except NotRemembered as lost:
                self._push_id(context["ti"], lost.submission)
                raise not_remembered(ledger, lost) from lost.__cause__
            self._video_id = submission.video_id
            if self.do_xcom_push:
                context["ti"].xcom_push(key="video_id", value=submission.video_id)
            if not self.wait_for_completion:
                task = task or self._query(hook, submission)
                return self._returned(task.as_json(), ledger, submission, context)
            watch = self._watch(hook, submission, contact_made=task is not None)
            done = self._look(hook, watch, task)
        if done is None:
            self._defer(watch, submission)
        return self._result(done, ledger, submission, context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any] | None:
        """Resume after the trigger's one event, in a fresh instance."""
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
        """Say what goes on without this process. Nothing is cancelled."""
        if self._video_id:
            self.log.warning(
                "this process is ended; video %s runs on at the gateway, and is paid for. The next attempt "
                "re-attaches to it and pays nothing",
                self._video_id,
            )

    # -- what to wait for ----------------------------------------------------------------------------------

    def _ledger(self, context: Context) -> Ledger:
        return ledger_for(context, _given(self.ledger_path), keep=self.policy.on_clear == "reuse")

    def _asked(self, gateway: Gateway) -> Asked:
        """What is to be generated, or what is wrong with it."""
        from airflow_video_provider.gateway.request import request_from

        address, reference, problem = _given(self.input_reference), None, None
        try:
            reference = _reference(address)
        except InvalidRequestError as error:
            problem = f"not submitted, nothing was paid: {error}"
        try:
            request = request_from(
                prompt=_given(self.prompt),
                model=_given(self.model),
                images=self.images,
                aspect_ratio=self.aspect_ratio,
                size=self.size,
                seconds=self.seconds,
                orientation=self.orientation,
                enhance_prompt=self.enhance_prompt,
                enable_upsample=self.enable_upsample,
                watermark=self.watermark,
                private=self.private,
                input_reference=reference,
                metadata=_given(self.metadata),
                extra_body=_given(self.extra_body),
            )
            gateway.check_request(request)
        except InvalidRequestError as error:
            return Asked(None, None, problem or str(error))
        digests = request_digests(request, address)
        return Asked(None if problem else request, digests, problem)

    def _query(self, hook: VideoHook, submission: Submission) -> VideoTask:
        try:
            return hook.get_task(str(submission.video_id))
        except GatewayError as error:
            raise VideoGatewayUnreachable(
                sentences(
                    f"video {submission.video_id} was submitted by an earlier attempt, and the gateway does "
                    f"not tell of it: {error}",
                    "Nothing was submitted; a retry queries it again",
                )
            ) from None

    def _push_id(self, ti: Any, submission: Submission) -> None:
        """The last resort of a video that is not remembered: it must not hide why."""
        try:
            ti.xcom_push(key="video_id", value=submission.video_id)
        except Exception as error:
            self.log.warning("the XCom video_id could not be pushed either: %r", error)

    # -- the wait ------------------------------------------------------------------------------------------

    def _watch(self, hook: VideoHook, submission: Submission, *, contact_made: bool) -> TaskWatch:
        return TaskWatch(
            video_id=str(submission.video_id),
            deadline=(submission.waiting_since or submission.begun_at) + self.timeout,
            schedule=PollSchedule(self.poll_interval),
            unreachable_after=self.unreachable_after,
            contact_made=contact_made,
            url_asks=url_asks(hook.get_conn().settings),
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

    def _defer(self, watch: TaskWatch, submission: Submission) -> NoReturn:
        left = max((watch.deadline or 0.0) - time.time(), 0.0)
        self.defer(
            trigger=VideoTaskTrigger(
                video_conn_id=self.video_conn_id,
                video_id=watch.video_id,
                poll_interval=self.poll_interval,
                deadline=watch.deadline,
                first_poll_at=first_poll_at(self.poll_interval),
                submitted_at=submission.begun_at,
                unreachable_after=self.unreachable_after,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=left) + SAFETY_NET,
        )

    def _result(
        self, done: Done, ledger: Ledger, submission: Submission | None, context: Context
    ) -> dict[str, Any] | None:
        if done.end is End.SUCCEEDED:
            self.log.info("%s", done.message)
            return self._returned(done.task or {}, ledger, submission, context)
        self._note_end(done, ledger, submission)
        raise self._failure(done, submission)

    def _returned(
        self, task: dict[str, Any], ledger: Ledger, submission: Submission | None, context: Context
    ) -> dict[str, Any]:
        """The XCom: the task, and the prompt unless a retry renders it differently from what was paid for."""
        if submission is not None:
            self._note(ledger, submission.ended_as(Ended.SUCCEEDED))
        if ledger.forgets:
            once_succeeded(context["ti"], partial(_tidy_up, ledger, self.log))
        paid_for = None if submission is None else submission.request.get("prompt")
        same = paid_for in (None, digest(self.prompt.strip()))
        return {**task, "prompt": self.prompt if same else None}

    def _note_end(self, done: Done, ledger: Ledger, submission: Submission | None) -> None:
        if submission is None:
            return
        if done.end is End.FAILED:
            refused = _refused_input(done)
            spent = refused or submission.generation >= self.policy.max_generations
            submission = replace(submission, state=State.FAILED, refused_input=refused)
            if spent:
                submission = submission.ended_as(Ended.FAILED_FOR_GOOD)
        elif done.end in _FINAL:
            state = State.GONE if done.end is End.GONE else submission.state
            submission = submission.ended_as(Ended.FAILED_FOR_GOOD, state=state, told=True)
        else:
            return
        self._note(ledger, submission)

    def _note(self, ledger: Ledger, submission: Submission) -> None:
        """Store how a wait ended. Where that fails, a later attempt queries the video and finds the same."""
        try:
            stored(ledger, submission)
        except VideoSubmitFailed as error:
            self.log.warning("%s", error)

    def _failure(self, done: Done, submission: Submission | None) -> AirflowException:
        if done.end in _FINAL:
            return AirflowFailException(sentences(done.message, _WHAT_A_CLEAR_DOES[done.end]))
        if done.end in _RETRIED:
            return _RETRIED[done.end](sentences(done.message, "A retry re-attaches to it and pays nothing"))
        if _refused_input(done):
            return AirflowFailException(sentences(done.message, "Change the prompt or the images"))
        generation, allowed = (submission.generation if submission else 1), self.policy.max_generations
        which = f"This was generation {generation} of at most {allowed}"
        if generation >= allowed:
            return AirflowFailException(
                sentences(done.message, which, "No other is paid for; clear this task to begin anew")
            )
        return VideoTaskFailed(sentences(done.message, which, "A retry submits, and pays for, a new one"))


_RETRIED = {End.TIMED_OUT: VideoTaskTimeout, End.UNREACHABLE: VideoGatewayUnreachable}
_FINAL = frozenset({End.GONE, End.REFUSED})
_WHAT_A_CLEAR_DOES = {
    End.GONE: "It is still remembered. If the connection was wrong, correct it: a Clear of this task queries "
    "the video once more, and pays for a new generation only where the gateway does not know it then either",
    End.REFUSED: "A Clear of this task re-attaches to it and pays nothing",
}


def _tidy_up(ledger: Ledger, log: Any) -> None:
    try:
        ledger.after_success()
    except Exception as error:  # whatever a store raises; the task has succeeded, what is left can be pruned
        log.warning("%s could not be tidied up: %r", ledger.where, error)


def _refused_input(done: Done) -> bool:
    facts = done.task or {}
    return done.end is End.FAILED and refused_by_moderation(
        facts.get("failure"), facts.get("failure_code"), facts.get("raw_status")
    )


def _given(value: Any) -> Any:
    """None for a template that rendered to nothing; "None" is what Jinja makes of None."""
    return None if isinstance(value, str) and value.strip() in {"", "None"} else value


def _reference(value: str | None) -> str | ReferenceFile | None:
    """A URL as it is; anything else is read from object storage.

    :raises InvalidRequestError: it cannot be read, or is too large.
    """
    if (value := _given(value)) is None or re.match(r"https?://", value, re.I):
        return value
    import mimetypes

    from airflow_video_provider.gateway.request import ReferenceFile

    try:
        path = ObjectStoragePath(value)
        if path.stat().st_size > MAX_REFERENCE_BYTES:
            raise InvalidRequestError(f"input_reference: {value} is larger than {MAX_REFERENCE_BYTES} bytes")
        content = path.read_bytes()
    except (OSError, ValueError, ImportError) as error:
        raise InvalidRequestError(f"input_reference: {value} cannot be read: {error}") from None
    return ReferenceFile(path.name, content, mimetypes.guess_type(path.name)[0] or "application/octet-stream")
