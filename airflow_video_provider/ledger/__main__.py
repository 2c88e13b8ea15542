"""``python -m airflow_video_provider.ledger``: show and clean up what submissions are remembered.

It looks at Airflow's Variables, for which it needs what ``airflow variables list`` needs (the metadata
database), or at the directory of a ``ledger_path``. What the task state store of Airflow 3.3+ holds is shown
by Airflow's own pages, and removed with the task instance.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from airflow_video_provider.ledger.files import FileLedger
from airflow_video_provider.ledger.record import LedgerUnreadable, Submission
from airflow_video_provider.ledger.variables import VARIABLE_PREFIX, task_instance_of, variables_in_database
from airflow_video_provider.waiting import utc

DAY = 86_400.0


@dataclass(frozen=True)
class Entry:
    """What is remembered of one task instance.

    :param about: which task instance it belongs to, as far as its name or description says.
    :param submissions: None where it cannot be understood.
    """

    name: str
    about: str
    submissions: tuple[Submission, ...] | None
    delete: Callable[[], object]

    @property
    def begun_at(self) -> float | None:
        """Seconds since the epoch of the latest submission."""
        return max((s.begun_at for s in self.submissions or ()), default=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_video_provider.ledger", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument(
        "command", choices=("list", "prune"), help="prune deletes what is old, list shows all"
    )
    parser.add_argument("--ledger-path", metavar="URL", help="look there instead of at Airflow's Variables")
    parser.add_argument(
        "--older-than",
        type=_days,
        default=30.0,
        metavar="DAYS",
        help="what prune deletes, by the latest submission; default 30: gateways keep videos for 14 at most",
    )
    options = parser.parse_args(arguments)
    entries = _of_directory(options.ledger_path) if options.ledger_path else _of_variables()
    found = 0
    for entry in entries:
        if options.command == "list":
            print(_line(entry))
            found += 1
        elif entry.begun_at is not None and entry.begun_at < time.time() - options.older_than * DAY:
            entry.delete()
            print(f"deleted {_line(entry)}")
            found += 1
    print(f"{found} {'remembered' if options.command == 'list' else 'deleted'}", file=sys.stderr)
    return 0


def _days(text: str) -> float:
    """At least a day: what is younger may still run, and what is forgotten is paid for again."""
    days = float(text)
    if days < 1:
        raise argparse.ArgumentTypeError("must be at least 1: what is younger may still be under way")
    return days


def _line(entry: Entry) -> str:
    if entry.submissions is None:
        return f"{entry.name}  cannot be understood  {entry.about}"
    states = ", ".join(
        f"{s.video_id or 'no id'} {s.state} (generation {s.generation}, {s.model}, {utc(s.begun_at)})"
        for s in entry.submissions
    )
    return f"{entry.name}  {states or 'nothing'}  {entry.about}".rstrip()


def _of_variables() -> Iterator[Entry]:
    from airflow.models.variable import Variable

    def delete(keys: Sequence[str]) -> None:
        for key in keys:
            Variable.delete(key)

    of_one = itertools.groupby(variables_in_database(), key=lambda row: task_instance_of(row[0]))
    for name, rows in of_one:
        keys, submissions, descriptions = zip(*rows, strict=True)
        whole = None if None in submissions else tuple(s for each in submissions for s in each or ())
        yield Entry(f"{VARIABLE_PREFIX}{name}", descriptions[0], whole, partial(delete, keys))


def _of_directory(url: str) -> Iterator[Entry]:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    root = ObjectStoragePath(url)
    try:
        found = [path for path in root.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        if root.is_file():
            raise
        found = []  # an object store has no directory without a file in it
    for directory in sorted(found, key=str):
        of_list = FileLedger(directory)
        ledgers = [of_list, *map(of_list.item, of_list.items())]

        def delete(ledgers: Sequence[FileLedger] = ledgers) -> None:
            for ledger in ledgers:
                ledger.clear()

        try:
            submissions: tuple[Submission, ...] | None = tuple(s for each in ledgers for s in each.read())
        except LedgerUnreadable:
            submissions = None
        if submissions != ():
            yield Entry(directory.name, "", submissions, delete)


if __name__ == "__main__":
    sys.exit(main())
