"""The operator that lands the file: whole or not at all, wherever the gateway's URL leads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import av
import pytest
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import AirflowFailException, Asset

from airflow_video_provider.exceptions import VideoDownloadFailed, VideoGatewayUnreachable, VideoNotReady
from airflow_video_provider.operators.video import VideoDownloadOperator
from scripts.services import S3Server, free_port
from tests.airflow.support import (
    MODEL,
    Clock,
    Gateway,
    TaskInstance,
    ask,
    context_of,
    dag_file,
    finish,
    states,
)

pytestmark = pytest.mark.usefixtures("connection")

AT_ONCE: dict[str, Any] = {"options": {"backoff": 0.001}}
"""Do not wait for a server to think better of it."""

SIGNED = "kling-v2"
"""A model with a colon and a slash in its ids and a signature in its URLs."""


def frames(path: Path) -> int:
    """Read a video to its end."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def download(video: Any, destination: str, **changes: Any) -> Any:
    operator = VideoDownloadOperator(
        **{"task_id": "land", "video": video, "destination": destination, **changes}
    )
    result = operator.execute(context_of())
    assert json.loads(json.dumps(result)) == result
    return result


def refused(video: Any, destination: str, **changes: Any) -> AirflowException:
    with pytest.raises(AirflowException) as caught:
        download(video, destination, **changes)
    said = str(caught.value)
    assert "\n" not in said
    for word in ("Signature", "Expires=", "Traceback"):
        assert word not in said
    return caught.value


@pytest.fixture
def finished(gateway: Gateway) -> Callable[..., str]:
    """The id of a finished video."""

    def make(prompt: str = "a fox", **how: Any) -> str:
        video_id = gateway.submit(prompt, **how)
        gateway.finish()
        return video_id

    return make


@pytest.fixture
def told(gateway: Gateway) -> Callable[[str], dict[str, Any]]:
    """What the gateway tells of a video, signed URL and all."""

    def tell(video_id: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        reply: dict[str, Any] = ask(
            f"{gateway.url}/v1/video/query?id={quote(video_id, safe='')}", headers=headers
        )
        return reply

    return tell


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory that is not there yet."""
    return tmp_path / "videos"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class TestLanding:
    def test_a_directory_is_made_and_the_file_in_it(
        self, gateway: Gateway, finished: Callable[..., str], folder: Path, logged: list[str]
    ) -> None:
        video_id = finished()
        result = download(video_id, f"{folder.as_uri()}/")
        (path,) = files(folder)
        content = path.read_bytes()
        assert result["uri"].removeprefix("file://") == str(path)
        assert result["size"] == len(content)
        assert result["sha256"] == hashlib.sha256(content).hexdigest()
        assert result["content_type"] == "video/mp4"
        assert result["video_id"] == video_id
        assert frames(path) > 1
        assert gateway.paid == 1, "what the test itself submitted"

    def test_an_exact_name_is_taken(self, finished: Callable[..., str], folder: Path) -> None:
        result = download(finished(), f"{folder.as_uri()}/the film.mp4".replace(" ", "-"))
        assert files(folder) == [folder / "the-film.mp4"]
        assert result["uri"].endswith("/the-film.mp4")
        assert frames(folder / "the-film.mp4") > 1

    def test_a_template_of_ones_own_is_filled_in(self, finished: Callable[..., str], folder: Path) -> None:
        video = {"video_id": finished(), "model": MODEL}
        download(video, f"{folder.as_uri()}/", file_name="{model}-fox.{ext}")
        assert [path.name for path in files(folder)] == [f"{MODEL}-fox.mp4"]

    def test_a_bucket_gets_the_very_bytes(
        self, finished: Callable[..., str], store_connection: str, s3_server: S3Server, tmp_path: Path
    ) -> None:
        result = download(finished(), f"s3://store@videos/{tmp_path.name}/landed/")
        (key,) = [key for key in s3_server.objects("videos") if key.startswith(f"{tmp_path.name}/landed/")]
        path = s3_server.root / "videos" / key
        assert result["uri"].endswith(key)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == result["sha256"]
        assert path.stat().st_size == result["size"]
        assert frames(path) > 1

    def test_a_bucket_is_written_by_the_client_that_airflow_makes_for_the_connection(
        self,
        finished: Callable[..., str],
        store_connection: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        made: list[Any] = []
        connect = S3Hook.get_conn
        monkeypatch.setattr(S3Hook, "get_conn", lambda hook: made.append(hook.aws_conn_id) or connect(hook))
        download(finished(), f"s3://store@videos/{tmp_path.name}/by-airflow/")
        assert made == ["store"]

    def test_an_exact_key_is_taken(
        self, finished: Callable[..., str], store_connection: str, s3_server: S3Server, tmp_path: Path
    ) -> None:
        download(finished(), f"s3://store@videos/{tmp_path.name}/exact/fox.mp4")
        assert frames(s3_server.root / "videos" / tmp_path.name / "exact" / "fox.mp4") > 1

    def test_an_id_with_odd_characters_makes_a_safe_name(
        self, finished: Callable[..., str], folder: Path
    ) -> None:
        video_id = finished(model=SIGNED)
        assert ":" in video_id
        assert "/" in video_id
        download(video_id, f"{folder.as_uri()}/")
        (path,) = files(folder)
        assert path.parent == folder
        assert not set(path.name) & set(':/\\ ?*"<>|')
        assert path.suffix == ".mp4"

    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    @pytest.mark.parametrize("model", [MODEL, "sora-2", SIGNED])
    def test_a_video_lands_through_every_dialect(
        self,
        connect: Callable[..., str],
        finished: Callable[..., str],
        folder: Path,
        dialect: str,
        model: str,
    ) -> None:
        connect(extra={"dialect": dialect})
        download(finished(model=model), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1

    def test_landing_twice_is_landing_once(
        self, gateway: Gateway, finished: Callable[..., str], folder: Path
    ) -> None:
        video_id = finished()
        assert download(video_id, f"{folder.as_uri()}/")["skipped"] is False
        (path,) = files(folder)
        written = path.stat().st_mtime_ns
        assert download(video_id, f"{folder.as_uri()}/")["skipped"] is True
        assert path.stat().st_mtime_ns == written

    def test_something_else_is_replaced_only_when_told_so(
        self, finished: Callable[..., str], folder: Path
    ) -> None:
        folder.mkdir()
        (folder / "fox.mp4").write_bytes(b"something else")
        destination = f"{folder.as_uri()}/fox.mp4"
        error = refused(finished(), destination)
        assert "exists already" in str(error)
        assert (folder / "fox.mp4").read_bytes() == b"something else"
        download(finished(), destination, if_exists="overwrite")
        assert frames(folder / "fox.mp4") > 1


class TestTheURL:
    def test_the_url_that_the_xcom_has_is_used(
        self, gateway: Gateway, finished: Callable[..., str], told: Callable[..., Any], folder: Path
    ) -> None:
        video_id = finished()
        video = {"video_id": video_id, "video_url": told(video_id)["video_url"], "model": MODEL}
        asked = len(gateway.requests())
        download(video, f"{folder.as_uri()}/")
        assert all("/cdn/" in request["path"] for request in gateway.requests()[asked:])

    def test_a_url_that_is_missing_is_queried(
        self, gateway: Gateway, finished: Callable[..., str], folder: Path
    ) -> None:
        video = {"video_id": finished(model=SIGNED), "video_url": None}
        download(video, f"{folder.as_uri()}/")
        assert sum("/v1/video/query" in request["path"] for request in gateway.requests()) == 1

    def test_a_url_that_expired_is_queried_afresh(
        self, gateway: Gateway, finished: Callable[..., str], told: Callable[..., Any], folder: Path
    ) -> None:
        video_id = finished("a fox [url-expires=5]")
        video = {"video_id": video_id, "video_url": told(video_id)["video_url"]}
        gateway.advance(10)
        asked = sum("/v1/video/query" in request["path"] for request in gateway.requests())
        download(video, f"{folder.as_uri()}/")
        assert sum("/v1/video/query" in request["path"] for request in gateway.requests()) == asked + 1
        assert frames(*files(folder)) > 1

    def test_an_xcom_that_was_rendered_as_text_is_read(
        self, finished: Callable[..., str], folder: Path
    ) -> None:
        download(str({"video_id": finished(), "video_url": None}), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1

    @pytest.mark.parametrize("fault", ["url-late=2", "url-lost", "content-url", "data-url"])
    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    def test_a_url_that_comes_late_or_never_or_is_odd_does_not_matter(
        self,
        connect: Callable[..., str],
        finished: Callable[..., str],
        clock: Clock,
        folder: Path,
        dialect: str,
        fault: str,
    ) -> None:
        connect(extra={"dialect": dialect})
        download(finished(f"a fox [{fault}]"), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1

    def test_a_dialect_without_a_route_for_the_file_lands_what_has_a_url(
        self, connect: Callable[..., str], finished: Callable[..., str], clock: Clock, folder: Path
    ) -> None:
        connect(extra={"dialect": {"base": "unified", "content_path": None}})
        download(finished("a fox"), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1
        with pytest.raises(VideoNotReady, match="its dialect has no route for the file"):
            download(finished("a fox [url-lost]"), f"{folder.as_uri()}/")

    def test_a_gateway_that_stumbles_is_queried_again(
        self, finished: Callable[..., str], clock: Clock, folder: Path
    ) -> None:
        download(finished("a fox [flap=3]"), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1

    @pytest.mark.parametrize(
        "fault", ["no-length", "no-range", "wrong-type", "truncated=1", "cdn-redirect=1", "cdn-404=1"]
    )
    def test_a_host_with_manners_of_its_own_is_fetched_from_all_the_same(
        self, finished: Callable[..., str], folder: Path, fault: str
    ) -> None:
        result = download(finished(f"a fox [{fault}]"), f"{folder.as_uri()}/")
        assert result["content_type"] == "video/mp4"
        assert frames(*files(folder)) > 1


class TestAURLThatLeadsNowhere:
    """The gateway serves the file by its own route, so that is tried before giving up."""

    def test_a_url_whose_address_is_not_public_is_replaced_by_the_gateways_own_route(
        self, connect: Callable[..., str], finished: Callable[..., str], folder: Path, logged: list[str]
    ) -> None:
        connect(extra={"allowed_hosts": ["10.1.2.3"]})
        download(finished(), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1
        assert any("Fetching it by the gateway's own route" in line for line in logged)

    def test_a_url_where_nobody_listens_is_replaced_by_the_gateways_own_route(
        self, finished: Callable[..., str], folder: Path
    ) -> None:
        video = {"video_id": finished(), "video_url": f"http://127.0.0.1:{free_port()}/v1/videos/x.mp4"}
        download(video, f"{folder.as_uri()}/", **AT_ONCE)
        assert frames(*files(folder)) > 1

    def test_a_url_that_wants_the_key_at_another_name_is_replaced_by_the_gateways_own_route(
        self, connect: Callable[..., str], gateway: Gateway, finished: Callable[..., str], folder: Path
    ) -> None:
        """The gateway takes itself for 127.0.0.1, and the connection knows it as localhost."""
        address = gateway.url.removeprefix("http://")
        host = f"http://localhost:{address.partition(':')[2]}"
        connect(host=host, extra={"headers": {"Host": address}})
        download(finished("a fox [content-url]"), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1
        assert gateway.leaks == []

    def test_the_gateways_own_route_is_not_taken_for_the_original_file(
        self, connect: Callable[..., str], finished: Callable[..., str], folder: Path
    ) -> None:
        connect(extra={"allowed_hosts": ["10.1.2.3"]})
        error = refused(finished(), f"{folder.as_uri()}/", quality="original")
        assert "allowed_hosts" in str(error)


class TestOptions:
    def test_options_reach_the_download(self, finished: Callable[..., str], folder: Path) -> None:
        error = refused(finished(), f"{folder.as_uri()}/", options={"max_bytes": 1000})
        assert "max_bytes=1000" in str(error)

    @pytest.mark.parametrize("timeout", [60, timedelta(minutes=1), None])
    def test_the_timeout_is_taken_as_seconds_or_timedelta(
        self, timeout: Any, finished: Callable[..., str], folder: Path
    ) -> None:
        download(finished(), f"{folder.as_uri()}/", timeout=timeout, check="frames")
        assert frames(*files(folder)) > 1

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            ({"timeout": "soon"}, ValueError),
            ({"timeout": 0}, ValueError),
            ({"check": "nothing"}, ValueError),
            ({"max_bytes": "20G"}, ValueError),
            ({"parallel": 0}, ValueError),
            ({"options": {"patience": 3}}, TypeError),
            ({"options": {"connections": "4"}}, ValueError),
            ({"if_exists": "perhaps"}, ValueError),
        ],
    )
    def test_options_that_cannot_be_are_refused_while_the_dag_is_parsed(
        self, wrong: dict[str, Any], error: type[Exception]
    ) -> None:
        (name,) = wrong.get("options", wrong)
        with pytest.raises(error, match=name):
            VideoDownloadOperator(task_id="land", video="a", destination="file:///x/", **wrong)


class TestTheKeyGoesToTheGatewayOnly:
    @pytest.mark.parametrize(
        "fault", ["", "[cdn-redirect=1]", "[url-lost] [content-redirect]", "[url-lost] [content-json]",
                  "[content-url]", "[cdn-403=1]"],
    )  # fmt: skip
    @pytest.mark.parametrize("model", [MODEL, SIGNED])
    def test_the_key_never_goes_to_the_host_of_the_files(
        self,
        gateway: Gateway,
        finished: Callable[..., str],
        clock: Clock,
        folder: Path,
        fault: str,
        model: str,
        logged: list[str],
    ) -> None:
        result = download(finished(f"a fox {fault}", model=model), f"{folder.as_uri()}/")
        assert frames(*files(folder)) > 1
        assert gateway.leaks == []
        for text in (json.dumps(result), "\n".join(logged)):
            assert gateway.key not in text
            assert "Signature" not in text


class TestAFailure:
    """Leaves nothing, whatever it was."""

    def check(self, folder: Path, error: AirflowException, kind: type[AirflowException], *words: str) -> None:
        assert type(error) is kind
        for word in words:
            assert word in str(error), str(error)
        assert files(folder) == []

    def test_an_unfinished_video_says_what_to_wait_with(self, gateway: Gateway, folder: Path) -> None:
        error = refused(gateway.submit("a fox"), f"{folder.as_uri()}/")
        self.check(folder, error, VideoNotReady, "is not finished", "VideoTaskSensor")

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("fail", "the upstream model gave up"),
            ("cancelled", "cancelled by the operator"),
            ("expired", "waited too long"),
        ],
    )
    def test_a_failed_generation_gives_the_gateways_reason(
        self, finished: Callable[..., str], folder: Path, fault: str, reason: str
    ) -> None:
        error = refused(finished(f"doomed [{fault}]"), f"{folder.as_uri()}/")
        self.check(folder, error, AirflowFailException, reason)

    def test_an_unknown_id_says_what_to_check(self, clock: Clock, folder: Path) -> None:
        error = refused("veo3.1-fast:1-nobody", f"{folder.as_uri()}/")
        self.check(folder, error, AirflowFailException, "knows no such task", "Check the id")

    def test_a_missing_id_says_what_to_give(self, folder: Path) -> None:
        error = refused({"video_id": None}, f"{folder.as_uri()}/")
        self.check(folder, error, AirflowFailException, "give the gateway's task id")

    def test_a_wrong_key_names_the_connections_password(
        self, connect: Callable[..., str], finished: Callable[..., str], folder: Path
    ) -> None:
        video_id = finished()
        connect(password="sk-bad")
        error = refused(video_id, f"{folder.as_uri()}/")
        self.check(folder, error, AirflowFailException, "Check the connection's password")

    def test_a_gateway_that_is_not_there_is_named(
        self, connect: Callable[..., str], clock: Clock, folder: Path
    ) -> None:
        connect(host="http://gateway.invalid")
        error = refused("a", f"{folder.as_uri()}/")
        self.check(folder, error, VideoGatewayUnreachable, "gateway.invalid")

    def test_a_dialect_that_is_none_names_the_connection(
        self, connect: Callable[..., str], folder: Path
    ) -> None:
        connect(extra={"dialect": "azure"})
        error = refused("a", f"{folder.as_uri()}/")
        self.check(folder, error, AirflowFailException, "'video_default'", "dialect: 'azure' is none")

    def test_a_file_that_is_gone_names_the_status(
        self, finished: Callable[..., str], clock: Clock, folder: Path
    ) -> None:
        """Succeeded, says the gateway, and has neither a URL nor the file itself."""
        error = refused(finished("a fox [url-gone]"), f"{folder.as_uri()}/", **AT_ONCE)
        assert type(error) in {VideoDownloadFailed, AirflowFailException}
        self.check(folder, error, type(error), "404", "was not put into")

    @pytest.mark.parametrize("fault", ["cdn-403", "cdn-404"])
    def test_a_refused_link_says_that_fetching_again_is_free(
        self, finished: Callable[..., str], clock: Clock, folder: Path, fault: str
    ) -> None:
        error = refused(finished(f"a fox [{fault}]"), f"{folder.as_uri()}/", **AT_ONCE)
        self.check(folder, error, VideoDownloadFailed, fault[-3:], "Fetching it again costs nothing")

    @pytest.mark.parametrize(("fault", "words"), [("not-a-video", "HTML"), ("short", "")])
    def test_a_file_that_is_no_whole_video_says_what_it_is(
        self, finished: Callable[..., str], folder: Path, fault: str, words: str
    ) -> None:
        error = refused(finished(f"a fox [{fault}]"), f"{folder.as_uri()}/")
        self.check(folder, error, VideoDownloadFailed, words, "costs nothing")

    def test_a_file_that_is_too_large_names_the_bound(
        self, finished: Callable[..., str], folder: Path
    ) -> None:
        error = refused(finished(), f"{folder.as_uri()}/", max_bytes=1000)
        self.check(folder, error, AirflowFailException, "1000")

    def test_a_host_that_is_not_allowed_names_the_setting(
        self, connect: Callable[..., str], finished: Callable[..., str], folder: Path
    ) -> None:
        """The gateway's own host and port always are; the host of the files has another port."""
        connect(extra={"allowed_hosts": ["10.1.2.3"]})
        error = refused(finished("a fox [content-redirect]"), f"{folder.as_uri()}/")
        self.check(folder, error, AirflowFailException, "127.0.0.1", "allowed")

    @pytest.mark.parametrize(
        ("destination", "words"),
        [
            ("", ("is no object-storage URL", "s3://conn_id@bucket/prefix/")),
            ("videos/", ("'videos/' is no object-storage URL",)),
            ("/tmp/videos/", ("'/tmp/videos/' is no object-storage URL", "file:///dir/")),
            ("file://", ("is no object-storage URL",)),
            ("ftps3://bucket/videos/", ("ftps3://bucket/videos/ cannot be used",)),
        ],
    )
    def test_a_destination_that_is_none_says_how_to_write_one(
        self, finished: Callable[..., str], folder: Path, destination: str, words: tuple[str, ...]
    ) -> None:
        self.check(folder, refused(finished(), destination), AirflowFailException, "destination: ", *words)

    @pytest.mark.usefixtures("airflow_database")
    def test_a_store_whose_connection_is_missing_names_it(
        self, finished: Callable[..., str], folder: Path
    ) -> None:
        error = refused(finished(), "s3://nobody_made_it@videos/landed/")
        self.check(folder, error, AirflowFailException, "destination: ", "`nobody_made_it` isn't defined")

    def test_a_bucket_that_is_not_there_is_named(
        self, finished: Callable[..., str], store_connection: str, folder: Path
    ) -> None:
        error = refused(finished(), "s3://store@no-such-bucket/landed/")
        assert isinstance(error, VideoDownloadFailed | AirflowFailException)
        self.check(folder, error, type(error), "was not put into", "no-such-bucket")

    def test_a_directory_that_cannot_be_made_is_named(
        self, finished: Callable[..., str], folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        error = refused(finished(), f"{tmp_path.as_uri()}/file/videos/")
        assert isinstance(error, VideoDownloadFailed | AirflowFailException)
        self.check(folder, error, type(error), "was not put into", str(tmp_path))

    @pytest.mark.parametrize("name", ["../{video_id}.{ext}", "{nothing}.{ext}", "{video_id"])
    def test_a_template_that_is_none_names_the_argument(
        self, finished: Callable[..., str], folder: Path, name: str
    ) -> None:
        error = refused(finished(), f"{folder.as_uri()}/", file_name=name)
        self.check(folder, error, AirflowFailException, "file_name")


DAG = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator

with DAG("landed", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    films = VideoGenerateOperator.partial(
        task_id="film", model="veo3.1-fast", poll_interval=1, schedule="fixed", timeout=60, deferrable=True
    ).expand(prompt=["a fox [time=1]", "a heron [time=1]"])
    VideoDownloadOperator.partial(
        task_id="land", destination="{destination}{{{{ params.folder }}}}/"
    ).expand(video=films.output)
    dag.params["folder"] = "animals"
"""


@pytest.mark.usefixtures("airflow_database")
def test_a_download_can_be_mapped_over_what_was_generated(
    gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In `dag.test()` no scheduler runs that a short deferral could confuse.
    monkeypatch.setattr("airflow_video_provider.waiting.SHORTEST_DEFERRAL", 0.0)
    with dag_file("landed", DAG.format(destination=f"{folder.as_uri()}/")) as module:
        done = module.dag.test()
    assert set(states(done).values()) == {"success"}
    landed = files(folder / "animals")
    assert len(landed) == 2
    assert all(frames(path) > 1 for path in landed)
    assert gateway.paid == 2


class TestAList:
    def test_each_video_of_a_list_lands_or_fails_by_itself(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
    ) -> None:
        good = [gateway.submit("a heron"), gateway.submit("a stork")]
        gateway.finish()
        late = gateway.submit("an egret")
        ti = TaskInstance()
        operator = VideoDownloadOperator(
            task_id="land", videos=[good[0], late, good[1]], destination=f"{tmp_path.as_uri()}/"
        )
        with pytest.raises(VideoDownloadFailed, match="1 of 3 videos did not land") as caught:
            operator.execute(context_of(ti))
        assert late in str(caught.value)
        result = ti.xcoms["return_value"]
        assert [landed["video_id"] for landed in result["landed"]] == good
        assert [failed["video_id"] for failed in result["failed"]] == [late]
        assert len(list(tmp_path.iterdir())) == 2
        gateway.finish()
        again = operator.execute(context_of())
        assert [landed["skipped"] for landed in again["landed"]] == [True, False, True]
        assert len(list(tmp_path.iterdir())) == 3

    def test_what_an_earlier_task_could_not_submit_is_passed_over_and_told(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path, logged: list[str]
    ) -> None:
        good = gateway.submit("a heron")
        gateway.finish()
        operator = VideoDownloadOperator(
            task_id="land",
            videos=[{"video_id": None, "state": None, "message": "no balance left"}, {"video_id": good}],
            destination=f"{tmp_path.as_uri()}/",
        )
        result = operator.execute(context_of())
        assert [landed["video_id"] for landed in result["landed"]] == [good]
        assert "entry 0 of the list has no video, and is passed over: no balance left" in logged

    def test_a_task_may_go_on_with_what_landed(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
    ) -> None:
        good = gateway.submit("a heron")
        gateway.finish()
        operator = VideoDownloadOperator(
            task_id="land",
            videos=[good, "veo3.1-fast:none"],
            destination=f"{tmp_path.as_uri()}/",
            fail_if="all",
        )
        result = operator.execute(context_of())
        assert [landed["video_id"] for landed in result["landed"]] == [good]
        assert "the gateway knows no such task" in result["failed"][0]["error"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({}, "video, videos: give one of the two"),
            ({"video": "a", "videos": ["b"]}, "video, videos: give one of the two"),
            ({"videos": []}, "videos: the list is empty"),
            ({"videos": [{"video_id": None, "message": "refused"}]}, "videos: the list is empty"),
            ({"videos": [{"video_id": None}]}, "video id: there is none in"),
        ],
    )
    def test_a_list_that_cannot_be_is_refused(
        self, connection: str, tmp_path: Path, arguments: dict[str, Any], words: str
    ) -> None:
        operator = VideoDownloadOperator(task_id="land", destination=f"{tmp_path.as_uri()}/", **arguments)
        with pytest.raises(AirflowFailException, match=words):
            operator.execute(context_of())

    def test_a_list_needs_a_directory(self, connection: str, tmp_path: Path) -> None:
        operator = VideoDownloadOperator(
            task_id="land", videos=["a", "b"], destination=f"{tmp_path.as_uri()}/x.mp4"
        )
        with pytest.raises(AirflowFailException, match="one name for 2 videos"):
            operator.execute(context_of())


class Events:
    """Airflow's outlet events, with one event for whatever asset: not every version's can be hashed."""

    def __init__(self, event: SimpleNamespace) -> None:
        self.event = event

    def __getitem__(self, asset: Asset) -> SimpleNamespace:
        return self.event


class TestEveryVideoOfATask:
    @pytest.fixture
    def several(self, finished: Callable[..., str]) -> Callable[..., str]:
        """The id of a task that made three videos."""
        return lambda prompt="a fox", **how: finished(f"{prompt} [videos=3]", **how)

    def names(self, folder: Path) -> list[str]:
        return [path.name.rpartition("-")[2] for path in files(folder)]

    @pytest.mark.parametrize("dialect", ["unified", "openai", "newapi"])
    @pytest.mark.parametrize("model", [MODEL, "grok-video-3", SIGNED])
    def test_lands_under_its_number_and_is_reported_in_order(
        self,
        connect: Callable[..., str],
        gateway: Gateway,
        several: Callable[..., str],
        folder: Path,
        dialect: str,
        model: str,
    ) -> None:
        connect(extra={"dialect": dialect})
        video_id = several(model=model)
        result = download(video_id, f"{folder.as_uri()}/", all_videos=True)
        assert self.names(folder) == ["1.mp4", "2.mp4", "3.mp4"]
        assert [landed["uri"].rpartition("-")[2] for landed in result] == self.names(folder)
        assert [landed["sha256"] for landed in result] == [
            hashlib.sha256(path.read_bytes()).hexdigest() for path in files(folder)
        ]
        assert len({landed["sha256"] for landed in result}) == 3
        assert {landed["video_id"] for landed in result} == {video_id}
        assert all(frames(path) > 1 for path in files(folder))
        assert gateway.leaks == []

    def test_is_fetched_by_the_urls_that_the_xcom_has(
        self, connection: str, gateway: Gateway, clock: Clock, folder: Path
    ) -> None:
        task = finish("a fox [videos=2]")
        assert len(task["video_urls"]) == 2
        asked = len(gateway.requests())
        download(task, f"{folder.as_uri()}/", all_videos=True)
        assert self.names(folder) == ["1.mp4", "2.mp4"]
        assert all("/cdn/" in request["path"] for request in gateway.requests()[asked:])

    def test_whose_urls_are_signed_is_asked_for_in_one_query(
        self, connection: str, gateway: Gateway, clock: Clock, folder: Path
    ) -> None:
        task = finish("a fox [videos=3]", model=SIGNED)
        assert task["video_urls"] == []
        asked = len(gateway.requests())
        result = download(task, f"{folder.as_uri()}/", all_videos=True)
        assert len(result) == 3
        assert sum("/query" in request["path"] for request in gateway.requests()[asked:]) == 1
        assert "Signature" not in json.dumps(result)

    def test_whose_url_expired_gets_its_own_fresh_one(
        self, gateway: Gateway, several: Callable[..., str], told: Callable[..., Any], folder: Path
    ) -> None:
        video_id = several("a fox [url-expires=5]")
        video = {"video_id": video_id, "video_urls": told(video_id)["video_urls"]}
        gateway.advance(10)
        result = download(video, f"{folder.as_uri()}/", all_videos=True)
        assert self.names(folder) == ["1.mp4", "2.mp4", "3.mp4"]
        again = download(video_id, f"{folder.as_uri()}/again/", all_videos=True)
        assert [landed["sha256"] for landed in again] == [landed["sha256"] for landed in result]

    @pytest.mark.parametrize("fault", ["", "[url-lost]"])
    def test_has_its_number_also_where_it_is_the_only_one(
        self, finished: Callable[..., str], clock: Clock, folder: Path, fault: str
    ) -> None:
        (landed,) = download(finished(f"a fox {fault}"), f"{folder.as_uri()}/", all_videos=True)
        assert self.names(folder) == ["1.mp4"]
        assert landed["uri"].endswith("-1.mp4")

    def test_takes_its_number_into_an_exact_name_and_a_template_of_ones_own(
        self, several: Callable[..., str], folder: Path
    ) -> None:
        video_id = several()
        download(video_id, f"{folder.as_uri()}/v1.5/film.mp4", all_videos=True)
        assert [path.name for path in files(folder)] == ["film-1.mp4", "film-2.mp4", "film-3.mp4"]
        assert all(frames(path) > 1 for path in files(folder))
        download(video_id, f"{folder.as_uri()}/own/", all_videos=True, file_name="fox.{ext}")
        assert [path.name for path in files(folder / "own")] == ["fox-1.mp4", "fox-2.mp4", "fox-3.mp4"]

    def test_lands_in_a_bucket(
        self, several: Callable[..., str], store_connection: str, s3_server: S3Server, tmp_path: Path
    ) -> None:
        video_id, prefix = several(model=SIGNED), f"{tmp_path.name}/several"
        for destination in (f"s3://store@videos/{prefix}/", f"s3://store@videos/{prefix}/exact/film.mp4"):
            result = download(video_id, destination, all_videos=True)
            keys = [landed["uri"].partition("videos/")[2] for landed in result]
            assert [key.rpartition("-")[2] for key in keys] == ["1.mp4", "2.mp4", "3.mp4"]
            assert all(frames(s3_server.root / "videos" / key) > 1 for key in keys)
            again = download(video_id, destination, all_videos=True)
            assert [landed["skipped"] for landed in again] == [True, True, True]

    def test_that_fails_is_named_and_the_others_stay_and_are_skipped_by_a_retry(
        self, gateway: Gateway, several: Callable[..., str], folder: Path
    ) -> None:
        video_id = several("a fox [not-a-video=1]")
        error = refused(video_id, f"{folder.as_uri()}/", all_videos=True, parallel=1)
        assert type(error) is VideoDownloadFailed
        assert "1 of 3 videos did not land. video 1 of 3 of task " in str(error)
        assert "video 2 of 3" not in str(error)
        assert str(error).count("The gateway still lists the video") == 1
        assert "A retry fetches only what is missing and costs nothing" in str(error)
        assert self.names(folder) == ["2.mp4", "3.mp4"]
        assert all(frames(path) > 1 for path in files(folder))
        written = [path.stat().st_mtime_ns for path in files(folder)]
        again = download(video_id, f"{folder.as_uri()}/", all_videos=True)
        assert [landed["skipped"] for landed in again] == [False, True, True]
        assert [path.stat().st_mtime_ns for path in files(folder)][1:] == written
        assert gateway.paid == 1, "what the test itself submitted"

    def test_whose_name_another_file_has_fails_alone_and_for_good(
        self, several: Callable[..., str], folder: Path
    ) -> None:
        folder.mkdir()
        (folder / "film-2.mp4").write_bytes(b"something else")
        error = refused(several(), f"{folder.as_uri()}/film.mp4", all_videos=True)
        assert type(error) is AirflowFailException
        assert "video 2 of 3" in str(error)
        assert "exists already" in str(error)
        assert (folder / "film-2.mp4").read_bytes() == b"something else"
        assert frames(folder / "film-1.mp4") > 1
        assert frames(folder / "film-3.mp4") > 1

    def test_is_told_to_outlets_and_openlineage(self, several: Callable[..., str], folder: Path) -> None:
        operator = VideoDownloadOperator(
            task_id="land",
            video=several(),
            destination=f"{folder.as_uri()}/",
            all_videos=True,
            outlets=[Asset("file:///videos")],
        )
        event = SimpleNamespace(extra={})
        result = operator.execute({**context_of(), "outlet_events": Events(event)})
        assert event.extra == {"files": result}
        lineage = operator.get_openlineage_facets_on_complete(None)
        assert (len(lineage.inputs), len(lineage.outputs)) == (1, 3)

    @pytest.mark.parametrize(("videos", "lands"), [(1, True), (2, False)])
    def test_is_fetched_by_the_gateways_own_route_only_where_it_can_be_no_other(
        self,
        connect: Callable[..., str],
        finished: Callable[..., str],
        folder: Path,
        videos: int,
        lands: bool,
    ) -> None:
        connect(extra={"allowed_hosts": ["10.1.2.3"]})
        video_id = finished(f"a fox [videos={videos}]")
        if lands:
            download(video_id, f"{folder.as_uri()}/", all_videos=True)
        else:
            assert "2 of 2 videos did not land" in str(
                refused(video_id, f"{folder.as_uri()}/", all_videos=True)
            )
        assert len(files(folder)) == (1 if lands else 0)

    def test_of_a_task_that_is_not_finished_says_what_to_wait_with(
        self, gateway: Gateway, folder: Path
    ) -> None:
        error = refused(gateway.submit("a fox [videos=3]"), f"{folder.as_uri()}/", all_videos=True)
        assert type(error) is VideoNotReady
        assert files(folder) == []

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"videos": ["a"], "video": None}, "videos: cannot be combined with all_videos"),
            ({"quality": "original"}, "quality: cannot be combined with all_videos"),
            ({"if_exists": "fail"}, "if_exists: cannot be combined with all_videos"),
            ({"options": {"if_exists": "fail"}}, "if_exists: cannot be combined with all_videos"),
            ({"fail_if": "all"}, "fail_if: cannot be combined with all_videos"),
        ],
    )
    def test_is_refused_beside_what_contradicts_it_while_the_dag_is_parsed(
        self, changes: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ValueError, match=words):
            VideoDownloadOperator(
                **{
                    "task_id": "land",
                    "video": "a",
                    "destination": "file:///x/",
                    "all_videos": True,
                    **changes,
                }
            )

    def test_is_refused_a_bucket_for_a_name_before_anything_is_fetched(
        self, gateway: Gateway, several: Callable[..., str], store_connection: str
    ) -> None:
        video_id = several()
        asked = len(gateway.requests())
        error = refused(video_id, "s3://store@videos", all_videos=True)
        assert type(error) is AirflowFailException
        assert "destination: s3://store@videos has no file's name" in str(error)
        assert len(gateway.requests()) == asked


class TestQuality:
    def test_best_is_the_upsampled_file_and_original_the_one_before_it(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
    ) -> None:
        video_id = gateway.submit("a heron", enable_upsample=True)
        gateway.finish()
        best = download(video_id, f"{tmp_path.as_uri()}/best/")
        original = download(video_id, f"{tmp_path.as_uri()}/original/", quality="original")
        assert best["width"] > original["width"]

    def test_a_misspelt_choice_is_refused_while_the_dag_is_parsed(self) -> None:
        with pytest.raises(ValueError, match="quality: 'worst' is none; allowed: best, original"):
            VideoDownloadOperator(task_id="land", video="a", destination="file:///x/", quality="worst")


def test_openlineage_is_told_the_source_and_the_file(
    connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
) -> None:
    video_id = gateway.submit("a heron")
    gateway.finish()
    operator = VideoDownloadOperator(task_id="land", video=video_id, destination=f"{tmp_path.as_uri()}/")
    result = operator.execute(context_of())
    lineage = operator.get_openlineage_facets_on_complete(None)
    (source,), (file,) = lineage.inputs, lineage.outputs
    assert (source.namespace, source.name) == ("https://127.0.0.1", video_id)
    assert (file.namespace, file.name) == ("file", result["uri"].removeprefix("file://"))
