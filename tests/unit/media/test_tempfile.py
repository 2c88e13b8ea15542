from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from airflow_video_provider.media import BadDestination, NoSpace, PublishFailed
from airflow_video_provider.media.tempfile import TempFile, disk_error, sweep


def swept(directory: Path) -> list[str]:
    """Sweep for a store that has begun whatever is remembered, and return that."""
    lines: list[str] = []

    def discard(remembered: Sequence[str]) -> list[str]:
        lines.extend(remembered)
        return []

    sweep(directory, discard)
    return lines


def abandon(file: TempFile) -> None:
    """Leave a file as a killed process does: there, but not locked any more."""
    os.close(file.fd)
    file.fd = -1


def test_it_is_gone_with_its_journal_when_the_block_ends(tmp_path: Path) -> None:
    with TempFile(tmp_path / "new") as file:
        file.remember("an upload")
        assert len(os.listdir(file.directory)) == 2
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize("by_another", [False, True])
def test_a_file_that_somebody_else_removed_or_replaced_is_not_read(by_another: bool, tmp_path: Path) -> None:
    with TempFile(tmp_path) as file:
        assert file.readable() == str(file.path)
        file.path.unlink()
        if by_another:
            file.path.touch()
        with pytest.raises(PublishFailed, match="was removed from"):
            file.readable()


def test_a_file_that_was_renamed_stays(tmp_path: Path) -> None:
    with TempFile(tmp_path) as file:
        os.write(file.fd, b"video")
        assert file.size == 5
        os.rename(file.path, tmp_path / "final")
    assert os.listdir(tmp_path) == ["final"]


def test_a_sweep_removes_what_a_killed_process_left_and_tells_what_it_had_begun(tmp_path: Path) -> None:
    dead = TempFile(tmp_path)
    dead.remember("one")
    dead.remember("two")
    abandon(dead)
    (tmp_path / "other").touch()
    assert swept(tmp_path) == ["one", "two"]
    assert os.listdir(tmp_path) == ["other"]


def test_what_a_killed_process_had_begun_in_another_store_waits_for_a_download_to_that(
    tmp_path: Path,
) -> None:
    dead = TempFile(tmp_path)
    dead.write(b"half a video")
    dead.remember("one")
    dead.remember("another store's")
    abandon(dead)
    sweep(tmp_path, lambda lines: [line for line in lines if "another" in line])
    assert dead.path.stat().st_size == 0
    assert swept(tmp_path) == ["another store's"]
    assert os.listdir(tmp_path) == []


def test_a_sweep_never_touches_a_file_whose_process_lives(tmp_path: Path) -> None:
    with TempFile(tmp_path) as file:
        file.remember("one")
        assert swept(tmp_path) == []
        assert file.path.exists()


def test_a_sweep_that_comes_between_creating_and_locking_costs_no_download_its_file(tmp_path: Path) -> None:
    over = threading.Event()

    def sweep_on() -> None:
        while not over.is_set():
            swept(tmp_path)

    sweepers = [threading.Thread(target=sweep_on) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for _ in range(2000):
            with TempFile(tmp_path) as file:
                assert os.path.samestat(os.stat(file.path), os.fstat(file.fd))
    finally:
        over.set()
        for sweeper in sweepers:
            sweeper.join()


def test_a_directory_that_is_not_there_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert swept(tmp_path / "nowhere") == []


def test_a_disk_that_takes_a_part_of_a_write_is_asked_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, [3, 2, 0]

    def full(fd: int, data: bytes) -> int:
        if not (fits := room.pop(0)):
            raise OSError(errno.ENOSPC, "no space left on the device")
        return write(fd, data[:fits])

    monkeypatch.setattr(os, "write", full)
    with TempFile(tmp_path) as file, pytest.raises(NoSpace, match="no room"):
        file.write(b"a video")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadDestination, match="no temporary file can be made in"):
        TempFile(tmp_path / "file")


def test_too_little_room_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with TempFile(tmp_path) as file:
        file.need(10)
        with pytest.raises(NoSpace, match="10 bytes free, the file needs 11"):
            file.need(11)


@pytest.mark.parametrize(("number", "words"), [(28, "no room"), (5, "cannot be written")])
def test_an_error_of_the_disk_says_whether_room_is_missing(number: int, words: str) -> None:
    assert words in str(disk_error(OSError(number, os.strerror(number))))
