"""Moving and judging bytes: a video's URL -> a whole file under its final name.

Knows neither Airflow nor any gateway. Importing this package costs nothing; what it offers is loaded when
it is first used.
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

__all__ = [
    "BadDestination", "BadURL", "Cancelled", "DamagedVideo", "DestinationExists", "DownloadOptions",
    "DownloadTimeout", "LinkExpired", "LogProgress", "MediaError", "NoSpace", "NotAVideo", "Progress",
    "PublishFailed", "RedirectRefused", "SourceChanged", "SourceRefused", "TerminalBar", "TooLarge",
    "TransferBroken", "UnsafeAddress", "UntrustedCertificate", "VideoFile", "download", "download_many",
    "printable",
]  # fmt: skip

_NOT_IN_ERRORS = {
    "DownloadOptions": "options",
    "LogProgress": "progress",
    "Progress": "progress",
    "TerminalBar": "progress",
    "VideoFile": "video_file",
    "download": "landing",
    "download_many": "landing",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NOT_IN_ERRORS.get(name, 'errors')}"), name)
