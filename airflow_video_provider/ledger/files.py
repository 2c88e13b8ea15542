"""Submissions in object storage: for who wants them where Airflow's own database is not."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_video_provider.ledger.record import (
    LedgerUnreadable,
    State,
    Submission,
    in_order,
    read_json,
    read_record,
    write_record,
)
from airflow_video_provider.ledger.stores import LedgerTaken

__all__ = ["FileLedger"]


@dataclass(frozen=True)
class FileLedger:
    """One small JSON file for each submission, in a directory of its own for each task instance.

    Two attempts never write the same file, so neither overwrites the other. Each lists the directory after it
    has written: of two that begin at the same moment the later one sees the other, or both do, and whoever
    does sends nothing. That needs no conditional write, which not every S3-compatible server has, but a
    listing that is up to date at once, which all object stores have.

    :param directory: an Airflow ``ObjectStoragePath``.
    """

    directory: Any
    forgets: str | None = None
    #: Of each submission, by nonce, where it is stored.
    _paths: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def where(self) -> str:
        """See :class:`~airflow_video_provider.ledger.stores.Ledger`."""
        return str(self.directory)

    @property
    def how_to_delete(self) -> str:
        """See :class:`~airflow_video_provider.ledger.stores.Ledger`."""
        return f"delete {self.where}"

    def read(self) -> tuple[Submission, ...]:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.read`."""
        return in_order(self._read(path) for path in files_in(self.directory))

    def _read(self, path: Any) -> Submission:
        try:
            (submission,) = read_record(read_json(path.fs.cat_file(path.path)))
        except ValueError as error:
            raise LedgerUnreadable(f"{path}: {error}") from None
        self._paths[submission.nonce] = path
        return submission

    def append(self, submission: Submission) -> None:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.append`."""
        path = self.directory / f"{submission.order:04d}-{submission.nonce}.json"
        path.fs.makedirs(path.fs._parent(path.path), exist_ok=True)
        _write(path, submission)
        self._paths[submission.nonce] = path
        others = [other for other in self.read() if other.nonce != submission.nonce]
        if any(other.order >= submission.order for other in others):
            self.update(replace(submission, state=State.WITHDRAWN))
            raise LedgerTaken(f"order {submission.order} was written by another attempt, too")

    def update(self, submission: Submission) -> None:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.update`."""
        if submission.nonce not in self._paths:
            self.read()
        path = self._paths.get(submission.nonce)
        if submission.state is State.WITHDRAWN:
            if path is not None:
                path.fs.rm_file(path.path)
        elif path is not None:
            _write(path, submission)
        else:
            _write(self.directory / f"{submission.order:04d}-{submission.nonce}.json", submission)

    def clear(self) -> None:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.clear`."""
        for path in files_in(self.directory):
            path.fs.rm_file(path.path)

    def after_success(self) -> None:
        """See :meth:`~airflow_video_provider.ledger.stores.Ledger.after_success`; the files stay."""


def files_in(directory: Any) -> list[Any]:
    """The files of one task instance, as the store has them now: filesystems cache listings."""
    fs = directory.fs
    fs.invalidate_cache(fs._parent(directory.path))
    fs.invalidate_cache(directory.path)
    try:
        names = fs.ls(directory.path, detail=False)
    except FileNotFoundError:
        return []
    files = {name.rstrip("/").rpartition("/")[2] for name in names}
    return [directory / name for name in sorted(files) if name.endswith(".json")]


def _write(path: Any, submission: Submission) -> None:
    text = json.dumps(write_record([submission])).encode()
    if path.protocol not in {"file", "local", ""}:
        path.fs.pipe_file(path.path, text)
        return
    # The local filesystem writes in place, and a crash would leave half a record.
    final = path.fs._strip_protocol(path.path)
    beside = f"{final}.{secrets.token_hex(4)}.new"
    try:
        with open(beside, "xb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, final)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
