"""Destinations for the fault tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scripts.services import S3Server
from tests.system.stores import LocalStore, S3Store, Store

_numbers = itertools.count()


def boto3_client(server: S3Server, endpoint: str, **config: Any) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(retries={"total_max_attempts": 2, "mode": "standard"}, **config),
    )


@pytest.fixture
def s3_client(s3_server: S3Server) -> Any:
    return boto3_client(s3_server, s3_server.endpoint)


@pytest.fixture
def s3_store(s3_server: S3Server, s3_client: Any, tmp_path: Path) -> Callable[..., S3Store]:
    """A prefix of its own in the bucket; `endpoint` puts something between the client and the server."""

    def make(endpoint: str | None = None, *, client: str = "boto3") -> S3Store:
        from upath import UPath

        prefix, temp = f"case-{next(_numbers)}", tmp_path / "temp"
        temp.mkdir()
        return S3Store(
            directory=UPath(
                f"s3://videos/{prefix}",
                key=s3_server.access_key,
                secret=s3_server.secret_key,
                endpoint_url=endpoint or s3_server.endpoint,
                config_kwargs={"retries": {"max_attempts": 0}, "read_timeout": 1, "connect_timeout": 1},
                skip_instance_cache=True,
            ),
            temp=temp,
            s3_client=boto3_client(s3_server, endpoint or s3_server.endpoint) if client == "boto3" else None,
            client=s3_client,
            bucket="videos",
            prefix=prefix,
        )

    return make


@pytest.fixture
def local_store(tmp_path: Path) -> LocalStore:
    root, temp = tmp_path / "landed", tmp_path / "temp"
    root.mkdir()
    temp.mkdir()
    return LocalStore(directory=root.as_uri(), temp=temp, root=root)


@pytest.fixture(params=["boto3", pytest.param("s3fs", marks=pytest.mark.slow)])
def s3_by(request: pytest.FixtureRequest, s3_store: Callable[..., S3Store]) -> Callable[..., S3Store]:
    """The same, through each of the two clients that files are put into S3 with."""
    return partial(s3_store, client=request.param)


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "file":
        yield request.getfixturevalue("local_store")
    else:
        yield request.getfixturevalue("s3_store")()
