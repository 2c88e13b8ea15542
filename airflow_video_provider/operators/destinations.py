"""Where files are put: a destination as users write it, its store's client, the names of what landed."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, ObjectStoragePath

from airflow_video_provider.gateway.errors import InvalidRequestError

__all__ = ["asset_uri", "dataset_name", "numbered", "numbered_path", "path_of"]


def path_of(url: str) -> ObjectStoragePath:
    """The destination as a path whose store can be used.

    :raises InvalidRequestError: it is no such URL, or its connection or filesystem is not there.
    """
    if not re.match(r"[a-z][a-z0-9+.-]*://.", url or "", re.I):
        raise InvalidRequestError(
            f"destination: {url!r} is no object-storage URL; write file:///dir/ or s3://conn_id@bucket/prefix/"
        )
    try:
        path = ObjectStoragePath(url)
        if conn_id := urlsplit(url).netloc.rpartition("@")[0]:
            # A store's own provider may fall back to other credentials for a connection that is not there.
            BaseHook.get_connection(conn_id)
        path.fs  # noqa: B018  attaches the store: its package is there, or not
    except (ValueError, ImportError, AirflowNotFoundException) as error:
        raise InvalidRequestError(
            f"destination: {url} cannot be used: {error}. Are the store's extra (s3, gcs, azure) installed "
            "and its connection there?"
        ) from None
    return path


def numbered(name: str, number: int) -> str:
    """A file's name, or a template of one, with a number before its extension: ``fox-2.mp4``."""
    stem, extension = posixpath.splitext(name)
    return f"{stem}-{number}{extension}"


def numbered_path(destination: ObjectStoragePath, number: int) -> ObjectStoragePath:
    """A final name with a number before its extension.

    :param destination: a name in a directory or bucket, not that itself.
    """
    return destination.parent / numbered(destination.name, number)


def asset_uri(uri: str) -> str:
    """Without the connection id, which an asset's URI must not have."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def dataset_name(uri: str) -> tuple[str, str]:
    """Namespace and name as OpenLineage's naming conventions have them."""
    parts = urlsplit(asset_uri(uri))
    if parts.scheme == "file":
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
