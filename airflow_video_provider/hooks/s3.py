"""An S3 client as Airflow makes it: with the credentials, endpoint, proxies and retries of a connection."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

__all__ = ["s3_client"]


def s3_client(fs: Any, url: str) -> tuple[Any, Any]:
    """Make a boto3 client, and its transfer settings, for an S3 URL with Airflow's connection syntax.

    :param fs: the file system of the URL.
    :returns: (None, None) where only the file system will do: for other stores, and for settings that boto3
        does not have.
    """
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    if protocol not in {"s3", "s3a"} or fs.anon:
        return None, None
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=urlsplit(url).netloc.rpartition("@")[0] or None)
    settings = hook.service_config
    if settings.get("signer") or settings.get("proxy-uri"):
        return None, None
    return hook.get_conn(), hook.transfer_config if settings.get("transfer_config_args") else None
