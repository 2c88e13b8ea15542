from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_video_provider import media


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after *code*."""
    heavy = {"av", "s3fs", "boto3", "httpx", "httpcore", "fsspec", "airflow"}
    code += f"\nimport sys; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing() -> None:
    assert loaded_by("import airflow_video_provider.media") == set()


def test_importing_download_loads_neither_decoder_nor_store() -> None:
    assert loaded_by("from airflow_video_provider.media import download") <= {"httpcore"}


def test_every_public_name_is_found_and_no_other() -> None:
    assert all(getattr(media, name) is not None for name in media.__all__)
    with pytest.raises(AttributeError):
        _ = media.nothing  # type: ignore[attr-defined]
