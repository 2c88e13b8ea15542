"""Moving and judging bytes: a video's URL -> a whole file under its final name.

Knows neither Airflow nor any gateway. Importing this package costs nothing; what it offers is loaded when
it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_video_provider.media.errors import (
        BadDestination,
        BadURL,
        Cancelled,
        DamagedVideo,
        DestinationExists,
        DownloadTimeout,
        LinkExpired,
        MediaError,
        NoSpace,
        NotAVideo,
        PublishFailed,
        RedirectRefused,
        SourceChanged,
        SourceRefused,
        TooLarge,
        TransferBroken,
        UnsafeAddress,
        UntrustedCertificate,
        printable,
    )
    from airflow_video_provider.media.landing import download, download_many
    from airflow_video_provider.media.options import DownloadOptions
    from airflow_video_provider.media.progress import LogProgress, Progress, TerminalBar
    from airflow_video_provider.media.video_file import VideoFile

_HOME = {
    "landing": ("download", "download_many"),
    "options": ("DownloadOptions",),
    "video_file": ("VideoFile",),
    "progress": ("LogProgress", "Progress", "TerminalBar"),
    "errors": (
        "BadDestination",
        "BadURL",
        "Cancelled",
        "DamagedVideo",
        "DestinationExists",
        "DownloadTimeout",
        "LinkExpired",
        "MediaError",
        "NoSpace",
        "NotAVideo",
        "PublishFailed",
        "RedirectRefused",
        "SourceChanged",
        "SourceRefused",
        "TooLarge",
        "TransferBroken",
        "UnsafeAddress",
        "UntrustedCertificate",
        "printable",
    ),
}

__all__ = [
    "BadDestination",
    "BadURL",
    "Cancelled",
    "DamagedVideo",
    "DestinationExists",
    "DownloadOptions",
    "DownloadTimeout",
    "LinkExpired",
    "LogProgress",
    "MediaError",
    "NoSpace",
    "NotAVideo",
    "Progress",
    "PublishFailed",
    "RedirectRefused",
    "SourceChanged",
    "SourceRefused",
    "TerminalBar",
    "TooLarge",
    "TransferBroken",
    "UnsafeAddress",
    "UntrustedCertificate",
    "VideoFile",
    "download",
    "download_many",
    "printable",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
