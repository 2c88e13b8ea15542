"""A file's place on the web: its link, who may be told credentials there, and what its server says of it.

Asks for the file or a range of it and does what a :class:`~.representation.Setback` leaves to do. What comes
is written by :mod:`.transfer`.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Self

from airflow_video_provider.http_common import doubled
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.errors import (
    Cancelled,
    DownloadTimeout,
    LinkExpired,
    MediaError,
    SourceChanged,
    TooLarge,
    TransferBroken,
)
from airflow_video_provider.media.http import Client, NetworkFault, Response, Url
from airflow_video_provider.media.options import DownloadOptions
from airflow_video_provider.media.ranges import Range, RangePlan
from airflow_video_provider.media.representation import (
    Next,
    Representation,
    Setback,
    content_range,
    expiry_of,
    judge_first,
    judge_range,
    judge_status,
    validator_of,
)

log = logging.getLogger(__name__)

HEAD_SIZE = 512
"""Bytes of the beginning that are waited for before a file is judged: enough for every known signature."""
ERROR_SIZE = 4096
CANCEL_POLL, MIN_WATCH = 0.5, 0.05
"""Seconds after which it is looked, at most and at least, whether the caller wants no more."""


class Source:
    """The file at a URL. As a context manager it breaks its connections when the deadline is over, and when
    the caller cancels.

    :param client: sends the requests.
    :param url: where the file is.
    :param options: bounds and thresholds.
    :param deadline: of the whole download.
    :param cancel: stops the download when it is set.
    :param fresh_url: returns another URL of the same file, or None when there is none. Called in the thread
        that calls :meth:`open` and :meth:`get_over`.
    :raises BadURL: *url* cannot be fetched.
    :ivar representation: what the first answer said, once :meth:`open` has returned.
    :ivar plan: which bytes of it have come and which are still to come.
    """

    def __init__(
        self,
        client: Client,
        url: str,
        *,
        options: DownloadOptions,
        deadline: Deadline,
        cancel: threading.Event,
        fresh_url: Callable[[], str | None] | None = None,
    ) -> None:
        self.client = client
        self.options = options
        self.deadline = deadline
        self.cancel = cancel
        self.plan = RangePlan(None, options)
        self._given = self._url = Url.parse(url)
        self._representation: Representation | None = None
        self._fresh_url = fresh_url
        self._trusted = True
        self._use_ranges = True
        self._is_fresh = False
        self._failures = self._refreshes = self._beginnings = 0
        self._received_before = 0
        self._left = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="video-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def _watch(self) -> None:
        """Break what waits for an answer: a server may be silent, or send its headers byte by byte."""
        while not self._left.wait(max(MIN_WATCH, self.deadline.cap(CANCEL_POLL))):
            if self.cancel.is_set() or self.deadline.passed:
                self.client.abort()

    @property
    def representation(self) -> Representation:
        """What the first answer says about the file."""
        if self._representation is None:
            raise RuntimeError("the source is not open")
        return self._representation

    # -- requests ------------------------------------------------------------------------------------------

    def open(self) -> Response:
        """Ask for the whole file, as often as it takes; :attr:`plan` begins at its first byte.

        :returns: an answer whose first :data:`HEAD_SIZE` bytes have come.
        :raises MediaError: it is refused, or not to be had.
        """
        self._freshen_if_expired()
        while True:
            self.check()
            answer = self._request_first()
            if not isinstance(answer, Setback):
                self._failures = 0
                self.plan = RangePlan(self.representation.total, self.options)
                return answer
            self.get_over(answer)

    def _request_first(self) -> Response | Setback:
        answer = self._get({"range": "bytes=0-"} if self._use_ranges else {})
        if isinstance(answer, Setback):
            return answer
        judged = judge_first(answer.url, answer.status, answer.headers, with_range=self._use_ranges)
        try:
            if isinstance(judged, Representation):
                self.check_size(judged.total)
                answer.peek(HEAD_SIZE, self.options.stall_timeout)
        except NetworkFault as fault:
            judged = _later(fault)
        except BaseException:
            answer.close()
            raise
        if isinstance(judged, Setback):
            answer.close()
            return judged
        self._representation = judged
        self._url, self._trusted = answer.url, answer.trusted
        return answer

    def request_range(self, part: Range) -> Response | Setback:
        """Ask for a range of the version that is known, and believe nothing about the answer."""
        # Taken once: another connection may take over the end of this range while the answer is on its way.
        begin, end = part.position, part.end
        last = "" if end is None else end - 1
        known = self.representation
        answer = self._get({"range": f"bytes={begin}-{last}", "if-range": known.validator or ""})
        if isinstance(answer, Setback):
            return answer
        setback = judge_range(known, answer.status, answer.headers, begin, end)
        if setback is not None:
            answer.close()
            return setback
        return answer

    def _get(self, extra: dict[str, str]) -> Response | Setback:
        """Send one GET; what is neither 200 nor 206 nor 416 comes back as a setback."""
        try:
            response = self.client.get(self._url, extra, trusted=self._trusted)
        except NetworkFault as fault:
            return _later(fault)
        if response.status == 416:
            return response
        text = ""
        if response.status not in (200, 206):
            text = response.read(ERROR_SIZE, self.options.stall_timeout).decode("utf-8", "replace")
        setback = judge_status(response.url, response.status, response.headers, text, datetime.now(UTC))
        if setback is None:
            return response
        response.close()
        return setback

    # -- after a setback -----------------------------------------------------------------------------------

    def get_over(self, setback: Setback) -> None:
        """Pause, or take a fresh link, so that the file can be asked for again.

        :raises MediaError: nothing is left to do.
        """
        self.check()
        received = self.plan.received
        if received - self._received_before >= self.options.progress_bytes:
            self._failures = self._refreshes = 0
        self._received_before = received
        if setback.next is Next.FRESH_LINK:
            self._freshen(setback)
        elif setback.next is Next.ANEW:
            self._count_beginning(setback)
        elif setback.next is Next.LATER:
            self._wait(setback)
        else:
            raise setback.error or self.broken(setback)

    def _wait(self, setback: Setback) -> None:
        self._failures += 1
        pause = self.pause_after(setback, self._failures)
        if pause is None:
            raise setback.error or self.broken(setback)
        self._pause(pause)

    def _freshen(self, setback: Setback) -> None:
        """Replace the link: by the URL that redirected here, else by asking the caller for another one."""
        self._refreshes += 1
        self._trusted = self._is_fresh = True
        if self._url is not self._given and self._refreshes == 1:
            self._url = self._given
            return
        asked = self._fresh_url is not None and self._refreshes <= self.options.max_refreshes
        url = self._fresh_url() if self._fresh_url is not None and asked else None
        missing = isinstance(setback.error, LinkExpired) and setback.error.status_code == 404
        if missing and (url is None or Url.parse(url).text == self._given.text):
            # Right after its completion a file may not be there yet, at a gateway or at a CDN's edge.
            self._url = self._given
            self._wait(setback)
        elif url is None:
            raise setback.error or self.broken(setback)
        else:
            log.info("%s; going on with a fresh link.", setback.reason)
            self._given = self._url = Url.parse(url)

    def _freshen_if_expired(self) -> None:
        expires = expiry_of(self._given.text)
        if expires is None or expires > time.time() or self._fresh_url is None:
            return
        url = self._fresh_url()
        if url is not None:
            log.info("The link %s has expired; going on with a fresh one.", self._given)
            self._given = self._url = Url.parse(url)

    def _count_beginning(self, setback: Setback) -> None:
        self._beginnings += 1
        if setback.ranges_lie:
            self._use_ranges = False
        if self._beginnings >= self.options.attempts:
            raise (TransferBroken if setback.lost else SourceChanged)(
                f"{self._url} was begun {self._beginnings} times and could not be read in one piece: "
                f"{setback.reason}. Nothing was put together from different answers."
            )
        log.info("%s: %s; beginning anew.", self._url, setback.reason)
        self._pause(self._backoff(self._beginnings))

    def is_renamed(self, fd: int) -> bool:
        """Whether a fresh link, under another version's name, leads to the bytes that are there already.

        Another store or edge may name the same file's version otherwise. Its length must be the same, and so
        must the first and the latest ``options.proof_bytes`` of what is there. Its name holds from then on.

        :param fd: the local file.
        """
        if not self._is_fresh or not self.representation.can_resume:
            return False
        self._is_fresh = False
        settled, size = self.plan.watermark, self.options.proof_bytes
        names = {
            self._name_of_same_bytes(fd, begin, min(begin + size, settled))
            for begin in {0, max(0, settled - size)}
        }
        name = names.pop()
        if name is None or names:
            return False
        self._representation = replace(self.representation, validator=name)
        return True

    def _name_of_same_bytes(self, fd: int, begin: int, end: int) -> str | None:
        if begin >= end:
            return None
        response = self._get({"range": f"bytes={begin}-{end - 1}"})
        if isinstance(response, Setback):
            return None
        with response:
            span = (begin, end - 1, self.representation.total)
            if response.status != 206 or content_range(response.headers) != span:
                return None
            bytes_there = response.read(end - begin, self.options.stall_timeout)
            return validator_of(response.headers) if bytes_there == os.pread(fd, end - begin, begin) else None

    # -- bounds --------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise when the time for the whole is over, or the caller wants no more.

        :raises Cancelled: the caller set ``cancel``.
        :raises DownloadTimeout: the deadline has passed.
        """
        if self.cancel.is_set():
            raise Cancelled(self._so_far("stopped by the caller"))
        if self.deadline.passed:
            raise DownloadTimeout(
                self._so_far(f"not finished within the timeout of {self.deadline.timeout:g} s")
            )

    def check_size(self, size: int | None) -> None:
        """Raise TooLarge when *size* is more than is taken."""
        if size is not None and size > self.options.max_bytes:
            raise TooLarge(
                f"{self._url} holds at least {size} bytes, more than max_bytes={self.options.max_bytes}; "
                "raise max_bytes if that is right"
            )

    def pause_after(self, setback: Setback, failures: int) -> float | None:
        """Seconds to wait after the *failures*-th failure in a row; None: give up."""
        pause = max(self._backoff(failures), setback.retry_after or 0.0)
        left = self.deadline.left
        if failures >= self.options.attempts or (left is not None and pause > left):
            return None
        log.info("%s: %s; next try in %.1f s.", self._url, setback.reason, pause)
        return pause

    def _backoff(self, failures: int) -> float:
        wait = doubled(self.options.backoff, failures, self.options.longest_backoff)
        return wait * random.uniform(0.75, 1.25)  # noqa: S311  no secret

    def _pause(self, seconds: float) -> None:
        self.cancel.wait(self.deadline.cap(seconds))

    def broken(self, setback: Setback | None) -> MediaError:
        """The error for a lost connection that did not come back."""
        if setback is not None and setback.error is not None:
            return setback.error
        why = setback.reason if setback is not None else "the connection was lost"
        return TransferBroken(self._so_far(f"given up after repeated failures without progress: {why}"))

    def _so_far(self, what: str) -> str:
        total = self.plan.total
        of = f" of {total}" if total is not None else ""
        return f"{self._url}: {what} ({self.plan.received}{of} bytes had come)"


def _later(fault: NetworkFault) -> Setback:
    return Setback(Next.LATER, str(fault), crowded=fault.not_connected)
