"""Submissions in object storage: for who wants them where Airflow's own database is not."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_video_provider.ledger.record import Submission
from airflow_video_provider.ledger.stores import EntryLedger

__all__ = ["FileLedger"]

_ITEM = "item-"
_LOCAL = frozenset({"file", "local", ""})
#: They have no directories to make, and fsspec would make a missing bucket.
_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})


@dataclass(frozen=True)
class FileLedger(EntryLedger):
    """One small JSON file for each submission, in a directory of its own for each task instance.

    It needs no conditional write, which not every S3-compatible server has, but a listing that is up to date
    at once, which all object stores have.

    :param directory: an Airflow ``ObjectStoragePath``.
    """

    directory: Any
    forgets: str | None = None
    _names: dict[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def where(self) -> str:
        """See :class:`~airflow_video_provider.ledger.stores.Ledger`."""
        return str(self.directory)

    @property
    def how_to_delete(self) -> str:
        """See :class:`~airflow_video_provider.ledger.stores.Ledger`."""
        return f"delete {self.where}"

    def _name_for(self, submission: Submission) -> str:
        return f"{submission.order:04d}-{submission.nonce}.json"

    def _listed(self) -> list[str]:
        fs, directory = self.directory.fs, self.directory.path
        # Filesystems cache listings.
        fs.invalidate_cache(fs._parent(directory))
        fs.invalidate_cache(directory)
        try:
            paths = fs.ls(directory, detail=False)
        except FileNotFoundError:
            return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})

    def _entries(self) -> Iterable[tuple[str, str | bytes]]:
        fs, directory = self.directory.fs, self.directory.path
        for name in self._listed():
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError):  # withdrawn since it was listed
                    yield name, fs.cat_file(f"{directory.rstrip('/')}/{name}")

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        fs, protocol = path.fs, path.protocol
        if protocol not in _OBJECTS:
            fs.makedirs(fs._parent(path.path), exist_ok=True)
        if protocol in _LOCAL:
            _replace(fs._strip_protocol(path.path), text)
        else:
            fs.pipe_file(path.path, text.encode())

    def _remove(self, name: str) -> None:
        path = self.directory / name
        with contextlib.suppress(FileNotFoundError):
            path.fs.rm_file(path.path)

    def after_success(self) -> None:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.after_success`; the files stay."""

    def item(self, key: str) -> FileLedger:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.item`: a directory beside the files."""
        return replace(self, directory=self.directory / f"{_ITEM}{key}", _names={})

    def items(self) -> tuple[str, ...]:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.items`."""
        return tuple(name.removeprefix(_ITEM) for name in self._listed() if name.startswith(_ITEM))

    def note_items(self, keys: Sequence[str]) -> None:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.note_items`; the listing tells them."""


def _replace(path: str, text: str) -> None:
    """The local filesystem writes in place, and a crash would leave half a record."""
    beside = f"{path}.{secrets.token_hex(4)}.new"
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
