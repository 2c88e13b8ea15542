"""What README and the documents say is tried: commands run, Dags land videos, links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from functools import partial
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from airflow_video_provider.decorators.video import video_task
from airflow_video_provider.hooks.video import VideoHook
from airflow_video_provider.media import DownloadOptions
from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor
from airflow_video_provider.triggers.video import VideoTaskTrigger
from scripts.processes import wait_until
from scripts.services import S3Server, Sandbox
from tests.airflow.documents import LANGUAGES, PAGES, ROOT, Block, anchors, blocks, links
from tests.airflow.support import dag_file, states
from tests.conftest import AIRFLOW

KEY = "sandbox-key"
ADDRESS = "http://127.0.0.1:8899"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def commands() -> list[Any]:
    return [
        pytest.param(
            command,
            id=f"{block.name} {command[:50]}",
            marks=[] if block.page.name == "README.md" else pytest.mark.slow,
        )
        for block in blocks("shell")
        for command in block.commands
    ]


@pytest.fixture(scope="module")
def gateway_of_documents(start_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """What the pages call http://127.0.0.1:8899; its videos are made at once."""
    return start_sandbox(seconds=0.1, key=KEY)


@pytest.fixture
def elsewhere(
    gateway_of_documents: Sandbox, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """The connections that the pages set up, and their addresses and folders as they are in this test."""
    monkeypatch.setenv("AIRFLOW_CONN_VIDEO_DEFAULT", json.dumps(gateway_of_documents.connection()))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(s3_server.connection()))
    for bucket in ("films", "my-bucket"):
        (s3_server.root / bucket).mkdir(exist_ok=True)

    def moved(text: str) -> str:
        return text.replace(ADDRESS, gateway_of_documents.url).replace(
            "file:///tmp/", f"{tmp_path.as_uri()}/"
        )

    return moved


# --- form ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.name)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES


@pytest.mark.parametrize("block", blocks("json", "toml"), ids=lambda block: block.name)
def test_data_can_be_read(block: Block) -> None:
    assert (json if block.language == "json" else tomllib).loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize(
    "documented",
    [
        VideoGenerateOperator,
        VideoDownloadOperator,
        VideoTaskSensor,
        VideoTaskTrigger,
        VideoHook,
        video_task,
        DownloadOptions,
    ],
    ids=lambda documented: documented.__name__,
)
def test_the_reference_has_every_argument(documented: Any) -> None:
    """It is made of the docstrings, of what this page names."""
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert re.search(rf":: airflow_video_provider\.[a-z_.]+\.{documented.__name__}$", page, re.M)
    taken = set(inspect.signature(documented).parameters) - {"self", "args", "kwargs"}
    assert taken - set(re.findall(r":param (\w+):", documented.__doc__ or "")) == set()


def test_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


# --- commands -----------------------------------------------------------------------------------------


def runs_make(command: str, moved: Callable[[str], str]) -> None:
    """The target is there. `make test` runs inside of some, so they are not run from here."""
    target = command.split("make ", 1)[1].split()[0]
    assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.M), f"`make help` does not list {target}"


def installs(command: str, moved: Callable[[str], str]) -> None:
    """The extras are there. `make build` installs the package into bare environments."""
    (wanted,) = re.findall(r"airflow-video-provider(?:\[([a-z0-9,]+)\])?", command)
    there = set(metadata("airflow-video-provider").get_all("Provides-Extra") or ())
    assert set(filter(None, wanted.split(","))) <= there


def starts_a_sandbox(command: str, moved: Callable[[str], str]) -> None:
    process = subprocess.Popen(
        [sys.executable, *shlex.split(command)[1:], "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline().startswith("sandbox: http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert "AIRFLOW_CONN_VIDEO_DEFAULT" in process.stdout.read()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def connects(command: str, moved: Callable[[str], str]) -> None:
    name, _, value = shlex.split(moved(command))[1].partition("=")
    os.environ[name] = value.replace("…", "0")
    settings = VideoHook().get_conn().settings
    assert settings.base_url.startswith("http")
    assert settings.api_key


def succeeds(command: str, moved: Callable[[str], str]) -> None:
    words = shlex.split(moved(command))
    if words[0] in {"python", "airflow"}:
        words = [sys.executable, *(["-m"] if words[0] == "airflow" else []), *words[words[0] == "python" :]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def explains_itself(command: str, moved: Callable[[str], str]) -> None:
    """A benchmark takes minutes and wants programs of its own: here it is looked at, not run."""
    words = shlex.split(command)
    done = subprocess.run([sys.executable, words[1], "--help"], capture_output=True, text=True, cwd=ROOT)
    assert all(word in done.stdout for word in words[2:] if word.startswith("--"))


def is_one_of_the_first_steps(command: str, moved: Callable[[str], str]) -> None:
    """See :func:`test_the_steps_of_start_land_a_file`."""
    assert command in [
        each for block in blocks("shell") if block.page.name == "start.md" for each in block.commands
    ]


#: What a command of the documents begins with, and what is done with it here.
TRIED: dict[str, Callable[[str, Callable[[str], str]], None]] = {
    r"([A-Z_]+=\S+ |CLUSTER_SEEDS=.* )?make ": runs_make,
    r"pip install ": installs,
    r"python -m airflow_video_provider\.sandbox": starts_a_sandbox,
    r"python -m airflow_video_provider\.ledger": succeeds,
    r"python -m scripts\.": explains_itself,
    r"python benchmarks/": explains_itself,
    r"export AIRFLOW_CONN_": connects,
    r"airflow (db migrate|dags test)": is_one_of_the_first_steps,
    r"airflow connections test": succeeds,
    r"curl ": succeeds,
}


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize("command", commands())
def test_a_command_does_what_it_says(
    command: str, elsewhere: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if AIRFLOW < (3, 3):
        pytest.skip("one Airflow is enough for what is typed")
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    (tried,) = [how for begins, how in TRIED.items() if re.match(begins, command)]
    tried(command, elsewhere)


@pytest.mark.slow
def test_the_steps_of_start_land_a_file(
    elsewhere: Callable[[str], str], gateway_of_documents: Sandbox, tmp_path: Path
) -> None:
    """In an Airflow home that has nothing else, as on the page; the sandbox runs already."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"AIRFLOW_HOME": str(tmp_path / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    env["AIRFLOW__API_AUTH__JWT_SECRET"] = "of-the-reader" * 3  # Airflow 3.2 wants one, as the page says
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    dags = tmp_path / "home" / "dags"
    dags.mkdir(parents=True)
    steps = [block for block in blocks("shell", "python") if block.page.name == "start.md"]
    (dag,) = [block for block in steps if block.language == "python"]
    (dags / "first_video.py").write_text(elsewhere(dag.text), encoding="utf-8")
    told = [command for block in steps if block.language == "shell" for command in block.commands]
    typed = [command for command in told if re.match(r"export |airflow ", command)]
    assert len(typed) == 3
    script = "set -e\n" + "\n".join(elsewhere(command) for command in typed)
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (landed,) = (tmp_path / "films").iterdir()
    assert landed.suffix == ".mp4"
    assert f"landed {landed.as_uri()}" in done.stdout + done.stderr


# --- Dags and other Python ----------------------------------------------------------------------------

#: What stands before a fragment, which is of a Dag's inside.
AROUND = """
from datetime import datetime, timedelta
from airflow.providers.common.compat.sdk import DAG, task
from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor

with DAG("{name}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
"""
WHOLE = re.compile(r"^@dag\(", re.M)
FRAGMENT = re.compile(r"Video\w+(Operator|Sensor)|@task")


def is_dag(block: Block) -> bool:
    return bool(FRAGMENT.search(block.text))


def whole(block: Block, name: str) -> str:
    """A block as a file that leaves its Dag in `dag`."""
    if not WHOLE.search(block.text):
        return AROUND.format(name=name) + textwrap.indent(block.text, "    ")
    call = block.text.rstrip().splitlines()[-1]
    return block.text.replace(f"\n{call}", f"\ndag = {call}")


@pytest.fixture
def submitted(gateway_of_documents: Sandbox) -> Callable[[str], str]:
    """Puts the id of a video that is ready in place of the page's: some download it at once."""

    def known(text: str) -> str:
        if not (ids := re.findall(r"veo3\.1-fast:[0-9]+-\w+", text)):
            return text
        return text.replace(ids[0], _a_video(gateway_of_documents)["id"])

    return known


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=block.name, marks=[] if block.page.name == "README.md" else pytest.mark.slow)
        for block in blocks("python")
        if is_dag(block)
    ],
)
def test_a_dag_runs_with_what_the_page_has_set_up(
    block: Block, elsewhere: Callable[[str], str], submitted: Callable[[str], str]
) -> None:
    name = f"doc_{block.page.stem.replace('-', '_').replace('.', '_')}_{block.line}"
    with dag_file(name, submitted(elsewhere(whole(block, name)))) as module:
        done = module.dag.test()
    assert set(states(done).values()) == {"success"}


@pytest.mark.parametrize(
    "block", [b for b in blocks("python") if not is_dag(b)], ids=lambda block: block.name
)
def test_python_that_is_no_dag_runs(
    block: Block,
    elsewhere: Callable[[str], str],
    gateway_of_documents: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow_video_provider import media

    address = "127.0.0.1"
    monkeypatch.setattr(media, "download", partial(media.download, allowed_hosts=[address]), raising=False)
    url = _a_video(gateway_of_documents)["video_url"]
    text = re.sub(r"https://cdn\.example/[^\"]*", url, elsewhere(block.text))
    text = text.replace("s3://my-bucket/", f"{tmp_path.as_uri()}/")
    code = compile(text, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"url": url, "__name__": "document"}
    result = eval(code, names)  # noqa: S307 - our own documents
    if asyncio.iscoroutine(result):
        asyncio.run(result)


def _a_video(sandbox: Sandbox) -> Any:
    """What the gateway tells of a video that is ready."""
    import httpx

    with httpx.Client(
        base_url=sandbox.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
    ) as client:
        order = {"model": "veo3.1-fast", "prompt": "a fox for the documents"}
        video_id = client.post("/v1/video/create", json=order).json()["id"]

        def ready() -> Any:
            told = client.get("/v1/video/query", params={"id": video_id}).json()
            return told.get("video_url") and told

        return wait_until(ready, timeout=30, what="a video")
