"""Submit a generation and wait for it; fetch the finished file."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
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
from airflow_video_provider.gateway.errors import (
    ErrorKind,
    GatewayError,
    InvalidRequestError,
    refused_by_moderation,
)
from airflow_video_provider.gateway.pace import PollSchedule
from airflow_video_provider.gateway.watch import UNREACHABLE_AFTER, Done, End, TaskWatch
from airflow_video_provider.hooks.video import DEFAULT_CONN_ID, VideoHook
from airflow_video_provider.ledger import (
    Entry,
    Ledger,
    LedgerUnreadable,
    digest,
    fingerprint,
    intent,
    ledger_for,
)
from airflow_video_provider.operators.download import VideoDownloadOperator
from airflow_video_provider.triggers.video import VideoTaskTrigger
from airflow_video_provider.waiting import (
    SAFETY_NET,
    check_seconds,
    first_poll_at,
    url_asks,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_video_provider.gateway.request import ReferenceFile, VideoRequest
    from airflow_video_provider.gateway.task import VideoTask

__all__ = ["VideoDownloadOperator", "VideoGenerateOperator"]

#: Seconds for which a download bears with a gateway that fails to tell the URL; a retry goes on from there.
_PATIENCE = 120.0
MAX_REFERENCE_BYTES = 64 * 2**20
_TRIGGER_FAILED = "__fail__"  # Airflow's next_method for a trigger that crashed or timed out, 2.2 to 3.3


class VideoGenerateOperator(BaseOperator):
    """Submit a video generation, wait for it without a worker slot, and return the task as plain JSON.

    The generation is paid for once. A create call whose outcome is unknown is never repeated: the task fails
    for good and says so. A retry re-attaches to the generation of the attempt before it, for which Airflow
    3.3+ has a memory of its own; on earlier versions give ``ledger_path``. Without either, what goes wrong
    after the payment fails the task for good rather than pay again.

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
    :param timeout: seconds from the submission after which to give up waiting, default 1800. The gateway's
        task is left running.
    :param unreachable_after: seconds of failed queries in a row after which to give up, default 600.
    :param ledger_path: directory URL in object storage where to remember what was submitted; needed before
        Airflow 3.3 for a retry to re-attach.
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
        self.ledger_path = ledger_path

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Validate, submit or re-attach, then wait."""
        ledger = ledger_for(context, _given(self.ledger_path))
        try:
            entry = ledger.read() if ledger else None
        except LedgerUnreadable as error:
            raise AirflowFailException(sentences(error, _look_it_up(self.model))) from None
        task = None
        with VideoHook(self.video_conn_id) as hook:
            try:
                hook.get_conn()
            except InvalidRequestError as error:
                raise AirflowFailException(_connection_unusable(error, entry)) from None
            video_id = self._submitted_before(context["ti"], ledger, entry)
            if video_id is None:
                task = self._submit(context["ti"], ledger, self._request(), hook)
                video_id = task.video_id
            if self.do_xcom_push:
                context["ti"].xcom_push(key="video_id", value=video_id)
            if not self.wait_for_completion:
                return self._told((task or self._ask(hook, video_id)).as_json(), ledger)
            now = time.time()
            watch = TaskWatch(
                video_id=video_id,
                deadline=now + self.timeout,
                schedule=PollSchedule(self.poll_interval),
                unreachable_after=self.unreachable_after,
                contact_made=task is not None,
                submitted_at=now if task else None,
                url_asks=url_asks(hook.get_conn().settings),
            )
            done = self._look(hook, watch, task)
        if done is None:
            self.defer(
                trigger=VideoTaskTrigger(
                    video_conn_id=self.video_conn_id,
                    video_id=video_id,
                    poll_interval=self.poll_interval,
                    deadline=watch.deadline,
                    first_poll_at=first_poll_at(self.poll_interval),
                    submitted_at=watch.submitted_at,
                    unreachable_after=self.unreachable_after,
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.timeout) + SAFETY_NET,
            )
        return self._result(done, ledger)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any] | None:
        """Resume after the trigger's one event, in a fresh instance."""
        return self._result(Done.from_event(event), ledger_for(context, _given(self.ledger_path)))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; without a memory, a trigger that broke must not lead to a second payment."""
        if next_method == _TRIGGER_FAILED and ledger_for(context, _given(self.ledger_path)) is None:
            ti: Any = context["ti"]
            video_id = ti.xcom_pull(task_ids=self.task_id, map_indexes=ti.map_index, key="video_id")
            why = (next_kwargs or {}).get("error", "unknown")
            raise AirflowFailException(
                sentences(f"Airflow gave up the wait for video {video_id}: {why}", _NO_MEMORY)
            )
        return super().resume_execution(next_method, next_kwargs, context)

    def _request(self) -> VideoRequest:
        """What to generate.

        :raises AirflowFailException: an argument is wrong.
        """
        from airflow_video_provider.gateway.request import request_from

        try:
            reference = _reference(self.input_reference)
        except InvalidRequestError as error:
            raise AirflowFailException(f"not submitted, nothing was paid: {error}") from None
        try:
            return request_from(
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
        except InvalidRequestError as error:
            raise AirflowFailException(str(error)) from None

    def _submitted_before(self, ti: Any, ledger: Ledger | None, entry: Entry | None) -> str | None:
        """The id to re-attach to, or None to submit.

        :raises AirflowFailException: an earlier attempt died between paying and hearing of it.
        """
        if ledger is None or entry is None:
            return None
        # An attempt that Airflow repeats by itself must not pay again, whatever its templates render to by
        # now, or fail to. A Clear is a person's decision: it gets a new video if the request is a new one.
        cleared = ti.max_tries > entry.max_tries
        changed = cleared and entry.fingerprint != fingerprint(self.video_conn_id, self._request())
        if entry.video_id and not changed:
            self.log.info("re-attaching to video %s of an earlier attempt; nothing is paid", entry.video_id)
            if cleared:  # the decision is used up: it does not hold for the retries that follow
                ledger.write(replace(entry, max_tries=ti.max_tries))
            return entry.video_id
        if cleared:
            self.log.warning(
                "cleared by a person%s: submitting anew%s",
                " with another request" if changed else "",
                f"; video {entry.video_id} was paid for and is left" if entry.video_id else "",
            )
            return None
        raise AirflowFailException(
            sentences(
                f"an earlier attempt began to submit at {_utc(entry.intent_at)} and died before it heard the "
                "answer",
                _look_it_up(self.model),
            )
        )

    def _submit(self, ti: Any, ledger: Ledger | None, request: VideoRequest, hook: VideoHook) -> VideoTask:
        entry = intent(self.video_conn_id, request, max_tries=ti.max_tries)
        if ledger:
            ledger.write(entry)
        try:
            task = hook.submit(request)
        except GatewayError as error:
            if ledger and not error.maybe_accepted:
                ledger.clear()
            raise _not_submitted(error, self.model) from None
        self.log.info("submitted video %s (model %s): %s", task.video_id, self.model, task.line)
        if ledger:
            ledger.write(replace(entry, video_id=task.video_id))
        return task

    def _ask(self, hook: VideoHook, video_id: str) -> VideoTask:
        try:
            return hook.get_task(video_id)
        except GatewayError as error:
            raise VideoGatewayUnreachable(
                f"video {video_id} was submitted by an earlier attempt, and the gateway does not tell of it: "
                f"{error}"
            ) from None

    def _look(self, hook: VideoHook, watch: TaskWatch, task: VideoTask | None) -> Done | None:
        """Wait here as far as it has to be here; None to defer."""
        if task is None:
            # The video of an earlier attempt may be there already: a question is cheaper than a deferral.
            return hook.wait(watch, first_contact_only=self.deferrable)
        verdict = watch.on_task(task, now=time.time())
        if isinstance(verdict, Done):
            return verdict
        return None if self.deferrable else hook.wait(watch, delay=verdict.seconds)

    def _told(self, task: dict[str, Any], ledger: Ledger | None) -> dict[str, Any]:
        """The XCom: the task, and the prompt unless a retry renders it differently from what was paid for."""
        entry = ledger.read() if ledger else None
        same = entry is None or entry.prompt_digest == digest(self.prompt.strip())
        return {**task, "prompt": self.prompt if same else None}

    def _result(self, done: Done, ledger: Ledger | None) -> dict[str, Any] | None:
        if done.end is End.SUCCEEDED:
            self.log.info("%s", done.message)
            return self._told(done.task or {}, ledger)
        if ledger and done.end in {End.FAILED, End.GONE}:
            ledger.clear()  # there is nothing to re-attach to
        if done.end is End.FAILED:
            facts = done.task or {}
            if refused_by_moderation(
                facts.get("failure"), facts.get("failure_code"), facts.get("raw_status")
            ):
                raise AirflowFailException(sentences(done.message, "Change the prompt or the images"))
            raise VideoTaskFailed(sentences(done.message, "A retry submits, and pays for, a new generation"))
        if done.end in {End.GONE, End.REFUSED}:
            raise AirflowFailException(done.message)
        if ledger is None:
            raise AirflowFailException(sentences(done.message, _NO_MEMORY))
        raise _RAISED[done.end](sentences(done.message, "A retry re-attaches to it and pays nothing"))


_RAISED = {End.TIMED_OUT: VideoTaskTimeout, End.UNREACHABLE: VideoGatewayUnreachable}

_NO_MEMORY = (
    "It is not retried: this Airflow has no memory across attempts (3.3 has), so a retry would pay again. "
    "Wait for the video with VideoTaskSensor on the XCom video_id, or give the operator a ledger_path"
)

_WHAT_TO_CHANGE = {
    ErrorKind.AUTHENTICATION: "check the connection's password",
    ErrorKind.QUOTA: "top up the account, or use another connection",
    ErrorKind.MODERATION: "change the prompt or the images",
    ErrorKind.INVALID_REQUEST: "change what the message names",
    ErrorKind.NOT_FOUND: "check the connection's host, path prefix and dialect",
    ErrorKind.RATE_LIMIT: "give the submitting tasks a pool",
    ErrorKind.SERVER: "check the model's name, and the gateway's status",
    ErrorKind.TRANSPORT: "check the connection's host and port",
}


def _not_submitted(error: GatewayError, model: str) -> Exception:
    if error.maybe_accepted:
        return AirflowFailException(sentences(f"the create call broke off: {error}", _look_it_up(model)))
    said = f"not submitted, nothing was paid: {error}"
    change = _WHAT_TO_CHANGE.get(error.kind, "")
    if error.retryable:
        return VideoSubmitFailed(sentences(said, f"A retry submits it again; {change}"))
    return AirflowFailException(sentences(said, f"A retry would not help: {change}"))


def _look_it_up(model: str) -> str:
    return (
        "The gateway may have accepted and billed the generation, so it is not sent again. Look for a task "
        f"of model {model} in the gateway's console: if it is there, wait for its id with VideoTaskSensor; "
        "if it is not, clear this task to submit again"
    )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")


def _given(value: Any) -> Any:
    """None for a template that rendered to nothing; "None" is what Jinja makes of None."""
    return None if isinstance(value, str) and value.strip() in {"", "None"} else value


def _connection_unusable(error: GatewayError, entry: Entry | None) -> str:
    if entry and entry.video_id:
        return (
            f"{error}. Video {entry.video_id} of an earlier attempt was paid for and goes on at the gateway; "
            "correct the connection, then clear this task to re-attach"
        )
    return f"not submitted, nothing was paid: {error}"


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
