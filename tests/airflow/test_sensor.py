"""The sensor: it waits in three ways for a video that somebody else submitted."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_video_provider.exceptions import VideoGatewayUnreachable
from airflow_video_provider.gateway.watch import NO_FIRST_CONTACT_AFTER
from airflow_video_provider.sensors.video import VideoTaskSensor
from tests.airflow.support import (
    SECONDS,
    Clock,
    Gateway,
    context_of,
    dag_file,
    deferred,
    resume,
    run,
    states,
)

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:
    from airflow.exceptions import AirflowRescheduleException

DEFERRED, POKE = {"deferrable": True}, {"deferrable": False}
WAYS = pytest.mark.parametrize("way", [DEFERRED, POKE], ids=["deferrable", "poke"])
pytestmark = pytest.mark.usefixtures("connection")


def sensor(video_id: Any, **changes: Any) -> VideoTaskSensor:
    return VideoTaskSensor(**{"task_id": "wait", "video_id": video_id, "timeout": 1800, **changes})


def finish(video_id: Any, **changes: Any) -> Any:
    """The sensor to its end, wherever it waits; after a deferral in a fresh instance."""
    context = context_of()
    try:
        return sensor(video_id, **changes).execute(context)
    except TaskDeferred as waiting:
        return resume(sensor(video_id, **changes), waiting, run(waiting.trigger), context)


def refused(video_id: Any, **changes: Any) -> AirflowException:
    with pytest.raises(AirflowException) as caught:
        finish(video_id, **changes)
    assert "\n" not in str(caught.value)
    return caught.value


class TestWaiting:
    @WAYS
    def test_until_it_is_finished(self, gateway: Gateway, clock: Clock, way: dict[str, Any]) -> None:
        video_id = gateway.submit("a fox")
        result = finish(video_id, **way)
        assert (result["video_id"], result["state"]) == (video_id, "succeeded")
        assert json.loads(json.dumps(result)) == result
        assert "raw" not in result
        assert SECONDS - 1 <= sum(clock.sleeps) < SECONDS + 25
        assert gateway.paid == 1, "what the test itself submitted"

    @pytest.mark.usefixtures("airflow_database")
    def test_rescheduled_until_it_is_finished(self, gateway: Gateway) -> None:
        video_id = gateway.submit("a fox")
        for _ in range(2):
            with pytest.raises(AirflowRescheduleException):
                finish(video_id, deferrable=False, mode="reschedule")
        gateway.finish()
        result = finish(video_id, deferrable=False, mode="reschedule")
        assert result["state"] == "succeeded"
        assert len(gateway.requests("GET")) == 3

    @pytest.mark.usefixtures("airflow_database")
    @pytest.mark.parametrize("many", [False, True], ids=["one", "list"])
    @pytest.mark.parametrize("fault", ["no host", "html", "503", "429", "none"])
    def test_rescheduled_no_sooner_than_its_interval_whatever_went_wrong(
        self, connect: Callable[..., str], gateway: Gateway, many: bool, fault: str
    ) -> None:
        """Each poke is a worker process of its own."""
        videos = [gateway.submit("a fox [query-html=1]" if fault == "html" else "a fox") for _ in range(2)]
        if fault == "no host":
            connect(host="http://127.0.0.1:9")
        if fault.isdigit():
            gateway.fail(query=int(fault))
        waiting = VideoTaskSensor(
            task_id="wait",
            deferrable=False,
            mode="reschedule",
            poke_interval=300,
            timeout=5000,
            **({"video_ids": videos} if many else {"video_id": videos[0]}),
        )
        begun = datetime.now(UTC)
        with pytest.raises(AirflowRescheduleException) as caught:
            waiting.execute(context_of())
        assert caught.value.reschedule_date >= begun + timedelta(seconds=300)

    def test_a_deferral_hands_everything_to_the_trigger(self, gateway: Gateway, clock: Clock) -> None:
        video_id = gateway.submit("a fox")
        waiting = deferred(
            sensor(video_id, deferrable=True, poke_interval=20, timeout=600, unreachable_after=99).execute,
            context_of(),
        )
        _, kwargs = waiting.trigger.serialize()
        assert kwargs["video_conn_id"] == "video_default"
        assert kwargs["video_id"] == video_id
        assert kwargs["poll_interval"] == 20
        assert kwargs["unreachable_after"] == 99
        assert kwargs["submitted_at"] is None, "nobody knows here when it was submitted"
        assert kwargs["deadline"] == pytest.approx(clock.time() + 600, abs=5)
        assert waiting.timeout.total_seconds() > 600, "Airflow's own end comes after the trigger's"

    def test_it_asks_once_before_it_defers(self, gateway: Gateway) -> None:
        video_id = gateway.submit("a fox")
        deferred(sensor(video_id, deferrable=True).execute, context_of())
        assert len(gateway.requests("GET")) == 1

    @pytest.mark.parametrize(
        "way", [DEFERRED, POKE, {"deferrable": False, "mode": "reschedule"}], ids=lambda way: str(way)
    )
    @pytest.mark.usefixtures("airflow_database")
    def test_what_is_finished_is_not_waited_for(self, gateway: Gateway, way: dict[str, Any]) -> None:
        video_id = gateway.submit("a fox")
        gateway.finish()
        assert sensor(video_id, **way).execute(context_of()) is not None
        assert len(gateway.requests("GET")) == 1

    def test_airflows_default_decides(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert sensor("a").deferrable is False
        monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
        assert sensor("a").deferrable is True

    @WAYS
    @pytest.mark.parametrize("fault", ["flap=4", "query-html=1", "query-429", "query-drop=1", "url-late=2"])
    def test_a_blip_ends_nothing(
        self, gateway: Gateway, clock: Clock, way: dict[str, Any], fault: str
    ) -> None:
        result = finish(gateway.submit(f"a bumpy ride [{fault}]"), **way)
        assert result["state"] == "succeeded"
        assert result["video_url"]

    @pytest.mark.usefixtures("airflow_database")
    def test_nor_does_it_when_rescheduled(self, gateway: Gateway) -> None:
        video_id = gateway.submit("a bumpy ride [flap=2]")
        gateway.finish()
        for _ in range(2):
            with pytest.raises(AirflowRescheduleException):
                finish(video_id, deferrable=False, mode="reschedule")
        assert finish(video_id, deferrable=False, mode="reschedule")["state"] == "succeeded"

    @WAYS
    def test_a_dialect_with_a_content_route_does_not_wait_for_a_url(
        self, connect: Callable[..., str], gateway: Gateway, clock: Clock, way: dict[str, Any]
    ) -> None:
        connect(extra={"dialect": "openai"})
        video_id = gateway.submit("lost [url-lost]", path="/v1/videos")
        gateway.finish()
        assert finish(video_id, **way)["video_url"] is None
        assert len(gateway.requests("GET")) == 1

    def test_progress_is_logged_when_it_changes(
        self, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        finish(gateway.submit("a fox"), poke_interval=1, schedule="fixed", **POKE)
        told = [line for line in logged if line.startswith("video ")]
        assert len(gateway.requests("GET")) > 2 * len(told)
        assert 2 <= len(told) < 10
        assert len(set(told)) == len(told)


FAILURES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "failed generation": ("doomed [fail]", {}, ("failed", "the upstream model gave up")),
    "moderated": ("doomed [fail-moderation]", {}, ("failed", "blocked by our moderation system")),
    "cancelled": ("doomed [cancelled]", {}, ("cancelled", "by the operator of the gateway")),
    "unknown id": ("", {}, ("knows no such task", "Check the id")),
    "bad key": ("a fox", {"password": "sk-bad"}, ("API key", "Check the connection's password")),
    "wrong path": (
        "a fox",
        {"host": "{url}/relay"},
        ("no such route", "Check the connection's host, path prefix and dialect"),
    ),
    "bad dialect": ("a fox", {"extra": {"dialect": "azure"}}, ("video_default", "dialect: 'azure' is none")),
}


class TestAFailureIsFinalAndSaysWhy:
    @WAYS
    @pytest.mark.parametrize(("prompt", "connection", "words"), FAILURES.values(), ids=FAILURES)
    def test_in_one_line(
        self,
        connect: Callable[..., str],
        gateway: Gateway,
        clock: Clock,
        way: dict[str, Any],
        prompt: str,
        connection: dict[str, Any],
        words: tuple[str, ...],
    ) -> None:
        video_id = gateway.submit(prompt) if prompt else "veo3.1-fast:1-nobody"
        connect(**{
            name: value.format(url=gateway.url) if isinstance(value, str) else value
            for name, value in connection.items()
        })  # fmt: skip
        error = refused(video_id, **way)
        assert isinstance(error, AirflowFailException)
        assert all(word in str(error) for word in words), str(error)
        assert gateway.key not in str(error)

    @WAYS
    @pytest.mark.parametrize(
        "nothing", ["", "  ", "None", None, {}, {"video_id": None}, "{}", ["a"], 3], ids=repr
    )
    def test_no_id(self, gateway: Gateway, way: dict[str, Any], nothing: object) -> None:
        error = refused(nothing, **way)
        assert isinstance(error, AirflowFailException)
        assert "give the gateway's task id, or the XCom" in str(error)
        assert not gateway.requests()

    @WAYS
    def test_a_wrong_host_is_told_within_seconds(
        self, connect: Callable[..., str], gateway: Gateway, clock: Clock, way: dict[str, Any]
    ) -> None:
        connect(host="http://gateway.invalid")
        error = refused("a", **way)
        assert isinstance(error, VideoGatewayUnreachable)
        assert "gateway.invalid" in str(error)
        assert sum(clock.sleeps) < NO_FIRST_CONTACT_AFTER + 11

    @WAYS
    def test_a_gateway_that_is_down_for_long(
        self, gateway: Gateway, clock: Clock, way: dict[str, Any]
    ) -> None:
        video_id = gateway.submit("a fox")
        gateway.fail(query=503)
        error = refused(video_id, unreachable_after=120, **way)
        assert isinstance(error, VideoGatewayUnreachable)
        assert "asking again is free" in str(error)
        assert sum(clock.sleeps) >= 120

    @WAYS
    def test_a_timeout_is_a_sensors_timeout(
        self, gateway: Gateway, clock: Clock, way: dict[str, Any]
    ) -> None:
        error = refused(gateway.submit("endless [never]"), timeout=100, **way)
        assert isinstance(error, AirflowSensorTimeout)
        assert 95 <= sum(clock.sleeps) < 125, "the gateway's minute and the test's own milliseconds"

    @WAYS
    def test_the_status_comes_before_the_timeout(self, gateway: Gateway, way: dict[str, Any]) -> None:
        video_id = gateway.submit("a fox")
        assert isinstance(refused(video_id, timeout=0, **way), AirflowSensorTimeout)
        gateway.finish()
        assert finish(video_id, timeout=0, **way)["state"] == "succeeded"

    def test_a_wait_that_airflow_ended_is_no_success(self) -> None:
        """Airflow 3 makes a sensor's timeout of it, 2.11 a failed deferral; both may be retried."""
        with pytest.raises(AirflowException):
            sensor("a").resume_execution("__fail__", {"error": "Trigger timeout"}, context_of())


class TestSkippingInsteadOfFailing:
    @WAYS
    @pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
    @pytest.mark.parametrize("fault", ["fail", "fail-moderation", "query-401", "never"])
    def test_after_the_wait(
        self, gateway: Gateway, clock: Clock, way: dict[str, Any], how: str, fault: str
    ) -> None:
        video_id = gateway.submit(f"doomed [{fault}]")
        assert isinstance(refused(video_id, timeout=100, **way, **{how: True}), AirflowSkipException)

    @WAYS
    @pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
    def test_an_unreachable_gateway(
        self, gateway: Gateway, clock: Clock, way: dict[str, Any], how: str
    ) -> None:
        video_id = gateway.submit("a fox")
        gateway.fail(query=503)
        error = refused(video_id, unreachable_after=60, **way, **{how: True})
        assert isinstance(error, AirflowSkipException)

    @WAYS
    @pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
    @pytest.mark.parametrize("cause", ["no id", "failed already", "bad key", "wrong host"])
    def test_before_there_is_any_wait(
        self,
        connect: Callable[..., str],
        gateway: Gateway,
        clock: Clock,
        way: dict[str, Any],
        how: str,
        cause: str,
    ) -> None:
        video_id = "" if cause == "no id" else gateway.submit("doomed [fail]")
        gateway.finish()
        if cause == "bad key":
            connect(password="sk-bad")
        if cause == "wrong host":
            connect(host="http://gateway.invalid")
        with pytest.raises(AirflowSkipException) as caught:
            sensor(video_id, **way, **{how: True}).execute(context_of())
        if way is DEFERRED:
            assert "skip" not in str(caught.value).lower(), "the reason, not that it was skipped"

    @pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
    @pytest.mark.usefixtures("airflow_database")
    def test_when_rescheduled(self, gateway: Gateway, how: str) -> None:
        video_id = gateway.submit("doomed [fail]")
        gateway.finish()
        with pytest.raises(AirflowSkipException):
            sensor(video_id, deferrable=False, mode="reschedule", **{how: True}).execute(context_of())


class TestWhatItIsTold:
    @pytest.mark.parametrize(
        "form",
        [
            str,
            lambda video_id: f"  {video_id}\n",
            lambda video_id: {"video_id": video_id, "state": "running", "video_url": None},
            lambda video_id: str({"video_id": video_id, "progress": 3, "video_url": None}),
            lambda video_id: json.dumps({"video_id": video_id, "progress": 3, "video_url": None}),
        ],
        ids=["id", "id with blanks", "XCom", "XCom as Jinja writes it", "XCom as JSON"],
    )
    @pytest.mark.parametrize("model", ["veo3.1-fast", "kling-v2"])
    def test_an_id_in_any_form(self, gateway: Gateway, form: Callable[[str], Any], model: str) -> None:
        video_id = gateway.submit("a fox", model=model)
        gateway.finish()
        assert finish(form(video_id))["video_id"] == video_id

    @pytest.mark.parametrize(
        ("argument", "named"),
        [
            ({"poke_interval": 0.5}, "poke_interval"),
            ({"poke_interval": "10"}, "poke_interval"),
            ({"unreachable_after": -1}, "unreachable_after"),
        ],
    )
    def test_bad_arguments_are_found_while_the_dag_is_parsed(
        self, argument: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(ValueError, match=f"^{named}: "):
            sensor("a", **argument)


DAG = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor

how = {{"poke_interval": 1, "timeout": 60, "deferrable": {deferrable}}}
with DAG("told_{deferrable}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    film = VideoGenerateOperator(
        task_id="film", prompt="a fox [time=1]", model="veo3.1-fast", wait_for_completion=False
    )
    films = VideoGenerateOperator.partial(
        task_id="films", model="veo3.1-fast", wait_for_completion=False
    ).expand(prompt=["a heron [time=1]", "an owl [time=1]"])
    VideoTaskSensor(task_id="argument", video_id=film.output, **how)
    VideoTaskSensor(task_id="id", video_id=film.output["video_id"], **how)
    film >> VideoTaskSensor(task_id="text", video_id="{{{{ ti.xcom_pull('film') }}}}", **how)
    film >> VideoTaskSensor(
        task_id="key", video_id="{{{{ ti.xcom_pull(task_ids='film', key='video_id') }}}}", **how
    )
    VideoTaskSensor.partial(task_id="expanded", **how).expand(video_id=films.output)
"""


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize("deferrable", [True, False])
def test_an_upstream_task_in_a_dag(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    # In `dag.test()` no scheduler runs that a short deferral could confuse.
    monkeypatch.setattr("airflow_video_provider.waiting.SHORTEST_DEFERRAL", 0.0)
    with dag_file(f"told_{deferrable}", DAG.format(deferrable=deferrable)) as module:
        done = module.dag.test()
    tasks = ["film", "films[0]", "films[1]", "argument", "id", "text", "key", "expanded[0]", "expanded[1]"]
    assert states(done) == dict.fromkeys(tasks, "success")
    assert gateway.paid == 3
