from __future__ import annotations

import base64
import pickle
import subprocess
import sys

import pytest

from airflow_video_provider import media
from airflow_video_provider.media import BadDestination, BadURL, LinkExpired, Progress, download
from airflow_video_provider.media.engine import announced_digest, link_in_json
from airflow_video_provider.media.probe import describe, sniff
from airflow_video_provider.media.progress import LogProgress, Meter


class TestImports:
    def test_of_the_package_cost_nothing(self) -> None:
        code = (
            "import sys; import airflow_video_provider.media; "
            "print({'av', 's3fs', 'httpx', 'httpcore', 'fsspec', 'airflow'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"

    def test_of_the_engine_load_neither_decoder_nor_store(self) -> None:
        code = (
            "import sys; from airflow_video_provider.media import download; "
            "print({'av', 's3fs', 'airflow'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"

    def test_find_every_public_name(self) -> None:
        assert all(getattr(media, name) is not None for name in media.__all__)
        with pytest.raises(AttributeError):
            _ = media.nothing  # type: ignore[attr-defined]


class TestWrongArguments:
    """Each is found before anything is fetched: the URL is one that nobody answers."""

    URL = "http://192.0.2.1/x.mp4"

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"destination": "/tmp/"}, BadDestination),
            ({"destination": 5}, BadDestination),
            ({"destination": "nosuch://x/y"}, BadDestination),
            ({"destination": "/tmp/x", "file_name": "{what}"}, BadDestination),
            ({"destination": "/tmp/x", "if_exists": "perhaps"}, BadDestination),
            ({"destination": "/tmp/x", "allowed_hosts": [""]}, BadDestination),
            ({"destination": "/tmp/x", "url": "ftp://h/x"}, BadURL),
        ],
    )
    def test_are_named(self, arguments: dict[str, object], error: type[Exception]) -> None:
        with pytest.raises(error):
            download(**{"url": self.URL, **arguments})  # type: ignore[arg-type]


class TestFirstBytes:
    @pytest.mark.parametrize(
        ("head", "container"),
        [
            (b"\x00\x00\x00\x20ftypisom", "mp4"),
            (b"\x00\x00\x00\x14ftypqt  ", "mov"),
            (b"\x00\x00\x00\x20ftypM4V ", "m4v"),
            (b"\x00\x00\x00\x20ftyp3gp4", "3gp"),
            (b"\x00\x00\x10\x00moov", "mov"),
            (b"\x1a\x45\xdf\xa3\x01\x42\x82\x84webm", "webm"),
            (b"\x1a\x45\xdf\xa3\x01\x42\x82\x88matroska", "matroska"),
            (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
            (b"\x47" + bytes(187) + b"\x47", "mpegts"),
        ],
    )
    def test_tell_the_container(self, head: bytes, container: str) -> None:
        kind = sniff(head)
        assert kind is not None
        assert kind.container == container

    @pytest.mark.parametrize(
        ("head", "words"),
        [
            (b"", "nothing"),
            (b"<html><body><h1>502</h1> Bad Gateway</body></html>", "an HTML page: '502 Bad Gateway'"),
            (b'{"error": "no"}', "JSON"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML: 'AccessDenied'"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\x89PNG\r\n", "PNG"),
            (b"not found", "text: 'not found'"),
            (b"\x00\x01\x02\x03\xff\xfe\xfd\xfc", "no known video format"),
        ],
    )
    def test_that_are_no_video_are_described(self, head: bytes, words: str) -> None:
        assert sniff(head) is None
        assert words in describe(head)


@pytest.mark.parametrize(
    ("body", "link"),
    [
        (b'{"url": "https://h/v.mp4"}', "https://h/v.mp4"),
        (b'{"data": {"url": "https://h/v.mp4"}}', "https://h/v.mp4"),
        (b'{"data": [{"url": "https://h/v.mp4"}]}', "https://h/v.mp4"),
        (b'{"url": "/v.mp4"}', "https://base/v.mp4"),
        (b'"https://h/v.mp4"', "https://h/v.mp4"),
        (b'{"url": "file:///etc/passwd"}', None),
        (b'{"url": null, "video_url": "", "output": {"url": "https://h/o"}}', "https://h/o"),
        (b'{"error": "no"}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_the_link_in_a_json_answer_is_found(body: bytes, link: str | None) -> None:
    assert link_in_json(body, "https://base/content") == link


def test_announced_digests_are_read() -> None:
    md5, sha = base64.b64encode(bytes(16)).decode(), base64.b64encode(bytes(32)).decode()
    assert announced_digest({"x-goog-hash": f"crc32c=AAAAAA==, md5={md5}"}) == ("md5", bytes(16))
    assert announced_digest({"repr-digest": f"sha-256=:{sha}:"}) == ("sha256", bytes(32))
    assert announced_digest({"etag": '"d41d8cd98f00b204e9800998ecf8427e"'}) is None
    assert announced_digest({"repr-digest": "sha-256=:AA==:"}) is None


class TestProgress:
    def test_says_bytes_percent_rate_and_time_left(self) -> None:
        moment = Progress("v", 50 * 2**20, 200 * 2**20, 2**20, 50.0)
        assert str(moment) == "v: 50.0 MiB of 200.0 MiB (25 %), 1.0 MiB/s, 2 min 30 s left"

    def test_is_one_line_for_a_short_download_and_one_every_few_seconds_for_a_long_one(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        now = [0.0]
        meter = Meter("v", LogProgress(), clock=lambda: now[0])
        for tick in range(1, 121):
            now[0] = tick / 10
            meter.update(tick * 1000, 120_000)
        meter.finish(120_000)
        assert [record.message.split(",")[0] for record in caplog.records] == [
            "v: 48.8 KiB of 117.2 KiB (42 %)",
            "v: 97.7 KiB of 117.2 KiB (83 %)",
            "v: 117.2 KiB in 12.0 s (9.8 KiB/s)",
        ]


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(LinkExpired("gone", status_code=410, retry_after=3.0)))  # noqa: S301
    assert (error.message, error.status_code, error.retry_after, error.retryable) == ("gone", 410, 3.0, True)
