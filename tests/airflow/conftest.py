"""An Airflow of the tests' own, for those that run in this process.

Airflow reads its configuration when it is imported, and makes its home where none is. So the home is
chosen here, before any test module is imported, and nobody's own Airflow is touched.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from scripts.services import S3Server, Sandbox
    from tests.airflow.support import Clock, Gateway, Listeners, Variables

for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]

HOME = tempfile.mkdtemp(prefix="airflow-video-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

os.environ |= {
    "AIRFLOW_HOME": HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": os.path.join(HOME, "dags"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    # Airflow 3.2 cannot do `dag.test()` without one, and makes none.
    "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
}


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """The metadata database, for tests that use `dag.test()` or store something."""
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True, timeout=180
    )


# What follows is for the tests that call hooks, triggers and operators in this process.


@pytest.fixture(scope="session")
def slow_sandbox(start_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """A gateway whose videos take a minute, and whose clock the tests move. Its files are on another port."""
    return start_sandbox(seconds=60, cdn=True)


@pytest.fixture
def gateway(slow_sandbox: Sandbox) -> Iterator[Gateway]:
    """That gateway with nothing paid, asked or leaked yet; it fails only where the test says so."""
    from tests.airflow.support import Gateway

    gateway = Gateway(slow_sandbox)
    gateway.forget()
    yield gateway
    gateway.heal()


@pytest.fixture(autouse=True)
def variables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Variables | None:
    """Airflow's Variables without its database, for tests that start no Airflow."""
    from tests.airflow.support import Variables

    if {"airflow_database", "real_airflow"} & set(request.fixturenames):
        return None
    variables = Variables()
    monkeypatch.setattr("airflow.providers.common.compat.sdk.Variable", variables, raising=False)
    return variables


@pytest.fixture(autouse=True)
def listeners(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Listeners | None:
    """Airflow's listeners, for tests that start no Airflow."""
    from tests.airflow.support import Listeners

    if {"airflow_database", "real_airflow"} & set(request.fixturenames):
        return None
    listeners = Listeners()
    monkeypatch.setattr(
        "airflow.providers.common.compat.sdk.get_listener_manager", lambda: listeners, raising=False
    )
    return listeners


@pytest.fixture
def connect(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Make a connection to the gateway: `connect("video_default", extra={"dialect": "openai"})`."""

    def make(conn_id: str = "video_default", **changes: Any) -> str:
        made = gateway.sandbox.connection(**changes)
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(made))
        return conn_id

    return make


@pytest.fixture
def connection(connect: Callable[..., str]) -> str:
    """The id of a connection to the gateway, the operators' default."""
    return connect()


@pytest.fixture
def store_connection(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a connection to an S3 server with one bucket, `videos`."""
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(s3_server.connection()))
    return "store"


@pytest.fixture
def clock(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nobody sleeps: whoever would moves the clocks of the package and of the gateway instead."""
    from tests.airflow.support import Clock

    clock = Clock(gateway)
    clock.install(monkeypatch)
    return clock


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the package writes to a task's log. Airflow 2 and 3 log in ways that caplog sees only half of."""
    from airflow_video_provider.hooks.video import VideoHook
    from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator
    from airflow_video_provider.sensors.video import VideoTaskSensor
    from airflow_video_provider.triggers.video import VideoTaskTrigger
    from airflow_video_provider.triggers.video_list import VideoTaskListTrigger

    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("tests", logging.DEBUG)
    logger.addHandler(Keep())
    operators = (VideoGenerateOperator, VideoDownloadOperator, VideoTaskSensor)
    for kind in (VideoHook, VideoTaskTrigger, VideoTaskListTrigger, *operators):
        monkeypatch.setattr(kind, "log", logger)
    return lines
