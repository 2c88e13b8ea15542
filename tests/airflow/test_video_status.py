"""What the operators leave for Airflow's UI: the XCom `video_status`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.decorators.video import _VideoDecoratedOperator
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.operators.video import VideoDownloadOperator
from airflow_video_provider.sensors.video import VideoTaskSensor
from airflow_video_provider.video_status import KEY, VideoStatus, list_status
from tests.airflow.support import (
    MODEL,
    Clock,
    Gateway,
    TaskInstance,
    context_of,
    deferred,
    film,
    finish,
    refused,
)


def status(ti: TaskInstance) -> VideoStatus:
    told = VideoStatus.from_json(ti.xcoms[KEY])
    assert told is not None
    assert told.as_json() == ti.xcoms[KEY]
    return told


class TestGenerate:
    def test_is_told_before_the_wait(
        self, connect: Callable[..., str], gateway: Gateway, clock: Clock
    ) -> None:
        connect(extra={"console_url": "https://console.example/t/{video_id}"})
        ti = TaskInstance()
        deferred(film("a fox").execute, context_of(ti))
        (payment,) = gateway.payments
        told = status(ti)
        assert (told.kind, told.video_id, told.model, told.prompt) == (
            "generate",
            payment["video_id"],
            MODEL,
            "a fox",
        )
        assert told.submitted_at == pytest.approx(clock.time(), abs=5)
        assert told.console_url == "https://console.example/t/" + payment["video_id"].replace(":", "%3A")
        assert gateway.key not in json.dumps(ti.xcoms[KEY])

    def test_a_failure_is_told_as_the_log_tells_it(self, connection: str, clock: Clock) -> None:
        ti = TaskInstance()
        error = refused("a fox [fail]", context=context_of(ti))
        told = status(ti)
        assert told.failure == str(error)
        assert told.video_id is not None
        assert told.submitted_at is not None

    def test_a_refusal_is_told_though_there_is_no_video(self, connection: str) -> None:
        ti = TaskInstance()
        error = refused("a fox [moderation]", context=context_of(ti))
        assert (status(ti).failure, status(ti).video_id) == (str(error), None)

    def test_nothing_is_pushed_by_a_task_that_pushes_nothing(self, connection: str, clock: Clock) -> None:
        ti = TaskInstance()
        finish(context=context_of(ti), do_xcom_push=False)
        assert KEY not in ti.xcoms

    def test_an_api_that_takes_no_xcom_fails_no_video(
        self, connection: str, clock: Clock, monkeypatch: pytest.MonkeyPatch, logged: list[str]
    ) -> None:
        push = TaskInstance.xcom_push

        def fail(ti: TaskInstance, key: str, value: Any) -> None:
            if key == KEY:
                raise RuntimeError("no route to the API server")
            push(ti, key, value)

        monkeypatch.setattr(TaskInstance, "xcom_push", fail)
        assert finish(context=context_of())["state"] == "succeeded"
        assert any("no route to the API server" in line for line in logged)


class TestListOfPrompts:
    def test_tells_of_each_before_the_wait_and_at_the_end(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
    ) -> None:
        prompts = ["a fox", {"prompt": "a heron [fail]", "model": "sora-2"}, "an owl [moderation]"]
        arguments = {
            "prompt": None,
            "prompts": prompts,
            "max_generations": 1,
            "ledger_path": (tmp_path / "ledger").as_uri(),
        }
        ti = TaskInstance()
        waiting = deferred(film(**arguments).execute, context_of(ti))
        ids = {payment["prompt"]: payment["video_id"] for payment in gateway.payments}
        fox, heron, owl = status(ti).items
        assert fox == {"video_id": ids["a fox"], "prompt": "a fox", "model": MODEL, "state": "queued"}
        assert (heron["model"], "error" in heron) == ("sora-2", False)
        assert ("video_id" in owl, owl["prompt"]) == (False, "an owl [moderation]")
        assert "moderation" in owl["error"]

        gateway.finish()
        ends = [Done(End.SUCCEEDED, fox["video_id"], "there", {**fox, "state": "succeeded"}).as_event()]
        ends.append(Done(End.FAILED, heron["video_id"], "video x failed: too dark", {}).as_event())
        with pytest.raises(AirflowException) as caught:
            getattr(film(**arguments), waiting.method_name)(context_of(ti), event={"ends": ends})
        told = status(ti)
        assert told.items[0] == {**fox, "state": "succeeded"}
        assert "too dark" in told.items[1]["error"]
        assert told.items[2] == owl
        assert told.failure == str(caught.value)

    def test_is_of_bounded_size(self) -> None:
        videos = [{"video_id": f"v{number}", "prompt": "a fox " * 1000} for number in range(700)]
        told = list_status(VideoStatus("generate"), videos)
        assert (len(told.items), told.unlisted) == (500, 200)
        assert len(json.dumps(told.as_json())) < 1_000_000

    def test_the_request_of_a_decorated_function_is_told(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        ti = TaskInstance()
        decorated = _VideoDecoratedOperator(
            task_id="film",
            python_callable=lambda: "a fox",
            op_args=[],
            op_kwargs={},
            model=MODEL,
            deferrable=True,
        )
        deferred(decorated.execute, context_of(ti))
        assert (status(ti).prompt, status(ti).model) == ("a fox", MODEL)


class TestSensor:
    @pytest.mark.parametrize("mode", ["deferrable", "poke", "reschedule"])
    def test_tells_of_each_of_a_list(
        self, mode: str, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        good, bad = gateway.submit("a heron"), gateway.submit("a heron [fail]")
        ti = TaskInstance()
        how = {"deferrable": True} if mode == "deferrable" else {"deferrable": False, "mode": mode}
        sensor = VideoTaskSensor(task_id="film", video_ids=[good, bad], **how)
        if mode == "reschedule":
            sensor.poke(context_of(ti))
        elif mode == "deferrable":
            deferred(sensor.execute, context_of(ti))
        else:
            gateway.finish()
            with pytest.raises(AirflowException) as caught:
                sensor.execute(context_of(ti))
            first, second = status(ti).items
            assert (first["state"], "error" in first) == ("succeeded", False)
            assert (second["state"], bad in second["error"]) == ("failed", True)
            assert status(ti).failure == str(caught.value)
        assert [item["video_id"] for item in status(ti).items] == [good, bad]

    @pytest.mark.parametrize("mode", ["deferrable", "poke"])
    def test_tells_whom_it_waits_for(
        self, mode: str, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        video_id = gateway.submit("a heron")
        ti = TaskInstance()
        sensor = VideoTaskSensor(task_id="film", video_id=video_id, deferrable=mode == "deferrable")
        if mode == "deferrable":
            deferred(sensor.execute, context_of(ti))
        else:
            sensor.poke(context_of(ti))
        assert (status(ti).kind, status(ti).video_id) == ("wait", video_id)

    def test_tells_why_it_failed(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        video_id = gateway.submit("a heron [fail]")
        gateway.finish()
        ti = TaskInstance()
        sensor = VideoTaskSensor(task_id="film", video_id=video_id, deferrable=True)
        with pytest.raises(AirflowException) as caught:
            sensor.execute(context_of(ti))
        assert status(ti).failure == str(caught.value)


class TestDownload:
    def test_tells_the_file_with_what_it_was_told_of_the_video(
        self, connection: str, clock: Clock, tmp_path: Path
    ) -> None:
        video = {**finish("a fox"), "usage": {"cost": 0.5}}
        ti = TaskInstance()
        operator = VideoDownloadOperator(task_id="film", video=video, destination=f"{tmp_path.as_uri()}/")
        landed = operator.execute(context_of(ti))
        (file,) = status(ti).files
        assert file == {**landed, "prompt": "a fox", "model": MODEL, "usage": {"cost": 0.5}}
        assert status(ti).video_id == video["video_id"]

    def test_tells_what_landed_and_what_did_not(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
    ) -> None:
        good, bad = gateway.submit("a fox"), gateway.submit("a fox [cdn-404]")
        gateway.finish()
        ti = TaskInstance()
        operator = VideoDownloadOperator(
            task_id="film", videos=[good, bad], destination=f"{tmp_path.as_uri()}/", options={"attempts": 1}
        )
        with pytest.raises(AirflowException) as caught:
            operator.execute(context_of(ti))
        told = status(ti)
        assert [file["video_id"] for file in told.files] == [good]
        assert [item["video_id"] for item in told.missed] == [bad]
        assert told.failure == str(caught.value)

    def test_tells_of_every_video_of_a_task(self, connection: str, clock: Clock, tmp_path: Path) -> None:
        video = finish("two foxes [videos=2]")
        ti = TaskInstance()
        operator = VideoDownloadOperator(
            task_id="film", video=video, destination=f"{tmp_path.as_uri()}/", all_videos=True
        )
        landed = operator.execute(context_of(ti))
        assert [file["uri"] for file in status(ti).files] == [file["uri"] for file in landed]
        assert len(landed) == 2
        assert {file["prompt"] for file in status(ti).files} == {"two foxes [videos=2]"}


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.text()
        | st.sampled_from(["generate", "wait", "download"]),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["kind", "files", "items", "unlisted", "submitted_at", "failure"]), inner
            )
        ),
    )
)
def test_anybodys_xcom_is_read_or_is_none(value: object) -> None:
    told = VideoStatus.from_json(value)
    assert told is None or VideoStatus.from_json(told.as_json()) == told
