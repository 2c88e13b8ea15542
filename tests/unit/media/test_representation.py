from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_video_provider.gateway import VideoTask
from airflow_video_provider.media.http import Url
from airflow_video_provider.media.representation import (
    Next,
    Representation,
    Setback,
    announced_digest,
    expiry_of,
    judge_first,
    judge_range,
    judge_status,
    link_in_json,
    validator_of,
)
from airflow_video_provider.reply_places import URLS, Place

URL = Url.parse("https://h/v.mp4?sig=SECRET")
NOW = datetime.fromtimestamp(40, tz=UTC)
KNOWN = Representation(URL, 100, '"v"', {"etag": '"v"'})


class TestTheStatus:
    @pytest.mark.parametrize(
        ("status", "text", "next_"),
        [
            (202, "", Next.LATER),
            (400, '{"error": "video is not ready"}', Next.LATER),
            (400, "The video has not been completed", Next.LATER),
            (400, "Video is still being generated", Next.LATER),
            (400, "任务进行中", Next.LATER),
            (400, "bad request", Next.GIVE_UP),
            (401, "", Next.FRESH_LINK),
            (404, "", Next.FRESH_LINK),
            (409, "", Next.LATER),
            (429, "", Next.LATER),
            (451, "", Next.GIVE_UP),
            (502, "", Next.LATER),
        ],
    )
    def test_a_status_says_what_is_left_to_do(self, status: int, text: str, next_: Next) -> None:
        setback = judge_status(URL, status, {}, text, NOW)
        assert setback is not None
        assert setback.next is next_
        assert f"HTTP {status}" in str(setback.error)
        assert "SECRET" not in str(setback.error)

    @pytest.mark.parametrize("status", [200, 206])
    def test_the_status_of_the_file_itself_is_no_setback(self, status: int) -> None:
        assert judge_status(URL, status, {}, "", NOW) is None

    @pytest.mark.parametrize("encoding", ["identity", "aws-chunked", "None", "aws-chunked, identity"])
    def test_an_encoding_that_changes_no_byte_is_no_setback(self, encoding: str) -> None:
        assert judge_status(URL, 200, {"content-encoding": encoding}, "", NOW) is None

    @pytest.mark.parametrize("encoding", ["gzip", "br", "aws-chunked, gzip"])
    def test_a_compressed_video_is_the_end(self, encoding: str) -> None:
        setback = judge_status(URL, 200, {"content-encoding": encoding}, "", NOW)
        assert setback is not None
        assert setback.next is Next.GIVE_UP

    def test_a_setback_comes_with_the_wait_that_the_server_asks_for(self) -> None:
        setback = judge_status(URL, 503, {"retry-after": "7"}, "", NOW)
        assert setback is not None
        assert (setback.retry_after, setback.crowded) == (7.0, True)


class TestTheFirstAnswer:
    def test_a_first_range_gives_length_and_version(self) -> None:
        headers = {"content-range": "bytes 0-99/100", "etag": '"v"', "content-length": "100"}
        assert judge_first(URL, 206, headers, with_range=True) == Representation(URL, 100, '"v"', headers)

    def test_a_first_answer_without_ranges_offers_no_way_to_resume(self) -> None:
        judged = judge_first(URL, 200, {"content-length": "7", "etag": '"v"'}, with_range=True)
        assert isinstance(judged, Representation)
        assert (judged.total, judged.can_resume) == (7, False)

    def test_a_range_of_unknown_length_is_asked_for_without_ranges(self) -> None:
        judged = judge_first(URL, 206, {"content-range": "bytes 0-99/*"}, with_range=True)
        assert isinstance(judged, Setback)
        assert (judged.next, judged.ranges_lie) == (Next.ANEW, True)

    def test_a_206_without_a_range_is_taken_where_no_range_was_asked_for(self) -> None:
        answer = judge_first(URL, 206, {"content-length": "100"}, with_range=False)
        assert isinstance(answer, Representation)
        assert (answer.total, answer.can_resume) == (100, False)

    def test_a_range_of_unknown_length_is_taken_from_a_server_that_never_tells(self) -> None:
        judged = judge_first(URL, 206, {"content-range": "bytes 0-99/*"}, with_range=False)
        assert isinstance(judged, Representation)
        assert (judged.total, judged.can_resume) == (100, False)

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"content-range": "bytes 5-99/100"},
            {"content-range": "bytes 0-49/100"},
            {"content-range": "bytes 0-99/100", "content-length": "50"},
            {"content-range": "bytes 0-99/100", "content-length": "many"},
        ],
    )
    def test_a_first_answer_that_contradicts_itself_is_asked_for_without_ranges(
        self, headers: dict[str, str]
    ) -> None:
        judged = judge_first(URL, 206, headers, with_range=True)
        assert isinstance(judged, Setback)
        assert (judged.next, judged.ranges_lie) == (Next.ANEW, True)


class TestARange:
    FINE = {"content-range": "bytes 10-19/100", "etag": '"v"', "content-length": "10"}  # noqa: RUF012

    def test_a_range_of_the_same_version_is_taken(self) -> None:
        assert judge_range(KNOWN, 206, self.FINE, 10, 20) is None

    @pytest.mark.parametrize(
        ("status", "changes", "ranges_lie"),
        [
            (416, {}, False),
            (200, {}, True),
            (200, {"etag": '"w"'}, False),
            (206, {"etag": '"w"'}, False),
            (206, {"content-range": "bytes 11-19/100"}, True),
            (206, {"content-range": "bytes 10-29/100"}, True),
            (206, {"content-range": "bytes 10-19/101"}, False),
            (206, {"content-length": "9"}, True),
        ],
    )
    def test_a_range_of_anything_else_means_beginning_anew(
        self, status: int, changes: dict[str, str], ranges_lie: bool
    ) -> None:
        setback = judge_range(KNOWN, status, {**self.FINE, **changes}, 10, 20)
        assert setback is not None
        assert (setback.next, setback.ranges_lie) == (Next.ANEW, ranges_lie)


@pytest.mark.parametrize(
    ("url", "expires"),
    [
        ("https://h/x?X-Amz-Date=19700101T000100Z&X-Amz-Expires=40&X-Amz-Signature=s", 100.0),
        ("https://h/x?X-Goog-Date=19700101T000100Z&X-Goog-Expires=40", 100.0),
        ("https://h/x?se=1970-01-01T00%3A01%3A40Z&sig=s", 100.0),
        ("https://h/x?Expires=1700000000&Signature=s", 1_700_000_000.0),
        ("https://h/x?e=1700000000", 1_700_000_000.0),
        ("https://h/x?e=5&exp=soon&se=never&sig=1", None),
        ("https://h/x", None),
    ],
)
def test_a_visible_expiry_is_read(url: str, expires: float | None) -> None:
    assert expiry_of(url) == expires


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"etag": '"abc"'}, '"abc"'),
        ({"etag": 'W/"abc"'}, None),
        ({"etag": "abc"}, None),
        (
            {"last-modified": "Thu, 01 Jan 1970 00:00:00 GMT", "date": "Thu, 01 Jan 1970 00:02:00 GMT"},
            "Thu, 01 Jan 1970 00:00:00 GMT",
        ),
        ({"last-modified": "Thu, 01 Jan 1970 00:01:59 GMT", "date": "Thu, 01 Jan 1970 00:02:00 GMT"}, None),
        ({"last-modified": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_only_what_names_the_very_bytes_is_a_validator(
    headers: dict[str, str], validator: str | None
) -> None:
    assert validator_of(headers) == validator


@pytest.mark.parametrize(
    ("body", "link"),
    [
        (b'{"url": "https://h/v.mp4"}', "https://h/v.mp4"),
        (b'{"data": {"url": "https://h/v.mp4"}}', "https://h/v.mp4"),
        (b'{"data": [{"url": "https://h/v.mp4"}]}', "https://h/v.mp4"),
        (b'{"url": "/v.mp4"}', "https://base/v.mp4"),
        (b'"https://h/v.mp4"', "https://h/v.mp4"),
        (b'{"url": " https://h/v.mp4\\n"}', "https://h/v.mp4"),
        (b'{"url": "file:///etc/passwd"}', None),
        (b'{"url": null, "video_url": "", "output": {"url": "https://h/o"}}', "https://h/o"),
        (b'{"output": "data:video/mp4;base64,AAAA"}', "data:video/mp4;base64,AAAA"),
        (b'{"error": "no"}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_the_link_in_a_json_answer_is_found(body: bytes, link: str | None) -> None:
    assert link_in_json(body, "https://base/content") == link


@pytest.mark.parametrize(
    "place", [(*holder, *place) for holder, places in URLS for place in places], ids=lambda place: str(place)
)
def test_the_link_in_a_json_answer_lies_wherever_a_tasks_url_lies(place: Place) -> None:
    """And so a new place is one row, whoever reads it."""
    body: Any = "https://h/v.mp4"
    for step in reversed(place):
        body = [body] if isinstance(step, int) else {step: body}
    assert link_in_json(json.dumps(body).encode(), "https://base/content") == "https://h/v.mp4"
    assert VideoTask.from_reply({**body, "status": "completed"}, video_id="x").video_url == "https://h/v.mp4"


def test_announced_digests_are_read() -> None:
    md5, sha = base64.b64encode(bytes(16)).decode(), base64.b64encode(bytes(32)).decode()
    assert announced_digest({"x-goog-hash": f"crc32c=AAAAAA==, md5={md5}"}) == ("md5", bytes(16))
    assert announced_digest({"repr-digest": f"sha-256=:{sha}:"}) == ("sha256", bytes(32))
    assert announced_digest({"etag": '"d41d8cd98f00b204e9800998ecf8427e"'}) is None
    assert announced_digest({"repr-digest": "sha-256=:AA==:"}) is None
