"""Servers for the tests: each is started once, when the first test asks for it, and stopped at the end."""

from __future__ import annotations

import ipaddress
import shutil
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from scripts.deployment import Connection
from scripts.local_airflow import LocalAirflow
from scripts.processes import free_port
from scripts.services import S3Server, Sandbox

#: The version of Airflow that is installed, which unit tests do not import.
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
#: Example Dags that need a newer Airflow than 2.11.
NEEDS = {"approve_before_publishing.py": (3, 1)}

#: Files that wait for an Airflow of their own. Of two processes that share the tests, one would sit
#: idle at the end if these came in the order of the alphabet.
LONG = (
    "test_real_airflow", "test_documents", "test_crash_points", "test_examples", "test_task_decorator",
    "test_plugin", "test_demos", "test_download_stores", "test_download_faults", "test_many_prompts",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


def pytest_configure() -> None:
    # What stops a test run in CI is SIGTERM, and Python dies of that without stopping the servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell that starts them in the background has this one ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def start_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sandbox]]:
    """A gateway of one's own: `start_sandbox(seconds=2, key=..., cdn=True, options=[...])`."""
    with ExitStack() as stack:

        def start(**options: Any) -> Sandbox:
            log = tmp_path_factory.mktemp("sandbox") / "sandbox.log"
            return stack.enter_context(Sandbox(log, **options))

        yield start


@pytest.fixture(scope="session")
def sandbox(start_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """The gateway that tests share; its tasks take six seconds."""
    return start_sandbox(seconds=6)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with one bucket, `videos`."""
    folder: Path = tmp_path_factory.mktemp("s3")
    with S3Server(folder / "served", folder / "rclone.log") as server:
        yield server


@pytest.fixture(scope="session")
def airflow_connections(sandbox: Sandbox, s3_server: S3Server) -> dict[str, Connection]:
    """What `real_airflow` knows. All tests share that one, so what any of them needs stands here."""
    return {
        "video_default": sandbox.connection(),
        "video_openai": sandbox.connection(extra={"dialect": "openai"}),
        "video_bad_key": sandbox.connection(password="sk-not-the-right-key"),
        "video_wrong_host": sandbox.connection(host=f"http://127.0.0.1:{free_port()}"),
        "aws_default": s3_server.connection(),
    }


@pytest.fixture(scope="session")
def real_airflow(
    airflow_connections: dict[str, Connection],
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[LocalAirflow]:
    """A running Airflow of the version that the tests run with, over the example Dags.

    Dags of tests stand in `tests/airflow/dags/`. A test may also write one into `dags_folder`.
    """
    folder = tmp_path_factory.mktemp("airflow")
    dags = folder / "dags"
    dags.mkdir()
    for source in ("dags_examples", "tests/airflow/dags"):
        for path in (pytestconfig.rootpath / source).glob("*.py"):
            shutil.copy(path, dags)
    airflow = LocalAirflow(home=folder / "home", dags_folder=dags, connections=airflow_connections)
    for name in [name for name, least in NEEDS.items() if airflow.version < least]:
        (dags / name).unlink()
    with airflow:
        yield airflow


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
