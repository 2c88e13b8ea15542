"""The bytes of a video that landed, from its object storage, in blocks.

What an XCom says is not to be believed: some people may write XComs, and not read every file that the
api-server can read. So a file is served only from a file system or an object store (never from a URL that
would be fetched), only if it has the size that was recorded, and only if it begins like a video.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
from airflow.providers.common.compat.sdk import AirflowException, ObjectStoragePath

from airflow_video_provider.hooks.s3 import s3_client
from airflow_video_provider.media.calls import Patience
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.destination import LOCAL, Destination
from airflow_video_provider.media.errors import MediaError, excerpt
from airflow_video_provider.media.options import MIB, DownloadOptions
from airflow_video_provider.media.signature import sniff
from airflow_video_provider.media.stores import AZURE, GCS, OTHERS, S3, Store, store_for

__all__ = ["NotServed", "StoredVideo"]

_SHA256 = re.compile("[0-9a-f]{64}", re.ASCII)  # it becomes a header

#: Memory of one stream: a block that is sent and the next one that is read.
BLOCK = MIB
#: Seconds for one block.
TIMEOUT = 30.0
#: Reads at a time, in other threads than those of Airflow's own routes: a slow store must not hold these.
READERS = 8
#: Seconds for which what was found at a name is believed: a player makes several requests in a row.
TRUSTED_FOR = 30.0
HEAD = 512

_SERVED = LOCAL | S3 | GCS | AZURE | OTHERS | {"adl", "wasb", "sftp", "ssh", "smb", "hdfs", "webhdfs"}

#: Seconds for which an S3 client is used: making one costs some 50 ms.
CLIENTS_FOR = 300.0

_limiter: anyio.CapacityLimiter | None = None
_seen: dict[tuple[str, int], tuple[float, str]] = {}
_clients: dict[str, tuple[float, Any]] = {}


class NotServed(Exception):
    """There is no such video to be served; the text says why, for people who may see the Dag."""


@dataclass(frozen=True)
class StoredVideo:
    """A file as the XCom of a download tells of it.

    :param size: bytes.
    :param sha256: of the bytes, as hexadecimal text.
    """

    uri: str
    size: int
    sha256: str

    @classmethod
    def from_facts(cls, facts: Any) -> StoredVideo:
        """Read one of :attr:`VideoStatus.files`.

        :raises NotServed: it is none that may be served.
        """
        uri, size, sha256 = (facts.get(name) for name in ("uri", "size", "sha256"))
        is_whole = isinstance(uri, str) and isinstance(size, int) and isinstance(sha256, str)
        if not is_whole or size <= 0 or not _SHA256.fullmatch(sha256):
            raise NotServed("the record of this file is not complete")
        scheme = urlsplit(uri).scheme.lower()
        if scheme not in _SERVED or "::" in uri:
            raise NotServed(f"files of {scheme or 'no'}:// are not served")
        return cls(uri, size, sha256)

    async def content_type(self) -> str:
        """What the bytes are, by their beginning.

        :raises NotServed: it is not there, cannot be read, or is not the video that landed.
        """
        key, now = (self.uri, self.size), time.monotonic()
        if key in _seen and _seen[key][0] > now:
            return _seen[key][1]
        found: str = await _in_thread(self._look)
        for stale in [seen for seen, (until, _) in _seen.items() if until <= now]:
            del _seen[stale]
        _seen[key] = (now + TRUSTED_FOR, found)
        return found

    async def blocks(self, begin: int, end: int) -> AsyncIterator[bytes]:
        """Read the bytes from *begin* up to *end*, one block ahead of whoever takes them at the most.

        :raises NotServed: the file was taken away meanwhile.
        """
        for at in range(begin, end, BLOCK):
            yield await _in_thread(partial(self._read, at, min(at + BLOCK, end)))

    def _look(self) -> str:
        store, place = self._store()
        with _errors(self.uri):
            size = store.stat(place)
            head = store.read(place, 0, min(HEAD, self.size)) if size == self.size else b""
        if size is None:
            raise NotServed(f"{self.uri} is not there any more")
        if size != self.size:
            raise NotServed(f"{self.uri} was replaced: it has {size} bytes, and {self.size} landed")
        if (kind := sniff(head)) is None:
            raise NotServed(f"{self.uri} does not begin like a video")
        return kind.content_type

    def _read(self, begin: int, end: int) -> bytes:
        store, place = self._store()
        with _errors(self.uri):
            block = store.read(place, begin, end)
        if len(block) != end - begin:
            raise NotServed(f"{self.uri} became shorter while it was read")
        return block

    def _store(self) -> tuple[Store, Destination]:
        try:
            place = Destination.parse(_path(self.uri))
            client = _s3_client(place, self.uri)
        except (ValueError, ImportError, AirflowException, MediaError) as error:
            raise NotServed(f"the api-server cannot open {self.uri}: {excerpt(str(error))}") from error
        patience = Patience(Deadline.after(TIMEOUT), threading.Event())
        return store_for(place, patience, DownloadOptions(), client), place


def _path(uri: str) -> ObjectStoragePath:
    """The place of a file: a download records a local one percent-encoded, keys of stores as they are."""
    is_local = urlsplit(uri).scheme.lower() in LOCAL
    return ObjectStoragePath(unquote(uri) if is_local else uri)


def _s3_client(place: Destination, uri: str) -> Any:
    """A client for each connection, made anew now and then: this process outlives what a connection says."""
    key, now = urlsplit(uri).netloc, time.monotonic()
    if key not in _clients or _clients[key][0] <= now:
        client, _ = s3_client(place.fs, uri)
        if client is not None:
            # A range has no checksum of its own, and some stores send the whole object's with it.
            client.meta.config.response_checksum_validation = "when_required"
        _clients[key] = (now + CLIENTS_FOR, client)
    return _clients[key][1]


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turn what a store's client raises, of whatever class, into :class:`NotServed`."""
    try:
        yield
    except Exception as error:
        # Our own error for it speaks of putting a file.
        cause = error.__cause__ if isinstance(error, MediaError) and error.__cause__ else error
        what = f"{type(cause).__name__}: {excerpt(str(cause))}"
        raise NotServed(f"{uri} cannot be read: {what}") from error


async def _in_thread(work: Any) -> Any:
    global _limiter
    if _limiter is None:
        _limiter = anyio.CapacityLimiter(READERS)
    return await anyio.to_thread.run_sync(work, limiter=_limiter)
