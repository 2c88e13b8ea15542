"""``python -m airflow_video_provider.ledger``: what is left of submissions, shown and cleaned up."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from airflow.models.variable import Variable
from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_video_provider.ledger import Attempt, FileLedger, State, Submission
from airflow_video_provider.ledger.__main__ import main
from airflow_video_provider.ledger.record import write_items, write_record
from scripts.services import S3Server

DAY = 86_400


def submission(days_ago: float) -> Submission:
    return Submission.new(
        order=1, generation=1, model="veo3.1-fast", video_conn_id="video_default", gateway="https://g.example",
        begun_at=time.time() - days_ago * DAY, begun_by=1, request={}, attempt=Attempt(1, 2),
        state=State.SUBMITTED, video_id=f"veo:{days_ago:g}",
    )  # fmt: skip


@pytest.mark.usefixtures("airflow_database")
class TestVariables:
    def test_are_listed_with_what_they_belong_to(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.keep("aaaa", json.dumps(write_record([submission(1)])), "films.film in manual__1")
        self.keep("bbbb", "nonsense", "films.film[3] in manual__1")
        assert main(["list"]) == 0
        told = capsys.readouterr()
        # On 2.11 another test's task may have left one, too.
        first, second = (line for line in told.out.splitlines() if "aaaa" in line or "bbbb" in line)
        for words in (
            "airflow_video_provider.aaaa",
            "veo:1 submitted (generation 1",
            "films.film in manual__1",
        ):
            assert words in first
        assert "airflow_video_provider.bbbb  cannot be understood  films.film[3]" in second
        assert "remembered" in told.err

    def test_are_deleted_once_they_are_old(self, capsys: pytest.CaptureFixture[str]) -> None:
        for key, days in (("aaaa", 1), ("cccc", 29), ("dddd", 31)):
            self.keep(key, json.dumps(write_record([submission(days)])), "films.film")
        Variable.set("of_somebody_else", "x")
        assert main(["prune"]) == 0
        assert "deleted airflow_video_provider.dddd" in capsys.readouterr().out
        assert main(["prune", "--older-than", "2"]) == 0
        assert "1 deleted" in capsys.readouterr().err
        assert main(["list"]) == 0
        assert "veo:1 " in capsys.readouterr().out
        assert Variable.get("of_somebody_else") == "x"

    def test_of_a_list_are_one_task_instance(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.keep("dddd.1234-0", json.dumps(write_record([submission(31)])), "films.list")
        self.keep("dddd.5678-0", json.dumps(write_record([submission(32)])), "films.list")
        self.keep("dddd.items", json.dumps(write_items(["1234-0", "5678-0"])), "films.list")
        assert main(["prune"]) == 0
        told = capsys.readouterr()
        assert "deleted airflow_video_provider.dddd  veo:31 submitted" in told.out
        assert "veo:32 submitted" in told.out
        assert "1 deleted" in told.err

    @staticmethod
    def keep(key: str, text: str, description: str) -> None:
        Variable.set(f"airflow_video_provider.{key}", text, description=description)

    @pytest.fixture(autouse=True)
    def forgotten(self) -> None:
        for key in ("aaaa", "bbbb", "cccc", "dddd", "dddd.1234-0", "dddd.5678-0", "dddd.items"):
            Variable.delete(f"airflow_video_provider.{key}")


@pytest.mark.parametrize("store", ["file", "s3"])
def test_files_are_listed_and_a_task_instance_is_deleted_as_a_whole(
    store: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    url = tmp_path.as_uri()
    if store == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        request.getfixturevalue("store_connection")
        url = f"s3://store@{server.buckets[0]}/{tmp_path.name}"
    old, used = (FileLedger(ObjectStoragePath(url) / name) for name in ("film-1", "film-2"))
    old.update(submission(40))
    used.update(submission(50))
    used.update(replace(submission(1), order=2))
    of_list = FileLedger(ObjectStoragePath(url) / "film-3").item("1234-0")
    of_list.update(submission(60))
    assert main(["list", "--ledger-path", url]) == 0
    assert "3 remembered" in capsys.readouterr().err
    assert main(["prune", "--ledger-path", url]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("deleted film-1  veo:40 submitted")
    assert "deleted film-3  veo:60 submitted" in told.out
    assert "2 deleted" in told.err
    assert old.read() == of_list.read() == ()
    assert len(used.read()) == 2, "without its first file a later one would not tell the whole"


@pytest.mark.parametrize("store", ["file", "s3"])
def test_a_directory_in_which_nothing_was_ever_remembered_is_an_empty_one(
    store: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{tmp_path.as_uri()}/never/"
    if store == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        request.getfixturevalue("store_connection")
        url = f"s3://store@{server.buckets[0]}/never/"
    assert main(["list", "--ledger-path", url]) == 0
    assert "0 remembered" in capsys.readouterr().err


def test_a_file_is_no_directory_of_memories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        main(["list", "--ledger-path", f"{tmp_path.as_uri()}/file"])
