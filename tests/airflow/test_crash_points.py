"""Whatever strikes a worker, and wherever: what was paid, and what the next attempt did.

On Airflow 3.3 the memory is the task state store, before that an Airflow Variable; the rows that are slow
take a ``ledger_path`` on S3 besides. One Dag run for all rows: a real scheduler starts real workers, which
kill themselves at the point that the row names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from airflow_video_provider.ledger.variables import task_instance_of
from scripts.deployment import DagRun
from scripts.local_airflow import LocalAirflow
from scripts.services import Sandbox


@dataclass(frozen=True)
class Row:
    """A blow at a point.

    :param paid: how many generations of the prompt are paid for in the end.
    :param ends: the task's state in the end.
    :param says: what stands in its log.
    :param fault: the sandbox's, in the prompt; in a list in the second one.
    :param items: how many prompts a list has; 0 for a single prompt.
    :param parallel: how many create calls of a list are under way at a time.
    """

    blow: str
    point: str
    paid: int
    ends: str
    says: tuple[str, ...]
    fault: str = ""
    deferrable: bool = True
    slow: bool = False
    items: int = 0
    parallel: int = 1

    @property
    def name(self) -> str:
        fault = f" {self.fault}" if self.fault else ""
        of_list = f" of {self.items}" if self.items else ""
        return f"{self.blow} {self.point}{of_list}{'' if self.deferrable else ' (blocking)'}{fault}".strip()


REATTACHES = ("re-attaching to video", "nothing is paid")
DOUBTS = ("may have accepted and billed", "clear this task to submit again")
BEGINS = ("submitting generation 1 of at most 2",)
HANGS = "[create-hang-paid=30]"

ROWS = [
    Row("kill", "before the intent", 1, "success", BEGINS, slow=True),
    Row("kill", "after the intent", 0, "failed", DOUBTS, slow=True),
    Row("kill", "in the create", 1, "failed", DOUBTS, HANGS),
    Row("kill", "after the reply", 1, "failed", DOUBTS, slow=True),
    Row("kill", "after the record", 1, "success", REATTACHES),
    Row("kill", "before the deferral", 1, "success", REATTACHES, slow=True),
    Row("kill", "in the blocking wait", 1, "success", REATTACHES, deferrable=False, slow=True),
    Row("kill", "in execute_complete", 1, "success", REATTACHES),
    Row("kill", "at the end of execute_complete", 1, "success", REATTACHES, slow=True),
    Row("timeout", "before the intent", 1, "success", BEGINS, slow=True),
    Row("timeout", "after the intent", 1, "success", REATTACHES, slow=True),
    Row(
        "timeout",
        "after the intent",
        1,
        "failed",
        ("the create call broke off", *DOUBTS),
        "[create-drop-paid]",
    ),
    Row("timeout", "after the reply", 1, "success", REATTACHES),
    Row("timeout", "after the record", 1, "success", REATTACHES, slow=True),
    Row("timeout", "before the deferral", 1, "success", REATTACHES, slow=True),
    Row("timeout", "in the blocking wait", 1, "success", REATTACHES, deferrable=False, slow=True),
    Row("timeout", "in execute_complete", 1, "success", REATTACHES, slow=True),
    Row("timeout", "at the end of execute_complete", 1, "success", REATTACHES, slow=True),
    Row("fail", "the XCom", 1, "success", REATTACHES),
    Row(
        "fail",
        "the memory, before",
        1,
        "success",
        ("nothing was paid: the intent cannot be stored",),
        slow=True,
    ),
    Row(
        "fail", "the memory, after", 1, "failed", ("is paid for, but its id could not be stored",), slow=True
    ),
    Row("kill", "in the create", 3, "failed", DOUBTS, HANGS, items=3, parallel=4),
    Row("kill", "after the intent", 2, "failed", (*DOUBTS, "1 of 3 videos failed"), items=3, slow=True),
    Row("kill", "after the reply", 3, "failed", (*DOUBTS, "1 of 3 videos failed"), items=3, slow=True),
    Row("kill", "after the record", 3, "success", REATTACHES, items=3, slow=True),
    Row("kill", "before the list's deferral", 3, "success", REATTACHES, items=3, parallel=4, slow=True),
    Row("kill", "in the blocking wait", 3, "success", REATTACHES, deferrable=False, items=3, slow=True),
    Row("kill", "in execute_complete", 3, "success", REATTACHES, items=3, parallel=4, slow=True),
    Row("kill", "at the end of execute_complete", 3, "success", REATTACHES, items=3, slow=True),
    Row("timeout", "after the reply", 3, "success", REATTACHES, items=3, parallel=2, slow=True),
    Row("timeout", "after the record", 3, "success", REATTACHES, items=3, parallel=2, slow=True),
    Row("fail", "the XCom", 3, "success", REATTACHES, items=3, slow=True),
    Row(
        "", "", 3, "failed", ("the create call broke off", *DOUBTS), "[create-drop-paid]", items=3, slow=True
    ),
    Row("", "", 1, "failed", ("the create call broke off", *DOUBTS), "[create-drop-paid]", slow=True),
    Row("", "", 0, "failed", ("the create call broke off", *DOUBTS), "[create-drop]", slow=True),
]


def run_rows(airflow: LocalAirflow, sandbox: Sandbox, rows: list[Row], **more: Any) -> DagRun:
    """One Dag run of all rows, in their order."""
    conf = [
        {
            **prompts_of(row, more.get("ledger_path")), "blow": row.blow, "point": row.point,
            "deferrable": row.deferrable, "sandbox": sandbox.url, **more,
        }
        for row in rows
    ]  # fmt: skip
    return airflow.run("crash_points", {"rows": conf}, timeout=900)


def prompts_of(row: Row, memory: str | None) -> dict[str, Any]:
    """The row's prompt or prompts, as arguments."""
    prompt = f"{row.name}{' on S3' if memory else ''}"
    if not row.items:
        return {"prompt": prompt}
    # Only the second has the row's fault.
    names = [f"{number}: {prompt}" for number in range(row.items)]
    prompts = [name if number == 1 else name.replace("[", "(") for number, name in enumerate(names)]
    return {"prompts": prompts, "parallel": row.parallel}


def check(airflow: LocalAirflow, sandbox: Sandbox, run: DagRun, index: int, row: Row, memory: Any) -> None:
    film = run.task("film", index)
    log = airflow.task_log(film)
    arguments = prompts_of(row, memory)
    prompts = arguments.get("prompts", [arguments.get("prompt")])
    payments = [payment for payment in sandbox.payments() if payment["prompt"] in prompts]
    paid = [payment["video_id"] for payment in payments]
    assert len(paid) == len({payment["prompt"] for payment in payments}) == row.paid, log
    # 2.11: a "zombie" callback that its Dag processor runs late fails the next attempt, or undoes a success.
    if airflow.version < (3,) and ("externally set to" in log or log.count("Marking task as SUCCESS") > 1):
        return
    # 3.0 fails such a task without its retries, unless it was about to end.
    if airflow.version[:2] == (3, 0) and row.blow == "kill" and film.state == "failed":
        return
    assert film.state == row.ends, log
    assert not [words for words in row.says if words not in log], log
    if row.ends == "success":
        result = airflow.xcom(run.dag_id, run.run_id, "film", map_index=index)
        videos = result if row.items else [result]
        assert {video["video_id"] for video in videos} == set(paid)
        assert [video["prompt"] for video in videos] == prompts


QUICK = [row for row in ROWS if not row.slow]


@pytest.fixture(scope="module")
def quick(real_airflow: LocalAirflow, sandbox: Sandbox) -> DagRun:
    return run_rows(real_airflow, sandbox, QUICK)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("index", range(len(QUICK)), ids=[row.name for row in QUICK])
def test_no_blow_makes_a_second_payment(
    real_airflow: LocalAirflow, sandbox: Sandbox, quick: DagRun, index: int
) -> None:
    check(real_airflow, sandbox, quick, index, QUICK[index], None)


def test_a_variable_is_left_of_a_task_that_failed_only(real_airflow: LocalAirflow, quick: DagRun) -> None:
    """On 2.11 also of one that has just succeeded: Airflow itself may still take the success back."""
    left = real_airflow.variables("airflow_video_provider.")
    films = [task for task in quick.tasks if task.task_id == "film"]
    kept = [task for task in films if task.state == "failed" or real_airflow.version < (3,)]
    left = sorted({task_instance_of(name) for name in left})  # a list has several
    assert len(left) == (0 if real_airflow.version >= (3, 3) else len(kept)), left


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ledger_path", [None, "s3://aws_default@videos/ledger/"], ids=["Airflow", "S3"])
def test_no_blow_at_any_point_makes_a_second_payment(
    real_airflow: LocalAirflow, sandbox: Sandbox, ledger_path: str | None
) -> None:
    rows = [row for row in ROWS if (row.slow or ledger_path) and not (ledger_path and "memory" in row.point)]
    more = {"ledger_path": ledger_path} if ledger_path else {}
    run = run_rows(real_airflow, sandbox, rows, **more)
    for index, row in enumerate(rows):
        check(real_airflow, sandbox, run, index, row, ledger_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_parent_that_clears_its_child_with_every_retry_pays_once(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    if real_airflow.version < (3, 3):
        pytest.skip("before 3.3 nothing tells such a run from another; docs/retries-and-money.md says so")
    prompt = "a parent's film [create-drop-paid]"
    run = real_airflow.run("reset_by_a_parent", {"prompt": prompt}, timeout=300)
    assert run.state == "failed"
    assert run.task("child").try_number == 3
    (film,) = real_airflow.tasks("reset_child", "of_the_parent")
    log = real_airflow.task_log(film)
    assert film.try_number == 3, log
    assert "a Clear may be nobody's decision" in log
    assert sum(payment["prompt"] == prompt for payment in sandbox.payments()) == 1
