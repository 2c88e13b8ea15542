from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from airflow_video_provider.media import DamagedVideo, MediaError, NotAVideo, TooLarge
from airflow_video_provider.media.data_url import STEP, is_data_url, write_data_url
from airflow_video_provider.media.tempfile import TempFile

CONTENT = bytes(range(256)) * 5000


@pytest.mark.parametrize(
    "url",
    [
        "data:video/mp4;base64," + base64.b64encode(CONTENT).decode(),
        "data:video/mp4," + "".join(f"%{byte:02x}" for byte in CONTENT[: STEP // 2]),
    ],
    ids=["base64", "percent-encoded"],
)
def test_its_bytes_are_written_and_digested(url: str, tmp_path: Path) -> None:
    with TempFile(tmp_path) as file:
        size, sha256 = write_data_url(url, file, max_bytes=len(CONTENT))
        written = file.path.read_bytes()
    assert is_data_url(url)
    assert written == CONTENT[:size]
    assert sha256 == hashlib.sha256(written).hexdigest()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("data:video/mp4;base64", NotAVideo),
        ("data:video/mp4;base64,!!!!", DamagedVideo),
        ("data:,12345678901", TooLarge),
    ],
)
def test_one_that_holds_no_video_is_refused(url: str, error: type[MediaError], tmp_path: Path) -> None:
    with TempFile(tmp_path) as file, pytest.raises(error):
        write_data_url(url, file, max_bytes=10)
