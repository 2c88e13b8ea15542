from __future__ import annotations

import struct

import pytest

from airflow_video_provider.media.signature import describe, sniff


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = b"".join(compatible)
    return struct.pack(">I4s4sI", 16 + len(brands), b"ftyp", major, 0) + brands


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
def test_the_first_bytes_tell_the_container(head: bytes, container: str) -> None:
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
def test_first_bytes_that_are_no_video_are_described(head: bytes, words: str) -> None:
    assert sniff(head) is None
    assert words in describe(head)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ftyp(b"avif", b"mif1", b"miaf"), "an AVIF image"),
        (ftyp(b"avis", b"msf1", b"iso8"), "an animated AVIF image"),
        (ftyp(b"heic", b"mif1"), "a HEIC image"),
        (ftyp(b"mif1", b"mif1", b"heic"), "a HEIC image"),
        (ftyp(b"mif1", b"miaf", b"avif"), "an AVIF image"),
        (ftyp(b"mif1", b"miaf"), "a HEIF image"),
        (ftyp(b"M4A ", b"isom"), "sound without a video"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00", "an animated WebP image"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00\x00\x00\x00\x00", "a WebP image"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "WAV sound"),
        (b"GIF89a", "a GIF image"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(17) + b"\x00\x00\x00\x08acTL", "APNG"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(17) + b"\x00\x00\x00\x08IDAT", "a PNG image"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"ID3\x04", "MP3 sound"),
        (b"OggS" + bytes(24) + b"OpusHead", "Ogg sound"),
    ],
)
def test_pictures_and_sound_are_named_by_their_first_bytes(head: bytes, name: str) -> None:
    assert sniff(head) is None
    assert name in describe(head)
