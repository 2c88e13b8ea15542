"""The plugin in one process with Airflow's database: routes, ranges, who may read, what is served."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_video_provider.decorators.video import _VideoDecoratedOperator
from airflow_video_provider.operators import video as operators
from airflow_video_provider.plugin.links import OPERATORS, GatewayLink, VideoLink
from airflow_video_provider.plugin.plugin import VideoPlugin
from airflow_video_provider.sensors.video import VideoTaskSensor
from tests.airflow.support import dag_file
from tests.system.videos import h264

HAS_VIEWS = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 1)
with_views = pytest.mark.skipif(not HAS_VIEWS, reason="this Airflow's UI has no place for pages of a plugin")

WEB = {"fastapi", "starlette", "jinja2", "httpx", "pydantic", "av", "s3fs", "sqlalchemy"}


class TestLoading:
    def test_offers_what_this_airflow_has_a_place_for(self) -> None:
        assert bool(VideoPlugin.external_views) is HAS_VIEWS
        assert bool(VideoPlugin.fastapi_apps) is HAS_VIEWS
        names = {link.name for link in VideoPlugin.operator_extra_links}
        assert names == ({"Gateway", "Video"} if HAS_VIEWS else {"Gateway"})

    def test_airflow_finds_it_by_its_entry_point(self) -> None:
        from importlib.metadata import entry_points

        (found,) = [entry for entry in entry_points(group="airflow.plugins") if entry.name == "video_gateway"]
        assert found.load() is VideoPlugin

    def test_its_links_name_classes_that_there_are(self) -> None:
        classes = (
            operators.VideoGenerateOperator,
            operators.VideoDownloadOperator,
            VideoTaskSensor,
            _VideoDecoratedOperator,
        )
        assert [(cls.__name__, cls.__module__) for cls in classes] == [
            (named.__name__, named.__module__) for named in OPERATORS
        ]

    def test_imports_nothing_of_the_web(self, tmp_path: Path) -> None:
        """Beyond what Airflow has imported by then."""
        code = (
            "import sys\n"
            "from airflow.providers.common.compat.sdk import (\n"
            "    AirflowException, AirflowPlugin, BaseOperatorLink, conf)\n"
            "before = set(sys.modules)\n"
            "import airflow_video_provider.plugin.plugin\n"
            "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        )
        assert set(done.stdout.splitlines()[-1].split()) & WEB == set()


DAG = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator

with DAG("{name}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    made = VideoGenerateOperator(
        task_id="generate", prompt={prompt!r}, model="veo3.1-fast", deferrable=True, poll_interval=1
    )
    VideoDownloadOperator(task_id="download", video=made.output, destination={destination!r})
"""

#: One file as a task that is no download tells of it, and as one of a derived class does.
TOLD = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG, task
from airflow_video_provider.operators.video import VideoDownloadOperator

class Derived(VideoDownloadOperator):
    def execute(self, context):
        tell(context["ti"])

def tell(ti, kind="download"):
    file = {{"uri": {destination!r}, "size": {prompt}, "sha256": "0" * 64}}
    ti.xcom_push(key="video_status", value={{"kind": kind, "files": [file]}})

with DAG("{name}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    @task
    def other(ti=None):
        tell(ti)

    @task
    def generated(ti=None):
        tell(ti, "generate")

    other() >> generated() >> Derived(task_id="derived", video="v1", destination="file:///tmp/")
"""

LIST = DAG.replace("prompt={prompt!r}", "prompts={prompt!r}").replace("video=made", "videos=made")

DENIED = "outsider"


@pytest.fixture(scope="module")
def app(airflow_database: None) -> Any:
    """Airflow's place for the plugin's application, with an auth manager that tells users apart."""
    pytest.importorskip("fastapi")
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.security import get_user
    from fastapi import FastAPI, Request

    class PerDag(SimpleAuthManager):
        def is_authorized_dag(
            self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None
        ) -> bool:
            return user.username != DENIED

    from airflow_video_provider.plugin.web import create_app

    def user(request: Request) -> SimpleAuthManagerUser:
        return SimpleAuthManagerUser(username=request.headers.get("x-user", "insider"), role="ADMIN")

    user.__annotations__["request"] = Request  # FastAPI looks for the name among the module's
    patch = pytest.MonkeyPatch()
    patch.setattr("airflow.api_fastapi.core_api.security.get_auth_manager", PerDag)
    ours = create_app()
    ours.dependency_overrides[get_user] = user
    root = FastAPI(root_path="/airflow")
    root.mount("/video-gateway", ours)
    yield root
    patch.undo()


@pytest.fixture
def client(app: Any) -> Any:
    from starlette.testclient import TestClient

    return TestClient(app, base_url="http://testserver/airflow")


@pytest.fixture
def land(
    airflow_database: None, connection: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Run a Dag that lands a video: `land("films", "a fox", "file:///…/")`."""
    monkeypatch.setattr("airflow_video_provider.waiting.SHORTEST_DEFERRAL", 0.0)

    def run(name: str, prompt: str | list[str] | int, destination: str, source: str = DAG) -> Any:
        quick: object = prompt
        if isinstance(prompt, list):
            quick = [f"{each} [time=1]" for each in prompt]
        elif isinstance(prompt, str):
            quick = f"{prompt} [time=1]"
        source = source.format(name=name, prompt=quick, destination=destination)
        with dag_file(name, source) as module:
            done = module.dag.test()
        assert str(done.state) == "success"
        return done

    return run


def base(run: Any, task_id: str = "download", map_index: object = -1) -> str:
    return f"/video-gateway/dags/{run.dag_id}/runs/{run.run_id}/tasks/{task_id}/{map_index}"


@with_views
class TestRoutes:
    def test_every_route_asks_whether_the_user_may_read_the_dag(self, client: Any) -> None:
        from airflow_video_provider.plugin.web import router

        paths = [
            route.path.format(dag_id="d", run_id="r", task_id="t", map_index="-1", number=0)
            for route in router.routes
        ]
        assert len(paths) == 5
        for path in paths:
            assert client.get(f"/video-gateway{path}", headers={"x-user": DENIED}).status_code == 403, path

    def test_what_landed_on_a_disk_is_shown_and_served(self, client: Any, land: Any, tmp_path: Path) -> None:
        run = land("on_disk", "a fox & <b>hound</b>", f"{tmp_path.as_uri()}/")
        (path,) = tmp_path.iterdir()
        content = path.read_bytes()
        page = client.get(base(run, map_index="%7BMAP_INDEX%7D"))
        assert page.status_code == 200
        assert "a fox &amp; &lt;b&gt;hound&lt;/b&gt;" in page.text
        assert '<h1 dir="auto">a fox' in page.text, "Arabic and Hebrew are read from the right"
        assert path.as_uri() in page.text
        assert f"/airflow{base(run)}/files/0" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        whole = client.get(f"{base(run)}/files/0")
        assert (whole.status_code, whole.content) == (200, content)
        assert whole.headers["content-type"] == "video/mp4"
        assert whole.headers["x-content-type-options"] == "nosniff"
        some = client.get(
            f"{base(run)}/files/0", headers={"Range": "bytes=100-299", "Accept-Encoding": "gzip"}
        )
        assert (some.status_code, some.content) == (206, content[100:300])
        assert some.headers["content-range"] == f"bytes 100-299/{len(content)}"
        last = client.get(f"{base(run)}/files/0", headers={"Range": "bytes=-7"})
        assert last.content == content[-7:]
        behind = client.get(f"{base(run)}/files/0", headers={"Range": f"bytes={len(content)}-"})
        assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(content)}")
        again = client.get(f"{base(run)}/files/0", headers={"If-None-Match": whole.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = client.get(f"{base(run)}/files/0", headers={"If-Range": '"other"', "Range": "bytes=0-1"})
        assert other.status_code == 200
        head = client.head(f"{base(run)}/files/0")
        assert (head.status_code, head.headers["content-length"], head.content) == (
            200,
            str(len(content)),
            b"",
        )
        head = client.head(f"{base(run)}/files/0", headers={"Range": "bytes=0-1"})
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))
        assert client.get(f"{base(run)}/files/1").status_code == 404
        assert client.get(f"{base(run, 'generate')}/files/0").status_code == 404

    @pytest.mark.parametrize("map_index", ["9" * 30, "-" + "9" * 30, "--1", "²", "x", "1.5"])
    def test_a_number_that_no_task_instance_can_have_is_not_found(self, client: Any, map_index: str) -> None:
        path = f"/video-gateway/dags/d/runs/r/tasks/t/{map_index}"
        assert [client.get(f"{path}{more}").status_code for more in ("", "/live", "/files/0")] == [404] * 3

    def test_each_video_of_a_list_has_a_card_and_is_shown_large(
        self, client: Any, land: Any, tmp_path: Path
    ) -> None:
        run = land("listed", ["a fox", "a heron"], f"{tmp_path.as_uri()}/", LIST)
        for task_id in ("generate", "download"):
            page = client.get(base(run, task_id)).text
            assert page.count('class="card landed') == 2
            assert "2 videos" in page
            for number, prompt in enumerate(("a fox", "a heron")):
                large = client.get(f"{base(run, task_id)}?show={number}").text
                assert large.count("<video ") == 1
                assert f"{prompt} [time=1]" in large
                assert f"/airflow{base(run)}/files/{number}" in large
                assert f'href="/airflow{base(run, task_id)}"' in large, "and back"
        assert client.get(f"{base(run)}?show=2").text.count('class="card landed') == 2
        gallery = client.get(f"/video-gateway/dags/listed/runs/{run.run_id}/videos").text
        assert gallery.count('class="card ') == 2
        assert len(set(re.findall(r'data-name="([^"]+)"', gallery))) == 2

    def test_no_session_of_airflows_database_is_held_while_a_video_is_streamed(
        self, client: Any, land: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A player holds its request open for as long as somebody looks, and the pool is small."""
        from airflow import settings
        from sqlalchemy import event

        from airflow_video_provider.media.stores import LocalStore

        run = land("streamed", "a fox", f"{tmp_path.as_uri()}/")
        engine = settings.engine
        held: set[int] = set()
        noted: list[int] = []
        read = LocalStore.read

        def taken(connection: Any, record: Any, *_: Any) -> None:
            held.add(id(record))

        def given_back(connection: Any, record: Any) -> None:
            held.discard(id(record))

        def reading(store: LocalStore, place: Any, begin: int, end: int) -> bytes:
            noted.append(len(held))
            return read(store, place, begin, end)

        monkeypatch.setattr(LocalStore, "read", reading)
        event.listen(engine, "checkout", taken)
        event.listen(engine, "checkin", given_back)
        try:
            assert client.get(f"{base(run)}/files/0").status_code == 200
        finally:
            event.remove(engine, "checkout", taken)
            event.remove(engine, "checkin", given_back)
        assert noted
        assert set(noted) == {0}

    def test_what_landed_in_s3_is_served(
        self, client: Any, land: Any, store_connection: str, s3_server: Any
    ) -> None:
        run = land("in_s3", "a heron", f"s3://{store_connection}@videos/plugin/")
        (key,) = [key for key in s3_server.objects("videos") if key.startswith("plugin/")]
        content = (s3_server.root / "videos" / key).read_bytes()
        whole = client.get(f"{base(run)}/files/0")
        assert whole.status_code == 200, whole.text
        assert whole.content == content
        some = client.get(f"{base(run)}/files/0", headers={"Range": "bytes=1000-"})
        assert some.content == content[1000:]

    @pytest.mark.parametrize("store", ["disk", "s3"])
    def test_names_with_characters_that_mean_something_in_a_url_are_served(
        self, store: str, client: Any, land: Any, tmp_path: Path, store_connection: str, s3_server: Any
    ) -> None:
        root = f"file://{tmp_path}" if store == "disk" else f"s3://{store_connection}@videos"
        run = land(f"odd_on_{store}", "a fox", f"{root}/a b#c%20d?é+&=;'\"ü/x y/")
        served = client.get(f"{base(run)}/files/0")
        assert served.status_code == 200, served.text
        (path,) = (tmp_path if store == "disk" else s3_server.root / "videos").glob("a b#c%20d?é*/x y/*.mp4")
        assert served.content == path.read_bytes()

    def test_a_file_that_was_replaced_or_is_no_video_is_not_served(
        self, client: Any, land: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_video_provider.plugin.stored.TRUSTED_FOR", 0.0)
        run = land("replaced", "a fox", f"{tmp_path.as_uri()}/")
        (path,) = tmp_path.iterdir()
        size = path.stat().st_size
        path.write_bytes(b"root:x:0:0:".ljust(size, b"."))
        refused = client.get(f"{base(run)}/files/0")
        assert (refused.status_code, "root:x" in refused.text) == (404, False)
        assert "does not begin like a video" in refused.text
        path.write_bytes(b"short")
        assert "was replaced" in client.get(f"{base(run)}/files/0").text
        path.unlink()
        assert "is not there any more" in client.get(f"{base(run)}/files/0").text

    def test_only_what_a_download_task_tells_of_is_served(
        self, client: Any, land: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "a b#c%20d?é.mp4"
        path.write_bytes(h264(seconds=1))
        run = land("told", path.stat().st_size, path.as_uri(), TOLD)
        assert client.get(f"{base(run, 'other')}/files/0").status_code == 404
        assert client.get(f"{base(run, 'generated')}/files/0").status_code == 404
        assert "This task makes no video." in client.get(base(run, "other")).text
        assert client.get(f"{base(run, 'derived')}/files/0").content == path.read_bytes()
        assert client.get("/video-gateway/dags/told/videos").text.count('class="card ') == 1

    def test_the_gallery_has_one_card_for_a_video(self, client: Any, land: Any, tmp_path: Path) -> None:
        run = land("gallery", "a fox", f"{tmp_path.as_uri()}/")
        for path in (
            f"/video-gateway/dags/gallery/runs/{run.run_id}/videos",
            "/video-gateway/dags/gallery/videos",
        ):
            page = client.get(path).text
            assert page.count('class="card ') == 1
            assert f'href="/airflow/dags/gallery/runs/{run.run_id}/tasks/download/plugin/video"'.replace(
                "+", "+"
            ) in page.replace("%3A", ":").replace("%2B", "+")
        assert 'class="card ' not in client.get("/video-gateway/dags/gallery/videos?state=failed").text


class TestLinks:
    def test_they_lead_to_the_tab_and_to_the_gateway(self, land: Any, tmp_path: Path, connect: Any) -> None:
        connect(extra={"console_url": "https://console.example/{video_id}"})
        run = land("linked", "a fox", f"{tmp_path.as_uri()}/")
        keys = {ti.task_id: ti.key for ti in run.get_task_instances()}
        for key in keys.values():
            page = GatewayLink().get_link(None, ti_key=key)
            assert page.startswith("https://console.example/veo3.1-fast%3A"), key
        assert GatewayLink().get_link(None, ti_key=keys["download"]._replace(task_id="none")) == ""
        tab = VideoLink().get_link(None, ti_key=keys["download"])
        assert tab.endswith("/tasks/download/plugin/video")


@with_views
class TestWhatIsServed:
    @pytest.mark.parametrize(
        "uri",
        [
            "http://127.0.0.1/x.mp4",
            "https://a.example/x.mp4",
            "simplecache::s3://b/x.mp4",
            "memory://x.mp4",
            "/etc/passwd",
            "",
            "..\\x.mp4",
        ],
    )
    def test_no_address_that_would_be_fetched_and_no_bare_path(self, uri: str) -> None:
        from airflow_video_provider.plugin.stored import NotServed, StoredVideo

        with pytest.raises(NotServed):
            StoredVideo.from_facts({"uri": uri, "size": 10, "sha256": "0" * 64})

    @pytest.mark.parametrize(
        "changed",
        [{"size": 0}, {"size": 1.5}, {"size": None}, {"sha256": "a\r\nX-Other: 1"}, {"uri": 7}],
        ids=str,
    )
    def test_no_file_of_which_the_record_is_not_whole(self, changed: dict[str, Any]) -> None:
        from airflow_video_provider.plugin.stored import NotServed, StoredVideo

        with pytest.raises(NotServed, match="the record of this file is not complete"):
            StoredVideo.from_facts({"uri": "file:///x.mp4", "size": 10, "sha256": "0" * 64, **changed})

    def test_a_stream_is_read_block_by_block_as_it_is_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow_video_provider.media.stores import LocalStore
        from airflow_video_provider.plugin.stored import BLOCK, StoredVideo

        path = tmp_path / "long.mp4"
        path.write_bytes(os.urandom(5 * BLOCK + 7))
        reads: list[int] = []
        read = LocalStore.read

        def noted(store: LocalStore, place: Any, begin: int, end: int) -> bytes:
            reads.append(end - begin)
            return read(store, place, begin, end)

        monkeypatch.setattr(LocalStore, "read", noted)

        async def take() -> bytes:
            taken = b""
            async for block in StoredVideo(path.as_uri(), path.stat().st_size, "0").blocks(3, 5 * BLOCK + 7):
                taken += block
                assert len(reads) == -(-len(taken) // BLOCK), "nothing is read before it is asked for"
            return taken

        assert asyncio.run(take()) == path.read_bytes()[3:]
        assert max(reads) <= BLOCK


@with_views
class TestViews:
    """What the pages show, decided from what is recorded."""

    def row(self, state: str, *, status: Any = None, **changes: Any) -> Any:
        from airflow_video_provider.plugin.recorded import Recorded, TaskKey
        from airflow_video_provider.video_status import VideoStatus

        now = datetime(2026, 1, 1, tzinfo=UTC)
        return Recorded(
            key=TaskKey("films", changes.pop("run_id", "r1"), changes.pop("task_id", "generate")),
            operator=changes.pop("operator", "VideoGenerateOperator"),
            state=state,
            try_number=changes.pop("try_number", 1),
            max_tries=2,
            label=None,
            started_at=now,
            ended_at=None,
            status=VideoStatus.from_json(status),
            recorded_at=now,
            **changes,
        )

    def test_a_generation_is_shown_by_the_download_that_landed_it(self) -> None:
        from airflow_video_provider.plugin.views import State, cards_of, tab_of

        made = self.row("success", status={"kind": "generate", "video_id": "v1", "prompt": "a fox"})
        file = {"video_id": "v1", "uri": "file:///v1.mp4", "size": 9, "sha256": "0", "usage": {"cost": 2}}
        landed = self.row("success", task_id="download", status={"kind": "download", "files": [file]})
        elsewhere = self.row("success", run_id="r2", status={"kind": "generate", "video_id": "v1"})
        states = [(card.key.run_id, card.state) for card in cards_of([landed, made, elsewhere])]
        assert states == [("r1", State.LANDED), ("r2", State.READY)]
        tab = tab_of(made, [landed, made])
        assert (tab.state, tab.card.key.task_id, tab.usage) == (State.LANDED, "download", {"cost": 2})
        assert tab_of(made, [made]).state is State.READY

    def test_a_video_that_was_submitted_and_is_waited_for_has_one_card(self) -> None:
        from airflow_video_provider.plugin.views import State, cards_of

        status = {"kind": "generate", "video_id": "v1", "prompt": "a fox", "model": "veo"}
        submitted = self.row("success", status=status)
        waits = self.row("deferred", task_id="wait", status={"kind": "wait", "video_id": "v1"})
        (card,) = cards_of([waits, submitted])
        assert (card.state, card.key.task_id) == (State.WAITING, "wait")
        assert (card.prompt, card.model) == ("a fox", "veo")

    def test_a_task_that_only_submits_does_not_call_its_video_finished(self) -> None:
        from airflow_video_provider.plugin.views import tab_of

        row = self.row("success", status={"kind": "generate", "video_id": "v1"})
        assert "was submitted" in tab_of(row, [row], {"state": "queued"}).message
        assert tab_of(row, [row], {"state": "succeeded"}).message is None

    def test_a_list_has_a_card_for_each_video_and_says_how_far_each_is(self) -> None:
        from airflow_video_provider.plugin.views import State, cards_of, of_one, tab_of

        items = [
            {"video_id": "v1", "prompt": "a fox", "model": "veo"},
            {"prompt": "an owl", "error": "refused: moderation"},
            {"video_id": "v3", "prompt": "a heron", "model": "sora", "state": "succeeded"},
        ]
        told = {"kind": "generate", "model": "veo", "items": items, "conn_id": "c"}
        tab = tab_of(self.row("deferred", status=told))
        assert (tab.state, [card.state for card in tab.cards]) == (
            State.WAITING,
            [State.WAITING, State.FAILED, State.READY],
        )
        assert tab.counts() == [("ready", 1), ("waiting", 1), ("failed", 1)]
        assert list(tab.waited_for()) == [("c", "v1")]
        assert (of_one(tab, 1).state, of_one(tab, 1).message) == (State.FAILED, "refused: moderation")
        assert of_one(tab, 3) is of_one(tab, -1) is of_one(tab, None) is None

        made = self.row("failed", status={**told, "failure": "1 of 3 videos failed"})
        file = {"video_id": "v3", "uri": "file:///v3.mp4", "size": 9, "sha256": "0"}
        both = {"kind": "download", "files": [file, {**file, "uri": "file:///v3-2.mp4"}]}
        landed = self.row("success", task_id="download", status=both)
        tab = tab_of(made, [landed, made])
        assert [(card.key.task_id, card.state) for card in tab.cards] == [
            ("generate", State.FAILED),
            ("generate", State.FAILED),
            ("download", State.LANDED),
            ("download", State.LANDED),
        ]
        assert (tab.state, tab.message) == (State.LANDED, "1 of 3 videos failed")
        assert [card.prompt for card in cards_of([landed, made])] == ["a heron", "a heron", "a fox", "an owl"]
        assert len({card.name for card in cards_of([landed, made])}) == 4

    def test_a_wait_that_began_in_the_triggerer_is_shown_though_no_worker_told_of_it(self) -> None:
        from airflow_video_provider.plugin.recorded import Wait
        from airflow_video_provider.plugin.views import State, tab_of

        wait = Wait(None, "c", None, None, first_poll_at=0.0, polled_every=(5.0, 60.0), is_taken=True)
        tab = tab_of(self.row("deferred", operator="VideoTaskSensor", wait=wait))
        assert (tab.state, tab.message, list(tab.waited_for())) == (State.WAITING, None, [])

    @pytest.mark.parametrize(
        ("state", "comes"),
        [
            ("up_for_retry", "Airflow begins attempt 2 of 3 by itself."),
            (
                "failed",
                "Airflow makes no further attempt by itself (this was number 1). Clear the task for one.",
            ),
        ],
    )
    def test_a_failure_says_what_comes(self, state: str, comes: str) -> None:
        from airflow_video_provider.plugin.views import tab_of

        told = {"kind": "generate", "video_id": "v1", "failure": "video v1 failed: too dark."}
        tab = tab_of(self.row(state, status=told))
        assert (tab.message, tab.comes) == ("video v1 failed: too dark.", comes)

    def test_the_next_query_is_told_as_far_as_it_is_known(self) -> None:
        from airflow_video_provider.plugin.recorded import Wait
        from airflow_video_provider.plugin.views import next_query

        wait = Wait("v1", "c", None, None, first_poll_at=110.0, polled_every=(5.0, 30.0), is_taken=True)
        assert next_query(wait, 100.0) == "in 10 s"
        assert next_query(wait, 120.0) == "within 30 s, 5 at the least"


#: What JSON can hold, half a surrogate pair and numbers that are none among it.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
VIDEO_FIELDS = (
    "uri", "size", "sha256", "video_id", "prompt", "model", "usage", "duration", "width", "height", "fps",
    "video_codec", "container", "state", "error",
)  # fmt: skip
VIDEOS = st.lists(st.dictionaries(st.sampled_from(VIDEO_FIELDS), VALUES, max_size=8), max_size=3)
STATUS_FIELDS = ("video_id", "model", "prompt", "submitted_at", "console_url", "failure", "unlisted")
STATUSES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["generate", "wait", "download"])},
    optional={
        **dict.fromkeys(STATUS_FIELDS, VALUES),
        **dict.fromkeys(("files", "missed", "items"), VIDEOS | VALUES),
    },
)


@with_views
class TestAnythingInAnXCom:
    """Whoever may write XComs can write whatever they like: one of them must not break a Dag's gallery."""

    @settings(deadline=None)
    @given(
        told=STATUSES,
        state=st.sampled_from([None, "running", "deferred", "up_for_retry", "failed", "success"]),
        returned=st.dictionaries(st.sampled_from(["state", "usage"]), VALUES),
        show=st.none() | st.integers(0, 2),
    )
    def test_is_a_page(self, told: Any, state: Any, returned: Any, show: int | None) -> None:
        from airflow_video_provider.plugin.pages import page
        from airflow_video_provider.plugin.views import cards_of, of_one, tab_of
        from airflow_video_provider.plugin.web import Address

        row = TestViews().row(state, status=told)
        tab = tab_of(row, [row], returned)
        tab = of_one(tab, show) or tab
        found = page(
            "tab", tab=tab, address=Address("", row.key, show), back=None, seen={}, live=True, looked_at=8,
            refresh=None, next_query=None, deadline=None, task_state=state,
        )  # fmt: skip
        assert found.endswith(b"</html>")
        found = page(
            "gallery", address=Address(""), cards=cards_of([row]), total=1, all=1, states=[], models=[],
            chosen={"state": "", "model": ""}, more=None, cut=None,
        )  # fmt: skip
        assert found.endswith(b"</html>")


class TestPages:
    def test_sizes_times_and_ages_are_as_people_read_them(self) -> None:
        pytest.importorskip("jinja2")
        from airflow_video_provider.plugin.pages import ago, clock, in_bytes

        assert [clock(s) for s in (8, 5.4, 62, 3723, None)] == ["0:08", "5.4 s", "1:02", "1:02:03", ""]
        assert [in_bytes(n) for n in (999, 12_345, 12_400_000, 3 * 10**9)] == [
            "999 B",
            "12.3 kB",
            "12.4 MB",
            "3.0 GB",
        ]
        now = datetime(2026, 1, 2, tzinfo=UTC)
        assert [ago(now - timedelta(seconds=s), now) for s in (5, 600, 7300, 200_000)] == [
            "5 s",
            "10 min",
            "2 h",
            "2 d",
        ]
