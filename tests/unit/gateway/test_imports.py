"""The gateway can be used where there is no Airflow, and costs no more than it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MODULES = (
    "gateway.client",
    "gateway.watch",
    "gateway.pace",
    "gateway.task",
    "gateway.dialects",
    "http_common",
)


def loaded_by(*lines: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after these lines."""
    code = "\n".join(
        (*lines, "import sys", "print(*sorted({name.partition('.')[0] for name in sys.modules}))")
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_the_gateway_loads_no_airflow_no_decoder_and_no_object_store() -> None:
    loaded = loaded_by(*(f"import airflow_video_provider.{module}" for module in MODULES))
    assert {"airflow_video_provider", "httpx", "pydantic"} <= loaded
    assert loaded & {"airflow", "av", "fsspec", "s3fs", "starlette", "uvicorn", "sqlalchemy"} == set()


def test_a_name_that_a_dag_file_imports_loads_no_http_client() -> None:
    loaded = loaded_by("from airflow_video_provider.gateway import TaskState", "assert TaskState.QUEUED")
    assert loaded & {"httpx", "pydantic", "airflow"} == set()


def test_every_public_name_is_there() -> None:
    import airflow_video_provider.gateway as gateway

    public = {name for name in dir(gateway) if name[0].isupper()} | {"error_from_reply"}
    assert {"Gateway", "AsyncGateway", "VideoRequest", "VideoTask", "TaskState", "GatewayError"} <= public
    for name in public - {"TYPE_CHECKING", "Any"}:
        assert getattr(gateway, name).__module__.startswith("airflow_video_provider.gateway")
    with pytest.raises(AttributeError, match="NoSuchName"):
        _ = gateway.NoSuchName
