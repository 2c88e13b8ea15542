from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from airflow_video_provider.media.digest import DIGEST_STEP, Digest


def test_a_digest_follows_a_file_that_grows(tmp_path: Path) -> None:
    content = os.urandom(2 * DIGEST_STEP + 7)
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    written = 0
    digest = Digest(fd, lambda: written)
    for begin in range(0, len(content), 300_000):
        os.pwrite(fd, content[begin : begin + 300_000], begin)
        written = min(begin + 300_000, len(content))
        digest.advance()
    assert digest.finish(written) == hashlib.sha256(content).hexdigest()
    os.close(fd)


def test_a_file_that_was_cut_is_an_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    digest = Digest(fd, lambda: 10)
    with pytest.raises(OSError, match="shorter"):
        digest.finish(10)
    os.close(fd)


def test_a_cancelled_digest_ends(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    Digest(fd, lambda: 0).cancel()
    os.close(fd)
