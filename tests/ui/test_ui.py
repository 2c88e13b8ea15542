"""Airflow's UI with the plugin, in a real browser: what people see, and what they must not."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import urllib.error
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
from playwright.sync_api import Error as PlaywrightError

from scripts.deployment import DagRun
from scripts.processes import wait_until
from scripts.services import S3Server, Sandbox
from tests.system.videos import h264
from tests.ui.conftest import UiAirflow

SCRIPT = "a door <script>document.title='struck'</script><img src=x onerror=\"document.title='struck'\">"
PROMPTS = [
    "A lighthouse at dawn, the sea calm, gulls in the distance, shot on 35 mm film",
    "A glass of water on a sill, sunlight moving through it",
    SCRIPT,
]
DOWNLOAD = "film.download"
GENERATE = "film.generate"


@pytest.fixture(scope="module")
def local_run(airflow: UiAirflow, tmp_path_factory: pytest.TempPathFactory) -> DagRun:
    """Three videos on a disk."""
    folder = tmp_path_factory.mktemp("landed")
    run = airflow.run("ui_films", {"prompts": PROMPTS, "destination": f"{folder.as_uri()}/"})
    assert run.state == "success", [airflow.task_log(task) for task in run.failed]
    return run


@pytest.fixture(scope="module")
def s3_run(airflow: UiAirflow, s3_server: S3Server) -> DagRun:
    """Two videos in S3."""
    prompts = ["a fox crosses a snowy field", "a heron at a pond"]
    run = airflow.run("ui_films", {"prompts": prompts, "destination": "s3://aws_default@videos/ui/"})
    assert run.state == "success", [airflow.task_log(task) for task in run.failed]
    return run


@pytest.fixture(scope="module")
def mixed_run(airflow: UiAirflow, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run in which a video waits, one failed, and one task landed two; its id."""
    folder = tmp_path_factory.mktemp("mixed")
    run_id = airflow.trigger("ui_one_of_each", {"destination": f"{folder.as_uri()}/"})
    airflow.wait_for_state("ui_one_of_each", run_id, "several", "success")
    airflow.wait_for_state("ui_one_of_each", run_id, "refused", "failed")
    airflow.wait_for_state("ui_one_of_each", run_id, "slow", "deferred")
    return run_id


@pytest.fixture(scope="module")
def lists_run(airflow: UiAirflow, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of lists: one landed, one half failed, one waits; and a task with two videos. Its id."""
    folder = tmp_path_factory.mktemp("lists")
    run_id = airflow.trigger("ui_lists", {"destination": f"{folder.as_uri()}/"})
    for task_id, state in (
        ("land", "success"),
        ("land_all", "success"),
        ("half", "failed"),
        ("slow", "deferred"),
    ):
        airflow.wait_for_state("ui_lists", run_id, task_id, state)
    return run_id


def tab_url(run: DagRun, task_id: str, map_index: int = -1) -> str:
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"/dags/{run.dag_id}/runs/{run.run_id}/tasks/{task_id}{mapped}/plugin/video"


def opened(page: Any, airflow: UiAirflow, path: str) -> Any:
    """The plugin's frame in Airflow's page."""
    page.goto(f"{airflow.url}{path}")
    page.locator("iframe").wait_for()
    frame = next(iter(page.locator("iframe").element_handles())).content_frame()
    frame.wait_for_selector("#page > *")
    return frame


def until(frame: Any, expression: str, argument: Any = None) -> None:
    """Wait for the truth of a script's expression. Playwright's own way would need a weaker policy."""

    def holds() -> bool:
        try:
            return bool(frame.evaluate(expression, argument))
        except PlaywrightError:  # the frame is on its way to another page
            return False

    wait_until(holds, timeout=120, what=expression)


def shot(page: Any, docs: Path | None, name: str) -> None:
    if docs is not None:
        page.screenshot(path=str(docs / f"{name}.png"))


def playing(frame: Any) -> None:
    """Play the tab's video, and see that time goes on in it and that it can be sought in."""
    until(frame, "document.querySelector('.stage video').readyState >= 2")
    frame.evaluate(
        "(v => { v.muted = true; v.loop = true; v.play() })(document.querySelector('.stage video'))"
    )
    until(frame, "document.querySelector('.stage video').currentTime > 0.3")
    frame.evaluate("document.querySelector('.stage video').pause()")


def sought(frame: Any, seconds: float) -> None:
    frame.evaluate("s => { document.querySelector('.stage video').currentTime = s }", seconds)
    until(
        frame,
        "s => { const v = document.querySelector('.stage video');"
        " return !v.seeking && v.readyState >= 2 && Math.abs(v.currentTime - s) < 0.2 }",
        seconds,
    )


class TestTab:
    @pytest.mark.parametrize("store", ["local_run", "s3_run"])
    def test_a_landed_video_plays_and_can_be_sought_in(
        self,
        store: str,
        request: pytest.FixtureRequest,
        airflow: UiAirflow,
        logged_in: Any,
        docs: Path | None,
    ) -> None:
        run = request.getfixturevalue(store)
        page = logged_in()
        frame = opened(page, airflow, tab_url(run, DOWNLOAD, 0))
        playing(frame)
        sought(frame, 1.5)
        landed = airflow.xcom(run.dag_id, run.run_id, DOWNLOAD, map_index=0)
        text = frame.inner_text("#page")
        for shown in (
            landed["uri"],
            landed["sha256"],
            landed["video_codec"],
            landed["video_id"],
            "veo3.1-fast",
        ):
            assert shown in text
        assert page.foreign == []
        assert page.problems == []
        shot(page, docs, "ui-tab" if store == "local_run" else "ui-tab-s3")

    def test_the_task_that_generated_the_video_shows_it_too(
        self, local_run: DagRun, airflow: UiAirflow, logged_in: Any
    ) -> None:
        frame = opened(logged_in(), airflow, tab_url(local_run, GENERATE, 1))
        playing(frame)
        assert "Downloaded by" in frame.inner_text("#page")

    def test_seeking_in_a_long_video_fetches_a_range_and_not_what_lies_before(
        self, s3_run: DagRun, s3_server: S3Server, airflow: UiAirflow, logged_in: Any
    ) -> None:
        uri = "s3://aws_default@videos/ui/long.mp4"
        content = h264(seconds=60, faststart=False)
        put(s3_server, "ui/long.mp4", content)
        plant(airflow, s3_run, 1, uri, len(content))
        page = logged_in()
        ranges: list[str] = []
        page.on(
            "request",
            lambda request: (
                ranges.append(request.headers.get("range", "")) if "/files/" in request.url else None
            ),
        )
        frame = opened(page, airflow, tab_url(s3_run, DOWNLOAD, 1))
        until(frame, "document.querySelector('.stage video').readyState >= 2")
        sought(frame, 50)
        buffered = frame.evaluate(
            "(v => v.buffered.length ? v.buffered.end(0) : 0)(document.querySelector('.stage video'))"
        )
        assert any(not asked.startswith("bytes=0-") for asked in ranges if asked), ranges
        assert buffered > 0

    def test_a_prompt_with_a_script_in_it_is_text(
        self, local_run: DagRun, airflow: UiAirflow, logged_in: Any
    ) -> None:
        page = logged_in()
        for path in (
            tab_url(local_run, DOWNLOAD, 2),
            f"/dags/ui_films/runs/{local_run.run_id}/plugin/videos",
        ):
            frame = opened(page, airflow, path)
            assert SCRIPT in frame.inner_text("#page")
            assert frame.evaluate("document.querySelectorAll('#page script, #page img[src=x]').length") == 0
            assert "struck" not in (frame.title(), page.title())
        assert page.problems == []

    def test_a_waiting_video_shows_how_far_the_gateway_is(
        self, mixed_run: str, airflow: UiAirflow, logged_in: Any, docs: Path | None
    ) -> None:
        page = logged_in()
        frame = opened(page, airflow, f"/dags/ui_one_of_each/runs/{mixed_run}/tasks/slow/plugin/video")
        frame.wait_for_selector("#live progress[value]")
        text = frame.inner_text("#live")
        assert "Age" in text
        assert "Next query of the triggerer" in text
        assert "Given up at" in text
        assert frame.inner_text("#live .line").startswith(("queued", "running"))
        shot(page, docs, "ui-waiting")

    def test_a_failed_video_shows_the_gateways_reason_and_what_comes_next(
        self, mixed_run: str, airflow: UiAirflow, logged_in: Any, docs: Path | None
    ) -> None:
        page = logged_in(dark=True)
        frame = opened(page, airflow, f"/dags/ui_one_of_each/runs/{mixed_run}/tasks/refused/plugin/video")
        text = frame.inner_text(".failure")
        assert "This was generation 1 of at most 1" in text
        assert "no further attempt by itself" in text
        shot(page, docs, "ui-failed")

    def test_a_download_of_several_shows_them_all_and_each_large(
        self, mixed_run: str, airflow: UiAirflow, logged_in: Any
    ) -> None:
        frame = opened(
            logged_in(), airflow, f"/dags/ui_one_of_each/runs/{mixed_run}/tasks/several/plugin/video"
        )
        assert frame.locator(".card").count() == 2
        frame.locator(".card").first.click()
        frame.wait_for_selector(".stage video")
        playing(frame)

    @pytest.mark.parametrize("task_id", ["listed", "land", "decorated", "land_all"])
    def test_of_a_list_each_landed_video_is_played_large(
        self, task_id: str, lists_run: str, airflow: UiAirflow, logged_in: Any, docs: Path | None
    ) -> None:
        page = logged_in()
        frame = opened(page, airflow, f"/dags/ui_lists/runs/{lists_run}/tasks/{task_id}/plugin/video")
        number = 3 if task_id in {"listed", "land"} else 2
        until(frame, f"document.querySelectorAll('.card.landed img').length === {number}")
        if task_id == "listed":
            shot(page, docs, "ui-list")
        frame.locator(".card").last.click()
        frame.wait_for_selector(".stage video")
        playing(frame)
        frame.locator("nav a").click()
        until(frame, f"document.querySelectorAll('.card').length === {number}")
        assert page.problems == []

    def test_of_a_list_each_video_says_how_far_it_is(
        self, lists_run: str, airflow: UiAirflow, logged_in: Any, docs: Path | None
    ) -> None:
        page = logged_in()
        frame = opened(page, airflow, f"/dags/ui_lists/runs/{lists_run}/tasks/slow/plugin/video")
        frame.wait_for_selector(".card progress")
        assert frame.locator(".card.waiting", has_text=re.compile("queued|running")).count() == 2
        assert "Given up at" in frame.inner_text("#live")
        shot(page, docs, "ui-list-waiting")
        frame = opened(page, airflow, f"/dags/ui_lists/runs/{lists_run}/tasks/half/plugin/video")
        assert frame.locator(".card.ready", has_text="a heron at a pond").count() == 1
        frame.locator(".card.failed", has_text="a riddle").click()
        frame.wait_for_selector(".failure")
        assert "This was generation 1 of at most 1" in frame.inner_text(".failure")
        assert page.problems == []

    def test_a_task_that_makes_no_video_says_so(
        self, mixed_run: str, airflow: UiAirflow, logged_in: Any
    ) -> None:
        frame = opened(
            logged_in(), airflow, f"/dags/ui_one_of_each/runs/{mixed_run}/tasks/no_video/plugin/video"
        )
        assert "This task makes no video." in frame.inner_text("#page")

    def test_the_uri_is_copied(self, local_run: DagRun, airflow: UiAirflow, logged_in: Any) -> None:
        page = logged_in()
        frame = opened(page, airflow, tab_url(local_run, DOWNLOAD, 0))
        frame.locator("button.copy").first.click()
        until(frame, "document.querySelector('button.copy').textContent === 'Copied'")
        landed = airflow.xcom(local_run.dag_id, local_run.run_id, DOWNLOAD, map_index=0)
        assert page.evaluate("navigator.clipboard.readText()") == landed["uri"]

    def test_light_and_dark_follow_airflow(
        self, local_run: DagRun, airflow: UiAirflow, logged_in: Any, docs: Path | None
    ) -> None:
        page = logged_in(dark=True)
        frame = opened(page, airflow, tab_url(local_run, DOWNLOAD, 1))
        until(frame, "document.documentElement.classList.contains('dark')")
        playing(frame)
        shot(page, docs, "ui-tab-dark")
        page.evaluate("document.documentElement.classList.replace('dark', 'light')")
        until(frame, "document.documentElement.classList.contains('light')")


class TestGallery:
    def test_a_run_shows_its_videos_and_each_leads_to_its_task_instance(
        self, local_run: DagRun, airflow: UiAirflow, logged_in: Any, docs: Path | None
    ) -> None:
        page = logged_in()
        frame = opened(page, airflow, f"/dags/ui_films/runs/{local_run.run_id}/plugin/videos")
        until(frame, "document.querySelectorAll('.card img').length === 3")
        assert frame.locator(".card").count() == 3
        assert page.problems == []
        shot(page, docs, "ui-videos-run")
        frame.locator(".card", has_text="A lighthouse").click()
        page.wait_for_url(f"**/tasks/{DOWNLOAD}/mapped/0/plugin/video")
        page.frame_locator("iframe").locator(".stage video").wait_for()

    def test_model_and_state_are_filters(self, mixed_run: str, airflow: UiAirflow, logged_in: Any) -> None:
        frame = opened(logged_in(), airflow, f"/dags/ui_one_of_each/runs/{mixed_run}/plugin/videos")
        frame.select_option("select[name=state]", "failed")
        until(frame, "document.querySelector('h1').textContent.startsWith('1 video')")
        assert "a riddle" in frame.inner_text("#grid")
        frame.select_option("select[name=state]", "")
        frame.wait_for_url("**state=&**")
        frame.select_option("select[name=model]", "sora-2")
        until(frame, "document.querySelector('h1').textContent.startsWith('2 video')")
        assert "a glacier" in frame.inner_text("#grid")

    def test_five_hundred_videos_are_sent_by_and_by(
        self, local_run: DagRun, airflow: UiAirflow, logged_in: Any, docs: Path | None
    ) -> None:
        multiply(airflow, local_run, 500)
        page = logged_in()
        fetched: list[str] = []
        page.on("request", lambda request: fetched.append(request.url) if "/files/" in request.url else None)
        frame = opened(page, airflow, "/dags/ui_films/plugin/all-videos")
        assert int(frame.inner_text("h1").split()[0]) >= 500
        assert frame.locator(".card").count() == 48
        until(frame, "document.querySelectorAll('.card img').length >= 8")
        assert len(set(fetched)) < 48, "only what is in sight is fetched"
        shot(page, docs, "ui-videos")
        frame.evaluate(
            "async () => { while (document.getElementById('more')) {"
            " scrollTo(0, document.body.scrollHeight); await new Promise(r => setTimeout(r, 50)) } }"
        )
        assert frame.locator(".card").count() >= 500
        assert len(set(fetched)) < 250
        assert page.problems == []
        dark = logged_in(dark=True)
        frame = opened(dark, airflow, "/dags/ui_films/plugin/all-videos")
        until(frame, "document.querySelectorAll('.card img').length >= 8")
        shot(dark, docs, "ui-videos-dark")


class TestAccess:
    def routes(self, run: DagRun) -> list[str]:
        of_task = f"/video-gateway/dags/{run.dag_id}/runs/{run.run_id}/tasks/{DOWNLOAD}/0"
        of_run = f"/video-gateway/dags/{run.dag_id}/runs/{run.run_id}/videos"
        return [
            of_task,
            f"{of_task}/live",
            f"{of_task}/files/0",
            of_run,
            f"/video-gateway/dags/{run.dag_id}/videos",
        ]

    def test_a_user_who_may_not_read_the_dag_gets_403_on_every_route(
        self, local_run: DagRun, airflow: UiAirflow
    ) -> None:
        routes = self.routes(local_run)
        assert [status(airflow, path, "insider") for path in routes] == [200] * len(routes)
        assert [status(airflow, path, "outsider") for path in routes] == [403] * len(routes)
        assert [status(airflow, path, None) for path in routes] == [401] * len(routes)

    def test_another_dag_opens_no_way_to_these_files(self, local_run: DagRun, airflow: UiAirflow) -> None:
        for dag_id in ("~", "other", "ui_one_of_each"):
            path = f"/video-gateway/dags/{dag_id}/runs/{local_run.run_id}/tasks/{DOWNLOAD}/0/files/0"
            assert status(airflow, path, "insider") == 404


class TestStreams:
    def test_twenty_players_that_are_left_open_cost_neither_memory_nor_the_pages(
        self, local_run: DagRun, airflow: UiAirflow, tmp_path: Path
    ) -> None:
        """Each holds its request to a file of 2 GB, of which it takes the beginning."""
        path, size = tmp_path / "long.mp4", 2 * 2**30
        path.write_bytes(h264(seconds=1))
        os.truncate(path, size)
        plant(airflow, local_run, 1, path.as_uri(), size)
        url = f"/video-gateway/dags/ui_films/runs/{local_run.run_id}/tasks/{DOWNLOAD}/1"
        before = memory_of(airflow)
        with ExitStack() as players:
            for _ in range(20):
                reply = players.enter_context(closing(requested(airflow, f"{url}/files/0", "insider")))
                assert (reply.status, len(reply.read(2**20))) == (200, 2**20)
            assert memory_of(airflow) - before < 300 * 2**20
            for route in self.pages(local_run):
                assert status(airflow, route, "insider") == 200
        with closing(requested(airflow, f"{url}/files/0", "insider", Range=f"bytes={size - 9}-")) as reply:
            assert (reply.status, reply.read()) == (206, bytes(9))

    def pages(self, run: DagRun) -> list[str]:
        """Of the plugin and of Airflow: what its pool of database connections must still be there for."""
        return [
            f"/video-gateway/dags/{run.dag_id}/videos",
            f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances",
        ] * 3


class TestLinks:
    def test_video_and_gateway(self, local_run: DagRun, airflow: UiAirflow, sandbox: Sandbox) -> None:
        path = f"/api/v2/dags/ui_films/dagRuns/{local_run.run_id}/taskInstances/{DOWNLOAD}/links?map_index=0"
        links = airflow.api("GET", path)["extra_links"]
        video_id = airflow.xcom("ui_films", local_run.run_id, DOWNLOAD, map_index=0)["video_id"]
        assert links["Video"] == f"{airflow.url}{tab_url(local_run, DOWNLOAD, 0)}"
        assert unquote(links["Gateway"]) == f"{sandbox.url}/#{video_id}"

    def test_a_decorated_function_has_them_too(self, lists_run: str, airflow: UiAirflow) -> None:
        path = f"/api/v2/dags/ui_lists/dagRuns/{lists_run}/taskInstances/decorated/links"
        assert set(airflow.api("GET", path)["extra_links"]) == {"Video", "Gateway"}

    def test_they_are_there_while_a_video_waits(self, mixed_run: str, airflow: UiAirflow) -> None:
        path = f"/api/v2/dags/ui_one_of_each/dagRuns/{mixed_run}/taskInstances/slow/links"
        links = airflow.api("GET", path)["extra_links"]
        assert links["Video"].endswith("/tasks/slow/plugin/video")
        assert "#sora-2" in links["Gateway"]


def test_the_plugin_is_loaded_without_a_complaint(airflow: UiAirflow) -> None:
    plugins = airflow.api("GET", "/api/v2/plugins")["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "video_gateway"]
    assert {view["destination"] for view in ours["external_views"]} == {"task_instance", "dag_run", "dag"}
    assert airflow.api("GET", "/api/v2/plugins/importErrors")["import_errors"] == []


def requested(airflow: UiAirflow, path: str, user: str | None, **headers: str) -> Any:
    """The answer to a request, which is still to be read and to be closed."""
    if user:
        headers["Authorization"] = f"Bearer {airflow.token(user)}"
    request = urllib.request.Request(f"{airflow.url}{path}", headers=headers)  # noqa: S310 - our own address
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=60)


def status(airflow: UiAirflow, path: str, user: str | None) -> int:
    try:
        with requested(airflow, path, user) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def memory_of(airflow: UiAirflow) -> int:
    """Bytes that the api-server's processes have to themselves."""
    return sum(process.memory_full_info().uss for process in airflow.members("api-server"))


def put(server: S3Server, key: str, content: bytes) -> None:
    """Put an object there as clients do: the server does not see at once what is put into its folder."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    client.put_object(Bucket="videos", Key=key, Body=content)


def plant(airflow: UiAirflow, run: DagRun, map_index: int, uri: str, size: int) -> None:
    """Have a task instance say that it landed another video."""
    with closing(sqlite3.connect(airflow.database, timeout=30)) as database, database:
        database.row_factory = sqlite3.Row
        found = (
            "SELECT * FROM xcom WHERE run_id = ? AND task_id = ? AND map_index = ? AND key = 'video_status'"
        )
        row = dict(database.execute(found, (run.run_id, DOWNLOAD, map_index)).fetchone())
        twice = isinstance(json.loads(row["value"]), str)
        told = json.loads(json.loads(row["value"])) if twice else json.loads(row["value"])
        told["files"][0] |= {"uri": uri, "size": size, "duration": 60.0, "width": 160, "height": 120}
        row["value"] = json.dumps(json.dumps(told)) if twice else json.dumps(told)
        places = ", ".join("?" for _ in row)
        database.execute(f"INSERT OR REPLACE INTO xcom VALUES ({places})", [*row.values()])  # noqa: S608


def multiply(airflow: UiAirflow, run: DagRun, times: int) -> None:
    """Have a run's first mapped task instances many times over, as a Dag that maps over many prompts has."""
    with closing(sqlite3.connect(airflow.database, timeout=30)) as database, database:
        database.row_factory = sqlite3.Row
        for table in ("task_instance", "xcom"):
            columns = [row["name"] for row in database.execute(f"PRAGMA table_info({table})")]
            where = "run_id = ? AND task_id = ? AND map_index = 0"
            if table == "xcom":
                where += " AND key = 'video_status'"
            found = f"SELECT * FROM {table} WHERE {where}"  # noqa: S608
            (row,) = database.execute(found, (run.run_id, DOWNLOAD)).fetchall()
            insert = f"INSERT INTO {table} VALUES ({', '.join('?' for _ in columns)})"  # noqa: S608
            for map_index in range(1000, 1000 + times):
                copy = {**dict(row), "map_index": map_index}
                if "id" in copy:
                    copy["id"] = f"{map_index:032x}"
                database.execute(insert, [copy[name] for name in columns])
