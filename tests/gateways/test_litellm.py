"""The operators through a real LiteLLM proxy, which speaks to an OpenAI-format server behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_video_provider.exceptions import VideoSubmitFailed, VideoTaskFailed
from airflow_video_provider.hooks.video import VideoHook
from airflow_video_provider.operators.video import VideoDownloadOperator
from scripts.litellm_proxy import LiteLLM
from scripts.services import Sandbox
from tests.airflow.support import StateStore, context_of, film

MODEL = "sora-2"


@pytest.fixture(scope="module")
def proxy(others: Path, strict: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiteLLM]:
    folder = tmp_path_factory.mktemp("litellm")
    models = [MODEL, "vidgen-9000"]
    with LiteLLM(others, folder, upstream=strict.url, key=strict.key, models=models) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def connection(proxy: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VIDEO_DEFAULT", json.dumps(proxy.connection()))


def made(prompt: str, **arguments: Any) -> dict[str, Any]:
    given = {"model": MODEL, "deferrable": False, "poll_interval": 1, "seconds": 8, "size": "1280x720"}
    return film(prompt, **{**given, **arguments}).execute(context_of(store=StateStore()))


def test_submit_wait_and_land(strict: Sandbox, tmp_path: Path) -> None:
    before = len(strict.payments())
    result = made("a fox")
    assert result["state"] == "succeeded"
    assert len(result["video_id"]) > 200, "LiteLLM's ids are long"
    assert len(strict.payments()) == before + 1
    download = VideoDownloadOperator(task_id="land", video=result, destination=tmp_path.as_uri() + "/")
    landed = download.execute(context_of())
    (file,) = tmp_path.glob("*.mp4")
    assert landed["size"] == file.stat().st_size
    assert file.read_bytes()[4:8] == b"ftyp"


def test_a_reference_picture_arrives(strict: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(999))
    made("a cat", input_reference=(tmp_path / "cat.png").as_uri())
    body = strict.get("/sandbox/tasks")["tasks"][-1]["body"]
    assert body["input_reference"]["bytes"] == 1007


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("moderation", AirflowFailException, "refused by moderation"),
        ("quota", AirflowFailException, "no balance left"),
        ("rate-limit", VideoSubmitFailed, "too many requests"),
        ("create-503", VideoSubmitFailed, "serves no such model now"),
        ("fail", VideoTaskFailed, "the upstream model gave up"),
        ("fail-moderation", AirflowFailException, "Change the prompt or the images"),
        ("fail-output", AirflowFailException, "retry_refused_output=True"),
        ("cancelled", VideoTaskFailed, "cancelled by the operator"),
    ],
)
def test_each_failure_is_read_through_it(
    strict: Sandbox, fault: str, kind: type[AirflowException], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_video_provider.hooks.video.SUBMIT_ATTEMPTS", 1)
    before = len(strict.payments())
    with pytest.raises(AirflowException) as caught:
        made(f"a fox [{fault}]")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    generated = fault.startswith("fail") or fault == "cancelled"
    assert len(strict.payments()) == before + generated
    if not generated:
        assert "nothing was paid" in str(caught.value)


@pytest.mark.parametrize("fault", ["create-500-paid", "create-drop-paid"])
def test_an_unknown_outcome_is_not_repeated(strict: Sandbox, fault: str) -> None:
    before = len(strict.payments())
    with pytest.raises(AirflowFailException, match="may have accepted and billed"):
        made(f"who knows [{fault}]")
    # What LiteLLM itself does meanwhile is its own affair: the openai client in it repeats a 500.
    assert len(strict.payments()) > before


def test_a_good_key_is_told_by_the_connection_test() -> None:
    """LiteLLM asks OpenAI itself for an id that is not in its own form, and tells what became of that."""
    good, said = VideoHook().test_connection()
    assert good, said


def test_a_bad_key_is_told_by_the_connection_test(proxy: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VIDEO_DEFAULT", json.dumps(proxy.connection(password="sk-bad")))
    good, said = VideoHook().test_connection()
    assert not good
    assert said.startswith("Bad API key")
    assert "sk-bad" not in said


def test_a_wrong_path_is_told_by_the_connection_test(proxy: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VIDEO_DEFAULT", json.dumps(proxy.connection(host=f"{proxy.url}/relay")))
    good, said = VideoHook().test_connection()
    assert not good
    assert said.startswith("Wrong path or dialect")
