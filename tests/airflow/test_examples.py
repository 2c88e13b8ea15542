"""The example Dags show what to copy: retries, names in the grid, an approval before publishing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from scripts.deployment import TaskInstance
from scripts.local_airflow import LocalAirflow
from scripts.processes import wait_until
from scripts.services import Sandbox
from tests.conftest import AIRFLOW, NEEDS

EXAMPLES = sorted((Path(__file__).parents[2] / "dags_examples").glob("*.py"))
HERE = [path for path in EXAMPLES if NEEDS.get(path.name, (0,)) <= AIRFLOW]


def dag_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Dag that a file makes; its last line throws it away."""
    made: list[Any] = []
    source = path.read_text(encoding="utf-8")
    last = source.rstrip().splitlines()[-1]
    spec = importlib.util.spec_from_loader(path.stem, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["keep"] = made.append
    monkeypatch.setitem(__import__("sys").modules, path.stem, module)
    exec(compile(source.replace(f"\n{last}", f"\nkeep({last})"), str(path), "exec"), module.__dict__)  # noqa: S102
    return made[0]


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.stem)
class TestAnExample:
    def test_retries_what_generates_waits_or_downloads(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = [task for task in dag_of(path, monkeypatch).tasks if task.task_type.startswith("Video")]
        assert ours
        assert all(task.retries >= 3 for task in ours)

    def test_names_its_mapped_tasks(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for task in dag_of(path, monkeypatch).tasks:
            mapped = getattr(
                task, "is_mapped", type(task).__name__ == "MappedOperator"
            )  # 2.11 has no such word
            if task.task_type.startswith("Video") and next(task.iter_mapped_task_groups(), mapped):
                assert "truncate" in task.map_index_template, "Airflow keeps 250 characters of it"


@pytest.mark.slow
def test_the_grid_shows_prompts_and_not_numbers(real_airflow: LocalAirflow, tmp_path: Path) -> None:
    long = "a mole digs under a meadow, seen from the side, " * 9
    conf = {"prompts": ["a mole", long], "destination": f"{tmp_path.as_uri()}/"}
    run = real_airflow.run("video_generate_and_download", conf)
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    rows = real_airflow.query(
        "SELECT task_id, rendered_map_index FROM task_instance WHERE run_id = ? AND map_index >= 0"
        " ORDER BY task_id, map_index",
        run.run_id,
    )
    short = "a mole digs under a meadow, seen from the side, a mole..."
    assert [(row["task_id"], row["rendered_map_index"]) for row in rows] == [
        ("video.download", "a mole"),
        ("video.download", short),
        ("video.generate", "a mole"),
        ("video.generate", short),
    ]


def settled(airflow: LocalAirflow, task: TaskInstance) -> None:
    """Wait until the scheduler has heard that the worker of a paused task has ended.

    People take longer to answer. What goes on before that, the scheduler of LocalExecutor can take for a
    failure.
    """
    airflow.wait_without_worker(task)
    for _ in range(2):
        last = _heartbeat(airflow)
        wait_until(lambda last=last: _heartbeat(airflow) != last, timeout=60, what="scheduler's next loop")


def _heartbeat(airflow: LocalAirflow) -> object:
    statement = "SELECT max(latest_heartbeat) AS beat FROM job WHERE job_type = 'SchedulerJob'"
    return airflow.query(statement)[0]["beat"]


@pytest.mark.parametrize("answer", ["Approve", pytest.param("Reject", marks=pytest.mark.slow)])
def test_only_what_a_person_approves_is_published(
    real_airflow: LocalAirflow, sandbox: Sandbox, tmp_path: Path, answer: str
) -> None:
    if real_airflow.version < (3, 1):
        pytest.skip("people are asked from Airflow 3.1 on")
    dag_id, prompt = "video_approve_before_publishing", f"a newt, {answer}"
    review, published = tmp_path / "review", tmp_path / "published"
    conf = {"prompt": prompt, "review": f"{review.as_uri()}/", "published": f"{published.as_uri()}/"}
    run_id = real_airflow.trigger(dag_id, conf)
    waits = "awaiting_input" if real_airflow.version >= (3, 3) else "deferred"
    waiting = real_airflow.wait_for_state(dag_id, run_id, "approve", waits, timeout=120)
    settled(real_airflow, waiting)
    (reviewed,) = review.iterdir()
    assert not published.exists()
    path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
    asked = wait_until(lambda: real_airflow.api("GET", path), timeout=30, what="question")
    assert prompt in asked["body"]
    assert reviewed.name in asked["body"]
    real_airflow.api("PATCH", path, {"chosen_options": [answer], "params_input": {}})
    run = real_airflow.wait(dag_id, run_id)
    assert run.state == "success", [real_airflow.task_log(task) for task in run.failed]
    files = list(published.iterdir()) if published.exists() else []
    if answer == "Approve":
        assert [path.read_bytes() for path in files] == [reviewed.read_bytes()]
    else:
        assert files == []
        assert run.task("publish").state == "skipped"
    assert sum(payment["prompt"] == prompt for payment in sandbox.payments()) == 1
