"""Videos that come inside their URL: ``data:video/mp4;base64,…``."""

from __future__ import annotations

import base64
import binascii
import hashlib
from urllib.parse import unquote_to_bytes

from airflow_video_provider.media.errors import DamagedVideo, NotAVideo, TooLarge
from airflow_video_provider.media.tempfile import TempFile

STEP = 4 * 2**18
"""Characters at a time, a multiple of four: there may be hundreds of megabytes."""


def is_data_url(url: str) -> bool:
    """Whether *url* holds its bytes itself."""
    return url.lstrip()[:5].lower() == "data:"


def write_data_url(url: str, file: TempFile, max_bytes: int) -> tuple[int, str]:
    """Write what a ``data:`` URL holds into *file*.

    :returns: the number of bytes, and their SHA-256 as hexadecimal text.
    :raises NotAVideo: there is no data in it.
    :raises DamagedVideo: it is not valid base64.
    :raises TooLarge: it holds more than *max_bytes*.
    :raises NoSpace: the disk is full.
    """
    header, comma, body = url.strip().partition(",")
    if not comma:
        raise NotAVideo("the data: URL has no data in it")
    digest, size = hashlib.sha256(), 0
    is_base64 = header.lower().replace(" ", "").endswith(";base64")
    try:
        start = 0
        while start < len(body):
            piece = body[start : start + STEP]
            if not is_base64 and start + STEP < len(body) and "%" in piece[-2:]:
                piece = piece[: piece.rindex("%")]  # an escape is not cut in two
            start += len(piece)
            data = base64.b64decode(piece, validate=True) if is_base64 else unquote_to_bytes(piece)
            size += len(data)
            if size > max_bytes:
                raise TooLarge(f"the data: URL holds more than max_bytes={max_bytes}")
            digest.update(data)
            file.write(data)
    except (binascii.Error, ValueError):
        raise DamagedVideo("the data: URL is not valid base64") from None
    return size, digest.hexdigest()
