"""What can go wrong between a video's URL and its final name.

::

    MediaError
     ├── BadURL                 not an http(s) URL that may be fetched; wrong as text
     ├── UnsafeAddress          the host's address is not public and not in ``allowed_hosts``
     ├── RedirectRefused        too many redirects, or one to a place that may not be followed
     ├── UntrustedCertificate   the server's certificate does not verify
     ├── SourceRefused          an HTTP status that is no video (has ``status_code``, ``retry_after``)
     │    └── LinkExpired       401, 403, 404 or 410, and no fresh link helped
     ├── TransferBroken         the connection broke again and again without progress
     │    └── DownloadTimeout   the overall time ran out
     ├── Cancelled              the caller stopped it
     ├── SourceChanged          the file at the URL kept changing while it was read
     ├── TooLarge               more than ``max_bytes``
     ├── NotAVideo              the bytes are something else: an error page, JSON, nothing
     ├── DamagedVideo           a video, but truncated or corrupt
     ├── NoSpace                the temporary directory or the destination's disk is full
     ├── BadDestination         the destination or the name template is wrong as text
     ├── DestinationExists      something else lies under the final name
     └── PublishFailed          the store refused the file, or does not show it whole

Every message says what happened and what to change. None holds a query string, a password or a header:
URLs enter messages through :func:`printable`, foreign text through :func:`excerpt`.
"""

from __future__ import annotations

from airflow_video_provider.http_common import excerpt, printable

__all__ = ["excerpt", "printable"]


class MediaError(Exception):
    """The base of every error that this package raises on purpose.

    :ivar retryable: whether the same download may succeed later without anybody changing anything. A retry
        of a download never pays for a generation again.
    """

    retryable: bool = True

    @property
    def message(self) -> str:
        """The text of the error."""
        return str(self.args[0]) if self.args else ""


class BadURL(MediaError):
    """The URL is not one that may be fetched: another scheme, no host, credentials inside."""

    retryable = False


class UnsafeAddress(MediaError):
    """The host is (or resolves to) an address that is not public and not allowed by name."""

    retryable = False


class RedirectRefused(MediaError):
    """A redirect that is not followed: too many, to another scheme, or from https to http."""

    retryable = False


class UntrustedCertificate(MediaError):
    """The server's TLS certificate does not verify against the trusted authorities."""

    retryable = False


class SourceRefused(MediaError):
    """The server answered with a status that is no video.

    :ivar status_code: the HTTP status.
    :ivar retry_after: seconds that the server asked to wait, or None.
    """

    def __init__(self, message: str, *, status_code: int, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.status_code, self.retry_after)


class LinkExpired(SourceRefused):
    """The link is refused or gone, and no fresh one could be had."""


class TransferBroken(MediaError):
    """The connection broke or stalled more often in a row than is allowed without progress."""


class DownloadTimeout(TransferBroken):
    """The time for the whole download ran out."""


class Cancelled(MediaError):
    """The caller stopped the download."""


class SourceChanged(MediaError):
    """The file behind the URL changed while it was being read; its parts were not put together."""


class TooLarge(MediaError):
    """The file is larger than ``max_bytes``."""

    retryable = False


class NotAVideo(MediaError):
    """What came is not a video: an error page, JSON, an empty body."""


class DamagedVideo(MediaError):
    """What came began as a video and is truncated, corrupt, or not what its server's digest announced."""


class NoSpace(MediaError):
    """There is no room for the file."""


class BadDestination(MediaError):
    """The destination, or the template of the file name, cannot be used as written."""

    retryable = False


class DestinationExists(MediaError):
    """A file lies under the final name already, and it was not to be replaced."""

    retryable = False


class PublishFailed(MediaError):
    """The destination did not take the file. Nothing of it is visible under the final name."""


def _rebuild(
    kind: type[SourceRefused], message: str, status: int, retry_after: float | None
) -> SourceRefused:
    return kind(message, status_code=status, retry_after=retry_after)
