"""Fetch finished videos into object storage."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    Asset,
    AssetAlias,
    BaseHook,
    BaseOperator,
    ObjectStoragePath,
)

from airflow_video_provider.exceptions import (
    VideoDownloadFailed,
    VideoGatewayUnreachable,
    VideoNotReady,
    sentences,
)
from airflow_video_provider.gateway.errors import GatewayError, InvalidRequestError, NotFoundError
from airflow_video_provider.gateway.watch import Done, End, TaskWatch
from airflow_video_provider.hooks.s3 import s3_client
from airflow_video_provider.hooks.video import DEFAULT_CONN_ID, VideoHook
from airflow_video_provider.media.options import Check, DownloadOptions, IfExists, check_choice
from airflow_video_provider.video_status import VideoStatus, download_status, failures_told, tell
from airflow_video_provider.waiting import check_seconds, url_asks, video_id_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.media import VideoFile

__all__ = ["VideoDownloadOperator"]

#: Seconds of failed queries after which the gateway that is to give the URL is given up; a retry goes on.
PATIENCE = 120.0

Quality = Literal["best", "original"]
FailIf = Literal["any", "all"]


class VideoDownloadOperator(BaseOperator):
    """Put a finished video into object storage, whole or not at all.

    The file is fetched to a local temporary file, checked, and only then put under its final name. The
    gateway's key goes to the gateway only, never to the host that serves the file. A retry costs nothing.

    Outlets get the facts of the file: the event of an ``Asset`` outlet carries them as ``extra``, and an
    ``AssetAlias`` gets an asset for each file.

    :param video: the gateway's task id, or the XCom of the operator or sensor that waited for it (templated;
        also with ``.expand()``).
    :param videos: a list of those, in place of ``video``: each lands or fails by itself (templated).
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
        extra), ``video_id``, ``source_host``, ``seconds`` (that it took), ``skipped``. With ``videos``:
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

    def __init__(
        self,
        *,
        destination: str,
        video: str | Mapping[str, Any] | XComArg | None = None,
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
        DownloadOptions(**(options or {}))  # a name that is none is found while the Dag is parsed
        self.video = video
        self.videos = videos
        self.destination = destination
        self.file_name = file_name
        self.video_conn_id = video_conn_id
        self.if_exists = if_exists
        self.quality = quality
        self.sidecar = sidecar
        self.check = check
        self.max_bytes = max_bytes
        self.timeout = None if timeout is None else check_seconds("timeout", timeout)
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
    def execute(self, context: Context) -> dict[str, Any]:
        """Fetch, check, publish."""
        with VideoHook(self.video_conn_id) as hook:
            try:
                targets = self._targets()
                common = self._common(hook)
            except InvalidRequestError as error:
                raise AirflowFailException(str(error)) from None
            outcomes = self._fetch(hook, targets, common)
            several, page = self.videos is not None, hook.get_conn().settings.console_page
            status = download_status(self.video_conn_id, outcomes, targets, several=several, page=page)
            tell(self, context["ti"], status)
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
        failed = {video_id: error for video_id, error in outcomes.items() if isinstance(error, Exception)}
        if self.videos is not None:
            return self._result(context, failed)
        if failed:
            raise next(iter(failed.values()))
        return self._landed[0]

    def on_kill(self) -> None:
        """Break off the transfers; nothing is published after that."""
        if self._cancel is not None:
            self._cancel.set()

    # -- what to fetch ---------------------------------------------------------------------------------

    def _targets(self) -> dict[str, Mapping[str, Any]]:
        """What is known of each video, by id, in order."""
        if (self.video is None) == (self.videos is None):
            raise InvalidRequestError("video, videos: give one of the two")
        given: Any = [self.video] if self.videos is None else self.videos
        videos = [given] if isinstance(given, str | Mapping) else list(given)
        if not videos:
            raise InvalidRequestError("videos: the list is empty")
        if len(videos) > 1 and not self.destination.endswith("/"):
            raise InvalidRequestError(
                f"destination: {self.destination} is one name for {len(videos)} videos; end it with a slash"
            )
        return {video_id_of(video): video if isinstance(video, Mapping) else {} for video in videos}

    def _common(self, hook: VideoHook) -> dict[str, Any]:
        settings = hook.get_conn().settings
        self._cancel = threading.Event()
        destination = _destination(self.destination)
        client, s3_transfer_config = s3_client(destination.fs, self.destination)
        return {
            "destination": destination,
            "file_name": self.file_name if self.destination.endswith("/") else None,
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

    # -- fetching --------------------------------------------------------------------------------------

    def _fetch(
        self, hook: VideoHook, targets: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any]
    ) -> dict[str, VideoFile | Exception]:
        """The file or what stopped it, for each video."""
        from airflow_video_provider.media import download_many

        outcomes: dict[str, VideoFile | Exception] = {}
        downloads = {}
        for video_id, told in targets.items():
            try:
                downloads[video_id] = self._arguments(hook, video_id, told)
            except AirflowException as error:
                outcomes[video_id] = error
        begun = time.monotonic()
        files = download_many(list(downloads.values()), parallel=self.parallel, **common)
        landed = dict(zip(downloads, files, strict=True))
        landed |= self._fetch_from_gateway(hook, downloads, landed, common, begun)
        for video_id, outcome in landed.items():
            outcomes[video_id] = (
                self._explained(hook, video_id, outcome) if isinstance(outcome, Exception) else outcome
            )
        return {video_id: outcomes[video_id] for video_id in targets}

    def _fetch_from_gateway(
        self,
        hook: VideoHook,
        downloads: Mapping[str, Mapping[str, Any]],
        outcomes: Mapping[str, VideoFile | Exception],
        common: Mapping[str, Any],
        begun: float,
    ) -> dict[str, VideoFile | Exception]:
        """Fetch by the gateway's own route what its URLs do not lead to, within what is left of the time.

        Some gateways build the URL from a setting whose default is ``http://localhost:3000``, or want the
        key at another name of theirs, to which it is not sent.
        """
        from airflow_video_provider.media import download_many

        again: dict[str, Mapping[str, Any]] = {}
        for video_id, error in outcomes.items():
            url = _content_url(hook, video_id)
            if self.quality != "best" or url in (None, downloads[video_id]["url"]):
                continue
            if _is_unreachable(error):
                self.log.info("video %s: %s. Fetching it by the gateway's own route", video_id, error)
                again[video_id] = {**downloads[video_id], "url": url, "refresh_url": None}
        if not again:
            return {}
        left = None if self.timeout is None else max(1.0, self.timeout - (time.monotonic() - begun))
        files = download_many(list(again.values()), parallel=self.parallel, **common, timeout=left)
        fetched: dict[str, VideoFile | Exception] = {}
        for video_id, file in zip(again, files, strict=True):
            if isinstance(file, Exception):
                self.log.info("video %s: the gateway's own route does not help: %s", video_id, file)
                fetched[video_id] = outcomes[video_id]
            else:
                fetched[video_id] = file
        return fetched

    def _arguments(self, hook: VideoHook, video_id: str, told: Mapping[str, Any]) -> dict[str, Any]:
        # What the task told may have expired since, and knows only the best file.
        url = told.get("video_url") if self.quality == "best" else None
        facts = {name: told.get(name) for name in ("prompt", "model", "created_at", "completed_at")}
        return {
            "url": url or self._url(hook, video_id),
            "refresh_url": lambda: self._url(hook, video_id),
            "name_fields": {"video_id": video_id, "model": told.get("model") or ""},
            "sidecar": {**facts, "video_id": video_id} if self.sidecar else False,
        }

    def _url(self, hook: VideoHook, video_id: str) -> str:
        """Ask the gateway where the file is, now."""
        task = self._finished(hook, video_id)
        url = task.original_url if self.quality == "original" else task.video_url
        if url is not None:
            return url
        if (url := _content_url(hook, video_id)) is None:
            raise VideoNotReady(
                f"video {video_id} is finished, but the gateway gives no URL, and its dialect has no route "
                "for the file. A retry queries it again"
            )
        self.log.info("video %s: the gateway gives no URL; fetching the file by its own route", video_id)
        return url

    def _finished(self, hook: VideoHook, video_id: str) -> VideoTask:
        watch = TaskWatch(
            video_id=video_id,
            deadline=None,
            unreachable_after=PATIENCE,
            contact_made=False,
            url_asks=url_asks(hook.get_conn().settings),
        )
        while not isinstance(verdict := hook.ask(watch), Done):
            if watch.task is not None and not watch.task.state.is_final:
                raise VideoNotReady(
                    f"video {video_id} is not finished: {watch.task.line}. Wait for it with VideoTaskSensor "
                    "before the download"
                )
            time.sleep(verdict)
        if verdict.end is End.UNREACHABLE:
            raise VideoGatewayUnreachable(verdict.message)
        if verdict.end is not End.SUCCEEDED or watch.task is None:
            raise AirflowFailException(verdict.message)
        return watch.task

    # -- telling ---------------------------------------------------------------------------------------

    def _explained(self, hook: VideoHook, video_id: str, error: Exception) -> Exception:
        """The engine's error as Airflow's, with what became of the paid video; any other as it is."""
        from airflow_video_provider.media import MediaError

        if not isinstance(error, MediaError):
            return error
        kind = VideoDownloadFailed if error.retryable else AirflowFailException
        return kind(
            sentences(f"video {video_id} was not put into {self.destination}: {error}", _fate(hook, video_id))
        )

    def _result(self, context: Context, failed: Mapping[str, Exception]) -> dict[str, Any]:
        result = {
            "landed": self._landed,
            "failed": [{"video_id": video_id, "error": str(error)} for video_id, error in failed.items()],
        }
        for video_id, error in failed.items():
            self.log.error("video %s: %s", video_id, error)
        if not failed or (self._landed and self.fail_if == "all"):
            return result
        # Airflow keeps the result of a task that succeeds only, and this one is worth having.
        if self.do_xcom_push:
            context["ti"].xcom_push(key="return_value", value=result)
        final = all(isinstance(error, AirflowFailException) for error in failed.values())
        raise (AirflowFailException if final else VideoDownloadFailed)(
            sentences(
                f"{len(failed)} of {len(failed) + len(self._landed)} videos did not land",
                *(f"{video_id}: {error}" for video_id, error in failed.items()),
                "A retry fetches only what is missing and costs nothing",
            )
        )

    def _tell_outlets(self, context: Context) -> None:
        events = context.get("outlet_events")
        # Empty until it is asked for an outlet, so its truth says nothing.
        if not self._landed or events is None:
            return
        extra: dict[str, Any] = self._landed[0] if self.videos is None else {"files": self._landed}
        for outlet in self.outlets or ():
            if isinstance(outlet, AssetAlias):
                for landed in self._landed:
                    events[outlet].add(Asset(_asset_uri(landed["uri"])), extra=landed)
            elif isinstance(outlet, Asset):
                events[outlet].extra = {**(events[outlet].extra or {}), **extra}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Inputs and outputs for OpenLineage, which calls this where its provider is installed."""
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage(
            inputs=[
                Dataset(namespace=f"https://{landed['source_host']}", name=str(landed["video_id"]))
                for landed in self._landed
                if landed["source_host"]
            ],
            outputs=[Dataset(*_dataset_name(landed["uri"])) for landed in self._landed],
        )


def _content_url(hook: VideoHook, video_id: str) -> str | None:
    """The gateway's own route for a file; None where its dialect has none."""
    try:
        return hook.get_conn().content_url(video_id)
    except InvalidRequestError:
        return None


def _is_unreachable(outcome: VideoFile | Exception) -> bool:
    """Whether a URL leads nowhere that may be fetched from, so that another way to the same file may help."""
    from airflow_video_provider.media import (
        BadURL,
        DownloadTimeout,
        LinkExpired,
        RedirectRefused,
        TransferBroken,
        UnsafeAddress,
        UntrustedCertificate,
    )

    if isinstance(outcome, LinkExpired):
        return outcome.status_code == 401  # it wants credentials that are not for it
    if isinstance(outcome, TransferBroken):  # of a host that only the gateway can resolve, for example
        return not isinstance(outcome, DownloadTimeout)
    return isinstance(outcome, BadURL | RedirectRefused | UnsafeAddress | UntrustedCertificate)


def _asset_uri(uri: str) -> str:
    """Without the connection id, which an asset's URI must not have."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _dataset_name(uri: str) -> tuple[str, str]:
    """Namespace and name as OpenLineage's naming conventions have them."""
    parts = urlsplit(_asset_uri(uri))
    if parts.scheme == "file":
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")


def _fate(hook: VideoHook, video_id: str) -> str:
    """What became of the paid video, for an error's text."""
    again = "Fetching it again costs nothing"
    try:
        task = hook.get_task(video_id)
    except NotFoundError as error:
        return f"The gateway does not have the video any more: {error}"
    except GatewayError as error:
        return f"Whether the gateway still has the video is not known: {error}. {again}"
    if task.state.is_final and task.failure is not None:
        return f"The gateway now says of the video: {task.line}: {task.failure}"
    until = f" until {task.expires_at.isoformat(timespec='seconds')}" if task.expires_at else ""
    return f"The gateway still lists the video ({task.line}){until}. {again}"


def _destination(url: str) -> ObjectStoragePath:
    """The destination as a path whose store can be used.

    :raises InvalidRequestError: it is no such URL, or its connection or filesystem is not there.
    """
    if not re.match(r"[a-z][a-z0-9+.-]*://.", url or "", re.I):
        raise InvalidRequestError(
            f"destination: {url!r} is no object-storage URL; write file:///dir/ or s3://conn_id@bucket/prefix/"
        )
    try:
        path = ObjectStoragePath(url)
        if conn_id := urlsplit(url).netloc.rpartition("@")[0]:
            # A store's own provider may fall back to other credentials for a connection that is not there.
            BaseHook.get_connection(conn_id)
        path.fs  # noqa: B018  attaches the store: its package is there, or not
    except (ValueError, ImportError, AirflowNotFoundException) as error:
        raise InvalidRequestError(
            f"destination: {url} cannot be used: {error}. Are the store's extra (s3, gcs, azure) installed "
            "and its connection there?"
        ) from None
    return path
