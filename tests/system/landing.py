"""One download as the tests make it: small files, short waits, thresholds that such files reach."""

from __future__ import annotations

from typing import Any

from airflow_video_provider.media import DownloadOptions, VideoFile, download
from tests.system.stores import Store
from tests.system.videos import h264


def padded(content: bytes, size: int) -> bytes:
    """Return an MP4 of exactly *size* bytes with the same film in it."""
    padding = size - len(content)
    return content + padding.to_bytes(4) + b"free" + bytes(padding - 8)


CLIP = h264(seconds=1)
OTHER = h264(seed=2, seconds=1)
MIDDLE, LAST = len(CLIP) // 2, len(CLIP) - 1

KIB, MIB = 2**10, 2**20
PART = 5 * MIB
"""The least that S3, and so s3transfer, takes for a part that is not the last."""
PARTS = 3
LONG = padded(CLIP, 2 * PART + MIB)

STALLS: dict[str, Any] = {"stall_timeout": 2.0}
"""For a server that stalls: how long it may, which is long for one that only shares its machine."""

QUICK: dict[str, Any] = {
    "allowed_hosts": ("127.0.0.1",),
    "backoff": 0.001,
    "attempts": 3,
    "stall_timeout": 30.0,
    "timeout": 60.0,
    "progress": lambda moment: None,
}

IN_PARTS = DownloadOptions(upload_threshold=2 * PART, upload_part=PART, block=PART)
"""Upload :data:`LONG` in :data:`PARTS` parts, whichever client does it."""

EAGER = DownloadOptions(
    min_range=64 * KIB,
    share_from=128 * KIB,
    first_window=0.0,
    worth=0.0,
    tick=0.001,
    read_size=16 * KIB,
)
"""Open several connections even for small and fast files."""


def land(url: str, store: Store, **more: Any) -> VideoFile:
    """Download *url* to `v1.mp4` in *store*."""
    return download(
        url,
        store.directory,
        **{
            **QUICK,
            "temp_dir": store.temp,
            "file_name": "{video_id}.{ext}",
            "name_fields": {"video_id": "v1"},
            "s3_client": store.s3_client,
            **more,
        },
    )
