"""The real process on real sockets: what only those can show."""

from __future__ import annotations

import ast
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import airflow_video_provider.sandbox as package
from airflow_video_provider.sandbox.settings import Settings

MODULE = "airflow_video_provider.sandbox"
FOLDER = Path(package.__file__).parent


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = self.after("sandbox: ")

    def after(self, start: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().rstrip("\n")
        self.lines.append(line)
        assert line.startswith(start), line
        return line.removeprefix(start)


@contextmanager
def running(*options: str) -> Iterator[Process]:
    command = [sys.executable, "-m", MODULE, "--port", "0", "--seconds", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Process(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    with running("--cdn-port", "0", "--quiet") as process:
        yield process


@pytest.fixture
def client(process: Process) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer sandbox-key"}
    with httpx.Client(base_url=process.url, headers=headers, trust_env=False, timeout=10) as client:
        client.delete("/sandbox/payments")
        client.delete("/sandbox/leaks")
        client.delete("/sandbox/faults")
        yield client


def finished(client: httpx.Client, prompt: str) -> str:
    order = {"model": "veo3.1-fast", "prompt": prompt}
    video_id = client.post("/v1/video/create", json=order).json()["id"]
    return str(client.get("/v1/video/query", params={"id": video_id}).json()["video_url"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_it_says_where_it_listens_and_stops_cleanly_on_a_signal(number: signal.Signals) -> None:
    with running() as sandbox:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", sandbox.url)
        with httpx.Client(trust_env=False) as kept:
            assert kept.get(sandbox.url).status_code == 200
            # With a connection still open: that must not hold up the end.
            sandbox.process.send_signal(number)
            assert sandbox.process.wait(10) == 0
        assert sandbox.process.stdout
        assert sandbox.process.stderr
        assert "AIRFLOW_CONN_VIDEO_DEFAULT=" in sandbox.process.stdout.read()
        assert sandbox.process.stderr.read() == ""


def test_it_stops_while_a_caller_hangs() -> None:
    with running("--quiet") as sandbox, httpx.Client(trust_env=False, timeout=0.2) as caller:
        order = {"model": "veo3", "prompt": "[create-hang-paid]"}
        headers = {"Authorization": "Bearer sandbox-key"}
        with pytest.raises(httpx.ReadTimeout):
            caller.post(f"{sandbox.url}/v1/video/create", json=order, headers=headers)
        assert httpx.get(f"{sandbox.url}/sandbox/payments", trust_env=False).json()["count"] == 1
        sandbox.process.terminate()
        assert sandbox.process.wait(10) == 0


def test_a_port_that_is_taken_is_one_readable_line(process: Process) -> None:
    port = process.url.rpartition(":")[2]
    command = [sys.executable, "-m", MODULE, "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"sandbox: cannot listen on 127\.0\.0\.1: .*\n", done.stderr)


@pytest.mark.parametrize(
    "options", [("--prefix", "relay"), ("--seconds", "-1"), ("--key", ""), ("--expire", "0")], ids=str
)
def test_options_that_make_no_sense_are_refused(options: tuple[str, str]) -> None:
    command = [sys.executable, "-m", MODULE, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert options[0].removeprefix("--") in done.stderr


def test_the_cdn_is_another_origin_and_a_key_there_is_a_leak_across_origins(
    process: Process, client: httpx.Client
) -> None:
    url = finished(client, "a cat")
    assert httpx.URL(url).port != httpx.URL(process.url).port
    video = httpx.get(url, trust_env=False)
    assert (video.status_code, video.content[4:8]) == (200, b"ftyp")
    assert client.get("/sandbox/leaks").json()["count"] == 0
    assert client.get(url).status_code == 200
    assert client.get("/sandbox/leaks").json()["cross_origin"] == 1
    # The second port serves the CDN and nothing else.
    assert httpx.get(str(httpx.URL(url).join("/sandbox/payments")), trust_env=False).status_code == 404


def test_a_dropped_create_says_nothing_and_is_paid(client: httpx.Client) -> None:
    order = {"model": "veo3", "prompt": "[create-drop-paid]"}
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        client.post("/v1/video/create", json=order)
    assert client.get("/sandbox/payments").json()["count"] == 1


def test_a_dropped_query_is_not_the_end(client: httpx.Client) -> None:
    order = {"model": "veo3", "prompt": "[query-drop=1]"}
    video_id = client.post("/v1/video/create", json=order).json()["id"]
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/v1/video/query", params={"id": video_id})
    assert client.get("/v1/video/query", params={"id": video_id}).json()["status"] == "completed"


def test_a_truncated_body_ends_before_its_length(client: httpx.Client) -> None:
    url = finished(client, "a cat [truncated=1]")
    got: list[bytes] = []
    with httpx.stream("GET", url, trust_env=False) as reply:
        length = int(reply.headers["content-length"])
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            got.extend(reply.iter_raw())
    size = sum(map(len, got))
    assert size == length // 2
    rest = httpx.get(url, headers={"Range": f"bytes={size}-"}, trust_env=False)
    assert (rest.status_code, len(rest.content)) == (206, length - size)


def test_a_body_without_a_length_is_chunked(client: httpx.Client) -> None:
    reply = httpx.get(finished(client, "[no-length]"), trust_env=False)
    assert "content-length" not in reply.headers
    assert reply.headers["transfer-encoding"] == "chunked"


def test_a_percent_encoded_id_arrives_through_a_real_server(client: httpx.Client) -> None:
    order = {"model": "kling-v2", "prompt": "a cat"}
    video_id = client.post("/v1/videos", json=order).json()["id"]
    encoded = video_id.replace("/", "%2F").replace(":", "%3A")
    assert client.get(f"/v1/videos/{encoded}").json()["status"] == "completed"
    assert client.get(f"/v1/videos/{encoded}/content").status_code == 200
    assert client.get(f"/v1/videos/{video_id}").status_code == 404


def test_an_idle_connection_is_kept(client: httpx.Client) -> None:
    first = client.get("/v1/nothing")
    assert first.headers.get("connection", "keep-alive") == "keep-alive"


# --- the package itself -------------------------------------------------------------------------------


def modules() -> list[Path]:
    return sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.name)
def test_it_imports_neither_airflow_nor_the_rest_of_the_package(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.partition(".")[0] != "airflow", name
            assert not name.startswith("airflow_video_provider") or name.startswith(MODULE), name


def test_importing_it_is_light() -> None:
    heavy = {"av", "starlette", "uvicorn", "airflow", "httpx", "pydantic"}
    code = f"import sys, {MODULE}, {MODULE}.settings; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "wrong",
    [{"seconds": -1}, {"expire": 0}, {"key": ""}, {"prefix": "relay"}, {"prefix": "/relay/"}],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    make: Callable[..., Settings] = Settings
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make(**wrong)
