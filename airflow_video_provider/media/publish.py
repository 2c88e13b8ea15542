"""A complete local file -> its final name, in one step that nobody can see half of.

Local disks: a temporary file in the same directory, fsync, rename. Object stores: ``put_file`` of the
complete local file, never an open fsspec handle, because leaving such a handle through an exception commits
what was written so far. Other remote file systems (sftp, smb, hdfs...): upload under a temporary name, then
move.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, unquote

from airflow_video_provider.media.asking import CLEANUP_TIME, ask, run
from airflow_video_provider.media.errors import (
    BadDestination,
    DestinationExists,
    MediaError,
    NoSpace,
    PublishFailed,
    excerpt,
    printable,
)

if TYPE_CHECKING:
    from airflow_video_provider.media.upload import PartsUpload

log = logging.getLogger(__name__)

TEMP_PREFIX = ".video-download-"
TEMP_SUFFIX = ".part"

UPLOAD_PART = 8 * 2**20
UPLOAD_CONCURRENCY = 4
MAX_UPLOAD_PARTS = 10_000

LOCAL = frozenset({"file", "local"})
OBJECT_STORES = frozenset(
    {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs", "oci", "oss", "r2"}
)
S3 = frozenset({"s3", "s3a"})
GCS = frozenset({"gs", "gcs"})
AZURE = frozenset({"abfs", "abfss", "az"})

REFUSED = frozenset({400, 401, 403, 404})
"""Statuses by which a store says that it will not do it another time either."""


# ------------------------------------------------------------------ where to


@dataclass(frozen=True)
class Target:
    """A final name: an fsspec file system, its own path in it, and the URI that people know it by.

    :ivar deadline: the monotonic time at which a store that does not answer is given up; None for no bound.
    """

    fs: Any
    path: str
    uri: str
    deadline: float | None = None

    @classmethod
    def of(cls, destination: Any) -> Target:
        """Read a destination: a URL, a local path, or an fsspec / universal-pathlib path object.

        :raises BadDestination: it is none of these, or its file system is not installed.
        """
        fs, path = getattr(destination, "fs", None), getattr(destination, "path", None)
        if fs is not None and isinstance(path, str):
            target = cls(fs, path, str(destination))
            return _local(path) if target.is_local else target
        try:
            text = os.fspath(destination)
        except TypeError:
            raise BadDestination(f"the destination {destination!r} is neither a URL nor a path") from None
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        if "://" not in text:
            return _local(text)
        import fsspec

        try:
            fs, path = fsspec.core.url_to_fs(text)
        except (ValueError, ImportError) as error:
            raise BadDestination(
                f"the destination {printable(text)} cannot be used: {excerpt(str(error))}"
            ) from None
        target = cls(fs, path, text)
        return _local(path, slash=text.endswith("/")) if target.is_local else target

    def ask(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the file system, until the deadline at the latest."""
        return ask(self.fs, method, *args, timeout=self.time_left(), **kwargs)

    def time_left(self) -> float | None:
        """Seconds until the deadline, and a tenth of one when it is over; None without a deadline."""
        return None if self.deadline is None else max(0.1, self.deadline - time.monotonic())

    @property
    def protocols(self) -> frozenset[str]:
        """The names of the file system."""
        protocol = getattr(self.fs, "protocol", ())
        return frozenset((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def is_local(self) -> bool:
        """Whether the destination is on a disk of this machine."""
        return bool(self.protocols & LOCAL)

    @property
    def is_directory_name(self) -> bool:
        """Whether the name ends like a directory's."""
        return self.uri.endswith(("/", os.sep)) or not self.path.strip("/")

    def child(self, name: str) -> Target:
        """Return the target *name* in this directory."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}", uri=f"{self.uri.rstrip('/')}/{name}")

    def beside(self, suffix: str) -> Target:
        """Return the target whose name has *suffix* after this one's."""
        return replace(self, path=self.path + suffix, uri=self.uri + suffix)

    @property
    def directory(self) -> Path:
        """The directory of a local target."""
        return Path(self.path).parent

    def size(self) -> int | None:
        """Return the size in bytes of what lies there now, None when nothing does.

        :raises PublishFailed: the store cannot be asked.
        """
        if self.is_local:
            try:
                return os.stat(self.path).st_size
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            self._forget_listing()
            found = self.ask("info", self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            raise store_error(self, error) from error
        if found.get("type") == "directory":
            return None
        return int(found.get("size") or 0)

    def _forget_listing(self) -> None:
        for path in (self.path, self.path.rpartition("/")[0]):
            self.fs.invalidate_cache(path)

    def notes(self) -> dict[str, Any] | None:
        """Return what :func:`publish` noted about the object that lies there, None when there is no note."""
        if self.is_local:
            return None
        try:
            if self.protocols & S3:
                found = self.ask("metadata", self.path)
            else:
                found = self.ask("info", self.path).get("metadata") or {}
            return {
                "video_id": unquote(found["videoid"]),
                "sha256": found["sha256"],
                **json.loads(found["facts"]),
            }
        except Exception:
            return None  # whatever lies there, it is nothing that we noted

    def read_json(self) -> dict[str, Any] | None:
        """Return the JSON object that lies there, None when there is none."""
        try:
            found = json.loads(
                Path(self.path).read_bytes() if self.is_local else self.ask("cat_file", self.path)
            )
        except Exception:
            return None
        return found if isinstance(found, dict) else None

    def sha256(self, copy: int | None = None) -> str:
        """Digest what lies there.

        :param copy: a file descriptor that the bytes are written to as well.
        :raises PublishFailed: it cannot be read.
        """
        digest = hashlib.sha256()
        try:
            opened = open(self.path, "rb") if self.is_local else self.fs.open(self.path, "rb")  # noqa: SIM115
            with opened as file:
                while block := file.read(2**20):
                    digest.update(block)
                    if copy is not None:
                        os.write(copy, block)
        except Exception as error:
            raise store_error(self, error) from error
        return digest.hexdigest()


def _local(path: str, *, slash: bool = False) -> Target:
    import fsspec

    full = os.path.abspath(path)
    slash = slash or path.endswith(("/", os.sep))
    return Target(fsspec.filesystem("file"), full, Path(full).as_uri() + ("/" if slash else ""))


# ------------------------------------------------------------------ temporary files


class Spool:
    """A temporary file that is gone when its ``with`` block ends, or at the next start of a killed process.

    The file is locked while its process lives, so that :meth:`sweep` can tell a leftover from another
    download's file without guessing by age.

    :param directory: where it lies; made when missing.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.path, self.fd = self._create()
        except OSError as error:
            raise BadDestination(
                f"no temporary file can be made in {self.directory}: {error.strerror or error}"
            ) from error

    def _create(self) -> tuple[Path, int]:
        while True:
            path = self.directory / f"{TEMP_PREFIX}{secrets.token_hex(8)}{TEMP_SUFFIX}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):  # some network mounts know no locks
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    return path, fd
            except FileNotFoundError:
                pass
            os.close(fd)  # a sweep came between creating and locking

    @classmethod
    def sweep(cls, directory: str | os.PathLike[str]) -> int:
        """Remove what killed processes left in *directory*; return how many files that were."""
        removed = 0
        try:
            names = [e.name for e in os.scandir(directory) if e.name.startswith(TEMP_PREFIX)]
        except OSError:
            return 0
        for name in names:
            if not name.endswith(TEMP_SUFFIX):
                continue
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)
                    removed += 1
                finally:
                    os.close(fd)
        return removed

    def need(self, size: int) -> None:
        """Check that *size* bytes have room.

        :raises NoSpace: they have not.
        """
        free = shutil.disk_usage(self.directory).free
        if size > free:
            raise NoSpace(
                f"{self.directory} has {free} bytes free, the file needs {size}; free some, or set "
                "temp_dir to a larger disk"
            )

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file, if it still has its temporary name."""
        if self.fd < 0:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                os.unlink(self.path)
        os.close(self.fd)
        self.fd = -1


def spool_directory(target: Target, temp_dir: str | os.PathLike[str] | None) -> str:
    """Where the bytes of *target* are gathered: beside a local target, else in the temporary directory."""
    if temp_dir is not None:
        return os.fspath(temp_dir)
    return str(target.directory) if target.is_local else tempfile.gettempdir()


# ------------------------------------------------------------------ publishing


def publish(
    spool: Spool,
    target: Target,
    *,
    size: int,
    exclusive: bool,
    content_type: str,
    notes: Mapping[str, Any],
    early: PartsUpload | None = None,
) -> None:
    """Put the complete file in *spool* under its final name.

    :param size: its length in bytes; the store must show the same afterwards.
    :param exclusive: never replace what lies there.
    :param content_type: noted where the store keeps such a thing.
    :param notes: facts that the store keeps with the object (``video_id``, ``sha256`` and others).
    :param early: an upload of this very file that is under way (see :func:`begin_early`), to be finished.
    :raises DestinationExists: *exclusive*, and something lies there.
    :raises PublishFailed: the store did not take it; nothing of it is visible.
    """
    if os.fstat(spool.fd).st_size != size:
        raise PublishFailed(f"the temporary file for {target.uri} was changed by somebody else")
    if target.is_local:
        _publish_local(spool, target, exclusive=exclusive)
    else:
        _publish_remote(
            spool,
            target,
            size=size,
            exclusive=exclusive,
            content_type=content_type,
            notes=notes,
            early=early,
        )


def _publish_local(spool: Spool, target: Target, *, exclusive: bool) -> None:
    try:
        target.directory.mkdir(parents=True, exist_ok=True)
        if os.stat(spool.directory).st_dev != os.stat(target.directory).st_dev:
            with Spool(target.directory) as near:
                near.need(os.fstat(spool.fd).st_size)
                with open(spool.path, "rb") as source, open(near.fd, "wb", closefd=False) as copy:
                    shutil.copyfileobj(source, copy, 2**20)
                return _publish_local(near, target, exclusive=exclusive)
        os.fsync(spool.fd)
        if exclusive:
            _link(spool.path, target)
        else:
            os.replace(spool.path, target.path)
        directory = os.open(target.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace(f"{target.uri}: no room for the file ({error.strerror}); free some") from error
        raise store_error(target, error) from error


def _link(path: Path, target: Target) -> None:
    try:
        os.link(path, target.path)
    except FileExistsError:
        raise exists(target) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(target.path):
            raise exists(target) from None
        os.replace(path, target.path)


def exists(target: Target, more: str = "") -> DestinationExists:
    """The error for a final name that is taken."""
    return DestinationExists(
        f"{target.uri} exists already{more}; it was left as it is. Use if_exists='overwrite' to replace it, "
        "or another name."
    )


def _publish_remote(
    spool: Spool,
    target: Target,
    *,
    size: int,
    exclusive: bool,
    content_type: str,
    notes: Mapping[str, Any],
    early: PartsUpload | None,
) -> None:
    if exclusive and target.size() is not None:
        raise exists(target)
    atomic = bool(target.protocols & OBJECT_STORES)
    there = target if atomic else target.beside(f".{secrets.token_hex(4)}{TEMP_SUFFIX}")
    arguments = _arguments(there, size, content_type, notes) if atomic else {}
    if early is not None and not early.fits(target.path, size, content_type):
        early.abort()
        early = None
    if early is None:
        abort_uploads(target)
    try:
        if not atomic:
            target.fs.makedirs(target.path.rpartition("/")[0], exist_ok=True)
        if not _upload_parts(there, str(spool.path), arguments, early):
            _put(there, str(spool.path), arguments)
            _check_size(there, size)
        if not atomic:
            target.fs.mv(there.path, target.path)
    except BaseException as error:
        abort_uploads(target)
        if not atomic:
            with contextlib.suppress(Exception):
                there.fs.rm_file(there.path)
        if isinstance(error, MediaError) or not isinstance(error, Exception):
            raise
        raise store_error(target, error) from error


def _arguments(target: Target, size: int, content_type: str, notes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``put_file`` by which each store is told type, notes and how much memory to use."""
    facts = {key: value for key, value in notes.items() if key not in ("video_id", "sha256")}
    noted = {
        "videoid": quote(str(notes.get("video_id") or "")),
        "sha256": str(notes.get("sha256") or ""),
        "facts": json.dumps(facts, separators=(",", ":")),
    }
    part = max(UPLOAD_PART, -(-size // MAX_UPLOAD_PARTS))
    if target.protocols & S3:
        return {
            "ContentType": content_type,
            "Metadata": noted,
            "chunksize": part,
            "max_concurrency": UPLOAD_CONCURRENCY,
        }
    if target.protocols & GCS:
        return {"content_type": content_type, "metadata": noted, "chunksize": UPLOAD_PART}
    if target.protocols & AZURE:
        from azure.storage.blob import ContentSettings

        return {
            "content_settings": ContentSettings(content_type=content_type),
            # The second is how adlfs tells a blob from a directory.
            "metadata": {**noted, "is_directory": "false"},
            "max_concurrency": UPLOAD_CONCURRENCY,
        }
    return {}


def _check_size(target: Target, size: int) -> None:
    shown = target.size()
    if shown != size:
        with contextlib.suppress(Exception):
            target.fs.rm_file(target.path)
        raise PublishFailed(
            f"{target.uri} showed {shown} bytes after {size} were uploaded; it was removed again"
        )


def begin_early(
    target: Target,
    path: str,
    *,
    size: int,
    content_type: str,
    notes: Mapping[str, Any],
    ready: Callable[[], int],
) -> PartsUpload | None:
    """Begin to upload a large file while it is still coming; None where that brings little or cannot be done.

    :param path: the local file that is growing.
    :param size: the length that it will have.
    :param notes: what can be said of the file already.
    :param ready: tells how many bytes of its beginning are there for good.
    """
    if not _takes_parts(target):
        return None
    from airflow_video_provider.media import upload

    if size < upload.EARLY:
        return None
    abort_uploads(target)
    try:
        return _parts_upload(target, path, size, _arguments(target, size, content_type, notes), ready)
    except Exception as error:
        # The store is asked again when the file is complete, and what it says then is the verdict.
        log.debug("%s: uploading when the file is complete (%s)", target.uri, type(error).__name__)
        return None


def _takes_parts(target: Target) -> bool:
    return bool(target.protocols & S3) and hasattr(target.fs, "call_s3")


def _parts_upload(
    target: Target,
    path: str,
    size: int,
    arguments: Mapping[str, Any],
    ready: Callable[[], int] | None = None,
) -> PartsUpload:
    from airflow_video_provider.media.upload import PartsUpload

    return PartsUpload(
        target,
        path,
        size,
        arguments={name: arguments[name] for name in ("ContentType", "Metadata")},
        concurrency=UPLOAD_CONCURRENCY,
        ready=ready,
    )


def _upload_parts(target: Target, path: str, arguments: Mapping[str, Any], early: PartsUpload | None) -> bool:
    """Upload in the way that is fastest where it works; False: it does not, and nothing was left."""
    if not _takes_parts(target):
        return False
    from airflow_video_provider.media.upload import NotPossible

    try:
        upload = early or _parts_upload(target, path, os.path.getsize(path), arguments)
        upload.finish()
    except NotPossible as reason:
        log.debug("%s: uploading with put_file (%s)", target.uri, reason.__cause__ or "no signed parts")
        return False
    return True


def _put(target: Target, path: str, arguments: Mapping[str, Any]) -> None:
    """Run ``put_file`` so that an interrupted caller also ends the upload, which runs in another thread."""
    fs = target.fs
    if not getattr(fs, "async_impl", False):
        fs.put_file(path, target.path, **arguments)
        return
    try:
        if target.protocols & AZURE:
            with open(path, "rb") as file:
                data = file if os.path.getsize(path) <= UPLOAD_PART else _Unsized(file)
                run(fs, _put_azure(target, data, arguments), target.time_left())
        else:
            run(fs, fs._put_file(path, target.path, **arguments), target.time_left())
    except TimeoutError as error:
        raise PublishFailed(
            f"{target.uri}: not uploaded within the timeout; the upload was stopped"
        ) from error


async def _put_azure(target: Target, data: Any, arguments: Mapping[str, Any]) -> None:
    """What adlfs's ``put_file`` does, which takes no metadata and reads a file of up to 64 MiB whole."""
    container, name, _ = target.fs.split_path(target.path)
    async with target.fs.service_client.get_blob_client(container, name) as blob:
        await blob.upload_blob(data, overwrite=True, **arguments)
    target.fs.invalidate_cache()


class _Unsized:
    """A file whose length cannot be asked: Azure's client then sends blocks of 4 MiB, not one request."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read


def abort_uploads(target: Target) -> None:
    """Abort the unfinished multipart uploads of this very name: a failed one's, or a killed process's.

    Unfinished parts are invisible and are paid for until somebody aborts them.
    """
    if not target.protocols & S3:
        return
    try:
        bucket, key, _ = target.fs.split_path(target.path)
        found = ask(
            target.fs, "call_s3", "list_multipart_uploads", Bucket=bucket, Prefix=key, timeout=CLEANUP_TIME
        )
        for upload in found.get("Uploads") or ():
            if upload["Key"] == key:
                ask(
                    target.fs,
                    "call_s3",
                    "abort_multipart_upload",
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload["UploadId"],
                    timeout=CLEANUP_TIME,
                )
    except Exception as error:
        log.debug("%s: unfinished uploads cannot be listed (%s)", target.uri, type(error).__name__)


def store_error(target: Target, error: Exception) -> MediaError:
    """Turn what a store raised into one of ours."""
    if isinstance(error, MediaError):
        return error
    said = excerpt(str(error), 300)
    if isinstance(error, TimeoutError) and not said:
        said = "no answer within the timeout"
    failed = PublishFailed(
        f"{target.uri}: the destination failed: {type(error).__name__}: {said.rstrip('.')}. Nothing is "
        "visible under the final name."
    )
    status = getattr(error, "status_code", getattr(error, "code", None))  # Azure's and gcsfs's exceptions
    failed.retryable = not (
        isinstance(error, PermissionError | FileNotFoundError | IsADirectoryError)
        or status in REFUSED
        or str(error).startswith("Forbidden")  # gcsfs's OSError for a 403
    )
    return failed
