from __future__ import annotations

import pytest

from airflow_video_provider.media.probe import describe, sniff


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
