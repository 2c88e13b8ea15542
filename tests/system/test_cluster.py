"""Pay once, wait for nothing, land whole: on a distributed Airflow whose components die while it works."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest

from scripts.cluster import Cluster
from scripts.deployment import FINISHED, DagRun
from scripts.processes import wait_until
from scripts.services import S3Server, Sandbox
from tests.system.chaos import GENERATE, Chaos

DAG_ID = "many_videos"
DOWNLOAD = "video.download"
BUCKET = "videos"
IN_DOUBT = "so it is not sent again"
SEEDS = [int(seed) for seed in os.environ.get("CLUSTER_SEEDS", "1").split()]

#: Markers that the sandbox reads in a prompt; none of them breaks off a create call.
MARKERS = [
    *("[slow=2]", "[flap=3]", "[query-429-seconds=2]", "[query-drop=2]", "[query-404=1]", "[url-late=2]"),
    *("[rate-limit-seconds=1]", "[create-503=1]", "[cdn-500=2]", "[cdn-drop=1]", "[truncated=1]"),
]
#: Markers of create calls that break off unpaid. The caller cannot know that, so each is in doubt.
BREAKING = ["[create-drop=1]", "[create-502=1]"]


@dataclass
class System:
    """The cluster and the two servers that its Dags talk to."""

    cluster: Cluster
    sandbox: Sandbox
    s3: S3Server
    temp: Path

    def trigger(self, prompts: list[str], folder: str) -> str:
        conf = {"prompts": prompts, "destination": f"s3://aws_default@{BUCKET}/{folder}/"}
        return self.cluster.trigger(DAG_ID, conf | {"temp_dir": str(self.temp)})

    def payments(self, prompts: list[str]) -> Counter[str]:
        return Counter(
            payment["prompt"] for payment in self.sandbox.payments() if payment["prompt"] in prompts
        )

    def client(self) -> Any:
        from botocore.session import get_session

        return get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.s3.endpoint,
            aws_access_key_id=self.s3.access_key,
            aws_secret_access_key=self.s3.secret_key,
        )

    def unfinished_uploads(self) -> list[str]:
        client = self.client()
        try:
            answer = client.list_multipart_uploads(Bucket=BUCKET)
        except client.exceptions.NoSuchUpload:  # how this server says that there is none
            return []
        return [entry["Key"] for entry in answer.get("Uploads", ())]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("cluster")
    dags, temp = folder / "dags", folder / "temp"
    for path in (dags, temp):
        path.mkdir()
    shutil.copy(pytestconfig.rootpath / "tests/system/dags/many_videos.py", dags)
    with (
        Sandbox(folder / "sandbox.log", seconds=15) as sandbox,
        S3Server(folder / "served", folder / "rclone.log", buckets=[BUCKET]) as s3,
        Cluster(
            home=folder / "home",
            dags_folder=dags,
            connections={"video_default": sandbox.connection(), "aws_default": s3.connection()},
        ) as cluster,
    ):
        yield System(cluster, sandbox, s3, temp)


def prompts_of(name: str, count: int, rng: random.Random | None = None) -> list[str]:
    """Distinct prompts; with a random generator, half of them with a fault on request."""
    prompts = [f"{name}: a lighthouse, take {number}" for number in range(count)]
    if rng:
        for number in rng.sample(range(count), count // 2):
            prompts[number] += f" {rng.choice(MARKERS)}"
    return prompts


def assert_landed_whole(system: System, run: DagRun, folder: str, indexes: set[int]) -> None:
    """Every object of the run is what its XCom says and can be played, and there is no other."""
    told = system.cluster.xcoms(DAG_ID, run.run_id, DOWNLOAD)
    assert set(told) == indexes
    there = {key for key in system.s3.objects(BUCKET) if key.startswith(f"{folder}/")}
    assert there == {result["uri"].partition(f"{BUCKET}/")[2] for result in told.values()}
    for result in told.values():
        path = system.s3.root / BUCKET / result["uri"].partition(f"{BUCKET}/")[2]
        assert path.stat().st_size == result["size"], path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == result["sha256"], path
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) > 10, path


def assert_nothing_in_flight(system: System, run: DagRun) -> None:
    """No wait, no upload, no temporary file and no task is left anywhere."""
    # A trigger is deleted by the triggerers' own clean-up, a moment after its task went on.
    wait_until(lambda: not system.cluster.triggers(), timeout=60, what="end of all waits")
    states = Counter(task.state for task in system.cluster.tasks(DAG_ID, run.run_id))
    assert set(states) <= {"success", "failed", "upstream_failed"}, states
    assert system.unfinished_uploads() == []
    assert [path.name for path in system.temp.rglob("*")] == []


@contextlib.contextmanager
def explained(system: System, run_id: str, prompts: list[str], chaos: Chaos | None = None) -> Iterator[None]:
    """When an assertion fails, print what happened to the run, to the cluster and at the gateway."""
    try:
        yield
    except BaseException:
        tasks = system.cluster.tasks(DAG_ID, run_id)
        paid = system.payments(prompts)
        if chaos:
            print("--- not done:", chaos.waiting)
            print("in hand of a worker that was killed or stopped:", sorted(chaos.suspects))
        print("--- tasks:", Counter((task.task_id, task.state) for task in tasks))
        for payment in system.sandbox.payments():
            print(payment["time"], payment["video_id"], payment["prompt"])
        odd = {number for number, prompt in enumerate(prompts) if paid[prompt] != 1}
        for task in tasks:
            if task.state != "success" or task.map_index in odd:
                print(f"--- {task.name}: {task.state}, try {task.try_number}")
                print(system.cluster.task_log(task))
        raise


@pytest.mark.slow
def test_a_distributed_airflow_pays_for_each_prompt_once_and_lands_each_file(system: System) -> None:
    prompts = prompts_of("smoke", 4)
    run_id = system.trigger(prompts, "smoke")
    with explained(system, run_id, prompts):
        run = system.cluster.wait(DAG_ID, run_id)
        assert run.state == "success"
        assert system.payments(prompts) == Counter(prompts)
        assert_landed_whole(system, run, "smoke", set(range(4)))
        assert_nothing_in_flight(system, run)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_prompt_is_paid_for_twice_while_components_die_and_freeze(system: System, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    prompts = prompts_of(f"chaos {seed}", 60, rng)
    broken = set(rng.sample(range(len(prompts)), 4))
    for index in broken:
        prompts[index] += f" {rng.choice(BREAKING)}"
    folder = f"chaos-{seed}"
    run_id = system.trigger(prompts, folder)
    chaos = Chaos(system.cluster, system.sandbox, seed=seed, dag_id=DAG_ID, run_id=run_id)

    def ended() -> bool:
        chaos.step()
        return system.cluster.run_state(DAG_ID, run_id) in FINISHED

    with explained(system, run_id, prompts, chaos):
        try:
            wait_until(ended, timeout=900, what=f"end of {run_id}", every=0.3)
        finally:
            unused = chaos.waiting
            chaos.finish()
            print(*chaos.log, sep="\n")
        assert unused == [], "the run was over before everything had befallen it"
        tasks = system.cluster.tasks(DAG_ID, run_id)
        run = DagRun(DAG_ID, run_id, "", tuple(tasks))
        failed = {task.map_index: system.cluster.task_log(task) for task in run.failed}
        assert {task.task_id for task in run.failed} <= {GENERATE}
        assert all(IN_DOUBT in log for log in failed.values())
        print(f"in doubt: {sorted(failed)}; of these broken off by the gateway: {sorted(broken)}")
        assert broken <= failed.keys()
        assert failed.keys() - broken <= chaos.suspects
        # An id that was heard of is remembered, however soon after that the worker died.
        assert [index for index, log in failed.items() if "submitted video" in log] == []
        print("tries:", Counter(task.try_number for task in tasks))
        paid = system.payments(prompts)
        assert {prompt: count for prompt, count in paid.items() if count > 1} == {}
        succeeded = {index for index in range(len(prompts)) if index not in failed}
        assert [prompts[index] for index in succeeded if not paid[prompts[index]]] == []
        assert {task.map_index for task in tasks if (task.task_id, task.state) == (DOWNLOAD, "success")} == (
            succeeded
        )
        assert_landed_whole(system, run, folder, succeeded)
        assert_nothing_in_flight(system, run)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tasks_that_are_cleared_in_the_middle_of_the_wait_reattach_and_pay_nothing(system: System) -> None:
    prompts = [f"{prompt} [time=60]" for prompt in prompts_of("cleared", 20)]
    run_id = system.trigger(prompts, "cleared")

    def states() -> Counter[str | None]:
        tasks = system.cluster.tasks(DAG_ID, run_id)
        return Counter(task.state for task in tasks if task.task_id == GENERATE)

    with explained(system, run_id, prompts):
        wait_until(lambda: states()["deferred"] == 20, timeout=120, what="20 waits", every=0.5)
        system.cluster.clear(DAG_ID, run_id, [GENERATE])
        run = system.cluster.wait(DAG_ID, run_id, timeout=300)
        assert run.state == "success"
        assert system.payments(prompts) == Counter(prompts)
        for index in range(20):
            assert "re-attaching to video" in system.cluster.task_log(run.task(GENERATE, index))
        assert_landed_whole(system, run, "cleared", set(range(20)))
        assert_nothing_in_flight(system, run)
