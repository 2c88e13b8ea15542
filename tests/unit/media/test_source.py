from __future__ import annotations

import random
import threading
from typing import Any, ClassVar

import pytest

from airflow_video_provider.media import (
    Cancelled,
    DownloadOptions,
    DownloadTimeout,
    LinkExpired,
    SourceChanged,
    SourceRefused,
    TransferBroken,
)
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.http import NetworkFault, Url
from airflow_video_provider.media.ranges import Range
from airflow_video_provider.media.representation import Next, Setback
from airflow_video_provider.media.source import Source

QUICK = DownloadOptions(backoff=0.0, attempts=3)


class Answer:
    """As much of a response as a source looks at."""

    trusted = True
    headers: ClassVar = {"content-range": "bytes 0-99/100", "etag": '"v"', "content-length": "100"}

    def __init__(self, status: int = 206) -> None:
        self.status = status
        self.url = Url.parse("http://h/v")
        self.closed = False

    def peek(self, size: int, within: float) -> bytes:
        return b""

    def read(self, limit: int, within: float) -> bytes:
        return b""

    def close(self) -> None:
        self.closed = True


class Server:
    """A client whose answers are given; it notes what it is asked."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked: list[str] = []

    def get(self, url: Url, extra: Any, *, trusted: bool = True) -> Any:
        self.asked.append(url.text)
        return Answer(self.statuses.pop(0) if self.statuses else 206)

    def abort(self) -> None:
        pass


def source(server: Any, fresh: Any = None, options: DownloadOptions = QUICK, **more: Any) -> Source:
    return Source(
        server,
        "http://h/old",
        options=options,
        deadline=more.get("deadline", Deadline()),
        cancel=more.get("cancel", threading.Event()),
        fresh_url=fresh,
    )


class TestOpening:
    @pytest.mark.parametrize("status", [202, 400, 409, 425, 429, 502])
    def test_opening_is_repeated_while_the_server_may_think_better_of_it(
        self, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Answer, "read", lambda *_: b"the video is not ready")
        server = Server(status, status)
        assert source(server).open().status == 206
        assert len(server.asked) == 3

    def test_opening_outlasts_half_a_minute_of_failures_by_default(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(random, "uniform", lambda low, high: low)
        with_pauses = source(Server(), options=DownloadOptions())
        failed = Setback(Next.LATER, "502")
        pauses = [with_pauses.pause_after(failed, failures) for failures in range(1, 9)]
        assert pauses[-1] is None
        assert sum(pause or 0.0 for pause in pauses) > 30.0

    def test_opening_gives_up_with_the_last_answer(self) -> None:
        with pytest.raises(SourceRefused, match="HTTP 503"):
            source(Server(503, 503, 503)).open()

    def test_a_wait_is_as_long_as_the_server_asks_but_not_beyond_the_deadline(self) -> None:
        asked = Setback(Next.LATER, "busy", retry_after=50.0)
        assert source(Server()).pause_after(asked, 1) == 50.0
        assert source(Server(), deadline=Deadline.after(20.0)).pause_after(asked, 1) is None

    def test_opening_ends_when_the_caller_wants_no_more(self) -> None:
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(Cancelled):
            source(Server(), cancel=cancel).open()

    def test_opening_ends_when_the_deadline_has_passed(self) -> None:
        with pytest.raises(DownloadTimeout, match="timeout of 1 s"):
            source(Server(), deadline=Deadline(at=0.0, timeout=1.0)).open()


class TestARefusedLink:
    def test_a_refused_link_is_replaced_by_a_fresh_one(self) -> None:
        server = Server(403)
        source(server, lambda: "http://h/new").open()
        assert server.asked == ["http://h/old", "http://h/new"]

    def test_a_refused_link_without_a_fresh_one_is_the_end(self) -> None:
        with pytest.raises(LinkExpired, match="HTTP 410"):
            source(Server(410)).open()

    def test_a_file_that_is_not_there_yet_is_asked_for_again(self) -> None:
        """A gateway says that a task is done a moment before its own route has the file."""
        server = Server(404, 404)
        source(server, lambda: "http://h/old").open()
        assert server.asked == ["http://h/old"] * 3

    def test_a_file_that_never_comes_to_be_there_is_the_end(self) -> None:
        with pytest.raises(LinkExpired, match="HTTP 404"):
            source(Server(404, 404, 404, 404)).open()

    def test_a_refused_link_is_replaced_at_most_three_times_without_progress(self) -> None:
        links = iter(range(99))
        with pytest.raises(LinkExpired, match="HTTP 403"):
            source(Server(*[403] * 9), lambda: f"http://h/{next(links)}").open()
        assert next(links) == QUICK.max_refreshes


class TestBeginningAnew:
    @pytest.mark.parametrize(("lost", "error"), [(True, TransferBroken), (False, SourceChanged)])
    def test_a_file_is_begun_anew_so_often_and_no_more(self, lost: bool, error: type[Exception]) -> None:
        opened = source(Server())
        setback = Setback(Next.ANEW, "the file changed", lost=lost)
        for _ in range(QUICK.attempts - 1):
            opened.get_over(setback)
        with pytest.raises(error, match=r"begun 3 times.*the file changed"):
            opened.get_over(setback)


class TestARangeThatShrinks:
    """Another connection takes over the end of a range while the answer to its request is on its way."""

    def test_a_range_that_shrinks_meanwhile_is_no_reason_to_begin_anew(self) -> None:
        part = Range(0, 100)

        class Shrinking(Server):
            def get(self, url: Url, extra: Any, *, trusted: bool = True) -> Any:
                part.end = 50
                return super().get(url, extra, trusted=trusted)

        opened = source(Shrinking())
        opened.open()
        part.end = 100
        assert isinstance(opened.request_range(part), Answer)


class Silent(Server):
    """A client whose server says nothing, until its connections are broken."""

    def __init__(self) -> None:
        super().__init__()
        self.broken, self.waited_for = threading.Event(), threading.Event()

    def get(self, url: Url, extra: Any, *, trusted: bool = True) -> Any:
        self.waited_for.set()
        self.broken.wait(60)
        raise NetworkFault("the connection was closed")

    def abort(self) -> None:
        self.broken.set()


class TestASilentServer:
    def test_a_caller_who_wants_no_more_does_not_wait_for_the_first_answer(self) -> None:
        cancel, server = threading.Event(), Silent()

        def stop() -> None:
            server.waited_for.wait(60)
            cancel.set()

        threading.Thread(target=stop, daemon=True).start()
        with source(server, cancel=cancel) as silent, pytest.raises(Cancelled):
            silent.open()

    def test_the_first_answer_is_not_waited_for_beyond_the_deadline(self) -> None:
        with (
            source(Silent(), deadline=Deadline.after(0.1)) as silent,
            pytest.raises(DownloadTimeout, match=r"timeout of 0\.1 s"),
        ):
            silent.open()
