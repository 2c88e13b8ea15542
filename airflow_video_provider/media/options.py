"""The policies and thresholds of a download, as one value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import timedelta
from numbers import Integral, Real
from typing import Any, Literal, TypedDict, get_args

from airflow_video_provider.media.errors import BadDestination

Check = Literal["structure", "packets", "frames"]
IfExists = Literal["skip", "overwrite", "fail"]

KIB, MIB, GIB = 2**10, 2**20, 2**30


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise ValueError, naming the argument, unless *value* is one of a Literal's *choices*."""
    if value not in get_args(choices):
        raise ValueError(f"{name}: {value!r} is none; allowed: {', '.join(get_args(choices))}")


def check_number(name: str, value: Any, *, whole: bool = False, zero: bool = False) -> None:
    """Raise ValueError, naming the argument, unless *value* is a finite number above 0.

    :param whole: whether it must be a whole one.
    :param zero: whether 0 will do.
    """
    is_one = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_one or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name}: {value!r} is no {_NUMBERS[whole, zero]}")


_NUMBERS = {
    (False, False): "number above 0",
    (False, True): "number from 0 on",
    (True, False): "whole number above 0",
    (True, True): "whole number from 0 on",
}

MAY_BE_ZERO = frozenset(
    {
        "backoff",
        "longest_backoff",
        "max_redirects",
        "max_refreshes",
        "progress_bytes",
        "min_rate",
        "share_from",
        "first_window",
        "window",
        "worth",
        "unfinished_after",
        "cleanup_timeout",
    }
)


@dataclass(frozen=True)
class DownloadOptions:
    """How a download behaves. Times in seconds, sizes in bytes.

    :raises ValueError: a value that is none, naming the field (of ``if_exists``: BadDestination).

    Policies:

    :param if_exists: ``skip`` (default): a file that is there and is this very video (by the store's
        metadata, a sidecar, the id in its name and its size, or its digest) is left and reported; another is
        an error. ``overwrite``: replaced, in one step. ``fail``: an error.
    :param check: how closely the file is looked at; see :func:`~.probe.probe_file`.
    :param max_bytes: the largest file that is taken; default 20 GiB.
    :param timeout: for everything, a timedelta or seconds; default 3600, None for no bound.
    :param stall_timeout: without :attr:`min_rate` for so long, a connection is dropped and resumed.
    :param connections: the most connections at a time; 1 turns parallel ranges off.
    :param attempts: failures in a row, without progress, after which a download is given up; also how often a
        file may be begun anew. The default outlasts a server's half minute of 502.
    :param backoff: the wait after the first failure; doubled after each, up to :attr:`longest_backoff`.
    :param verify: TLS certificates: True, False (not checked) or the path of a file of authorities.

    Of the requests:

    :param longest_backoff: the longest wait between two attempts that no server asked for.
    :param connect_timeout: for opening a connection.
    :param max_redirects: redirects that one request follows.
    :param max_refreshes: fresh links that are asked for without progress between them.
    :param read_size: taken from a socket at a time. The 64 KiB that httpcore asks for cost a third of the
        speed.
    :param progress_bytes: what counts as progress. Less would let a server that drops after each byte keep a
        download for ever.
    :param min_rate: bytes per second below which a connection counts as stalled.
    :param proof_bytes: at either end of what has come, what a fresh link to another version's name must
        repeat.

    Of parallel ranges:

    :param min_range: the smallest range that is asked for.
    :param max_range: the largest range, where several connections share a file.
    :param share_from: with less than this still to come, no connection is added.
    :param first_window: the time over which the first connection's rate is measured.
    :param window: the time over which a rate is measured after that.
    :param worth: a rest that would come sooner is left to the connections that there are.
    :param tick: the time between two progress reports and looks at the rate.

    Of stores:

    :param upload_threshold: from this size on, a file goes to S3 in parts, through boto3.
    :param upload_part: the size of such a part.
    :param upload_concurrency: parts of one file at a time; botocore reads each by the mebibyte.
    :param block: memory for a part that fsspec sends; two of them at a time where it sends several.
    :param unfinished_after: an unfinished upload to the same name that was begun so long ago is taken for
        abandoned, whoever began it, and discarded; default a day.
    :param cleanup_timeout: for what only tidies up, and must not keep an error from being raised.
    :param s3_transfer_config: a boto3 ``TransferConfig`` in place of the three sizes above.
    """

    if_exists: IfExists = "skip"
    check: Check = "packets"
    max_bytes: int = 20 * GIB
    timeout: timedelta | float | None = 3600.0
    stall_timeout: float = 30.0
    connections: int = 16
    attempts: int = 8
    backoff: float = 0.5
    verify: bool | str = True

    longest_backoff: float = 30.0
    connect_timeout: float = 15.0
    max_redirects: int = 5
    max_refreshes: int = 3
    read_size: int = 256 * KIB
    progress_bytes: int = 64 * KIB
    min_rate: int = 1024
    proof_bytes: int = MIB

    min_range: int = MIB
    max_range: int = 32 * MIB
    share_from: int = 8 * MIB
    first_window: float = 0.1
    window: float = 0.3
    worth: float = 0.8
    tick: float = 0.1

    upload_threshold: int = 64 * MIB
    upload_part: int = 16 * MIB
    upload_concurrency: int = 3
    block: int = 5 * MIB
    unfinished_after: float = 86_400.0
    cleanup_timeout: float = 15.0
    s3_transfer_config: Any = None

    def __post_init__(self) -> None:
        timeout = self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else self.timeout
        if timeout is not None:
            check_number("timeout", timeout)
        for one in fields(self):
            if one.type in ("int", "float"):
                value, zero = getattr(self, one.name), one.name in MAY_BE_ZERO
                check_number(one.name, value, whole=one.type == "int", zero=zero)
        if not isinstance(self.verify, bool | str):
            raise ValueError(f"verify: {self.verify!r} is neither True, False nor a path")
        check_choice("check", self.check, Check)
        try:
            check_choice("if_exists", self.if_exists, IfExists)
        except ValueError as error:
            raise BadDestination(str(error)) from None


class Policies(TypedDict, total=False):
    """The fields of :class:`DownloadOptions` that :func:`~.landing.download` takes by keyword."""

    if_exists: IfExists
    check: Check
    max_bytes: int
    timeout: timedelta | float | None
    stall_timeout: float
    connections: int
    attempts: int
    backoff: float
    verify: bool | str
