"""Many videos in one task: one trigger or one worker waits for each, and one result tells of all in order."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_video_provider.exceptions import VideoGatewayUnreachable
from airflow_video_provider.gateway.ends import ListEnd
from airflow_video_provider.hooks import many
from airflow_video_provider.sensors.video import VideoTaskSensor
from airflow_video_provider.triggers.video_list import VideoTaskListTrigger
from tests.airflow.support import (
    Gateway,
    TaskInstance,
    context_of,
    dag_file,
    deferred,
    events_of,
    resume,
    states,
)
from tests.conftest import AIRFLOW

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:
    from airflow.exceptions import AirflowRescheduleException

REFERENCE = {"dag_id": "films", "run_id": "manual__1", "task_id": "wait", "map_index": -1, "key": "video_ids"}
DEFERRED, POKE = {"deferrable": True}, {"deferrable": False}
RESCHEDULE = {"deferrable": False, "mode": "reschedule"}
WAYS = pytest.mark.parametrize("way", [DEFERRED, POKE], ids=["deferrable", "poke"])
ALL_WAYS = pytest.mark.parametrize(
    "way", [DEFERRED, POKE, RESCHEDULE], ids=["deferrable", "poke", "reschedule"]
)

pytestmark = pytest.mark.usefixtures("connection", "soon")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No scheduler is there that a short deferral could confuse."""
    monkeypatch.setattr("airflow_video_provider.waiting.SHORTEST_DEFERRAL", 0.0)


@pytest.fixture
def ti(monkeypatch: pytest.MonkeyPatch) -> TaskInstance:
    """The task instance whose XComs a triggerer reads."""
    ti = TaskInstance(task_id="wait")

    class XCom:
        @staticmethod
        def get_one(*, key: str, **of: Any) -> Any:
            assert {**of, "key": key} == {**REFERENCE, "key": key}
            return json.loads(json.dumps(ti.xcoms.get(key)))

    monkeypatch.setattr("airflow.providers.common.compat.sdk.XCom", XCom, raising=False)
    return ti


@pytest.fixture
def trigger_for(connection: str, ti: TaskInstance) -> Callable[..., VideoTaskListTrigger]:
    def make(videos: list[Any] | None, **changes: Any) -> VideoTaskListTrigger:
        ti.xcoms["video_ids"] = videos
        return VideoTaskListTrigger(
            **{
                "video_conn_id": connection,
                "video_ids": REFERENCE,
                "poll_interval": 0.05,
                "max_poll_interval": 0.2,
                "schedule": "fixed",
                **changes,
            }
        )

    return make


def restarted(trigger: VideoTaskListTrigger) -> VideoTaskListTrigger:
    """The trigger as a triggerer makes it: from nothing but its row in the database."""
    path, kwargs = trigger.serialize()
    assert path == f"{VideoTaskListTrigger.__module__}.{VideoTaskListTrigger.__qualname__}"
    return VideoTaskListTrigger(**json.loads(json.dumps(kwargs)))


def event_of(trigger: VideoTaskListTrigger) -> dict[str, Any]:
    (event,) = asyncio.run(events_of(restarted(trigger)))
    assert json.loads(json.dumps(event)) == event
    return event


def run(trigger: VideoTaskListTrigger) -> ListEnd:
    return ListEnd.from_event(event_of(trigger))


def finished(gateway: Gateway, *prompts: str) -> list[str]:
    """Videos that have ended at the gateway."""
    ids = [gateway.submit(prompt) for prompt in prompts]
    gateway.finish()
    return ids


def ends(end: ListEnd) -> list[tuple[str, str]]:
    return [(done.video_id, str(done.end)) for done in end.ends]


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  another process says so
        await asyncio.sleep(0.1)


class TestTheTriggersRow:
    FULL = {  # noqa: RUF012
        "video_conn_id": "video_other",
        "video_ids": REFERENCE,
        "poll_interval": 7.5,
        "max_poll_interval": 45.0,
        "schedule": "fixed",
        "deadline": 1770350999.25,
        "first_poll_at": 1770350090.5,
        "submitted_at": 1770350082.0,
        "model": "veo3.1-fast",
        "unreachable_after": 61.0,
        "fail_if": "first",
        "cancel_on_kill": True,
    }

    def test_holds_exactly_what_its_constructor_takes_as_plain_json(self) -> None:
        taken = set(inspect.signature(VideoTaskListTrigger.__init__).parameters) - {"self"}
        kwargs = VideoTaskListTrigger(**self.FULL).serialize()[1]
        assert set(kwargs) == taken == set(self.FULL)
        assert json.loads(json.dumps(kwargs)) == self.FULL

    def test_stays_small_for_5000_videos(self, gateway: Gateway, ti: TaskInstance) -> None:
        ids = [gateway.submit("a fox"), *(f"veo3.1-fast:1-{number}" for number in range(4999))]
        waiting = deferred(sensor(ids, **DEFERRED).execute, context_of(ti))
        assert ti.xcoms["video_ids"] == ids
        assert len(json.dumps(waiting.trigger.serialize())) < 1000


class TestTheTrigger:
    def test_tells_of_each_in_the_order_of_the_list(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway
    ) -> None:
        good, bad, other = finished(gateway, "a fox", "doomed [fail]", "a heron")
        end = run(trigger_for([other, bad, good, other]))
        assert ends(end) == [(other, "succeeded"), (bad, "failed"), (good, "succeeded"), (other, "succeeded")]
        assert "the upstream model gave up" in end.ends[1].message
        assert len(gateway.requests("GET")) == 3, "what is in the list twice is queried once"

    def test_waits_until_the_last_has_ended(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway, logged: list[str]
    ) -> None:
        early = finished(gateway, *["a fox"] * 10)
        late = [gateway.submit("a heron") for _ in range(10)]

        async def both() -> list[dict[str, Any]]:
            waiting = asyncio.create_task(events_of(trigger_for([*late, *early])))
            await until(lambda: sum(line.endswith("is ready") for line in logged) == 10)
            await until(lambda: len(gateway.requests("GET")) >= 40)
            assert not waiting.done()
            gateway.finish()
            return await waiting

        (event,) = asyncio.run(both())
        assert ends(ListEnd.from_event(event)) == [(video_id, "succeeded") for video_id in [*late, *early]]

    def test_knows_of_each_what_the_list_says(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway
    ) -> None:
        (video_id,) = finished(gateway, "a fox")
        entry = {"video_id": video_id, "submitted_at": 1770350082.0, "model": "veo3.1-fast"}
        assert ends(run(trigger_for([entry]))) == [(video_id, "succeeded")]

    def test_the_first_failure_ends_the_wait_where_that_was_asked_for(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway
    ) -> None:
        (bad,) = finished(gateway, "doomed [fail]")
        endless = gateway.submit("endless [never]")
        end = run(trigger_for([endless, bad], fail_if="first"))
        assert ends(end) == [(endless, "left"), (bad, "failed")]

    def test_each_has_the_deadline(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway
    ) -> None:
        (good,) = finished(gateway, "a fox")
        endless = gateway.submit("endless [never]")
        end = run(trigger_for([endless, good], deadline=1.0))
        assert ends(end) == [(endless, "timed_out"), (good, "succeeded")]
        assert len(gateway.requests("GET")) == 2

    def test_an_empty_list_has_no_ends(self, trigger_for: Callable[..., VideoTaskListTrigger]) -> None:
        assert run(trigger_for([])) == ListEnd(())

    def test_a_list_that_was_deleted_is_an_event_not_a_crash(
        self, trigger_for: Callable[..., VideoTaskListTrigger]
    ) -> None:
        end = run(trigger_for(None))
        assert end.ends == ()
        assert "no longer in XCom" in (end.broke_off or "")

    def test_a_broken_connection_is_an_event_not_a_crash(
        self,
        trigger_for: Callable[..., VideoTaskListTrigger],
        connect: Callable[..., str],
        gateway: Gateway,
    ) -> None:
        trigger = trigger_for(finished(gateway, "a fox", "a heron"))
        connect(host="")
        end = run(trigger)
        assert [done.end for done in end.ends] == ["left", "left"]
        assert "the connection cannot be used" in (end.broke_off or "")

    def test_its_event_is_a_few_words_in_the_triggerers_log(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway
    ) -> None:
        trigger = trigger_for(finished(gateway, *["a fox"] * 20))

        async def event() -> Any:
            return [event async for event in trigger.run()][0]  # noqa: RUF015

        fired = asyncio.run(event())
        assert str(fired) == repr(fired) == "TriggerEvent<ends of videos: 20>"

    def test_no_secret_is_in_row_event_and_log(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway, logged: list[str]
    ) -> None:
        ids = [gateway.submit("signed", model="kling-v2")]
        gateway.finish()
        trigger = trigger_for(ids)
        event = event_of(trigger)
        for text in (json.dumps(trigger.serialize()), json.dumps(event), "\n".join(logged), repr(trigger)):
            assert gateway.key not in text
            assert "Signature" not in text

    def test_a_cancelled_one_leaves_no_wait_behind(
        self, trigger_for: Callable[..., VideoTaskListTrigger], gateway: Gateway
    ) -> None:
        trigger = trigger_for([gateway.submit("endless [never]") for _ in range(5)])

        async def cancelled() -> set[Any]:
            waiting = asyncio.create_task(events_of(trigger))
            await until(lambda: len(gateway.requests("GET")) >= 5)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return asyncio.all_tasks() - {asyncio.current_task()}

        assert asyncio.run(cancelled()) == set()

    @pytest.mark.parametrize("ask", [True, False])
    def test_a_person_who_kills_its_task_cancels_what_has_not_ended_where_that_was_asked_for(
        self,
        trigger_for: Callable[..., VideoTaskListTrigger],
        connect: Callable[..., str],
        gateway: Gateway,
        logged: list[str],
        monkeypatch: pytest.MonkeyPatch,
        ask: bool,
    ) -> None:
        runner = pytest.importorskip("airflow.sdk.execution_time.task_runner", reason="Airflow 3.3")
        over = {REFERENCE["run_id"]: {REFERENCE["task_id"]: "failed"}}
        monkeypatch.setattr(runner.RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: over))
        done = gateway.submit("a fox", path="/v1/videos")
        gateway.finish()
        endless = [gateway.submit("endless [never]", path="/v1/videos") for _ in range(2)]
        conn_id = connect("video_openai", extra={"dialect": "openai"})
        trigger = trigger_for([done, *endless], video_conn_id=conn_id, cancel_on_kill=ask)
        trigger.task_instance = SimpleNamespace(**REFERENCE)  # type: ignore[assignment]

        async def killed() -> None:
            waiting = asyncio.create_task(events_of(trigger))
            await until(lambda: trigger.running == endless and len(gateway.requests("GET")) > 3)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await trigger.on_kill()

        asyncio.run(killed())
        cancelled = {request["path"].rpartition("/")[2] for request in gateway.requests("DELETE")}
        assert {unquote(video_id) for video_id in cancelled} == (set(endless) if ask else set())
        assert any("each of 2 videos runs on" in line for line in logged) is not ask


class TestTheLog:
    def test_is_a_line_per_end_and_a_summary_when_counts_change(
        self,
        trigger_for: Callable[..., VideoTaskListTrigger],
        gateway: Gateway,
        logged: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(many, "SUMMARY_INTERVAL", 0.01)
        early = finished(gateway, "a fox", "doomed [fail]")
        late = gateway.submit("a heron")

        async def both() -> None:
            waiting = asyncio.create_task(events_of(trigger_for([*early, late])))
            await until(lambda: "3 videos: 1 failed, 1 queued, 1 succeeded" in logged)
            await until(lambda: len(gateway.requests("GET")) >= 20)
            gateway.finish()
            await waiting

        asyncio.run(both())
        assert len(set(logged)) == len(logged) < 10
        assert sum(line.startswith("video ") for line in logged) == 3
        assert logged[0].startswith("waiting for 3 videos")
        assert logged[-1] == "3 videos: 2 succeeded, 1 failed"

    def test_tells_why_queries_fail_in_the_summary_only(
        self,
        trigger_for: Callable[..., VideoTaskListTrigger],
        gateway: Gateway,
        logged: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(many, "SUMMARY_INTERVAL", 0.01)
        ids = finished(gateway, *["a fox"] * 5)
        gateway.fail(query=500)

        async def both() -> None:
            waiting = asyncio.create_task(events_of(trigger_for(ids)))
            await until(lambda: any("5 whose queries fail; lately: query " in line for line in logged))
            gateway.heal()
            await waiting

        asyncio.run(both())
        assert not any(line.startswith("query ") for line in logged)
        assert logged[-1] == "5 videos: 5 succeeded"


# -- the sensor --------------------------------------------------------------------------------------------


def sensor(videos: Any, **changes: Any) -> VideoTaskSensor:
    return VideoTaskSensor(
        **{"task_id": "wait", "video_ids": videos, "timeout": 1800, "poke_interval": 1, **changes}
    )


def wait(ti: TaskInstance, videos: Any, **changes: Any) -> Any:
    """The sensor to its end, wherever it waits; after a deferral in a fresh instance."""
    context = context_of(ti)
    try:
        return sensor(videos, **changes).execute(context)
    except TaskDeferred as waiting:
        return resume(sensor(videos, **changes), waiting, event_of(waiting.trigger), context)


def refused(ti: TaskInstance, videos: Any, **changes: Any) -> AirflowException:
    with pytest.raises(AirflowException) as caught:
        wait(ti, videos, **changes)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 1300
    return caught.value


@pytest.mark.usefixtures("airflow_database")
class TestTheSensor:
    @ALL_WAYS
    def test_returns_the_tasks_in_order(
        self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any]
    ) -> None:
        one, two = finished(gateway, "a fox", "a heron")
        results = wait(ti, [two, one], **way)
        assert [result["video_id"] for result in results] == [two, one]
        single = VideoTaskSensor(task_id="one", video_id=two).execute(context_of())
        assert results[0] == {**single, "end": "succeeded", "message": f"video {two} is ready"}
        assert gateway.paid == 2, "what the test itself submitted"

    @WAYS
    def test_waits_for_what_goes_on(
        self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [gateway.submit(prompt) for prompt in ["a fox", "a heron"]]
        asked = many.SharedGateway.ask
        left = [4]

        async def ask(*args: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                gateway.finish()
            return await asked(*args)

        monkeypatch.setattr(many.SharedGateway, "ask", ask)
        assert [result["state"] for result in wait(ti, ids, schedule="fixed", **way)] == ["succeeded"] * 2

    def test_is_rescheduled_until_all_have_ended(self, gateway: Gateway, ti: TaskInstance) -> None:
        ids = [*finished(gateway, "a fox"), gateway.submit("a heron")]
        for _ in range(2):
            with pytest.raises(AirflowRescheduleException):
                wait(ti, ids, **RESCHEDULE)
        gateway.finish()
        assert [result["state"] for result in wait(ti, ids, **RESCHEDULE)] == ["succeeded", "succeeded"]

    def test_it_defers_where_both_were_asked_for(self, gateway: Gateway, ti: TaskInstance) -> None:
        ids = [gateway.submit("a fox")]
        waiting = deferred(sensor(ids, **{**RESCHEDULE, **DEFERRED}).execute, context_of(ti))
        assert isinstance(waiting.trigger, VideoTaskListTrigger)

    def test_a_first_failure_ends_the_rescheduling(self, gateway: Gateway, ti: TaskInstance) -> None:
        ids = [gateway.submit("endless [never]"), *finished(gateway, "doomed [fail]")]
        with pytest.raises(AirflowRescheduleException):
            wait(ti, ids, **RESCHEDULE)
        assert isinstance(refused(ti, ids, fail_if="first", **RESCHEDULE), AirflowFailException)

    @ALL_WAYS
    def test_one_failure_fails_it_at_the_end_with_all_results_told(
        self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any], logged: list[str]
    ) -> None:
        ids = finished(gateway, "a fox", "doomed [fail]", "a heron")
        error = refused(ti, ids, **way)
        assert isinstance(error, AirflowFailException)
        assert "3 videos: 2 succeeded, 1 failed" in str(error)
        assert "the upstream model gave up" in str(error)
        told = ti.xcoms["return_value"]
        assert [(result["video_id"], result["end"]) for result in told] == [
            (ids[0], "succeeded"),
            (ids[1], "failed"),
            (ids[2], "succeeded"),
        ]
        for video_id in ids:
            assert sum(line.startswith(f"video {video_id} ") for line in logged) == 1

    @ALL_WAYS
    def test_all_is_content_with_one(self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any]) -> None:
        ids = finished(gateway, "doomed [fail]", "a fox")
        results = wait(ti, ids, fail_if="all", **way)
        assert [result["state"] for result in results] == ["failed", "succeeded"]
        assert "the upstream model gave up" in results[0]["failure"]
        assert "the upstream model gave up" in str(refused(ti, ids[:1], fail_if="all", **way))

    @WAYS
    def test_a_timeout_is_a_sensors_timeout(
        self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any]
    ) -> None:
        ids = [*finished(gateway, "a fox"), gateway.submit("endless [never]")]
        error = refused(ti, ids, timeout=0, **way)
        assert isinstance(error, AirflowSensorTimeout)
        assert "2 videos: 1 succeeded, 1 timed_out" in str(error)

    @ALL_WAYS
    @pytest.mark.parametrize("how", ["soft_fail", "never_fail"])
    def test_it_skips_where_that_was_asked_for(
        self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any], how: str
    ) -> None:
        error = refused(ti, finished(gateway, "doomed [fail]"), **way, **{how: True})
        assert isinstance(error, AirflowSkipException)

    @ALL_WAYS
    def test_an_empty_list_is_done(self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any]) -> None:
        assert wait(ti, [], **way) == []
        assert gateway.requests() == []

    @ALL_WAYS
    def test_a_bad_key_is_told_at_once(
        self,
        gateway: Gateway,
        ti: TaskInstance,
        connect: Callable[..., str],
        way: dict[str, Any],
    ) -> None:
        ids = finished(gateway, "a fox", "a heron")
        connect(password="sk-bad")
        error = refused(ti, ids, **way)
        assert isinstance(error, AirflowFailException)
        assert "Check the connection's password" in str(error)
        assert gateway.key not in str(error)

    @WAYS
    def test_a_wrong_host_is_told_within_seconds(
        self,
        ti: TaskInstance,
        connect: Callable[..., str],
        way: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("airflow_video_provider.gateway.watch.NO_FIRST_CONTACT_AFTER", 1.0)
        connect(host="http://gateway.invalid")
        error = refused(ti, ["a", "b"], **way)
        assert isinstance(error, VideoGatewayUnreachable)
        assert "gateway.invalid" in str(error)

    def test_airflows_own_timeout_comes_through_as_it_is(
        self, gateway: Gateway, ti: TaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow raises it into whatever line runs when ``execution_timeout`` is over."""

        class Timeout(BaseException):
            pass

        async def ask(*_: Any) -> Any:
            raise Timeout

        monkeypatch.setattr(many.SharedGateway, "ask", ask)
        with pytest.raises(Timeout):
            wait(ti, finished(gateway, "a fox", "a heron"), **POKE)

    def test_a_list_that_was_deleted_may_be_retried(
        self, gateway: Gateway, ti: TaskInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = finished(gateway, "a fox")
        monkeypatch.setattr(TaskInstance, "xcom_push", lambda *_, **__: None)
        error = refused(ti, ids, **DEFERRED)
        assert isinstance(error, VideoGatewayUnreachable)
        assert "a retry writes the list anew" in str(error)


class TestWhatItIsTold:
    @pytest.mark.parametrize(
        "form",
        [
            tuple,
            str,
            json.dumps,
            lambda ids: [{"video_id": video_id, "state": "running"} for video_id in ids],
            lambda ids: str([{"video_id": video_id, "video_url": None} for video_id in ids]),
            iter,
        ],
        ids=["tuple", "as Jinja writes it", "JSON", "XComs", "XComs as Jinja writes them", "lazy"],
    )
    def test_ids_in_any_form(
        self, gateway: Gateway, ti: TaskInstance, form: Callable[[list[str]], Any]
    ) -> None:
        ids = finished(gateway, "a fox", "a heron")
        assert [result["video_id"] for result in wait(ti, form(ids), **POKE)] == ids

    @pytest.mark.parametrize("nothing", ["", "None", None, "a", {"video_id": "a"}, 3, b"a"], ids=repr)
    @ALL_WAYS
    def test_no_list(self, gateway: Gateway, ti: TaskInstance, way: dict[str, Any], nothing: object) -> None:
        error = refused(ti, nothing, **way)
        assert isinstance(error, AirflowFailException)
        assert "is no list" in str(error)
        assert not gateway.requests()

    @pytest.mark.parametrize(
        "nothing",
        ["", None, {"video_id": None}, 3, {"message": "a"}, {"video_id": "", "message": "a"},
         {"video_id": None, "message": " "}],
        ids=repr,
    )  # fmt: skip
    def test_a_list_with_an_entry_that_is_none(
        self, gateway: Gateway, ti: TaskInstance, nothing: object
    ) -> None:
        error = refused(ti, ["a", nothing], **POKE)
        assert isinstance(error, AirflowFailException)
        assert "video_ids, entry 1: " in str(error)
        assert not gateway.requests()

    @pytest.mark.parametrize("form", [list, str, json.dumps], ids=["XCom", "as Jinja writes it", "JSON"])
    @ALL_WAYS
    def test_what_an_earlier_task_could_not_submit_is_passed_over_and_told(
        self,
        gateway: Gateway,
        ti: TaskInstance,
        way: dict[str, Any],
        form: Callable[[list[Any]], Any],
        logged: list[str],
    ) -> None:
        (made,) = finished(gateway, "a fox")
        never = {"video_id": None, "state": None, "message": "no balance left", "prompt": "a heron"}
        told = form([never, {"video_id": made, "state": "succeeded", "prompt": "a fox"}, never])
        assert [result["video_id"] for result in wait(ti, told, **way)] == [made]
        assert "entry 0 of the list has no video, and is passed over: no balance left" in logged
        assert "entry 2 of the list has no video, and is passed over: no balance left" in logged

    def test_where_no_entry_was_ever_submitted_there_is_nothing_to_wait_for(
        self, gateway: Gateway, ti: TaskInstance
    ) -> None:
        assert wait(ti, [{"video_id": None, "message": "no balance left"}], **POKE) == []
        assert not gateway.requests()

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({}, "video_id, video_ids"),
            ({"video_id": "a", "video_ids": ["b"]}, "video_id, video_ids"),
            ({"video_ids": ["b"], "fail_if": "some"}, "fail_if"),
        ],
    )
    def test_bad_arguments_are_found_while_the_dag_is_parsed(
        self, arguments: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(ValueError, match=f"^{named}: "):
            VideoTaskSensor(task_id="wait", **arguments)


DAG = """
from datetime import datetime
from airflow.providers.common.compat.sdk import DAG
from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor

how = {{"poke_interval": 1, "schedule": "fixed", "timeout": 60, "deferrable": {deferrable}}}
with DAG("many_{deferrable}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    films = VideoGenerateOperator.partial(
        task_id="films", model="veo3.1-fast", wait_for_completion=False
    ).expand(prompt=["a heron [time=1]", "an owl [time=1]"])
    VideoTaskSensor(task_id="argument", video_ids=films.output, **how)
    films >> VideoTaskSensor(task_id="text", video_ids="{{{{ ti.xcom_pull('films') | list }}}}", **how)
    again = VideoTaskSensor(task_id="list", video_ids=films.output, **how)
    VideoTaskSensor(task_id="of_a_list", video_ids=again.output, **how)
"""


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize("deferrable", [True, False])
def test_upstream_tasks_in_a_dag(gateway: Gateway, deferrable: bool) -> None:
    if deferrable and AIRFLOW == (3, 0):
        pytest.skip("no trigger reads an XCom in the `dag.test()` of 3.0; in its triggerer they do")
    with dag_file(f"many_{deferrable}", DAG.format(deferrable=deferrable)) as module:
        done = module.dag.test()
    tasks = ["films[0]", "films[1]", "argument", "text", "list", "of_a_list"]
    assert states(done) == dict.fromkeys(tasks, "success")
    assert gateway.paid == 2
