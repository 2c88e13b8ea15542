"""Destinations for the fault tests."""

from __future__ import annotations

import ipaddress
import itertools
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
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


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that nobody but its owner trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    """What a server with that certificate listens with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
