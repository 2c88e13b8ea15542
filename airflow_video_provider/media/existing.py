"""What lies under the final name already, and what ``if_exists`` makes of it.

``fail`` raises for anything, ``overwrite`` never looks. ``skip`` tells the same video from another file by
the cheapest evidence there is: what was written down about it, then its id in the name and its size, then its
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from airflow_video_provider.media.destination import Destination
from airflow_video_provider.media.errors import DamagedVideo, NotAVideo
from airflow_video_provider.media.filename import Naming
from airflow_video_provider.media.options import DownloadOptions
from airflow_video_provider.media.probe import Facts, probe_file
from airflow_video_provider.media.stores import Store, exists
from airflow_video_provider.media.tempfile import TempFile
from airflow_video_provider.media.video_file import VideoFile, facts_in_metadata

SIDECAR_SUFFIX = ".json"


@dataclass(frozen=True)
class Found:
    """The very video, where it lies already."""

    place: Destination
    video: VideoFile


class Existing:
    """Looks under the names that a video may get, at three moments of its download.

    Each returns the video where it is there already, None to go on with the download.

    :param store: where it is to lie.
    :param naming: under which names.
    :param options: ``if_exists`` and ``check``.
    :param video_id: what identifies the video; None when it is not known.
    :param temp_dir: where an object is copied to when it has to be read.
    :raises DestinationExists: in each of them, something else lies there.
    """

    def __init__(
        self,
        store: Store,
        naming: Naming,
        options: DownloadOptions,
        *,
        video_id: str | None,
        temp_dir: str,
    ) -> None:
        self._store = store
        self._naming = naming
        self._options = options
        self._video_id = video_id
        self._temp_dir = temp_dir
        self._absent: set[str] = set()

    def before_asking(self) -> Found | None:
        """Look before the video's server is asked anything."""
        if self._options.if_exists == "overwrite":
            return None
        for place in self._naming.likely_places():
            size = self._size(place)
            if size is not None and (found := self._written_down(place, size)) is not None:
                return found
        return None

    def after_head(self, extension: str, total: int | None, host: str) -> Found | None:
        """Look when the name and the length (None when it is not told) are known."""
        if self._options.if_exists == "overwrite" or self._naming.needs("sha256"):
            return None
        place = self._naming.place(ext=extension)
        size = None if place.path in self._absent else self._size(place)
        if size is None:
            return None
        found = self._written_down(place, size)
        if found is not None or total is None:
            return found
        if size != total:
            raise exists(place, f" with {size} bytes, and this video has {total}")
        if self._video_id is not None and self._naming.needs("video_id"):
            return self._read(place, size, host)
        return None

    def after_bytes(self, place: Destination, video: VideoFile) -> Found | None:
        """Look when the video has come whole, by its digest."""
        if self._options.if_exists == "overwrite":
            return None
        size = self._size(place)
        if size is None:
            return None
        if size == video.size and self._store.digest(place, size) == video.sha256:
            return Found(place, video)
        raise exists(place, " with other bytes")

    def _size(self, place: Destination) -> int | None:
        size = self._store.stat(place)
        if size is None:
            self._absent.add(place.path)
        elif self._options.if_exists == "fail":
            raise exists(place)
        return size

    def _written_down(self, place: Destination, size: int) -> Found | None:
        """The video by the store's metadata or a sidecar, when they are about it and about this very file."""
        if self._video_id is None:
            return None
        ours, host = False, None
        for read in (self._metadata, self._sidecar):
            facts = read(place)
            if not facts or facts.get("video_id") != self._video_id or facts.get("size") != size:
                continue
            ours, host = True, host or facts.get("source_host")
            video = VideoFile.from_facts(place.uri, facts)
            if video is not None:
                return Found(place, video)
        return self._read(place, size, host) if ours else None

    def _metadata(self, place: Destination) -> dict[str, Any] | None:
        return facts_in_metadata(self._store.metadata(place))

    def _sidecar(self, place: Destination) -> dict[str, Any] | None:
        return self._store.read_json(place.sibling(SIDECAR_SUFFIX))

    def _read(self, place: Destination, size: int, host: str | None) -> Found | None:
        """Find out by reading the file what nobody wrote down about it; None when it is no whole video."""
        try:
            if place.is_local:
                sha256 = self._store.digest(place, size)
                facts = probe_file(place.path, place.uri, check=self._options.check)
            else:
                with TempFile(self._temp_dir) as file:
                    file.need(size)
                    sha256 = self._store.digest(place, size, copy=file)
                    facts = probe_file(file.readable(), place.uri, check=self._options.check)
        except (NotAVideo, DamagedVideo):
            return None
        video = describe_file(place, size, sha256, facts)
        return Found(place, replace(video, video_id=self._video_id, source_host=host))


def describe_file(place: Destination, size: int, sha256: str, facts: Facts) -> VideoFile:
    """Put together what is known of a file by its bytes."""
    return VideoFile(
        uri=place.uri,
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
    )
