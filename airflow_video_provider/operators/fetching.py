"""From finished tasks to files: their URLs, the downloads, the gateway's own route, and what an error says.

A URL is asked of the gateway where it is not known and where the one that is known has expired, in one way:
:meth:`Fetch.links`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_video_provider.exceptions import (
    VideoDownloadFailed,
    VideoGatewayUnreachable,
    VideoNotReady,
    sentences,
)
from airflow_video_provider.gateway.errors import GatewayError, InvalidRequestError, NotFoundError
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.operators.destinations import numbered, numbered_path

if TYPE_CHECKING:
    from airflow_video_provider.gateway.task import VideoTask
    from airflow_video_provider.hooks.video import VideoHook
    from airflow_video_provider.media import VideoFile

    Outcome = VideoFile | Exception

__all__ = ["Fetch", "Quality", "Wanted"]

#: Seconds of failed queries after which the gateway that is to give the URL is given up; a retry goes on.
PATIENCE = 120.0

Quality = Literal["best", "original"]


@dataclass(frozen=True)
class Wanted:
    """One file to land.

    :param video_id: the task that it is of.
    :param number: which of the task's videos it is, from 1; None where not each is wanted.
    :param of: how many there are.
    """

    video_id: str
    number: int | None = None
    of: int = 1

    def __str__(self) -> str:
        which = "" if self.number is None else f" {self.number} of {self.of} of task"
        return f"video{which} {self.video_id}"


@dataclass(frozen=True)
class Fetch:
    """Lands the files of tasks.

    :param hook: the gateway that made them.
    :param common: arguments of :func:`~airflow_video_provider.media.download` that all files share.
    :param destination: as the user wrote it, for messages.
    :param quality: which file of a task, where there are two.
    :param all_videos: every video of a task, not its first.
    :param sidecar: whether the facts are written beside each file.
    :param parallel: how many at a time.
    """

    hook: VideoHook
    common: Mapping[str, Any]
    destination: str
    quality: Quality
    all_videos: bool
    sidecar: bool
    parallel: int

    def run(self, tasks: Mapping[str, Mapping[str, Any]]) -> dict[Wanted, Outcome]:
        """The file or what stopped it, for each that is wanted, in order.

        :param tasks: what is known of each task, by id.
        """
        from airflow_video_provider.media import download_many

        outcomes: dict[Wanted, Outcome] = {}
        downloads: dict[Wanted, dict[str, Any]] = {}
        order: list[Wanted] = []
        for video_id, told in tasks.items():
            try:
                of_task = self._downloads(video_id, told)
            except AirflowException as error:
                of_task = {}
                order.append(Wanted(video_id))
                outcomes[order[-1]] = error
            downloads |= of_task
            order += of_task
        deadline = Deadline.after(self.common["options"].timeout)
        files = download_many(list(downloads.values()), parallel=self.parallel, **self.common)
        outcomes |= dict(zip(downloads, files, strict=True))
        outcomes |= self._by_the_gateways_own_route(downloads, outcomes, deadline)
        return {wanted: self._explained(wanted, outcomes[wanted]) for wanted in order}

    def _downloads(self, video_id: str, told: Mapping[str, Any]) -> dict[Wanted, dict[str, Any]]:
        """The arguments of the download of each file of a task."""
        if not self.all_videos:
            # What the task told may have expired since, and knows only the best file.
            url = told.get("video_url") if self.quality == "best" else None
            wanted = Wanted(video_id)
            return {wanted: self._arguments(wanted, url or self.links(video_id)[0], told)}
        urls = told.get("video_urls") or self.links(video_id)
        return {
            wanted: {**self._arguments(wanted, url, told), **self._name(number)}
            for number, url in enumerate(urls, start=1)
            for wanted in [Wanted(video_id, number, len(urls))]
        }

    def _arguments(self, wanted: Wanted, url: str, told: Mapping[str, Any]) -> dict[str, Any]:
        facts = {name: told.get(name) for name in ("prompt", "model", "created_at", "completed_at")}
        return {
            "url": url,
            "refresh_url": partial(self._fresh_link, wanted),
            "name_fields": {"video_id": wanted.video_id, "model": told.get("model") or ""},
            "sidecar": {**facts, "video_id": wanted.video_id} if self.sidecar else False,
        }

    def _name(self, number: int) -> dict[str, Any]:
        template = self.common["file_name"]
        if template is None:
            return {"destination": numbered_path(self.common["destination"], number)}
        return {"file_name": numbered(template, number)}

    # -- where they are --------------------------------------------------------------------------------

    def links(self, video_id: str) -> tuple[str, ...]:
        """Query the gateway for the URLs of a finished task's files, now; there is one at least.

        :raises VideoNotReady: it is not finished, or there is no way to its file yet.
        :raises VideoGatewayUnreachable: every query failed for a while.
        :raises AirflowFailException: it failed, or cannot be queried.
        """
        task = self._finished(video_id)
        urls = (task.original_url,) if self.quality == "original" else task.video_urls
        if known := tuple(url for url in urls if url is not None):
            return known
        if (url := self._content_url(video_id)) is None:
            raise VideoNotReady(
                f"video {video_id} is finished, but the gateway gives no URL, and its dialect has no route "
                "for the file. A retry queries it again"
            )
        self.hook.log.info("video %s: the gateway gives no URL; fetching the file by its own route", video_id)
        return (url,)

    def _fresh_link(self, wanted: Wanted) -> str | None:
        """The URL of one file, as the gateway gives it now; None where it lists fewer than before."""
        urls = self.links(wanted.video_id)
        index = (wanted.number or 1) - 1
        return urls[index] if index < len(urls) else None

    def _finished(self, video_id: str) -> VideoTask:
        watch = self.hook.watch(video_id, unreachable_after=PATIENCE, contact_made=False)
        while not isinstance(verdict := self.hook.ask(watch), Done):
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

    def _content_url(self, video_id: str) -> str | None:
        """The gateway's own route for a file; None where its dialect has none."""
        try:
            return self.hook.get_conn().content_url(video_id)
        except InvalidRequestError:
            return None

    def _by_the_gateways_own_route(
        self,
        downloads: Mapping[Wanted, Mapping[str, Any]],
        outcomes: Mapping[Wanted, Outcome],
        deadline: Deadline,
    ) -> dict[Wanted, Outcome]:
        """Fetch by the gateway's own route what its URLs do not lead to, within what is left of the time.

        Some gateways build the URL from a setting whose default is ``http://localhost:3000``, or want the
        key at another name of theirs, to which it is not sent. The route serves one file, so of several it is
        not known which.
        """
        from airflow_video_provider.media import download_many

        again: dict[Wanted, Mapping[str, Any]] = {}
        for wanted, arguments in downloads.items():
            error = outcomes[wanted]
            url = self._content_url(wanted.video_id)
            if self.quality != "best" or wanted.of > 1 or url in (None, arguments["url"]):
                continue
            if _is_unreachable(error):
                self.hook.log.info("%s: %s. Fetching it by the gateway's own route", wanted, error)
                again[wanted] = {**arguments, "url": url, "refresh_url": None}
        if not again:
            return {}
        left = None if deadline.left is None else max(1.0, deadline.left)
        files = download_many(list(again.values()), parallel=self.parallel, **self.common, timeout=left)
        fetched: dict[Wanted, Outcome] = {}
        for wanted, file in zip(again, files, strict=True):
            if isinstance(file, Exception):
                self.hook.log.info("%s: the gateway's own route does not help: %s", wanted, file)
            else:
                fetched[wanted] = file
        return fetched

    # -- what an error says ----------------------------------------------------------------------------

    def _explained(self, wanted: Wanted, outcome: Outcome) -> Outcome:
        """The engine's error as Airflow's; anything else as it is.

        What became of the paid task is said with the error of its one file; of several it is said once.
        """
        from airflow_video_provider.media import MediaError

        if not isinstance(outcome, MediaError):
            return outcome
        kind = VideoDownloadFailed if outcome.retryable else AirflowFailException
        fate = self.fate(wanted.video_id) if wanted.of == 1 else ""
        return kind(sentences(f"{wanted} was not put into {self.destination}: {outcome}", fate))

    def fate(self, video_id: str) -> str:
        """What became of a paid task, for an error's text."""
        again = "Fetching it again costs nothing"
        try:
            task = self.hook.get_task(video_id)
        except NotFoundError as error:
            return f"The gateway does not have the video any more: {error}"
        except GatewayError as error:
            return f"Whether the gateway still has the video is not known: {error}. {again}"
        if task.state.is_final and task.failure is not None:
            return f"The gateway now says of the video: {task.line}: {task.failure}"
        until = f" until {task.expires_at.isoformat(timespec='seconds')}" if task.expires_at else ""
        return f"The gateway still lists the video ({task.line}){until}. {again}"


def _is_unreachable(outcome: Outcome) -> bool:
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
