"""``download``: a URL -> a verified file under its final name."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote_to_bytes, urljoin

from airflow_video_provider.media.errors import (
    BadDestination,
    DamagedVideo,
    NotAVideo,
    TooLarge,
    printable,
)
from airflow_video_provider.media.filename import fields_of
from airflow_video_provider.media.filename import file_name as make_name
from airflow_video_provider.media.guard import AddressGuard
from airflow_video_provider.media.http import Client, Response, Url
from airflow_video_provider.media.probe import Check, Facts, Kind, describe, probe_file, sniff
from airflow_video_provider.media.progress import Meter, ProgressCallback, default_progress
from airflow_video_provider.media.publish import (
    Spool,
    Target,
    begin_early,
    exists,
    publish,
    spool_directory,
)
from airflow_video_provider.media.source import (
    HEAD_SIZE,
    NETWORK_FAULTS,
    Fetched,
    Head,
    Limits,
    Transfer,
    disk_error,
)

if TYPE_CHECKING:
    from airflow_video_provider.media.upload import PartsUpload

log = logging.getLogger(__name__)

IfExists = Literal["skip", "overwrite", "fail"]

MAX_JSON = 2**20
LIKELY_EXTENSIONS = ("mp4", "webm", "mov")
_JSON_LINKS = (
    "url", "video_url", "download_url", "content_url", "result_url", "output_url",
    "data.url", "data.video_url", "data.download_url", "data.result_url", "data.0.url", "result.url",
    "result.video_url", "video.url", "output", "output.url", "metadata.url",
)  # fmt: skip


@dataclass(frozen=True)
class VideoFile:
    """A video that lies whole under its final name.

    :ivar uri: the final name, as a URI.
    :ivar size: bytes.
    :ivar sha256: of the bytes, as hexadecimal text.
    :ivar content_type: what the bytes are, whatever their server called them.
    :ivar container: ``mp4``, ``webm``...
    :ivar duration: playing time in seconds; None, like all that follow, when PyAV is not installed.
    :ivar width: pixels.
    :ivar height: pixels.
    :ivar fps: frames per second.
    :ivar video_codec: ``h264``, ``hevc``, ``av1``...
    :ivar audio_codec: None also when the video is silent.
    :ivar video_id: the id that was given for the name.
    :ivar source_host: the host that the bytes came from.
    :ivar seconds: how long the download took, from the call to the published file.
    :ivar skipped: whether the file was there already and nothing was written.
    """

    uri: str
    size: int
    sha256: str
    content_type: str
    container: str
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    video_id: str | None = None
    source_host: str | None = None
    seconds: float = 0.0
    skipped: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON."""
        return asdict(self)


_NOTED = (
    "size",
    "content_type",
    "container",
    "duration",
    "width",
    "height",
    "fps",
    "video_codec",
    "audio_codec",
    "source_host",
)


class _Follow(Exception):
    """The answer is JSON that holds the link of the video."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url


class _AlreadyThere(Exception):
    def __init__(self, video: VideoFile) -> None:
        super().__init__()
        self.video = video


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
    max_bytes: int = 20 * 2**30,
    if_exists: IfExists = "skip",
    temp_dir: str | os.PathLike[str] | None = None,
    timeout: float | None = 3600.0,
    stall_timeout: float = 30.0,
    connections: int = 16,
    attempts: int = 5,
    backoff: float = 0.5,
    verify: bool | str = True,
    check: Check = "packets",
    sidecar: bool | Mapping[str, Any] = False,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> VideoFile:
    """Fetch a video, check that it is whole, and put it under its final name in one step.

    :param url: http(s), or a ``data:`` URL. Sent byte for byte. A JSON answer that holds a link is followed
        once.
    :param destination: the final name: a URL (``file:///…``, ``s3://bucket/key``), a local path, or any path
        object of universal-pathlib (Airflow's ``ObjectStoragePath``). With *file_name*: the directory.
    :param file_name: a template of the name: ``{ext}`` (from the content), ``{sha256}``, and the keys of
        *name_fields*. Every value is made safe; distinct values never make the same name.
    :param name_fields: values for the template. ``video_id`` also identifies the video for *if_exists*.
    :param refresh_url: returns a fresh URL of the same video, or None. Asked when the link is refused (401,
        403, 404, 410) or says itself that it has expired, at most three times without progress. What it
        raises goes through.
    :param headers: credentials. Sent to *headers_origin* only, never after a redirect to elsewhere.
    :param headers_origin: the base URL whose scheme, host and port may see *headers*. Default: that of *url*.
    :param allowed_hosts: hosts, ``.domains``, addresses and networks that may be fetched from although their
        address is not public; each may carry a port. See :class:`~.guard.AddressGuard`.
    :param max_bytes: the largest file that is taken.
    :param if_exists: ``skip`` (default): a file that is there and is this very video (by the store's notes, a
        sidecar, the id in its name and its size, or its digest) is left and reported; another is an error.
        ``overwrite``: replaced, in one step. ``fail``: an error.
    :param temp_dir: where the bytes are gathered. Default: beside a local destination, else the system's.
    :param timeout: seconds for everything; None for no bound.
    :param stall_timeout: seconds without (enough) bytes after which a connection is dropped and resumed.
    :param connections: the most connections at a time; 1 turns parallel ranges off.
    :param attempts: failures in a row, without progress, that are borne.
    :param backoff: seconds of the first wait between attempts; doubled each time, up to 30.
    :param verify: TLS certificates: True, False (not checked) or the path of a file of authorities.
    :param check: how closely the file is looked at; see :func:`~.probe.probe_file`.
    :param sidecar: True writes ``<name>.json`` with the facts beside the video; a mapping adds its content
        (prompt, model...).
    :param progress: receives :class:`~.progress.Progress` about ten times a second. Default: a line in the
        log every five seconds, a bar on a terminal.
    :param cancel: set it from another thread to stop the download.
    :return: the facts about the published file.
    :raises MediaError: the video did not land; which error says why. Nothing is visible under the final name
        then, except what was there before, and no temporary file is left.
    """
    return _Download(
        url=url,
        destination=destination,
        template=file_name,
        fields=dict(name_fields or {}),
        refresh_url=refresh_url,
        headers=headers,
        headers_origin=headers_origin,
        guard=AddressGuard(allowed_hosts),
        limits=Limits(timeout, stall_timeout, max_bytes, connections, attempts, backoff),
        if_exists=if_exists,
        temp_dir=temp_dir,
        verify=verify,
        check=check,
        sidecar=sidecar,
        progress=progress,
        cancel=cancel,
    ).run()


class _Download:
    """One call of :func:`download`."""

    def __init__(
        self,
        *,
        url: str,
        destination: Any,
        template: str | None,
        fields: dict[str, str],
        refresh_url: Callable[[], str | None] | None,
        headers: Mapping[str, str] | None,
        headers_origin: str | None,
        guard: AddressGuard,
        limits: Limits,
        if_exists: IfExists,
        temp_dir: str | os.PathLike[str] | None,
        verify: bool | str,
        check: Check,
        sidecar: bool | Mapping[str, Any],
        progress: ProgressCallback | None,
        cancel: threading.Event | None,
    ) -> None:
        if if_exists not in ("skip", "overwrite", "fail"):
            raise BadDestination(f"if_exists is skip, overwrite or fail, not {if_exists!r}")
        self._url, self._template, self._fields = url, template, fields
        self._refresh_url, self._limits, self._if_exists = refresh_url, limits, if_exists
        self._check, self._sidecar, self._cancel = check, sidecar, cancel
        self._progress = progress
        self._begin = time.monotonic()
        deadline = None if limits.timeout is None else self._begin + limits.timeout
        self._target = replace(Target.of(destination), deadline=deadline)
        self._temp_dir = temp_dir
        self._followed = False
        self._early: PartsUpload | None = None
        self._wanted_fields = fields_of(template) if template is not None else set()
        if template is None and self._target.is_directory_name:
            raise BadDestination(
                f"{self._target.uri} is a directory; name the file, or give file_name a template like "
                "'{video_id}.{ext}'"
            )
        if template is not None:  # a template that cannot be filled is found before anything is fetched
            make_name(template, {**fields, "ext": "mp4", "sha256": "0" * 64})
        self._is_data = url[:5].lower() == "data:"
        trusted = None
        if headers:
            trusted = Url.parse(headers_origin or url).origin if headers_origin or not self._is_data else None
        self._courier = Client(
            guard=guard,
            headers=headers,
            headers_origin=trusted,
            verify=verify,
            stall_timeout=limits.stall_timeout,
        )

    @property
    def _video_id(self) -> str | None:
        return self._fields.get("video_id")

    def run(self) -> VideoFile:
        if not self._is_data:
            Url.parse(self._url)
        there = self._known_already()
        if there is not None:
            return there
        directory = self._spool_directory()
        Spool.sweep(directory)
        try:
            with Spool(directory) as spool:
                self._spool = spool
                try:
                    fetched = self._fetch_data() if self._is_data else self._fetch()
                    return self._land(fetched)
                finally:
                    if self._early is not None:
                        self._early.abort()
        except _AlreadyThere as found:
            return found.video
        finally:
            self._courier.close()

    def _spool_directory(self) -> str:
        return spool_directory(
            self._target if self._template is None else self._target.child("-"), self._temp_dir
        )

    # ---------------------------------------------------------------- what is there already

    def _final(self, *, ext: str, sha256: str) -> Target:
        if self._template is None:
            return self._target
        return self._target.child(make_name(self._template, {**self._fields, "ext": ext, "sha256": sha256}))

    def _known_already(self) -> VideoFile | None:
        """Look under the names that the file may get, before anything is asked of the video's server."""
        if self._if_exists == "overwrite" or "sha256" in self._wanted_fields:
            return None
        extensions = LIKELY_EXTENSIONS if "ext" in self._wanted_fields else ("",)
        for extension in extensions:
            target = self._final(ext=extension, sha256="")
            size = target.size()
            if size is None:
                continue
            if self._if_exists == "fail":
                raise exists(target)
            video = self._from_notes(target, size)
            if video is not None:
                return video
        return None

    def _from_notes(self, target: Target, size: int) -> VideoFile | None:
        """What a sidecar or the store's notes say, when that is about this video and this very file."""
        if self._video_id is None:
            return None
        ours, host = False, None
        for read in (target.notes, target.beside(".json").read_json):
            notes = read()
            if not notes or notes.get("video_id") != self._video_id or notes.get("size") != size:
                continue
            ours, host = True, host or notes.get("source_host")
            known = {field.name for field in fields(VideoFile)}
            facts = {key: value for key, value in notes.items() if key in known and key != "uri" and value}
            try:
                return self._left(target, VideoFile(uri=target.uri, **facts))
            except TypeError:  # the notes of a large file, which were written before it had come
                continue
        return self._look_at(target, size, host) if ours else None

    def _compare(self, kind_ext: str, head: Head) -> None:
        """Now that the name and the length are known: is the file there already, or is something else?"""
        if self._if_exists == "overwrite" or "sha256" in self._wanted_fields:
            return
        target = self._final(ext=kind_ext, sha256="")
        size = target.size()
        if size is None:
            return
        if self._if_exists == "fail":
            raise exists(target)
        video = self._from_notes(target, size)
        if video is None and head.total is not None:
            if size != head.total:
                raise exists(target, f" with {size} bytes, and this video has {head.total}")
            if self._video_id is not None and "video_id" in self._wanted_fields:
                video = self._look_at(target, size, head.link.host)
        if video is not None:
            raise _AlreadyThere(video)

    def _look_at(self, target: Target, size: int, host: str | None = None) -> VideoFile | None:
        """Read what lies there to tell about it what nobody wrote down."""
        try:
            if target.is_local:
                sha256, facts = target.sha256(), probe_file(target.path, target.uri, check=self._check)
            else:
                with Spool(self._spool_directory()) as spool:
                    spool.need(size)
                    sha256 = target.sha256(copy=spool.fd)
                    facts = probe_file(str(spool.path), target.uri, check=self._check)
        except (NotAVideo, DamagedVideo):
            return None
        return self._left(target, self._describe(target, size, sha256, facts, host))

    def _left(self, target: Target, video: VideoFile) -> VideoFile:
        """Report what is left as it is, with the sidecar that a killed process did not come to write."""
        if self._sidecar is not False and target.beside(".json").size() is None:
            self._write_sidecar(target, video)
        return replace(video, skipped=True, seconds=self._elapsed())

    # ---------------------------------------------------------------- fetching

    def _fetch(self) -> Fetched:
        meter = Meter(printable(self._url), self._progress or default_progress())
        url, refresh = self._url, self._refresh_url
        while True:
            try:
                self._transfer = Transfer(
                    self._courier,
                    url,
                    self._spool.fd,
                    limits=self._limits,
                    fresh_url=refresh,
                    on_head=self._on_head,
                    on_progress=meter.update,
                    cancel=self._cancel,
                    begun=self._begin,
                )
                fetched = self._transfer.run()
            except _Follow as link:
                self._followed = True
                url, refresh = (
                    link.url,
                    lambda: (
                        self._ask_json_again()
                        or (self._refresh_url() if self._refresh_url is not None else None)
                    ),
                )
                if url[:5].lower() == "data:":
                    self._url = url
                    return self._fetch_data()
                continue
            meter.finish(fetched.size)
            return fetched

    def _on_head(self, head: Head, reply: Response) -> None:
        first = reply.peek(HEAD_SIZE)
        kind = sniff(first)
        if kind is None:
            looks_like_json = first.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b'"')
            if looks_like_json and not self._followed:
                link = link_in_json(reply.read(MAX_JSON), reply.link.text)
                if link is not None:
                    raise _Follow(link)
            raise NotAVideo(
                f"{head.link} answered HTTP {reply.status} with {describe(first)} instead of a video"
            )
        self._compare(kind.extension, head)
        if head.total is not None:
            self._spool.need(head.total)
            self._send_early(kind, head.total, head.link.host)

    def _send_early(self, kind: Kind, size: int, host: str) -> None:
        """Begin to upload a large file, if its name does not depend on what is still to come."""
        if "sha256" in self._wanted_fields:
            return
        self._early = begin_early(
            self._final(ext=kind.extension, sha256=""),
            str(self._spool.path),
            size=size,
            content_type=kind.content_type,
            notes={"video_id": self._video_id, "size": size, "source_host": host},
            ready=lambda: self._transfer.settled,
        )

    def _ask_json_again(self) -> str | None:
        try:
            reply = self._courier.get(Url.parse(self._url), {})
        except NETWORK_FAULTS:
            return None
        with reply:
            return link_in_json(reply.read(MAX_JSON), reply.link.text) if reply.status == 200 else None

    def _fetch_data(self) -> Fetched:
        """Write out a ``data:`` URL, in pieces, as there may be hundreds of megabytes in it."""
        header, comma, body = self._url.partition(",")
        if not comma:
            raise NotAVideo("the data: URL has no data in it")
        digest, size = hashlib.sha256(), 0
        is_base64 = header.lower().replace(" ", "").endswith(";base64")
        step = 4 * 2**18
        try:
            for start in range(0, len(body), step):
                piece = body[start : start + step]
                data = base64.b64decode(piece, validate=True) if is_base64 else unquote_to_bytes(piece)
                size += len(data)
                if size > self._limits.max_bytes:
                    raise TooLarge(f"the data: URL holds more than max_bytes={self._limits.max_bytes}")
                digest.update(data)
                os.write(self._spool.fd, data)
        except (binascii.Error, ValueError):
            raise DamagedVideo("the data: URL is not valid base64") from None
        except OSError as error:
            raise disk_error(error) from error
        link = Url(text="data:", scheme="data", host="", port=0, target=b"")
        head = Head(link=link, total=size, validator=None, content_type=None, headers={})
        return Fetched(head=head, size=size, sha256=digest.hexdigest(), connections=0)

    # ---------------------------------------------------------------- landing

    def _land(self, fetched: Fetched) -> VideoFile:
        shown = str(fetched.head.link) if not self._is_data else "the data: URL"
        self._check_announced_digest(fetched, shown)
        facts = probe_file(str(self._spool.path), shown, check=self._check)
        target = self._final(ext=facts.kind.extension, sha256=fetched.sha256)
        if self._early is not None and self._transfer.begun_anew:
            self._early.abort()
            self._early = None
        host = fetched.head.link.host or None
        video = self._describe(target, fetched.size, fetched.sha256, facts, host)
        if self._if_exists == "skip":
            already = self._same_bytes_there(target, video)
            if already is not None:
                return already
        notes = {key: value for key, value in video.as_dict().items() if key in _NOTED}
        publish(
            self._spool,
            target,
            size=fetched.size,
            exclusive=self._if_exists != "overwrite",
            content_type=facts.kind.content_type,
            notes={**notes, "video_id": self._video_id, "sha256": fetched.sha256},
            early=self._early,
        )
        video = replace(video, seconds=self._elapsed())
        if self._sidecar is not False:
            self._write_sidecar(target, video)
        log.debug("landed %s (%d bytes, sha256 %s)", video.uri, video.size, video.sha256)
        return video

    def _same_bytes_there(self, target: Target, video: VideoFile) -> VideoFile | None:
        size = target.size()
        if size is None:
            return None
        if size == video.size and target.sha256() == video.sha256:
            return self._left(target, video)
        raise exists(target, " with other bytes")

    def _check_announced_digest(self, fetched: Fetched, shown: str) -> None:
        announced = announced_digest(fetched.head.headers)
        if announced is None:
            return
        algorithm, expected = announced
        if algorithm == "sha256":
            found = bytes.fromhex(fetched.sha256)
        else:
            with open(self._spool.path, "rb") as file:
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).digest()
        if found != expected:
            raise DamagedVideo(
                f"{shown}: the bytes that came do not have the {algorithm} digest that the server announced"
            )

    def _describe(self, target: Target, size: int, sha256: str, facts: Facts, host: str | None) -> VideoFile:
        return VideoFile(
            uri=target.uri,
            size=size,
            sha256=sha256,
            content_type=facts.kind.content_type,
            container=facts.kind.container,
            duration=facts.duration,
            width=facts.width,
            height=facts.height,
            fps=facts.fps,
            video_codec=facts.video_codec,
            audio_codec=facts.audio_codec,
            video_id=self._video_id,
            source_host=host,
            seconds=self._elapsed(),
        )

    def _write_sidecar(self, target: Target, video: VideoFile) -> None:
        more = dict(self._sidecar) if isinstance(self._sidecar, Mapping) else {}
        content = {**more, **video.as_dict(), "landed_at": datetime.now(UTC).isoformat(timespec="seconds")}
        data = json.dumps(content, ensure_ascii=False, indent=2, default=str).encode() + b"\n"
        beside = target.beside(".json")
        with Spool(self._spool_directory()) as spool:
            os.write(spool.fd, data)
            publish(
                spool,
                beside,
                size=len(data),
                exclusive=False,
                content_type="application/json",
                notes={},
            )

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._begin, 3)


def link_in_json(body: bytes, base: str) -> str | None:
    """Return the link of the video in a JSON answer, None when the body is no JSON or holds none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    for path in ("", *_JSON_LINKS):
        value: Any = found
        for step in path.split(".") if path else ():
            if isinstance(value, Mapping):
                value = value.get(step)
            elif isinstance(value, list) and step.isdigit():
                value = value[int(step)] if int(step) < len(value) else None
            else:
                value = None
        if isinstance(value, str):
            if re.match(r"(?i)(https?://|data:video/)", value):
                return value
            if path and value.startswith("/"):
                return urljoin(base, value)
    return None


def announced_digest(headers: Mapping[str, str]) -> tuple[str, bytes] | None:
    """Return the digest of the whole file that a server announces, as (algorithm, bytes)."""
    for name, pattern, algorithm in (
        ("repr-digest", r"sha-256=:([A-Za-z0-9+/=]+):", "sha256"),
        ("digest", r"(?i)sha-256=([A-Za-z0-9+/=]+)", "sha256"),
        ("x-goog-hash", r"md5=([A-Za-z0-9+/=]+)", "md5"),
        ("x-ms-blob-content-md5", r"([A-Za-z0-9+/=]+)", "md5"),
    ):
        hit = re.search(pattern, headers.get(name, ""))
        if hit is None:
            continue
        try:
            value = base64.b64decode(hit.group(1), validate=True)
        except binascii.Error:
            continue
        if len(value) == (32 if algorithm == "sha256" else 16):
            return algorithm, value
    return None


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
