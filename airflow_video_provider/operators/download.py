"""Fetch finished videos into object storage."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    Asset,
    AssetAlias,
    BaseOperator,
)

from airflow_video_provider.exceptions import VideoDownloadFailed, sentences
from airflow_video_provider.gateway.errors import InvalidRequestError
from airflow_video_provider.hooks.s3 import s3_client
from airflow_video_provider.hooks.video import DEFAULT_CONN_ID, VideoHook
from airflow_video_provider.media.options import Check, DownloadOptions, IfExists, check_choice, check_number
from airflow_video_provider.operators.destinations import asset_uri, dataset_name, path_of
from airflow_video_provider.operators.fetching import Fetch, Quality, Wanted
from airflow_video_provider.video_status import VideoStatus, download_status, failures_told, tell
from airflow_video_provider.waiting import check_seconds, submitted, video_id_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.providers.openlineage.extractors import OperatorLineage

__all__ = ["VideoDownloadOperator"]

FailIf = Literal["any", "all"]


class VideoDownloadOperator(BaseOperator):
    """Put a finished video into object storage, whole or not at all.

    The file is fetched to a local temporary file, checked, and only then put under its final name. The
    gateway's key goes to the gateway only, never to the host that serves the file. A retry costs nothing.

    Outlets get the facts of the file: the event of an ``Asset`` outlet carries them as ``extra`` (of several
    files, as ``extra["files"]``), and an ``AssetAlias`` gets an asset for each file.

    :param video: the gateway's task id, or the XCom of the operator or sensor that waited for it (templated;
        also with ``.expand()``).
    :param all_videos: land every video of the task, where it made several: a number before the extension
        tells them apart, ``…-1.mp4``, ``…-2.mp4``, in the gateway's order, and is there for one video, too.
        If some fail, the error names them, what landed stays, and a retry skips it. Goes with ``video``, and
        not with ``quality="original"`` (gateways tell that of one file), ``if_exists="fail"`` (a retry would
        fail for what landed before) or ``fail_if="all"``.
    :param videos: a list of tasks, in place of ``video``: each lands or fails by itself (templated).
    :param destination: where to put it, an object-storage URL with Airflow's connection syntax:
        ``s3://conn_id@bucket/prefix/``, ``gs://…``, ``abfs://…``, ``file:///…`` (templated). With a trailing
        slash it is a directory, and the file is named after ``file_name``; else it is the file's name.
    :param file_name: name in the directory; ``{video_id}``, ``{model}``, ``{sha256}`` and ``{ext}`` are
        filled in and made safe for every store (templated).
    :param video_conn_id: connection of type ``video_gateway`` (templated).
    :param if_exists: ``skip`` (default: only if the same video is there already), ``overwrite`` or ``fail``.
    :param quality: ``best`` (default: the upsampled file where there is one) or ``original``.
    :param sidecar: also write ``<name>.json`` with prompt, model, id, digest, media facts and times.
    :param check: how closely the file is looked at: ``structure``, ``packets`` (default) or ``frames``.
    :param max_bytes: refuse a larger file; default 20 GiB.
    :param timeout: how long the download of one file may take, a timedelta or seconds; default 3600, None for
        no bound.
    :param options: more of :class:`~airflow_video_provider.media.DownloadOptions` by name,
        ``{"connections": 4}`` for example.
    :param temp_dir: directory for the temporary file (templated); default: beside a local destination, else
        the system's.
    :param parallel: how many of ``videos`` at a time; default 4.
    :param fail_if: with ``videos``, whether ``any`` (default) failed file fails the task, or only ``all``.
        The result is in the XCom either way, and a retry fetches only what is missing.
    :returns: (XCom) ``uri``, ``size`` (bytes), ``sha256``, ``content_type``, ``container``, ``duration`` (s),
        ``width``, ``height`` (px), ``fps``, ``video_codec``, ``audio_codec`` (None without the ``media``
        extra), ``video_id``, ``source_host``, ``seconds`` (that it took), ``skipped``. With ``all_videos``:
        a list of those, in order. With ``videos``:
        ``{"landed": [those, …], "failed": [{"video_id", "error"}, …]}``.
    """

    template_fields: Sequence[str] = (
        "video",
        "videos",
        "destination",
        "file_name",
        "video_conn_id",
        "temp_dir",
    )
    ui_color = "#e8e4f8"
    #: Derived classes have it, too: by it the plugin knows a task that may tell of files.
    custom_operator_name = "VideoDownloadOperator"

    def __init__(
        self,
        *,
        destination: str,
        video: str | Mapping[str, Any] | XComArg | None = None,
        all_videos: bool = False,
        videos: Sequence[str | Mapping[str, Any]] | XComArg | None = None,
        file_name: str = "{video_id}.{ext}",
        video_conn_id: str = DEFAULT_CONN_ID,
        if_exists: IfExists = "skip",
        quality: Quality = "best",
        sidecar: bool = False,
        check: Check = "packets",
        max_bytes: int = 20 * 2**30,
        timeout: timedelta | float | None = 3600.0,
        options: Mapping[str, Any] | None = None,
        temp_dir: str | None = None,
        parallel: int = 4,
        fail_if: FailIf = "any",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_choice("if_exists", if_exists, IfExists)
        check_choice("quality", quality, Quality)
        check_choice("check", check, Check)
        check_choice("fail_if", fail_if, FailIf)
        check_number("parallel", parallel, whole=True)
        self.timeout = None if timeout is None else check_seconds("timeout", timeout)
        # A name or a value that is none is found while the Dag is parsed.
        DownloadOptions(**{"max_bytes": max_bytes, "timeout": self.timeout, **(options or {})})
        if all_videos:
            _check_all_videos(
                videos=videos,
                quality=quality,
                if_exists=(options or {}).get("if_exists", if_exists),
                fail_if=fail_if,
            )
        self.video = video
        self.all_videos = all_videos
        self.videos = videos
        self.destination = destination
        self.file_name = file_name
        self.video_conn_id = video_conn_id
        self.if_exists = if_exists
        self.quality = quality
        self.sidecar = sidecar
        self.check = check
        self.max_bytes = max_bytes
        self.options = dict(options or {})
        self.temp_dir = temp_dir
        self.parallel = parallel
        self.fail_if = fail_if
        self._cancel: threading.Event | None = None
        self._landed: list[dict[str, Any]] = []

    def ui_status(self) -> VideoStatus:
        """What Airflow's UI is told where nothing landed."""
        return VideoStatus("download", conn_id=self.video_conn_id)

    @failures_told
    def execute(self, context: Context) -> dict[str, Any] | list[dict[str, Any]]:
        """Fetch, check, publish."""
        with VideoHook(self.video_conn_id) as hook:
            try:
                tasks = self._tasks()
                fetch = self._fetch(hook)
            except InvalidRequestError as error:
                raise AirflowFailException(str(error)) from None
            outcomes = fetch.run(tasks)
            status = download_status(
                self.video_conn_id,
                ((wanted.video_id, outcome) for wanted, outcome in outcomes.items()),
                tasks,
                several=self.videos is not None or len(outcomes) > 1,
                page=hook.get_conn().settings.console_page,
            )
            tell(self, context["ti"], status)
            failed = {wanted: error for wanted, error in outcomes.items() if isinstance(error, Exception)}
            of_one_task = self.all_videos and len(outcomes) > 1
            fate = fetch.fate(next(iter(tasks))) if failed and of_one_task else ""
        self._landed = [landed.as_dict() for landed in outcomes.values() if not isinstance(landed, Exception)]
        for landed in self._landed:
            self.log.info(
                "%s %s (%d bytes, sha256 %s)",
                "already there:" if landed["skipped"] else "landed",
                landed["uri"],
                landed["size"],
                landed["sha256"],
            )
        self._tell_outlets(context)
        if self.videos is not None:
            return self._result(context, failed)
        if failed:
            raise self._did_not_land(failed, fate) if of_one_task else next(iter(failed.values()))
        return self._landed if self.all_videos else self._landed[0]

    def on_kill(self) -> None:
        """Break off the transfers; nothing is published after that."""
        if self._cancel is not None:
            self._cancel.set()

    # -- what to fetch ---------------------------------------------------------------------------------

    def _tasks(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each task, by id, in order."""
        if (self.video is None) == (self.videos is None):
            raise InvalidRequestError("video, videos: give one of the two")
        given: Any = [self.video] if self.videos is None else self.videos
        videos = [given] if isinstance(given, str | Mapping) else list(given)
        if self.videos is not None:
            videos = [video for _, video in submitted(videos, self.log)]
        if not videos:
            raise InvalidRequestError("videos: the list is empty")
        if len(videos) > 1 and not self.destination.endswith("/"):
            raise InvalidRequestError(
                f"destination: {self.destination} is one name for {len(videos)} videos; end it with a slash"
            )
        return {video_id_of(video): video if isinstance(video, Mapping) else {} for video in videos}

    def _fetch(self, hook: VideoHook) -> Fetch:
        settings = hook.get_conn().settings
        self._cancel = threading.Event()
        destination = path_of(self.destination)
        is_directory = self.destination.endswith("/")
        if self.all_videos and not is_directory and not urlsplit(self.destination).path:
            raise InvalidRequestError(
                f"destination: {self.destination} has no file's name to number; end it with a slash"
            )
        client, s3_transfer_config = s3_client(destination.fs, self.destination)
        common = {
            "destination": destination,
            "file_name": self.file_name if is_directory else None,
            "headers": settings.request_headers(),
            "headers_origin": settings.base_url,
            "allowed_hosts": hook.allowed_hosts(),
            "temp_dir": self.temp_dir or None,
            "cancel": self._cancel,
            "s3_client": client,
            "options": DownloadOptions(
                **{
                    "verify": settings.verify,
                    "check": self.check,
                    "max_bytes": self.max_bytes,
                    "timeout": self.timeout,
                    "if_exists": self.if_exists,
                    "s3_transfer_config": s3_transfer_config,
                    **self.options,
                }
            ),
        }
        return Fetch(
            hook,
            common,
            destination=self.destination,
            quality=self.quality,
            all_videos=self.all_videos,
            sidecar=self.sidecar,
            parallel=self.parallel,
        )

    # -- telling ---------------------------------------------------------------------------------------

    def _result(self, context: Context, failed: Mapping[Wanted, Exception]) -> dict[str, Any]:
        result = {
            "landed": self._landed,
            "failed": [
                {"video_id": wanted.video_id, "error": str(error)} for wanted, error in failed.items()
            ],
        }
        for wanted, error in failed.items():
            self.log.error("%s: %s", wanted, error)
        if not failed or (self._landed and self.fail_if == "all"):
            return result
        # Airflow keeps the result of a task that succeeds only, and this one is worth having.
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=result)
        raise self._did_not_land(failed)

    def _did_not_land(self, failed: Mapping[Wanted, Exception], fate: str = "") -> AirflowException:
        """The error of several files: Airflow retries it unless no retry can help any of them."""
        final = all(isinstance(error, AirflowFailException) for error in failed.values())
        replaced = {"if_exists": self.if_exists, **self.options}["if_exists"] == "overwrite"
        return (AirflowFailException if final else VideoDownloadFailed)(
            sentences(
                f"{len(failed)} of {len(failed) + len(self._landed)} videos did not land",
                *(
                    error if str(error).startswith(str(wanted)) else f"{wanted}: {error}"
                    for wanted, error in failed.items()
                ),
                fate,
                f"A retry fetches {'all of them' if replaced else 'only what is missing'} and costs nothing",
            )
        )

    def _tell_outlets(self, context: Context) -> None:
        events = context.get("outlet_events")
        # Empty until it is asked for an outlet, so its truth says nothing.
        if not self._landed or events is None:
            return
        is_one = self.videos is None and not self.all_videos
        extra: dict[str, Any] = self._landed[0] if is_one else {"files": self._landed}
        for outlet in self.outlets or ():
            if isinstance(outlet, AssetAlias):
                for landed in self._landed:
                    events[outlet].add(Asset(asset_uri(landed["uri"])), extra=landed)
            elif isinstance(outlet, Asset):
                events[outlet].extra = {**(events[outlet].extra or {}), **extra}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Inputs and outputs for OpenLineage, which calls this where its provider is installed."""
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage(
            inputs=[
                Dataset(namespace=f"https://{host}", name=video_id)
                for host, video_id in dict.fromkeys(
                    (landed["source_host"], str(landed["video_id"])) for landed in self._landed
                )
                if host
            ],
            outputs=[Dataset(*dataset_name(landed["uri"])) for landed in self._landed],
        )


def _check_all_videos(*, videos: object, quality: Quality, if_exists: IfExists, fail_if: FailIf) -> None:
    """Refuse what ``all_videos`` cannot be combined with.

    :raises ValueError: naming the argument; while the Dag is parsed, so before anything is fetched.
    """
    reasons = {
        "videos": (videos is not None, "all_videos is for one task: give video, and map over several"),
        "quality": (quality != "best", "gateways tell the original of one video only"),
        "if_exists": (
            if_exists == "fail",
            "a retry would fail for the videos that landed before; skip keeps them and refuses other files",
        ),
        "fail_if": (fail_if != "any", "all_videos lands every video of the task, or fails"),
    }
    for argument, (wrong, why) in reasons.items():
        if wrong:
            raise ValueError(f"{argument}: cannot be combined with all_videos: {why}")
