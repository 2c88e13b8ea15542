"""The local file that bytes are gathered in, and what a killed process left of its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from airflow_video_provider.media.errors import BadDestination, MediaError, NoSpace, PublishFailed

TEMP_PREFIX = ".video-download-"
TEMP_SUFFIX = ".part"
JOURNAL_SUFFIX = ".uploads"

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class TempFile:
    """A temporary file that is gone when its ``with`` block ends, or at the next start of a killed process.

    The file is locked while its process lives, so that :func:`sweep` can tell a leftover from another
    download's file without guessing by age.

    :param directory: where it lies; made when missing.
    :raises BadDestination: it cannot be made there.
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
            try:
                _lock(fd)
                if os.path.samestat(os.stat(path), os.fstat(fd)):
                    return path, fd
            except (BlockingIOError, FileNotFoundError):
                pass
            os.close(fd)  # a sweep came between creating and locking: it removes the file, or has

    @property
    def size(self) -> int:
        """The length in bytes."""
        return os.fstat(self.fd).st_size

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

    def write(self, data: bytes) -> None:
        """Append all of *data*: a disk that fills up takes a part of it, and refuses the next write only.

        :raises NoSpace: it cannot be written.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            raise disk_error(error) from error

    def readable(self) -> str:
        """The path, for who reads the file by its name.

        :raises PublishFailed: it is gone, or another file has its name.
        """
        try:
            if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                return str(self.path)
        except FileNotFoundError:
            pass
        raise PublishFailed(
            f"the temporary file was removed from {self.directory} by somebody else; set temp_dir to a "
            "directory that nothing tidies up"
        )

    def remember(self, line: str) -> None:
        """Write down what was begun elsewhere with this file, for the :func:`sweep` after a kill."""
        with open(_journal_of(self.path), "a", encoding="utf-8") as journal:
            journal.write(line + "\n")

    def __enter__(self) -> TempFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file, if it still has its temporary name, and what it remembers."""
        if self.fd < 0:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.unlink(_journal_of(self.path))
        os.close(self.fd)
        self.fd = -1


def _lock(fd: int) -> None:
    """Lock a file, where the mount knows locks: some network mounts do not.

    :raises BlockingIOError: somebody else holds it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def sweep(directory: str | os.PathLike[str], discard: Callable[[Sequence[str]], Sequence[str]]) -> None:
    """Remove what killed processes left in *directory*.

    :param discard: discards what their files remembered, see :meth:`TempFile.remember`, and returns the lines
        of other stores. Of these the journal stays, beside an empty file, for a download to such a store.
    """
    try:
        names = {entry.name for entry in os.scandir(directory) if entry.name.startswith(TEMP_PREFIX)}
    except OSError:
        return
    for name in sorted(names):
        if not name.endswith(TEMP_SUFFIX):
            continue
        path = Path(directory, name)
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(fd, 0)
                journal = _journal_of(path)
                if journal.name in names:
                    lines = journal.read_text(encoding="utf-8", errors="replace").splitlines()
                    others = discard(lines)
                    if others:
                        journal.write_text("".join(f"{line}\n" for line in others), encoding="utf-8")
                        continue
                    journal.unlink()
                os.unlink(path)
            finally:
                os.close(fd)


def _journal_of(path: Path) -> Path:
    return path.with_suffix(JOURNAL_SUFFIX)


def disk_error(error: OSError) -> MediaError:
    """Turn an error of the local disk into one of ours."""
    if error.errno in FULL_DISK:
        return NoSpace(
            f"no room for the file ({os.strerror(error.errno or 0)}); free some, or set temp_dir to a larger "
            "disk"
        )
    return NoSpace(f"the temporary file cannot be written: {error.strerror or error}")
