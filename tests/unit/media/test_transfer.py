from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.media import DownloadOptions, NotAVideo
from airflow_video_provider.media.deadline import Deadline
from airflow_video_provider.media.http import NetworkFault, Url
from airflow_video_provider.media.source import Source
from airflow_video_provider.media.transfer import Transfer

CONTENT = os.urandom(100_000)
OPTIONS = DownloadOptions(backoff=0.0, attempts=3, tick=0.01)


class Answer:
    """A range of the content; it breaks after *stop* bytes."""

    trusted = True
    status = 206
    url = Url.parse("http://h/v")

    def __init__(self, begin: int, end: int, stop: int | None = None) -> None:
        self.body = CONTENT[begin:end]
        self.stop = stop
        self.headers = {"content-range": f"bytes {begin}-{end - 1}/{len(CONTENT)}", "etag": '"v"'}

    def peek(self, size: int, within: float) -> bytes:
        return self.body[:size]

    def chunks(self) -> Any:
        for begin in range(0, self.stop or len(self.body), 10_000):
            yield self.body[begin : begin + 10_000]
        if self.stop is not None:
            raise NetworkFault("reset")

    def close(self) -> None:
        pass

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Server:
    """Gives the content, and breaks each answer after so many bytes."""

    def __init__(self, *stops: int) -> None:
        self.stops = list(stops)
        self.asked: list[str] = []

    def get(self, url: Url, extra: dict[str, str], *, trusted: bool = True) -> Any:
        self.asked.append(extra["range"])
        begin, _, last = extra["range"].removeprefix("bytes=").partition("-")
        end = int(last) + 1 if last else len(CONTENT)
        return Answer(int(begin), end, self.stops.pop(0) if self.stops else None)

    def abort(self) -> None:
        pass


def drained(server: Server, path: Path) -> tuple[Transfer, list[int]]:
    client: Any = server
    source = Source(client, "http://h/v", options=OPTIONS, deadline=Deadline(), cancel=threading.Event())
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        transfer = Transfer(source, source.open(), fd)
        return transfer, list(transfer.drain())
    finally:
        os.close(fd)


def test_the_bytes_are_written_counted_and_digested(tmp_path: Path) -> None:
    transfer, received = drained(Server(), tmp_path / "v")
    assert (tmp_path / "v").read_bytes() == CONTENT
    assert (transfer.size, transfer.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert received[-1] == len(CONTENT)


def test_a_broken_answer_is_continued_where_it_ended(tmp_path: Path) -> None:
    server = Server(30_000, 20_000)
    transfer, _ = drained(server, tmp_path / "v")
    assert server.asked == ["bytes=0-", "bytes=30000-99999", "bytes=50000-99999"]
    assert transfer.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_an_empty_file_is_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()

    class Empty(Answer):
        status = 200

        def __init__(self) -> None:
            super().__init__(0, 1)
            self.headers = {"content-length": "0"}

    monkeypatch.setattr(server, "get", lambda *_, **__: Empty())
    with pytest.raises(NotAVideo, match="empty body"):
        drained(server, tmp_path / "v")
