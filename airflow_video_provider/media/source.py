"""The bytes at a URL, whole: ranges over several connections, resumed when broken, digested as they come.

The first request is an ordinary GET with ``Range: bytes=0-``. Its answer tells the length, the version
(ETag) and whether ranges are honoured, and its body is the first part already, so a small file takes one
request. More connections are opened only while they bring more, and only for a server that gives a version
to hold on to: every further request carries ``If-Range``, every answer's version and length are compared,
and a file that changed is begun anew, never stitched.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlsplit

import httpcore

from airflow_video_provider.media.errors import (
    Cancelled,
    DownloadTimeout,
    LinkExpired,
    MediaError,
    NoSpace,
    NotAVideo,
    SourceChanged,
    SourceRefused,
    TooLarge,
    TransferBroken,
    excerpt,
)
from airflow_video_provider.media.http import Client, Response, Url, retry_after
from airflow_video_provider.media.ranges import MIB, MIN_PART, Range, RangePlan

log = logging.getLogger(__name__)

HEAD_SIZE = 512
"""Bytes of the beginning that are waited for before ``on_head``: enough for every known signature."""

PROGRESS_SIZE = 64 * 1024
"""Bytes that count as progress. Less would let a server that drops after each byte keep us for ever."""

MIN_RATE = 1024
"""Bytes per second below which a connection counts as stalled."""

PROOF = MIB
"""Bytes at either end of what is there that a fresh link of another version's name must repeat."""

WORTH_SHARING = 8 * MIB
MAX_REFRESHES = 3
STALE = frozenset({401, 403, 404, 410})
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
TOO_MANY = frozenset({429, 503})
NETWORK_FAULTS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Limits:
    """How long, how much and how often. Times in seconds, sizes in bytes.

    :param timeout: for the whole transfer; None for no bound.
    :param stall_timeout: a connection that brings less than :data:`MIN_RATE` for so long is given up.
    :param max_bytes: the largest file that is taken.
    :param connections: the largest number of connections at a time.
    :param attempts: how often in a row a connection may fail without progress; also how often a file may
        be begun anew, and how often a fresh link may be asked for, without progress.
    :param backoff: the wait after the first failure, doubled after each further one, up to 30 s.
    """

    timeout: float | None = 3600.0
    stall_timeout: float = 30.0
    max_bytes: int = 20 * 2**30
    connections: int = 16
    attempts: int = 5
    backoff: float = 0.5


@dataclass(frozen=True)
class Head:
    """What the first answer says about the file."""

    link: Url
    total: int | None
    validator: str | None
    content_type: str | None
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Fetched:
    """A file that has come whole."""

    head: Head
    size: int
    sha256: str
    connections: int


class _Restart(Exception):
    """What came does not continue what is there: begin anew, without ranges when those were at fault."""

    def __init__(
        self, reason: str, *, ranges_lie: bool = False, error: type[MediaError] = SourceChanged
    ) -> None:
        super().__init__(reason)
        self.ranges_lie = ranges_lie
        self.error = error


class _Stale(Exception):
    """The link is refused or gone: a fresh one is needed."""

    def __init__(self, error: LinkExpired) -> None:
        super().__init__(str(error))
        self.error = error


class _Transient(Exception):
    """An answer that may be another one later."""

    def __init__(self, error: SourceRefused) -> None:
        super().__init__(str(error))
        self.error = error


class _Stalled(Exception):
    pass


TRANSIENT_FAULTS = (*NETWORK_FAULTS, _Transient, _Stalled)


def expiry_of(url: str) -> float | None:
    """Return the time (epoch seconds) at which a presigned URL says it expires, None when it does not say."""
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    for signed, lasts in (("x-amz-date", "x-amz-expires"), ("x-goog-date", "x-goog-expires"),
                          ("x-tos-date", "x-tos-expires")):  # fmt: skip
        if signed in query and query.get(lasts, "").isdigit():
            try:
                begin = datetime.strptime(query[signed], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            except ValueError:
                return None
            return begin.timestamp() + int(query[lasts])
    if "se" in query and "sig" in query:
        try:
            moment = datetime.fromisoformat(query["se"])
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    for name in ("expires", "e", "exp", "x-expires", "expires_at"):
        # Anything before 2001 or after 2286 is some other number that happens to have this name.
        if len(query.get(name, "")) == 10 and query[name].isdigit():
            return float(query[name])
    return None


def validator_of(headers: Mapping[str, str]) -> str | None:
    """Return what ``If-Range`` may hold for this answer: a strong ETag, else a Last-Modified that is one."""
    etag = headers.get("etag", "")
    if etag.startswith('"') and etag.endswith('"') and len(etag) > 2:
        return etag
    try:
        modified = parsedate_to_datetime(headers["last-modified"])
        answered = parsedate_to_datetime(headers["date"])
        # A file that changed within its own last minute may have changed twice under one date.
        return headers["last-modified"] if (answered - modified).total_seconds() >= 60 else None
    except (KeyError, ValueError, TypeError):
        return None


def pause_before(attempt: int, first: float, asked: float | None = None) -> float:
    """Seconds to wait before the next try: doubled each time, jittered, or as long as the server *asked*."""
    wait = min(30.0, first * 2.0 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
    return max(wait, asked) if asked is not None else wait


class Digester(threading.Thread):
    """Take the SHA-256 of a growing file in order, behind the connections that fill it.

    It reads the file back (from memory, as it was written just now), so the digest is of what lies on the
    disk, whichever connection brought it and in whatever order.
    """

    def __init__(self, fd: int, watermark: Callable[[], int]) -> None:
        super().__init__(name="video-digest", daemon=True)
        self._fd = fd
        self._watermark = watermark
        self._sha = hashlib.sha256()
        self._total: int | None = None
        self._wake = threading.Event()
        self._cancelled = False
        self._error: OSError | None = None

    def run(self) -> None:
        buffer = memoryview(bytearray(MIB))
        position = 0
        try:
            while not self._cancelled and position != self._total:
                ready = self._watermark() - position
                if ready < len(buffer) and self._total is None:
                    self._wake.wait(0.004)
                    continue
                got = os.preadv(self._fd, [buffer[: min(ready, len(buffer))]], position)
                if got == 0:
                    raise OSError(errno.EIO, "the temporary file is shorter than what was written to it")  # noqa: TRY301
                self._sha.update(buffer[:got])
                position += got
        except OSError as error:
            self._error = error

    def finish(self, total: int) -> str:
        """Wait until *total* bytes have been digested and return the digest as hexadecimal text."""
        self._total = total
        self._wake.set()
        self.join()
        if self._error is not None:
            raise self._error
        return self._sha.hexdigest()

    def cancel(self) -> None:
        """End without a digest."""
        self._cancelled = True
        self._wake.set()
        if self.is_alive():
            self.join()


class Transfer:
    """Bring the file at a URL into an open local file.

    :param courier: asks for URLs.
    :param url: where the file is.
    :param fd: an open, writable and readable local file; it is truncated.
    :param limits: bounds.
    :param fresh_url: returns another URL of the same file, or None when there is none. Called in the thread
        that runs :meth:`run`.
    :param on_head: called once with what the first answer says and that answer, whose first bytes it may
        peek at, before more is read; it stops the transfer by raising.
    :param on_progress: called in the thread that runs :meth:`run` with (bytes received, total or None).
    :param cancel: stops the transfer when it is set.
    :param begun: the monotonic time from which ``limits.timeout`` counts; now by default.
    """

    TICK = 0.1

    def __init__(
        self,
        courier: Client,
        url: str,
        fd: int,
        *,
        limits: Limits,
        fresh_url: Callable[[], str | None] | None = None,
        on_head: Callable[[Head, Response], None] = lambda head, reply: None,
        on_progress: Callable[[int, int | None], None] = lambda received, total: None,
        cancel: threading.Event | None = None,
        begun: float | None = None,
    ) -> None:
        self._cancel = cancel or threading.Event()
        self._courier = courier
        self._limits = limits
        self._fd = fd
        self._fresh_url = fresh_url
        self._on_head = on_head
        self._on_progress = on_progress
        self._asked = Url.parse(url)
        self._link, self._trusted = self._asked, True
        begun = time.monotonic() if begun is None else begun
        self._deadline = None if limits.timeout is None else begun + limits.timeout
        self._use_ranges = True
        self._head: Head | None = None
        self._plan = RangePlan(None)
        self._digester: Digester | None = None
        self._refreshes = self._restarts = 0
        self._received_at_refresh = 0
        self._shown = False
        self._is_fresh = False
        self.most_connections = 1
        self.begun_anew = False
        """Whether bytes that had come were thrown away."""

    # ---------------------------------------------------------------- the whole

    def run(self) -> Fetched:
        """Bring the file.

        :raises MediaError: it cannot be had whole; which one says why.
        """
        watchdog = self._watchdog()
        try:
            self._freshen_if_expired()
            while True:
                try:
                    self._round()
                    break
                except _Stale as stale:
                    self._freshen(stale.error)
                except _Restart as restart:
                    self._count_restart(restart)
            size = self._plan.total or 0
            sha256 = self._digester.finish(size) if self._digester is not None else ""
        except OSError as error:
            raise disk_error(error) from error
        finally:
            if watchdog is not None:
                watchdog.cancel()
            self._forget_digest()
        return Fetched(head=self.head, size=size, sha256=sha256, connections=self.most_connections)

    def _watchdog(self) -> threading.Timer | None:
        """Break the connections when the time is over: a server may also send its headers byte by byte."""
        if self._deadline is None:
            return None
        watchdog = threading.Timer(max(0.0, self._deadline - time.monotonic()), self._courier.abort)
        watchdog.daemon = True
        watchdog.start()
        return watchdog

    def _round(self) -> None:
        """Open a connection and stream from it, and from as many more as are worth it, to the end."""
        reply, part = self._open()
        try:
            if part is None:
                part = self._begin(reply)
        except BaseException:
            reply.close()
            raise
        _Streams(self, reply, part).run()

    def _begin(self, reply: Response) -> Range:
        self._forget_digest()
        self.begun_anew = self._shown
        os.ftruncate(self._fd, 0)
        if not self._shown:
            self._shown = True
            self._on_head(self.head, reply)
        plan = self._plan = RangePlan(self.head.total)
        part = plan.take(1)
        if part is None:
            raise NotAVideo(f"{self._link} answered with an empty body; there is no video in it")
        self._digester = Digester(self._fd, lambda: plan.watermark)
        self._digester.start()
        return part

    def _forget_digest(self) -> None:
        if self._digester is not None:
            self._digester.cancel()

    def _freshen_if_expired(self) -> None:
        expires = expiry_of(self._asked.text)
        if expires is None or expires > time.time() or self._fresh_url is None:
            return
        url = self._fresh_url()
        if url is not None:
            log.info("The link %s has expired; going on with a fresh one.", self._asked)
            self._asked = self._link = Url.parse(url)

    def _freshen(self, error: LinkExpired) -> None:
        """Replace the link: by the URL that redirected here, else by asking the caller for another one."""
        received = self._plan.received if self._head is not None else 0
        if received - self._received_at_refresh >= PROGRESS_SIZE:
            self._refreshes = 0
        self._received_at_refresh = received
        self._refreshes += 1
        self._trusted = self._is_fresh = True
        if self._link is not self._asked and self._refreshes == 1:
            self._link = self._asked
            return
        url = self._fresh_url() if self._fresh_url is not None and self._refreshes <= MAX_REFRESHES else None
        if url is None:
            raise error
        log.info("%s; going on with a fresh link.", error)
        self._asked = self._link = Url.parse(url)

    def _count_restart(self, restart: _Restart) -> None:
        self._restarts += 1
        if restart.ranges_lie:
            self._use_ranges = False
        if self._restarts >= self._limits.attempts:
            raise restart.error(
                f"{self._link} was begun {self._restarts} times and could not be read in one piece: "
                f"{restart}. Nothing was put together from different answers."
            )
        log.info("%s: %s; beginning anew.", self._link, restart)
        self._head = None
        self._pause(pause_before(self._restarts, self._limits.backoff))

    # ---------------------------------------------------------------- opening

    def _open(self) -> tuple[Response, Range | None]:
        """Open the first connection of a round; with a part when it continues what is there already."""
        failures = 0
        while True:
            self.check_time()
            part = None if self._head is None else self._plan.take(1)
            try:
                if part is not None:
                    return self.ask_for(part), part
                return self._ask_first(), None
            except TRANSIENT_FAULTS as fault:
                self.check_time()
                failures += 1
                pause = self.pause_after(fault, failures)
                if pause is None:
                    raise self.broken(fault) from None
                if part is not None:
                    self._plan.give_back(part)
                    part = None
                self._pause(pause)
            except BaseException as fault:
                if part is not None:
                    self._plan.give_back(part)
                if not (isinstance(fault, _Restart) and self._is_same_file()):
                    raise

    def _is_same_file(self) -> bool:
        """Whether a fresh link, under another version's name, leads to the bytes that are there already.

        Another store or edge may name the same file's version otherwise. Its length must be the same, and so
        must the first and the latest of the bytes that are there, :data:`PROOF` each. The name that it gives
        holds from then on.
        """
        if not self._is_fresh or not self.can_resume:
            return False
        self._is_fresh = False
        settled = self._plan.watermark
        try:
            names = {
                self._name_of_same_bytes(begin, min(begin + PROOF, settled))
                for begin in {0, max(0, settled - PROOF)}
            }
        except TRANSIENT_FAULTS:
            return False
        name = names.pop()
        if name is None or names:
            return False
        self._head = replace(self.head, validator=name)
        return True

    def _name_of_same_bytes(self, begin: int, end: int) -> str | None:
        if begin >= end:
            return None
        reply = self._courier.get(self._link, {"range": f"bytes={begin}-{end - 1}"}, trusted=self._trusted)
        with reply:
            self._raise_for_status(reply)
            if reply.status != 206 or _content_range(reply) != (begin, end - 1, self.head.total):
                return None
            same = reply.read(end - begin) == os.pread(self._fd, end - begin, begin)
            return validator_of(reply.headers) if same else None

    def _ask_first(self) -> Response:
        extra = {"range": "bytes=0-"} if self._use_ranges else {}
        reply = self._courier.get(self._link, extra, trusted=self._trusted)
        try:
            total = self._judge_first(reply)
            reply.peek(HEAD_SIZE, self._limits.stall_timeout)
        except BaseException:
            reply.close()
            raise
        self._head = Head(
            link=reply.link,
            total=total,
            validator=validator_of(reply.headers) if reply.status == 206 else None,
            content_type=reply.headers.get("content-type"),
            headers=reply.headers,
        )
        self._link, self._trusted = reply.link, reply.trusted
        return reply

    def _judge_first(self, reply: Response) -> int | None:
        """Check what the first answer says of itself and return the length of the file, if it tells."""
        if reply.status == 416 and self._use_ranges:
            if reply.headers.get("content-range", "").endswith("/0"):
                raise NotAVideo(f"{reply.link} holds an empty file; there is no video in it")
            raise _Restart("the server refuses a range of the whole file", ranges_lie=True)
        self._raise_for_status(reply)
        total = None
        if reply.status == 206:
            begin, end, total = _content_range(reply)
            if begin != 0 or total is None or end != total - 1:
                raise _Restart("the server answered another range than the one asked for", ranges_lie=True)
        _check_length(reply, total)
        if total is None and "content-length" in reply.headers:
            total = int(reply.headers["content-length"])
        self.check_size(total)
        return total

    def ask_for(self, part: Range) -> Response:
        """Ask for a part of a file whose version is known, and believe nothing about the answer."""
        # Taken once: another connection may take over the end of this part while the answer is on its way.
        wanted_end = part.end
        last = "" if wanted_end is None else wanted_end - 1
        extra = {"range": f"bytes={part.position}-{last}", "if-range": self.head.validator or ""}
        reply = self._courier.get(self._link, extra, trusted=self._trusted)
        try:
            self._judge_part(reply, part.position, wanted_end)
        except BaseException:
            reply.close()
            raise
        return reply

    def _judge_part(self, reply: Response, wanted: int, wanted_end: int | None) -> None:
        head = self.head
        if reply.status == 416:
            raise _Restart("the file became shorter")
        self._raise_for_status(reply)
        if reply.status != 206:
            same = reply.headers.get("etag", "") == head.headers.get("etag", "")
            raise _Restart(
                "the server stopped honouring ranges" if same else "the file changed", ranges_lie=same
            )
        begin, end, total = _content_range(reply)
        if begin != wanted or end < begin or (wanted_end is not None and end >= wanted_end):
            raise _Restart("the server answered another range than the one asked for", ranges_lie=True)
        if total is not None and total != head.total:
            raise _Restart("the file's length changed")
        if not _same_version(head.validator or "", reply.headers):
            raise _Restart("the file changed")
        _check_length(reply, end - begin + 1)

    def _raise_for_status(self, reply: Response) -> None:
        if reply.status in (200, 206):
            encoding = reply.headers.get("content-encoding", "identity").lower()
            if encoding not in ("", "identity"):
                raise NotAVideo(
                    f"{reply.link} answered with Content-Encoding {excerpt(encoding, 40)}, although identity "
                    "was asked for; a compressed video is not unpacked"
                )
            return
        said = excerpt(reply.read(4096).decode("utf-8", "replace"))
        text = f"{reply.link} answered HTTP {reply.status}" + (f": {said}" if said else "")
        wait = retry_after(reply.headers)
        if reply.status in STALE:
            raise _Stale(LinkExpired(text, status_code=reply.status, retry_after=wait))
        error = SourceRefused(text, status_code=reply.status, retry_after=wait)
        if reply.status in TRANSIENT:
            raise _Transient(error)
        raise error

    # ---------------------------------------------------------------- bounds and verdicts

    @property
    def settled(self) -> int:
        """How many bytes of the beginning lie on the disk for good; 0 once it was begun anew."""
        return 0 if self._head is None or self.begun_anew else self._plan.watermark

    @property
    def head(self) -> Head:
        """What the first answer of this round said."""
        if self._head is None:
            raise RuntimeError("nothing has been asked yet")
        return self._head

    @property
    def can_resume(self) -> bool:
        """Whether a part of this very version can be asked for."""
        return self._head is not None and self._head.validator is not None and self._head.total is not None

    def check_size(self, size: int | None) -> None:
        """Raise when *size* is more than is taken."""
        if size is not None and size > self._limits.max_bytes:
            raise TooLarge(
                f"{self._link} holds at least {size} bytes, more than max_bytes={self._limits.max_bytes}; "
                "raise max_bytes if that is right"
            )

    def check_time(self) -> None:
        """Raise when the time for the whole is over, or the caller wants no more."""
        if self._cancel.is_set():
            raise Cancelled(self._so_far("stopped by the caller"))
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DownloadTimeout(
                self._so_far(f"not finished within the timeout of {self._limits.timeout:g} s")
            )

    def pause_after(self, fault: Exception, failures: int) -> float | None:
        """Seconds to wait after the *failures*-th failure in a row; None: give up."""
        asked = fault.error.retry_after if isinstance(fault, _Transient) else None
        pause = pause_before(failures, self._limits.backoff, asked)
        late = self._deadline is not None and time.monotonic() + pause > self._deadline
        if failures >= self._limits.attempts or late:
            return None
        log.info("%s: %s; next try in %.1f s.", self._link, say(fault), pause)
        return pause

    def _pause(self, seconds: float) -> None:
        if self._deadline is not None:
            seconds = min(seconds, max(0.0, self._deadline - time.monotonic()))
        self._cancel.wait(seconds)

    def broken(self, fault: Exception | None) -> MediaError:
        """The error for a *fault* that did not go away."""
        if isinstance(fault, _Transient):
            return fault.error
        why = say(fault) if fault is not None else "the connection was lost"
        return TransferBroken(self._so_far(f"given up after repeated failures without progress: {why}"))

    def _so_far(self, what: str) -> str:
        total = self._plan.total
        of = f" of {total}" if total is not None else ""
        return f"{self._link}: {what} ({self._plan.received}{of} bytes had come)"


class _Streams:
    """The connections of one round, each in its own thread; the thread that waits adapts their number."""

    def __init__(self, transfer: Transfer, reply: Response, part: Range) -> None:
        self._transfer = transfer
        self._plan = transfer._plan
        self._limits = transfer._limits
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._workers: set[threading.Thread] = set()
        self._wanted = 1
        self._ceiling = self._limits.connections
        self._verdict: Exception | None = None
        self._last_fault: Exception | None = None
        self._first = (reply, part)

    def run(self) -> None:
        """Return when every byte has come, raise what stopped it otherwise."""
        pace = ConnectionScaler(self._plan.received, time.monotonic())
        self._start(*self._first)
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._is_over, Transfer.TICK)
                self._transfer._on_progress(self._plan.received, self._plan.total)
                if self._is_over():
                    break
                self._transfer.check_time()
                self._adapt(pace)
        finally:
            self._end()
        if self._verdict is not None:
            raise self._verdict
        if not self._plan.is_complete:
            self._transfer.check_time()
            raise self._transfer.broken(self._last_fault)

    def _is_over(self) -> bool:
        return self._verdict is not None or not self._workers

    def _end(self) -> None:
        self._stop.set()
        workers = list(self._workers)
        if workers:
            self._transfer._courier.abort()
        for worker in workers:
            worker.join(5.0)

    def _start(self, reply: Response | None = None, part: Range | None = None) -> None:
        context = copy_context()
        worker = threading.Thread(
            target=lambda: context.run(self._work, reply, part), name="video-download", daemon=True
        )
        with self._changed:
            self._workers.add(worker)
            self._transfer.most_connections = max(self._transfer.most_connections, len(self._workers))
        worker.start()

    def _adapt(self, pace: ConnectionScaler) -> None:
        if not self._transfer.can_resume or self._plan.total is None:
            return
        received = self._plan.received
        self._wanted = pace.connections(
            now=time.monotonic(), received=received, total=self._plan.total, ceiling=self._ceiling
        )
        missing = self._wanted - len(self._workers)
        if missing <= 0 or not self._workers:
            return
        self._plan.share_out(self._wanted)
        for _ in range(missing):
            self._start()

    def _work(self, reply: Response | None, part: Range | None) -> None:
        failures = 0
        try:
            while not self._stop.is_set():
                if part is None:
                    if self._leave(keep=self._wanted):
                        return
                    part = self._plan.take(self._wanted)
                    if part is None:
                        return
                current, begun = part, part.position
                try:
                    if reply is None:
                        reply = self._transfer.ask_for(current)
                    self._drain(reply, current)
                    self._plan.done(current)
                    part, failures = None, 0
                except TRANSIENT_FAULTS as fault:
                    if current.position - begun >= min(PROGRESS_SIZE, max(1, (self._plan.total or 0) // 16)):
                        failures = 0
                    failures += 1
                    if self._stop.is_set() or not self._may_go_on(fault, failures):
                        return
                finally:
                    if reply is not None:
                        reply.close()
                        reply = None
        except Exception as verdict:
            with self._changed:
                self._verdict = self._verdict or verdict
                self._stop.set()
        finally:
            if part is not None:
                self._plan.give_back(part)
            with self._changed:
                self._workers.discard(threading.current_thread())
                self._changed.notify_all()

    def _leave(self, *, keep: int) -> bool:
        """Take this connection out if more than *keep* are running; the last one never leaves."""
        with self._changed:
            if len(self._workers) <= max(1, keep):
                return False
            self._workers.discard(threading.current_thread())
            return True

    def _may_go_on(self, fault: Exception, failures: int) -> bool:
        """Wait before the next try; False when this connection is to be given up."""
        self._last_fault = fault
        if not self._transfer.can_resume:
            raise _Restart(
                f"{say(fault)}, and the server offers no way to go on from there", error=TransferBroken
            ) from fault
        crowded = isinstance(fault, _Transient) and fault.error.status_code in TOO_MANY
        if (crowded or isinstance(fault, httpcore.ConnectError)) and self._leave(keep=1):
            self._ceiling = self._wanted = max(1, len(self._workers))  # it allows no more than these
            return False
        pause = self._transfer.pause_after(fault, failures)
        if pause is None:
            with self._changed:  # nobody takes its place: where one has failed so often, others would as well
                self._ceiling = self._wanted = max(1, len(self._workers) - 1)
            return False
        self._stop.wait(pause)
        return True

    def _drain(self, reply: Response, part: Range) -> None:
        """Write the body of *reply* to its place, up to the end of *part*, which may come nearer."""
        patience = self._limits.stall_timeout
        mark, marked = time.monotonic(), part.position
        for chunk in reply.stream():
            # A thread that comes back late, after its round was given up, must not touch the file.
            if self._stop.is_set():
                raise _Stalled("stopped")
            end = part.end
            if end is None:
                self._transfer.check_size(part.position + len(chunk))
            elif part.position + len(chunk) > end:
                chunk = chunk[: end - part.position]
            _write(self._transfer._fd, chunk, part.position)
            part.position += len(chunk)
            if end is not None and part.position >= end:
                return
            now = time.monotonic()
            if now - mark > patience:
                if part.position - marked < MIN_RATE * patience:
                    raise _Stalled(f"it brought less than {MIN_RATE} bytes per second for {patience:g} s")
                mark, marked = now, part.position
        if part.end is not None and part.position < part.end:
            raise httpcore.RemoteProtocolError("the answer ended before its announced end")


class ConnectionScaler:
    """How many connections are worth having. Pure: it is told the time and the bytes.

    The number is doubled as long as the rate grew by a tenth with the last doubling and the rest would take
    longer than opening connections costs. A doubling that brought nothing is forgiven once, as the first
    bytes of a throttled connection often come in a burst; the second time it is taken back.

    :param received: bytes that have come already.
    :param now: the time in seconds of any clock, the same as later.
    """

    FIRST_WINDOW = 0.1
    WINDOW = 0.3
    WORTH = 0.8

    def __init__(self, received: int, now: float) -> None:
        self._level = 1
        self._mark, self._marked = now, received
        self._rate_before = 0.0
        self._in_vain = 0

    def connections(self, *, now: float, received: int, total: int, ceiling: int) -> int:
        """Return how many connections there should be now, at most *ceiling*."""
        self._level = min(self._level, ceiling)
        elapsed, left = now - self._mark, total - received
        window = self.WINDOW if self._rate_before else self.FIRST_WINDOW
        if elapsed < window or left < WORTH_SHARING or self._in_vain >= 2:
            return self._level
        rate = (received - self._marked) / elapsed
        if self._level > 1 and rate < 1.1 * self._rate_before:
            self._in_vain += 1
            if self._in_vain >= 2:
                self._level = max(1, self._level // 2)
                return self._level
        if rate and left / rate < self.WORTH:
            return self._level
        self._level = max(1, min(self._level * 2, ceiling, left // MIN_PART))
        self._rate_before, self._mark, self._marked = rate or 1.0, now, received
        return self._level


def say(fault: Exception) -> str:
    """Name a fault for people: httpcore's exceptions often have no text of their own."""
    names: dict[type[Exception], str] = {
        httpcore.ReadTimeout: "no bytes, or hardly any, came within the stall timeout",
        httpcore.ConnectTimeout: "no connection within the connect timeout",
        httpcore.WriteTimeout: "the request could not be sent in time",
    }
    return names.get(type(fault)) or excerpt(str(fault)) or type(fault).__name__


def _content_range(reply: Response) -> tuple[int, int, int | None]:
    hit = _CONTENT_RANGE.fullmatch(reply.headers.get("content-range", "").strip())
    if hit is None:
        raise _Restart("the server answered 206 without a readable Content-Range", ranges_lie=True)
    begin, end, total = hit.groups()
    return int(begin), int(end), None if total == "*" else int(total)


def _check_length(reply: Response, expected: int | None) -> None:
    told = reply.headers.get("content-length")
    if told is not None and not told.isdigit():
        raise _Restart("the server sent an unreadable Content-Length", ranges_lie=True)
    if expected is not None and told is not None and int(told) != expected:
        raise _Restart("the server's Content-Length and Content-Range disagree", ranges_lie=True)


def _same_version(validator: str, headers: Mapping[str, str]) -> bool:
    if validator.startswith('"'):
        return headers.get("etag", validator) == validator
    return headers.get("last-modified", validator) == validator


def _write(fd: int, chunk: bytes, position: int) -> None:
    written = os.pwrite(fd, chunk, position)
    while written < len(chunk):
        written += os.pwrite(fd, memoryview(chunk)[written:], position + written)


def disk_error(error: OSError) -> MediaError:
    """Turn an error of the local disk into one of ours."""
    if error.errno in FULL_DISK:
        return NoSpace(
            f"no room for the file ({os.strerror(error.errno or 0)}); free some, or set temp_dir to a larger "
            "disk"
        )
    return NoSpace(f"the temporary file cannot be written: {error.strerror or error}")
