"""The main job in a real Airflow: scheduler, triggerer, workers, and the sandbox over real HTTP."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import av
import httpx
import pytest

from scripts.local_airflow import LocalAirflow
from scripts.processes import wait_until
from scripts.services import S3Server, Sandbox
from tests.conftest import AIRFLOW


def local_path(result: dict[str, Any]) -> Path:
    return Path(unquote(urlsplit(result["uri"]).path))


def frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def submit(sandbox: Sandbox, prompt: str) -> str:
    reply = httpx.post(
        f"{sandbox.url}/v1/video/create",
        headers={"Authorization": f"Bearer {sandbox.key}"},
        json={"model": "grok-video-3", "prompt": prompt},
    )
    return reply.json()["id"]


def paid_for(sandbox: Sandbox, prompt: str) -> int:
    return sum(payment["prompt"] == prompt for payment in sandbox.payments())


def test_the_main_dag_lands_a_playable_file_for_each_prompt(
    real_airflow: LocalAirflow, sandbox: Sandbox, tmp_path: Path
) -> None:
    paid = len(sandbox.payments())
    prompts = ["a red kite", "a blue boat", "a green hill"]
    run = real_airflow.run(
        "video_generate_and_download", {"prompts": prompts, "destination": f"{tmp_path.as_uri()}/"}
    )
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    landed = real_airflow.xcoms(run.dag_id, run.run_id, "video.download")
    assert len(landed) == 3
    assert {local_path(result) for result in landed.values()} == set(tmp_path.iterdir())
    for result in landed.values():
        assert local_path(result).stat().st_size == result["size"]
        assert frames(local_path(result)) > 10
    assert len({result["sha256"] for result in landed.values()}) == 3
    assert len(sandbox.payments()) - paid == 3
    told = real_airflow.xcoms(run.dag_id, run.run_id, "video.generate")
    assert all(task["state"] == "succeeded" and "raw" not in task for task in told.values())


def test_a_list_of_prompts_from_an_upstream_task_is_mapped_over(
    real_airflow: LocalAirflow, tmp_path: Path
) -> None:
    run = real_airflow.run(
        "video_map_prompts", {"animals": ["owl", "vole"], "destination": f"{tmp_path.as_uri()}/"}
    )
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_video_that_another_system_submitted_is_waited_for_and_landed_unpaid(
    real_airflow: LocalAirflow, sandbox: Sandbox, tmp_path: Path
) -> None:
    video_id = submit(sandbox, "a pear")
    run = real_airflow.run(
        "video_sensor_on_submitted_id", {"video_id": video_id, "destination": f"{tmp_path.as_uri()}/"}
    )
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    assert paid_for(sandbox, "a pear") == 1
    assert real_airflow.xcom(run.dag_id, run.run_id, "wait")["video_id"] == video_id
    (path,) = tmp_path.iterdir()
    assert frames(path) > 10


def test_a_file_lands_on_a_real_s3_server(real_airflow: LocalAirflow, s3_server: S3Server) -> None:
    run = real_airflow.run("video_land_in_s3", {"destination": "s3://aws_default@videos/dags/"})
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    result = real_airflow.xcom(run.dag_id, run.run_id, "download")
    (key,) = [key for key in s3_server.objects("videos") if key.startswith("dags/")]
    assert result["uri"].endswith(key)
    assert frames(s3_server.root / "videos" / key) > 10


def test_a_triggerer_that_dies_in_mid_wait_loses_nothing_and_a_retry_pays_nothing(
    real_airflow: LocalAirflow, sandbox: Sandbox, tmp_path: Path
) -> None:
    snails = ("a snail [time=20]", "a snail in haste [time=40]")
    before = [paid_for(sandbox, prompt) for prompt in snails]
    dag_id = "slow_video"
    run_id = real_airflow.trigger(dag_id, {"ledger": f"{tmp_path.as_uri()}/"})
    patient = real_airflow.wait_for_state(dag_id, run_id, "patient", "deferred")
    real_airflow.wait_without_worker(patient)
    triggers = {trigger.id: trigger.kwargs for trigger in real_airflow.triggers()}
    assert patient.trigger_id in triggers
    real_airflow.restart_triggerer()
    after = {trigger.id: trigger.kwargs for trigger in real_airflow.triggers()}
    assert after.get(patient.trigger_id) == triggers[patient.trigger_id]
    run = real_airflow.wait(dag_id, run_id)
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    assert [paid_for(sandbox, prompt) for prompt in snails] == [count + 1 for count in before]
    assert run.task("patient").try_number == 1
    assert "begins anew" not in real_airflow.task_log(run.task("patient")), "it is resumed in its own attempt"
    assert run.task("hasty").try_number > 1
    log = real_airflow.task_log(run.task("hasty"))
    assert "A retry re-attaches to it and pays nothing" in log
    assert "re-attaching to video sora-2:" in log


@pytest.mark.skipif(AIRFLOW != (3, 0), reason="3.0 alone hands a retry what failed the attempt before it")
def test_a_retry_does_not_take_the_end_of_the_wait_before_for_its_own(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    """The generation of one video is in the test above: this is of the other forms."""
    video_id = submit(sandbox, "an eel, elsewhere [time=90]")
    dag_id, names = "interrupted_waits", ("sensor", "sensor_of_a_list", "generate_a_list", "decorated")
    run_id = real_airflow.trigger(dag_id, {"video_id": video_id})
    for name in names:
        real_airflow.wait_for_state(dag_id, run_id, name, "deferred")
    httpx.post(f"{sandbox.url}/sandbox/faults", json={"query": 500}).raise_for_status()
    try:
        wait_until(
            lambda: all(task.try_number > 1 for task in real_airflow.tasks(dag_id, run_id)),
            timeout=120,
            what="retry of each wait",
        )
    finally:
        httpx.delete(f"{sandbox.url}/sandbox/faults").raise_for_status()
    httpx.post(f"{sandbox.url}/sandbox/clock", json={"advance": 90}).raise_for_status()
    run = real_airflow.wait(dag_id, run_id)
    logs = {task.task_id: real_airflow.task_log(task) for task in run.tasks}
    assert {task.task_id: task.state for task in run.tasks} == dict.fromkeys(names, "success"), logs
    assert all("attempt 2 begins anew" in log for log in logs.values())
    prompts = [payment["prompt"] for payment in sandbox.payments() if "an eel" in payment["prompt"]]
    assert sorted(prompts) == [f"an eel, {where} [time=90]" for where in ("elsewhere", "listed", "returned")]


def test_a_download_that_is_cleared_finds_its_file_there_and_nothing_is_paid(
    real_airflow: LocalAirflow, sandbox: Sandbox, tmp_path: Path
) -> None:
    dag_id, conf = "video_generate_and_download", {"prompts": ["a heron"]}
    run = real_airflow.run(dag_id, {**conf, "destination": f"{tmp_path.as_uri()}/"})
    paid = len(sandbox.payments())
    real_airflow.clear(dag_id, run.run_id, ["video.download"])
    again = real_airflow.wait(dag_id, run.run_id)
    assert again.state == "success", [real_airflow.task_log(task) for task in again.failed]
    assert again.task("video.download", 0).try_number == 2
    assert real_airflow.xcoms(dag_id, run.run_id, "video.download")[0]["skipped"]
    assert len(sandbox.payments()) == paid


def events(airflow: LocalAirflow) -> list[tuple[str, dict[str, Any]]]:
    """URI and extra of every asset event; Airflow 2 calls an asset a dataset."""
    word = "asset" if airflow.version >= (3,) else "dataset"
    with closing(sqlite3.connect(airflow.database)) as database:
        rows = database.execute(
            f"SELECT a.uri, e.extra FROM {word}_event e JOIN {word} a ON a.id = e.{word}_id"  # noqa: S608
        )
        return [(uri, json.loads(extra)) for uri, extra in rows]


def test_assets_are_told_of_each_file_that_landed(real_airflow: LocalAirflow, tmp_path: Path) -> None:
    run = real_airflow.run("outlets", {"destination": f"{tmp_path.as_uri()}/"})
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    result = real_airflow.xcom(run.dag_id, run.run_id, "download")
    assert result["failed"] == []
    told = events(real_airflow)
    assert [extra["files"] for uri, extra in told if uri == "file:///films/plums"] == [result["landed"]]
    by_uri = dict(told)
    for landed in result["landed"]:
        assert by_uri[landed["uri"]]["sha256"] == landed["sha256"]
        assert frames(local_path(landed)) > 10
    sidecars = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {sidecar["prompt"] for sidecar in sidecars} == {"a plum", "a quince"}


def test_a_person_who_kills_a_task_cancels_its_video_and_one_who_clears_it_does_not(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    if real_airflow.version < (3, 3):
        pytest.skip("before Airflow 3.3 no trigger is told of a kill")
    dag_id, names = "killed_videos", {"in_a_worker", "in_the_triggerer", "cleared"}
    run_id = real_airflow.trigger(dag_id)

    def asked(method: str) -> list[str]:
        """The tasks whose videos were asked for; a trigger that no triggerer has begun is told of nothing."""
        tasks = sandbox.get("/sandbox/tasks")["tasks"]
        made = {task["id"]: task["prompt"].split()[2] for task in tasks if "a moth" in task["prompt"]}
        noted = sandbox.get("/sandbox/requests")["requests"]
        paths = [unquote(each["path"]).rpartition("/")[2] for each in noted if each["method"] == method]
        return [made[path] for path in paths if path in made]

    def mark(task_id: str, state: str) -> None:
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        real_airflow.api("PATCH", path, {"new_state": state})

    wait_until(lambda: set(asked("GET")) == names, timeout=90, what="query of each video")
    real_airflow.clear(dag_id, run_id, ["cleared"])
    mark("in_a_worker", "failed")
    mark("in_the_triggerer", "failed")
    wait_until(lambda: len(asked("DELETE")) >= 2, timeout=120, what="two cancelled videos")
    real_airflow.wait_for_state(dag_id, run_id, "cleared", "deferred")
    queries = asked("GET").count("cleared")
    wait_until(lambda: asked("GET").count("cleared") > queries + 1, timeout=60, what="wait that goes on")
    assert set(asked("DELETE")) == {"in_a_worker", "in_the_triggerer"}
    assert sum("a moth" in payment["prompt"] for payment in sandbox.payments()) == 3
    mark("cleared", "success")
    wait_until(lambda: set(asked("DELETE")) == names, timeout=120, what="third cancelled video")


@pytest.mark.slow
def test_a_list_of_videos_is_one_task_instance_one_small_trigger_and_one_xcom(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    ids = [submit(sandbox, f"wren {number} [time=12]") for number in range(50)]
    doomed = [*ids[:2], submit(sandbox, "a wren [fail]")]
    dag_id = "many_videos"
    run_id = real_airflow.trigger(dag_id, {"video_ids": ids, "doomed": doomed})
    task = real_airflow.wait_for_state(dag_id, run_id, "deferred", "deferred")
    (row,) = [trigger for trigger in real_airflow.triggers() if trigger.id == task.trigger_id]
    assert row.classpath.endswith("VideoTaskListTrigger")
    assert len(json.dumps(row.kwargs)) < 1000
    run = real_airflow.wait(dag_id, run_id)
    ended = {task.task_id: task.state for task in run.tasks}
    good = ["deferred", "poked", "rescheduled"]
    assert ended == {**dict.fromkeys(good, "success"), "with_a_failure": "failed"}, [
        real_airflow.task_log(task) for task in run.tasks if task.task_id in good
    ]
    for name in good:
        told = real_airflow.xcom(dag_id, run_id, name)
        assert [(video["video_id"], video["state"]) for video in told] == [(id_, "succeeded") for id_ in ids]
    told = real_airflow.xcom(dag_id, run_id, "with_a_failure")
    assert [video["end"] for video in told] == ["succeeded", "succeeded", "failed"]
    log = real_airflow.task_log(run.task("deferred"))
    assert [log.count(f"video {video_id} is ready") for video_id in ids] == [1] * 50
    assert "50 videos: 50 succeeded" in log
    assert len(log) < 60_000, "the event is not in it"


@pytest.mark.slow
def test_a_wait_begins_in_the_triggerer_where_airflow_can_do_that(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    dag_id, can = "begun_in_the_triggerer", real_airflow.version >= (3, 3)
    video_id = submit(sandbox, "a vole [time=900]")
    run_id = real_airflow.trigger(dag_id, {"video_id": video_id})
    task = real_airflow.wait_for_state(dag_id, run_id, "template", "deferred")
    (row,) = [trigger for trigger in real_airflow.triggers() if trigger.id == task.trigger_id]
    assert row.classpath.endswith(".TemplatedVideoTaskTrigger" if can else ".VideoTaskTrigger")
    if can:
        (process,) = real_airflow.query(
            "SELECT pid FROM task_instance WHERE id = ?", str(task.ti_id).replace("-", "")
        )
        assert process["pid"] is None, "no worker has begun it"
    real_airflow.wait_for_state(dag_id, run_id, "late", "failed")
    httpx.post(f"{sandbox.url}/sandbox/clock", json={"advance": 900}).raise_for_status()
    run = real_airflow.wait(dag_id, run_id)
    logs = {task.task_id: real_airflow.task_log(task) for task in run.tasks}
    good = ["template", "xcom", "film", "mapped"]
    assert {task.task_id: task.state for task in run.tasks if task.task_id in good} == dict.fromkeys(
        good, "success"
    ), logs
    assert real_airflow.xcom(dag_id, run_id, "template")["video_id"] == video_id
    assert real_airflow.xcom(dag_id, run_id, "xcom")["state"] == "succeeded"
    by_worker = {name for name, log in logs.items() if "the wait begins in a worker: " in log}
    assert by_worker == ({"xcom", "mapped"} if can else {"template", "xcom", "mapped", "late"})
    assert "was not finished at the deadline" in logs["late"]


FAILURES = {
    "bad_key": "the gateway does not accept the API key",
    "no_balance": "no balance left",
    "unknown_model": "no-such-model",
    "wrong_host": "no reply from http://127.0.0.1:",
    "refused_prompt": "refused by moderation",
    "empty_prompt": "prompt: must not be empty",
    "bad_value": "aspect_ratio: '4:3' is not for veo3.1-fast; allowed: 16:9, 9:16",
    "unknown_id": "the gateway knows no such task",
    "bad_destination": "destination: 'videos/' is no object-storage URL",
    "no_such_store": "destination: s3://no_such_conn@videos/x/ cannot be used",
}


def test_each_failure_names_its_cause_in_one_message_and_pays_nothing(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    paid = len(sandbox.payments())
    run = real_airflow.run("honest_failures")
    assert {task.task_id: task.state for task in run.tasks} == dict.fromkeys(FAILURES, "failed")
    logs = {task.task_id: real_airflow.task_log(task) for task in run.tasks}
    missing = {name: logs[name] for name, words in FAILURES.items() if words not in logs[name]}
    assert not missing
    assert len(sandbox.payments()) == paid


def test_the_log_has_a_line_for_each_change_and_not_for_each_poll(
    real_airflow: LocalAirflow, tmp_path: Path
) -> None:
    run = real_airflow.run(
        "video_map_prompts", {"animals": ["crane"], "destination": f"{tmp_path.as_uri()}/"}
    )
    log = real_airflow.task_log(run.task("generate", 0))
    states = [line for line in log.splitlines() if ": running" in line or ": queued" in line]
    assert len(states) == len({line.partition(" video ")[2] for line in states})
    assert "HTTP Request" not in log


def test_the_api_key_and_signed_queries_are_nowhere_in_database_and_logs(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    # Last in this file: it looks at what all the runs above left behind.
    assert real_airflow.where_is(sandbox.key) == []
    assert real_airflow.where_is("X-Sandbox-Signature") == []
    assert real_airflow.where_is("sk-not-the-right-key") == []
