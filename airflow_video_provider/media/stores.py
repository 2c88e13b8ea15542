"""Where files land: one small class for each kind of store.

Local disks: a temporary file in the same directory, fsync, rename. Object stores: ``put_file`` of the
complete local file, never an open fsspec handle, because leaving such a handle through an exception commits
what was written so far. Other remote file systems (sftp, smb, hdfs...): upload under a temporary name, then
move. S3 is in :mod:`.s3`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from airflow_video_provider.media.calls import Patience, is_taken, status_of, store_error, store_errors
from airflow_video_provider.media.destination import LOCAL, Destination
from airflow_video_provider.media.errors import DestinationExists, MediaError, NoSpace, PublishFailed
from airflow_video_provider.media.options import MIB, DownloadOptions
from airflow_video_provider.media.tempfile import FULL_DISK, TEMP_SUFFIX, TempFile

log = logging.getLogger(__name__)

READ_BLOCK = 4 * MIB
PUT_ATTEMPTS = 2
"""More than what the store's own client does about a failure of the store (a 5xx)."""
S3 = frozenset({"s3", "s3a"})
GCS = frozenset({"gs", "gcs"})
AZURE = frozenset({"abfs", "abfss", "az"})
OTHERS = frozenset({"oci", "oss", "r2"})


@dataclass(frozen=True)
class Upload:
    """What is put, beside the bytes.

    :ivar size: bytes; the store must show the same afterwards.
    :ivar content_type: noted where the store keeps such a thing.
    :ivar metadata: kept with the object; see :meth:`~.video_file.VideoFile.as_metadata`.
    :ivar exclusive: whether what lies under the name already is never replaced.
    """

    size: int
    content_type: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    exclusive: bool = False


def exists(place: Destination, more: str = "") -> DestinationExists:
    """The error for a final name that is taken."""
    return DestinationExists(
        f"{place.uri} exists already{more}; it was left as it is. Use if_exists='overwrite' to replace it, "
        "or another name."
    )


def store_for(
    place: Destination, patience: Patience, options: DownloadOptions, s3_client: Any = None
) -> Store:
    """Return the class that knows the store of *place*.

    :param s3_client: a boto3 S3 client for an S3 destination; fsspec's file system is used without one.
    """
    if place.protocols & S3:
        from airflow_video_provider.media.s3 import S3FsStore, S3Store

        if s3_client is None:
            return S3FsStore(place.fs, patience, options)
        return S3Store(place.fs, patience, options, s3_client)
    kinds = ((LOCAL, LocalStore), (GCS, GcsStore), (AZURE, AzureStore), (OTHERS, ObjectStore))
    kind = next((kind for protocols, kind in kinds if place.protocols & protocols), Store)
    return kind(place.fs, patience, options)


class Store:
    """Any remote file system: a file is uploaded under a temporary name, then moved.

    :param fs: the fsspec file system.
    :param patience: how long it is waited for.
    :param options: sizes and times.
    """

    def __init__(self, fs: Any, patience: Patience, options: DownloadOptions) -> None:
        self.fs = fs
        self.patience = patience
        self.options = options

    # -- what lies there -----------------------------------------------------------------------------------

    def stat(self, place: Destination) -> int | None:
        """Return the size in bytes of what lies there now, None when nothing does.

        :raises PublishFailed: the store cannot be called.
        """
        with store_errors(place.uri):
            try:
                return self._stat(place)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _stat(self, place: Destination) -> int | None:
        for path in (place.path, place.path.rpartition("/")[0]):
            self.fs.invalidate_cache(path)
        found = self.patience.call(self.fs, "info", place.path)
        return None if found.get("type") == "directory" else int(found.get("size") or 0)

    def metadata(self, place: Destination) -> Mapping[str, Any] | None:
        """Return the metadata of the object that lies there, by lower-case name; None when there is none.

        :raises PublishFailed: the store cannot be called.
        """
        with store_errors(place.uri):
            try:
                # They travel as HTTP headers, whose names some stores capitalise.
                return {name.lower(): value for name, value in (self._metadata(place) or {}).items()}
            except FileNotFoundError:
                return None

    def _metadata(self, place: Destination) -> Mapping[str, Any] | None:
        return None  # most file systems keep none

    def read_json(self, place: Destination) -> dict[str, Any] | None:
        """Return the JSON object that lies there, None when there is none.

        :raises PublishFailed: the store cannot be called.
        """
        with store_errors(place.uri):
            try:
                found = json.loads(self.read(place, 0, READ_BLOCK))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
                return None
            return found if isinstance(found, dict) else None

    def digest(self, place: Destination, size: int, copy: TempFile | None = None) -> str:
        """Take the SHA-256 of what lies there, as hexadecimal text.

        :param size: its length in bytes.
        :param copy: a file that the bytes are written to as well.
        :raises PublishFailed: it cannot be read.
        """
        digest = hashlib.sha256()
        for begin in range(0, size, READ_BLOCK):
            with store_errors(place.uri):
                block = self.read(place, begin, min(begin + READ_BLOCK, size))
            digest.update(block)
            if copy is not None:
                copy.write(block)
        return digest.hexdigest()

    def read(self, place: Destination, begin: int, end: int) -> bytes:
        """Return the bytes from *begin* up to *end* of what lies there; what raises is the store's own."""
        return bytes(self.patience.call(self.fs, "cat_file", place.path, begin, end))

    # -- putting -------------------------------------------------------------------------------------------

    def put(self, file: TempFile, place: Destination, upload: Upload) -> None:
        """Put the complete *file* under its final name, in one step.

        Where a store knows no condition, ``upload.exclusive`` is only as good as the look before; see
        :meth:`~.existing.Existing.after_bytes`.

        :raises DestinationExists: ``upload.exclusive``, and something lies there.
        :raises NoSpace: a local disk is full.
        :raises PublishFailed: the store did not take it; nothing of it is visible.
        """
        if file.size != upload.size:
            raise PublishFailed(f"the temporary file for {place.uri} was changed by somebody else")
        for failures in range(PUT_ATTEMPTS):
            try:
                self._put(file, place, upload)
            except MediaError:
                raise
            except Exception as error:
                if upload.exclusive and is_taken(error):
                    # A client that lost the reply to its own request, and sent it again, meets itself.
                    if not self._is_ours(place, upload):
                        raise exists(place) from None
                    return
                passes = (status_of(error) or 0) >= 500 and failures + 1 < PUT_ATTEMPTS
                if not passes:
                    raise store_error(place.uri, error) from error
                log.info("%s: the store failed (%s); trying again", place.uri, type(error).__name__)
            else:
                return

    def _put(self, file: TempFile, place: Destination, upload: Upload) -> None:
        there = place.sibling(f".{secrets.token_hex(4)}{TEMP_SUFFIX}")
        try:
            self.patience.call(self.fs, "makedirs", place.path.rpartition("/")[0], exist_ok=True)
            self.patience.call(self.fs, "put_file", str(file.path), there.path)
            self._check_size(there, upload)
            self.patience.call(self.fs, "mv", there.path, place.path)
        except BaseException:
            self._remove(there)
            raise

    def _check_size(self, place: Destination, upload: Upload) -> None:
        shown = self.stat(place)
        if shown != upload.size:
            fate = "it may be another writer's and was left"
            if self._is_ours(place, upload):
                self._remove(place)
                fate = "it was removed again"
            raise PublishFailed(f"{place.uri} showed {shown} bytes after {upload.size} were uploaded; {fate}")

    def _is_ours(self, place: Destination, upload: Upload) -> bool:
        """Whether what lies there is of this very upload, by its metadata."""
        return bool((self.metadata(place) or {}).get("upload", "") == upload.metadata.get("upload"))

    def _remove(self, place: Destination) -> None:
        # What went wrong before is the news, and what cannot be removed is under no name that is looked for.
        with contextlib.suppress(Exception):
            self._delete(place)

    def _delete(self, place: Destination) -> None:
        self.patience.call(self.fs, "rm_file", place.path, longest=self.options.cleanup_timeout)

    def discard(self, lines: Sequence[str]) -> Sequence[str]:
        """Discard what killed processes left in this store; see :func:`~.tempfile.sweep`.

        :returns: the lines that are about other stores.
        """
        return lines


class LocalStore(Store):
    """A disk of this machine."""

    def _stat(self, place: Destination) -> int | None:
        return os.stat(place.path).st_size

    def read(self, place: Destination, begin: int, end: int) -> bytes:
        with open(place.path, "rb") as file:
            file.seek(begin)
            return file.read(end - begin)

    def put(self, file: TempFile, place: Destination, upload: Upload) -> None:
        """Rename the file, or copy and rename it where the temporary directory is another disk."""
        if file.size != upload.size:
            raise PublishFailed(f"the temporary file for {place.uri} was changed by somebody else")
        try:
            self._put(file, place, upload)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise NoSpace(f"{place.uri}: no room for the file ({error.strerror}); free some") from error
            raise store_error(place.uri, error) from error

    def _put(self, file: TempFile, place: Destination, upload: Upload) -> None:
        place.directory.mkdir(parents=True, exist_ok=True)
        if os.stat(file.directory).st_dev != os.stat(place.directory).st_dev:
            with TempFile(place.directory) as near:
                near.need(upload.size)
                with open(file.path, "rb") as source, open(near.fd, "wb", closefd=False) as copy:
                    shutil.copyfileobj(source, copy, MIB)
                return self._put(near, place, upload)
        os.fsync(file.fd)
        if upload.exclusive:
            _link(file.path, place)
        else:
            os.replace(file.path, place.path)
        directory = os.open(place.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _link(path: Path, place: Destination) -> None:
    try:
        os.link(path, place.path)
    except FileExistsError:
        raise exists(place) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(place.path):
            raise exists(place) from None
        os.replace(path, place.path)


class ObjectStore(Store):
    """A store in which an object is visible only when it is complete."""

    def _arguments(self, upload: Upload) -> dict[str, Any]:
        """The arguments of ``put_file``: type, metadata, condition and how much memory to use."""
        return {}

    def _put(self, file: TempFile, place: Destination, upload: Upload) -> None:
        self.patience.call(self.fs, "put_file", str(file.path), place.path, **self._arguments(upload))
        self._check_size(place, upload)


class GcsStore(ObjectStore):
    """Google Cloud Storage, by gcsfs. What an interrupted upload sent stays, invisible, for a week."""

    def _arguments(self, upload: Upload) -> dict[str, Any]:
        return {
            "content_type": upload.content_type,
            "metadata": dict(upload.metadata),
            "chunksize": self.options.block // MIB * MIB or MIB,  # a multiple of 256 KiB
            **({"mode": "create"} if upload.exclusive else {}),
        }

    def _metadata(self, place: Destination) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.patience.call(self.fs, "info", place.path).get("metadata")
        return found


class AzureStore(GcsStore):
    """Azure Blob Storage, by adlfs. What an interrupted upload sent stays, invisible, for a week."""

    def _put(self, file: TempFile, place: Destination, upload: Upload) -> None:
        with open(file.path, "rb") as content:
            data = content if upload.size <= self.options.block else _Unsized(content)
            self.patience.run(self.fs, self._upload, place, data, upload)
        self._check_size(place, upload)

    async def _upload(self, place: Destination, data: Any, upload: Upload) -> None:
        """What adlfs's ``put_file`` does, which takes no metadata and reads a file of up to 64 MiB whole."""
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import ContentSettings

        container, name, _ = self.fs.split_path(place.path)
        async with self.fs.service_client.get_blob_client(container, name) as blob:
            try:
                await blob.upload_blob(
                    data,
                    overwrite=not upload.exclusive,
                    content_settings=ContentSettings(content_type=upload.content_type),
                    # The last is how adlfs tells a blob from a directory.
                    metadata={**upload.metadata, "is_directory": "false"},
                    max_concurrency=2,
                )
            except ResourceExistsError as error:
                raise FileExistsError(place.path) from error
        self.fs.invalidate_cache()


class _Unsized:
    """A file whose length cannot be asked: Azure's client then sends blocks of 4 MiB, not one request."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
