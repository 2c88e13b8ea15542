"""The digest of a file that is still growing, and its comparison with the one that a server announced."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial

from airflow_video_provider.media.errors import DamagedVideo
from airflow_video_provider.media.options import KIB, MIB
from airflow_video_provider.media.representation import announced_digest
from airflow_video_provider.media.tempfile import TempFile

DIGEST_STEP = MIB
"""Bytes that are waited for, as waking for less costs more than digesting it."""
BUFFER = 256 * KIB


class Digest:
    """The SHA-256 of a growing file, taken in order by a thread behind the connections that fill it.

    It reads the file back (from memory, as it was written just now), so the digest is of what lies on the
    disk, whichever connection brought it and in whatever order.

    :param fd: the file.
    :param watermark: tells how many bytes of its beginning are there for good.
    """

    def __init__(self, fd: int, watermark: Callable[[], int]) -> None:
        self._fd = fd
        self._watermark = watermark
        self._sha = hashlib.sha256()
        self._total: int | None = None
        self._cancelled = False
        self._moved = threading.Condition()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="video-digest", daemon=True)
        self._thread.start()

    def advance(self) -> None:
        """Look again how far the file has grown."""
        with self._moved:
            self._moved.notify()

    def _run(self) -> None:
        buffer = memoryview(bytearray(BUFFER))
        position = 0
        try:
            while not self._cancelled and position != self._total:
                with self._moved:
                    self._moved.wait_for(partial(self._has_work, position))
                if self._cancelled:
                    break
                ready = self._watermark() - position
                got = os.preadv(self._fd, [buffer[: min(ready, len(buffer))]], position)
                if got == 0 and ready > 0:
                    raise OSError(errno.EIO, "the temporary file is shorter than what was written to it")  # noqa: TRY301
                self._sha.update(buffer[:got])
                position += got
        except OSError as error:
            self._error = error

    def _has_work(self, position: int) -> bool:
        return self._cancelled or self._total is not None or self._watermark() - position >= DIGEST_STEP

    def finish(self, total: int) -> str:
        """Wait until *total* bytes have been digested and return the digest as hexadecimal text.

        :raises OSError: the file could not be read.
        """
        with self._moved:
            self._total = total
            self._moved.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._sha.hexdigest()

    def cancel(self) -> None:
        """End without a digest."""
        with self._moved:
            self._cancelled = True
            self._moved.notify()
        self._thread.join()


def compare(file: TempFile, sha256: str, headers: Mapping[str, str], shown: str) -> None:
    """Compare a file that has come whole with the digest that its server announced, where it did.

    :param sha256: of the file, as hexadecimal text.
    :param headers: of the answer that brought it, by lower-case name.
    :param shown: what a message calls it.
    :raises DamagedVideo: they differ.
    """
    announced = announced_digest(headers)
    if announced is None:
        return
    algorithm, expected = announced
    if (bytes.fromhex(sha256) if algorithm == "sha256" else _md5(file)) != expected:
        raise DamagedVideo(
            f"{shown}: the bytes that came do not have the {algorithm} digest that the server announced"
        )


def _md5(file: TempFile) -> bytes:
    with open(file.readable(), "rb") as content:
        return hashlib.file_digest(content, partial(hashlib.md5, usedforsecurity=False)).digest()
