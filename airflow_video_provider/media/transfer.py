"""The bytes of a source into a local file: ranges over several connections, digested as they come.

The first answer's body is the first range already, so a small file takes one request. More connections are
opened only while they bring more, and only for a server that gives a version to hold on to: every further
request carries ``If-Range``, every answer's version and length are compared, and a file that changed is begun
anew, never stitched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextvars import copy_context
from dataclasses import replace

from airflow_video_provider.media.digest import DIGEST_STEP, Digest
from airflow_video_provider.media.errors import NotAVideo
from airflow_video_provider.media.http import NetworkFault, Response
from airflow_video_provider.media.ranges import ConnectionScaler, Range
from airflow_video_provider.media.representation import Next, Setback
from airflow_video_provider.media.source import Source
from airflow_video_provider.media.tempfile import disk_error

JOIN_TIMEOUT = 5.0


class Transfer:
    """Bring an open source into a file.

    :param source: an open source.
    :param response: its answer.
    :param fd: an open, writable and readable local file; it is truncated.
    :ivar size: bytes that came, once :meth:`drain` has ended.
    :ivar sha256: their digest as hexadecimal text.
    """

    def __init__(self, source: Source, response: Response, fd: int) -> None:
        self._source = source
        self._response: Response | None = response
        self._fd = fd
        self.size = 0
        self.sha256 = ""

    @property
    def total(self) -> int | None:
        """The length of the file, None when it is not known yet."""
        return self._source.plan.total

    def drain(self) -> Generator[int, None, None]:
        """Write the file, yielding the bytes that have come so far, every ``options.tick`` seconds.

        :raises MediaError: it cannot be had whole; which one says why. Also closes the connections.
        """
        source = self._source
        digest: Digest | None = None
        try:
            while True:
                part = None
                if self._response is not None:  # from the first byte
                    if digest is not None:
                        digest.cancel()
                    part = self._begin()
                    digest = Digest(self._fd, lambda: source.plan.watermark)
                crew = Crew(source, self._fd, digest)
                response, self._response = self._response, None
                yield from crew.work(response, part)
                if crew.setback is None:
                    break
                if crew.setback.next is Next.ANEW and source.is_renamed(self._fd):
                    continue
                source.get_over(crew.setback)
                if crew.setback.next is Next.ANEW:
                    self._response = source.open()
            self.size = source.plan.total or 0
            self.sha256 = digest.finish(self.size) if digest is not None else ""
        except OSError as error:
            raise disk_error(error) from error
        finally:
            if self._response is not None:
                self._response.close()
            if digest is not None:
                digest.cancel()

    def _begin(self) -> Range:
        os.ftruncate(self._fd, 0)
        part = self._source.plan.take(1)
        if part is None:
            raise NotAVideo(
                f"{self._source.representation.url} answered with an empty body; there is no video in it"
            )
        return part


class Crew:
    """The connections that share what is left of a file, each in its own thread.

    :ivar setback: what they could not get over by themselves; None when every byte has come.
    """

    def __init__(self, source: Source, fd: int, digest: Digest | None) -> None:
        self.setback: Setback | None = None
        self._source, self._plan, self._options = source, source.plan, source.options
        self._fd = fd
        self._digest = digest
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._workers: set[threading.Thread] = set()
        self._wanted = 1
        self._ceiling = source.options.connections
        self._error: BaseException | None = None
        self._last: Setback | None = None

    def work(self, response: Response | None, part: Range | None) -> Generator[int, None, None]:
        """Fetch all that is left, yielding the bytes that have come; stop at a :attr:`setback`.

        :param response: an answer that is open already, and the range that it brings.
        """
        scaler = ConnectionScaler(self._options, self._plan.received, time.monotonic())
        self._start(response, part)
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(self._is_over, self._options.tick)
                yield self._plan.received
                if self._is_over():
                    break
                self._source.check()
                self._adapt(scaler)
        finally:
            self._end()
        if self._error is not None:
            raise self._error
        if self.setback is None and not self._plan.is_complete:
            self._source.check()
            raise self._source.broken(self._last)

    def _is_over(self) -> bool:
        return self._stop.is_set() or not self._workers

    def _end(self) -> None:
        self._stop.set()
        workers = list(self._workers)
        if workers:
            self._source.client.abort()
        for worker in workers:
            worker.join(JOIN_TIMEOUT)

    def _start(self, response: Response | None = None, part: Range | None = None) -> None:
        context = copy_context()
        worker = threading.Thread(
            target=lambda: context.run(self._run, response, part), name="video-download", daemon=True
        )
        with self._changed:
            self._workers.add(worker)
        worker.start()

    def _adapt(self, scaler: ConnectionScaler) -> None:
        if not self._source.representation.can_resume or self._plan.total is None:
            return
        self._wanted = scaler.connections(
            now=time.monotonic(),
            received=self._plan.received,
            total=self._plan.total,
            ceiling=self._ceiling,
        )
        missing = self._wanted - len(self._workers)
        if missing <= 0 or not self._workers:
            return
        self._plan.share_out(self._wanted)
        for _ in range(missing):
            self._start()

    # -- in the threads ------------------------------------------------------------------------------------

    def _run(self, response: Response | None, part: Range | None) -> None:
        try:
            self._fetch_ranges(response, part)
        except BaseException as error:  # a thread has nobody to raise to: work() does it in its place
            with self._changed:
                self._error = self._error or error
                self._stop.set()
        finally:
            with self._changed:
                self._workers.discard(threading.current_thread())
                self._changed.notify_all()

    def _fetch_ranges(self, response: Response | None, part: Range | None) -> None:
        failures = 0
        try:
            while not self._stop.is_set():
                if part is None:
                    if self._leave(keep=self._wanted):
                        return
                    part = self._plan.take(self._wanted)
                    if part is None:
                        return
                begun = part.position
                setback = self._fetch(response, part)
                response = None
                if setback is None:
                    self._plan.done(part)
                    part, failures = None, 0
                    self._advance()
                    continue
                if part.position - begun >= min(
                    self._options.progress_bytes, max(1, (self._plan.total or 0) // 16)
                ):
                    failures = 0
                failures += 1
                if self._stop.is_set() or not self._goes_on(setback, failures):
                    return
        finally:
            if part is not None:
                self._plan.give_back(part)

    def _fetch(self, response: Response | None, part: Range) -> Setback | None:
        if response is None:
            answer = self._source.request_range(part)
            if isinstance(answer, Setback):
                return answer
            response = answer
        with response:
            try:
                return self._write(response, part)
            except NetworkFault as fault:
                return Setback(Next.LATER, str(fault), crowded=fault.not_connected)

    def _write(self, response: Response, part: Range) -> Setback | None:
        """Write the body of *response* to its place, up to the end of *part*, which may come nearer."""
        patience, rate = self._options.stall_timeout, self._options.min_rate
        mark, marked, digested = time.monotonic(), part.position, part.position
        for chunk in response.chunks():
            # A thread that comes back late, after its crew was stopped, must not touch the file.
            if self._stop.is_set():
                return Setback(Next.LATER, "stopped")
            end = part.end
            if end is None:
                self._source.check_size(part.position + len(chunk))
            elif part.position + len(chunk) > end:
                chunk = chunk[: end - part.position]
            _write_at(self._fd, chunk, part.position)
            part.position += len(chunk)
            if part.position - digested >= DIGEST_STEP:
                digested = part.position
                self._advance()
            if end is not None and part.position >= end:
                return None
            now = time.monotonic()
            if now - mark > patience:
                if part.position - marked < rate * patience:
                    return Setback(
                        Next.LATER, f"it brought less than {rate} bytes per second for {patience:g} s"
                    )
                mark, marked = now, part.position
        if part.end is not None and part.position < part.end:
            return Setback(Next.LATER, "the answer ended before its announced end")
        return None

    def _advance(self) -> None:
        if self._digest is not None:
            self._digest.advance()

    def _leave(self, *, keep: int) -> bool:
        """Take this connection out if more than *keep* are running; the last one never leaves."""
        with self._changed:
            if len(self._workers) <= max(1, keep):
                return False
            self._workers.discard(threading.current_thread())
            return True

    def _goes_on(self, setback: Setback, failures: int) -> bool:
        """Wait before the next try; False when this connection is to be given up."""
        self._last = setback
        if setback.next is Next.LATER and not self._source.representation.can_resume:
            reason = f"{setback.reason}, and the server offers no way to go on from there"
            setback = replace(setback, next=Next.ANEW, reason=reason, error=None, lost=True)
        if setback.next is not Next.LATER:
            with self._changed:
                self.setback = self.setback or setback
                self._stop.set()
            return False
        if setback.crowded and self._leave(keep=1):
            self._ceiling = self._wanted = max(1, len(self._workers))  # it allows no more than these
            return False
        pause = self._source.pause_after(setback, failures)
        if pause is None:
            with self._changed:  # nobody takes its place: where one has failed so often, others would as well
                self._ceiling = self._wanted = max(1, len(self._workers) - 1)
            return False
        self._stop.wait(pause)
        return True


def _write_at(fd: int, chunk: bytes, position: int) -> None:
    written = os.pwrite(fd, chunk, position)
    while written < len(chunk):
        written += os.pwrite(fd, memoryview(chunk)[written:], position + written)
