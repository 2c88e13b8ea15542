"""``download``: a URL -> a verified file under its final name."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Unpack

from airflow_video_provider.media.calls import Patience
from airflow_video_provider.media.data_url import is_data_url, write_data_url
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.destination import Destination
from airflow_video_provider.media.digest import compare
from airflow_video_provider.media.errors import (
    Cancelled,
    DestinationExists,
    NotAVideo,
    printable,
)
from airflow_video_provider.media.existing import SIDECAR_SUFFIX, Existing, Found, describe_file
from airflow_video_provider.media.filename import Naming
from airflow_video_provider.media.guard import AddressGuard
from airflow_video_provider.media.http import Client, NetworkFault, Response, Url
from airflow_video_provider.media.options import DownloadOptions, Policies
from airflow_video_provider.media.probe import probe_file
from airflow_video_provider.media.progress import Meter, ProgressCallback, default_progress
from airflow_video_provider.media.representation import Next, Setback, link_in_json
from airflow_video_provider.media.signature import describe, sniff
from airflow_video_provider.media.source import HEAD_SIZE, Source
from airflow_video_provider.media.stores import Store, Upload, store_for
from airflow_video_provider.media.tempfile import TempFile, sweep
from airflow_video_provider.media.transfer import Transfer
from airflow_video_provider.media.video_file import VideoFile

log = logging.getLogger(__name__)

MAX_JSON = 2**20
DEFAULTS = DownloadOptions()


def download(
    url: str,
    destination: Any,
    *,
    file_name: str | None = None,
    name_fields: Mapping[str, str] | None = None,
    refresh_url: Callable[[], str | None] | None = None,
    headers: Mapping[str, str] | None = None,
    headers_origin: str | None = None,
    allowed_hosts: Sequence[str] = (),
    temp_dir: str | os.PathLike[str] | None = None,
    sidecar: bool | Mapping[str, Any] = False,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
    s3_client: Any = None,
    options: DownloadOptions = DEFAULTS,
    **policies: Unpack[Policies],
) -> VideoFile:
    """Fetch a video, check that it is whole, and put it under its final name in one step.

    :param url: http(s), or a ``data:`` URL. Sent byte for byte. A JSON answer that holds a link is followed
        once.
    :param destination: the final name: a URL (``file:///…``, ``s3://bucket/key``), a local path, or any path
        object of universal-pathlib (Airflow's ``ObjectStoragePath``). With *file_name*: the directory.
    :param file_name: a template of the name: ``{ext}`` (from the content), ``{sha256}``, and the keys of
        *name_fields*. Every value is made safe; distinct values never make the same name.
    :param name_fields: values for the template. ``video_id`` also identifies the video for ``if_exists``.
    :param refresh_url: returns a fresh URL of the same video, or None. Called when the link is refused (401,
        403, 404, 410) or says itself that it has expired, at most three times without progress. What it
        raises goes through.
    :param headers: credentials. Sent to *headers_origin* only, never after a redirect to elsewhere.
    :param headers_origin: the base URL whose scheme, host and port may see *headers*. Default: that of *url*.
    :param allowed_hosts: hosts, ``.domains``, addresses and networks that may be fetched from although their
        address is not public; each may carry a port. See :class:`~.guard.AddressGuard`.
    :param temp_dir: where the bytes are gathered. Default: beside a local destination, else the system's.
    :param sidecar: True writes ``<name>.json`` with the facts beside the video; a mapping adds its content
        (prompt, model...).
    :param progress: receives :class:`~.progress.Progress` about ten times a second. Default: a line in the
        log every five seconds, a bar on a terminal.
    :param cancel: set it from another thread to stop the download.
    :param s3_client: a boto3 S3 client for an S3 destination, whose uploads are then boto3's managed
        transfers. Default: fsspec's ``put_file``.
    :param options: policies and thresholds.
    :param policies: single policies in place of those of *options*: ``if_exists``, ``check``, ``max_bytes``,
        ``timeout``, ``stall_timeout``, ``connections``, ``attempts``, ``backoff``, ``verify``.
    :return: the facts about the published file.
    :raises MediaError: the video did not land; which error says why. Nothing is visible under the final name
        then, except what was there before, and no temporary file is left.
    """
    options = replace(options, **policies)
    begun = time.monotonic()
    patience = Patience(Deadline.after(options.timeout), cancel or threading.Event())
    fields = {name: str(value) for name, value in (name_fields or {}).items() if value is not None}
    naming = Naming(Destination.parse(destination), file_name, fields)
    first = naming.place(ext="mp4", sha256="0" * 64)
    directory = os.fspath(temp_dir) if temp_dir is not None else _temp_dir(first)
    client = Client(
        guard=AddressGuard(allowed_hosts),
        options=options,
        headers=headers,
        headers_origin=_trusted_origin(headers_origin or url) if headers else None,
    )
    store = store_for(first, patience, options, s3_client)
    video_id = fields.get("video_id")
    work = _Download(
        client=client,
        store=store,
        naming=naming,
        existing=Existing(store, naming, options, video_id=video_id, temp_dir=directory),
        options=options,
        patience=patience,
        refresh_url=refresh_url,
        directory=directory,
        sidecar=sidecar,
        meter=Meter(printable(url), progress or default_progress()),
        begun=begun,
    )
    with closing(client):
        return work.run(url)


def _trusted_origin(url: str) -> str | None:
    return None if is_data_url(url) else Url.parse(url).origin


def _temp_dir(place: Destination) -> str:
    return str(place.directory) if place.is_local else tempfile.gettempdir()


@dataclass(frozen=True)
class _Fetched:
    """A file that has come whole.

    :ivar shown: what messages call its source.
    :ivar host: the host that it came from; None for a ``data:`` URL.
    """

    size: int
    sha256: str
    shown: str
    host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Download:
    """One call of :func:`download`."""

    client: Client
    store: Store
    naming: Naming
    existing: Existing
    options: DownloadOptions
    patience: Patience
    refresh_url: Callable[[], str | None] | None
    directory: str
    sidecar: bool | Mapping[str, Any]
    meter: Meter
    begun: float

    def run(self, url: str) -> VideoFile:
        if not is_data_url(url):
            Url.parse(url)  # a wrong one is found before anything else is looked at
        if (found := self.existing.before_asking()) is not None:
            return self._leave(found)
        sweep(self.directory, self.store.discard)
        with TempFile(self.directory) as file:
            fetched = self._fetch(url, file)
            return self._leave(fetched) if isinstance(fetched, Found) else self._land(file, fetched)

    # -- fetching ------------------------------------------------------------------------------------------

    def _fetch(self, url: str, file: TempFile) -> _Fetched | Found:
        if is_data_url(url):
            return self._fetch_data(url, file)
        with self._source(url, self.refresh_url) as source:
            response, link = self._open(source)
            if link is None:
                return self._fetch_video(source, response, file)
        if is_data_url(link):
            return self._fetch_data(link, file)
        with self._source(link, lambda: self._link_again(url)) as source:
            return self._fetch_video(source, source.open(), file)

    def _source(self, url: str, fresh_url: Callable[[], str | None] | None) -> Source:
        return Source(
            self.client,
            url,
            options=self.options,
            deadline=self.patience.deadline,
            cancel=self.patience.cancel,
            fresh_url=fresh_url,
        )

    def _fetch_video(self, source: Source, response: Response, file: TempFile) -> _Fetched | Found:
        says = source.representation
        first = response.peek(HEAD_SIZE, self.options.stall_timeout)
        kind = sniff(first)
        if kind is None:
            raise NotAVideo(
                f"{says.url} answered HTTP {response.status} with {describe(first)} instead of a video"
            )
        found = self.existing.after_head(kind.extension, says.total, says.url.host)
        if found is not None:
            return found
        if says.total is not None:
            file.need(says.total)
        transfer = Transfer(source, response, file.fd)
        with closing(transfer.drain()) as received:
            for so_far in received:
                self.meter.update(so_far, transfer.total)
        self.meter.finish(transfer.size)
        says = source.representation
        return _Fetched(transfer.size, transfer.sha256, str(says.url), says.url.host, says.headers)

    def _open(self, source: Source) -> tuple[Response, str | None]:
        """Open a source, and read the link in its answer; an answer that breaks off is asked for anew."""
        while True:
            response = source.open()
            try:
                return response, self._json_link(response)
            except NetworkFault as fault:
                response.close()
                source.get_over(Setback(Next.ANEW, str(fault), lost=True))

    def _json_link(self, response: Response) -> str | None:
        """The link that a JSON answer holds; None for any other answer, whose body is left to be read."""
        first = response.peek(HEAD_SIZE, self.options.stall_timeout)
        if first.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"[", b'"'):
            return None
        body = response.peek(MAX_JSON, self.options.stall_timeout)
        return link_in_json(body, response.url.text)

    def _link_again(self, url: str) -> str | None:
        """Another link of the same video: from the JSON that named the last one, else from the caller."""
        try:
            with self.client.get(Url.parse(url), {}) as response:
                link = self._json_link(response) if response.status == 200 else None
        except NetworkFault:
            link = None
        return link or (self.refresh_url() if self.refresh_url is not None else None)

    def _fetch_data(self, url: str, file: TempFile) -> _Fetched:
        size, sha256 = write_data_url(url, file, self.options.max_bytes)
        return _Fetched(size, sha256, "the data: URL")

    # -- landing -------------------------------------------------------------------------------------------

    def _land(self, file: TempFile, fetched: _Fetched) -> VideoFile:
        compare(file, fetched.sha256, fetched.headers, fetched.shown)
        facts = probe_file(file.readable(), fetched.shown, check=self.options.check)
        place = self.naming.place(ext=facts.kind.extension, sha256=fetched.sha256)
        video = replace(
            describe_file(place, fetched.size, fetched.sha256, facts),
            video_id=self.naming.fields.get("video_id"),
            source_host=fetched.host,
        )
        found = self.existing.after_bytes(place, video)
        if found is not None:
            return self._leave(found)
        if self.patience.cancel.is_set():
            raise Cancelled(f"{fetched.shown}: stopped by the caller before it was put under its final name")
        upload = Upload(
            fetched.size,
            facts.kind.content_type,
            video.as_metadata(upload=file.path.stem),
            exclusive=self.options.if_exists != "overwrite",
        )
        try:
            self.store.put(file, place, upload)
        except DestinationExists:
            # Another writer was faster. If it brought the same video, that is as good.
            found = self.existing.after_bytes(place, video)
            if found is None:
                raise
            return self._leave(found)
        video = replace(video, seconds=self._elapsed())
        if self.sidecar is not False:
            self._write_sidecar(place, video)
        log.debug("landed %s (%d bytes, sha256 %s)", video.uri, video.size, video.sha256)
        return video

    def _leave(self, found: Found) -> VideoFile:
        """Report what is left as it is, with the sidecar that a killed process did not come to write."""
        if self.sidecar is not False and self.store.stat(found.place.sibling(SIDECAR_SUFFIX)) is None:
            self._write_sidecar(found.place, found.video)
        return replace(found.video, skipped=True, seconds=self._elapsed())

    def _write_sidecar(self, place: Destination, video: VideoFile) -> None:
        more = dict(self.sidecar) if isinstance(self.sidecar, Mapping) else {}
        content = {**more, **video.as_dict(), "landed_at": datetime.now(UTC).isoformat(timespec="seconds")}
        text = json.dumps(content, ensure_ascii=False, indent=2, default=str)
        data = text.encode(errors="replace") + b"\n"  # of a cut prompt, half a surrogate pair may be left
        with TempFile(self.directory) as file:
            file.write(data)
            self.store.put(file, place.sibling(SIDECAR_SUFFIX), Upload(len(data), "application/json"))

    def _elapsed(self) -> float:
        return round(time.monotonic() - self.begun, 3)


def download_many(
    downloads: Sequence[Mapping[str, Any]], *, parallel: int = 4, **common: Any
) -> list[VideoFile | Exception]:
    """Run several downloads at a time; each lands or fails by itself.

    :param downloads: the arguments of :func:`download` for each video.
    :param parallel: how many at a time.
    :param common: arguments that all share.
    :return: for each of *downloads*, in their order, the file that landed or the exception that stopped it.
    """
    cancel: threading.Event = common.pop("cancel", None) or threading.Event()

    def one(arguments: Mapping[str, Any]) -> VideoFile | Exception:
        try:
            return download(**{**common, **arguments, "cancel": cancel})
        except Exception as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="video") as pool:
        futures = [pool.submit(copy_context().run, one, arguments) for arguments in downloads]
        try:
            return [future.result() for future in futures]
        except BaseException:
            cancel.set()
            for future in futures:
                future.cancel()
            raise
