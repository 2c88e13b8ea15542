"""What a file is by its first bytes: a video, and in which container, or something else, and what."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_video_provider.media.errors import excerpt


@dataclass(frozen=True)
class Kind:
    """A container format, as its first bytes tell it."""

    container: str
    extension: str
    content_type: str


MP4 = Kind("mp4", "mp4", "video/mp4")
MOV = Kind("mov", "mov", "video/quicktime")
KINDS = {
    kind.extension: kind
    for kind in (
        MP4,
        MOV,
        Kind("m4v", "m4v", "video/x-m4v"),
        Kind("3gp", "3gp", "video/3gpp"),
        Kind("webm", "webm", "video/webm"),
        Kind("matroska", "mkv", "video/x-matroska"),
        Kind("avi", "avi", "video/x-msvideo"),
        Kind("flv", "flv", "video/x-flv"),
        Kind("ogg", "ogv", "video/ogg"),
        Kind("mpegts", "ts", "video/mp2t"),
        Kind("mpeg", "mpg", "video/mpeg"),
    )
}

MP4_FAMILY = frozenset({"mp4", "mov", "m4v", "3gp"})
_MP4_BOXES = frozenset({b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot", b"uuid", b"styp"})
# Pictures and sound share the container of MP4. A picture's main brand may be a general one (mif1, msf1).
_PICTURE_BRANDS = {
    b"avif": "an AVIF image",
    b"avis": "an animated AVIF image",
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"heim": "a HEIC image",
    b"heis": "a HEIC image",
    b"hevc": "an animated HEIC image",
    b"hevx": "an animated HEIC image",
    b"mif1": "a HEIF image",
    b"msf1": "an animated HEIF image",
}
_SOUND_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "})
_OTHER_THINGS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"ID3", "MP3 sound"),
    (b"fLaC", "FLAC sound"),
    (b"%PDF", "a PDF document"),
    (b"#EXTM3U", "an HLS playlist"),
)
_OGG_SOUND = (b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"Speex")


def sniff(head: bytes) -> Kind | None:
    """Tell the container from the first bytes of a file (some 400 are enough); None: it is no video."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _PICTURE_BRANDS or brand in _SOUND_BRANDS:
            return None
        if brand == b"qt  ":
            return MOV
        if brand[:3] == b"M4V":
            return KINDS["m4v"]
        return KINDS["3gp"] if brand[:2] == b"3g" else MP4
    if head[4:8] in _MP4_BOXES:
        return MOV
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return KINDS["webm" if b"webm" in head[:64] else "mkv"]
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return KINDS["avi"]
    if head[:4] == b"FLV\x01":
        return KINDS["flv"]
    if head[:4] == b"OggS" and not head[28:36].startswith(_OGG_SOUND):
        return KINDS["ogv"]
    if head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"):
        return KINDS["mpg"]
    if head[:1] == b"\x47" and head[188:189] == b"\x47":
        return KINDS["ts"]
    return None


def describe(head: bytes) -> str:
    """Say what bytes that are no video look like."""
    if not head:
        return "nothing (an empty body)"
    if (thing := _picture_or_sound(head)) is not None:
        return thing
    for signature, name in _OTHER_THINGS:
        if head.startswith(signature):
            return name
    text = head[:2048].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if re.match(r"(?i)<(!doctype html|html|head|body)", text):
        words = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", text)
        return f"an HTML page: {excerpt(words)!r}"
    if text.startswith(("{", "[")):
        return f"JSON: {excerpt(text)!r}"
    if text.startswith(("<?xml", "<Error")):
        return f"XML: {excerpt(re.sub(r'<[^>]*>', ' ', text))!r}"
    printable = sum(c.isprintable() or c in "\r\n\t" for c in text)
    if text and printable >= 0.95 * len(text):
        return f"text: {excerpt(text)!r}"
    return f"bytes of no known video format (they begin with {head[:8].hex(' ')})"


def _picture_or_sound(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _SOUND_BRANDS:
            return "sound without a video (M4A)"
        others = [head[at : at + 4] for at in range(16, min(int.from_bytes(head[:4]), len(head)), 4)]
        general = (b"mif1", b"msf1")
        exact = [name for name in others if name in _PICTURE_BRANDS and name not in general]
        return _PICTURE_BRANDS.get(exact[0] if brand in general and exact else brand)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 0x02
        return "an animated WebP image" if animated else "a WebP image"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "WAV sound"
    if head[:4] == b"\x89PNG":
        return "an animated PNG image (APNG)" if b"acTL" in head else "a PNG image"
    if head[:4] == b"OggS":
        return "Ogg sound without a video"
    return None
