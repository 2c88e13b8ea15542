"""A sensor's wait that begins in the triggerer, and one that cannot and says why."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, XComArg, task_group
from airflow.triggers.base import BaseTrigger

from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor
from airflow_video_provider.triggers.video_templated import TemplatedVideoTaskTrigger
from tests.airflow.support import Clock, Gateway, context_of, deferred, events_of

CAN = hasattr(BaseTrigger, "render_template_fields")
needs_3_3 = pytest.mark.skipif(not CAN, reason="Airflow renders a trigger's templates from 3.3 on")
pytestmark = pytest.mark.usefixtures("connection")


@pytest.fixture
def dag() -> Any:
    with DAG("films", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        yield dag


def sensor(video_id: Any = "{{ params.video_id }}", **changes: Any) -> VideoTaskSensor:
    return VideoTaskSensor(
        **{"task_id": "wait", "video_id": video_id, "start_from_trigger": True, "timeout": 600, **changes}
    )


def trigger_of(waiting: VideoTaskSensor, *, now: datetime | None = None) -> TemplatedVideoTaskTrigger:
    """The trigger as a triggerer makes it from the row that the scheduler wrote at a time."""
    args = waiting.start_trigger_args
    module, _, name = args.trigger_cls.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(args.trigger_kwargs)))
    limits = [limit for limit in (args.timeout, waiting.execution_timeout) if limit]
    trigger.timeout_after = (now or datetime.now(UTC)) + min(limits)
    return trigger


def run(trigger: TemplatedVideoTaskTrigger) -> dict[str, Any]:
    (event,) = asyncio.run(events_of(trigger))
    return event


@needs_3_3
class TestItBeginsInTheTriggerer:
    def test_and_waits_there(self, gateway: Gateway, clock: Clock) -> None:
        trigger = trigger_of(sensor())
        trigger.video_id = gateway.submit("a fox")  # as Airflow renders it
        assert run(trigger)["end"] == "succeeded"

    @pytest.mark.parametrize(
        "form", [str, lambda id_: {"video_id": id_}, lambda id_: str({"video_id": id_, "progress": None})]
    )
    def test_for_an_id_in_any_form_that_a_template_gives(
        self, gateway: Gateway, form: Callable[[str], Any]
    ) -> None:
        video_id = gateway.submit("a fox")
        gateway.finish()
        trigger = trigger_of(sensor())
        trigger.video_id = form(video_id)
        assert run(trigger)["video_id"] == video_id

    @pytest.mark.parametrize("nothing", ["", "None", None], ids=repr)
    def test_no_id_is_final(self, gateway: Gateway, nothing: Any) -> None:
        trigger = trigger_of(sensor())
        trigger.video_id = nothing
        event = run(trigger)
        assert event["end"] == "refused"
        assert "give the gateway's task id" in event["message"]
        assert not gateway.requests()

    @pytest.mark.parametrize("limit", [None, timedelta(hours=1), timedelta(minutes=20)])
    def test_until_the_same_deadline_however_often_the_triggerer_is_restarted(
        self, gateway: Gateway, limit: timedelta | None
    ) -> None:
        begun = datetime.now(UTC) - timedelta(seconds=300)
        trigger = trigger_of(sensor(execution_timeout=limit), now=begun)
        trigger.video_id = gateway.submit("a fox")
        gateway.finish()
        run(trigger)
        assert trigger.deadline == pytest.approx(begun.timestamp() + 600)
        _, kwargs = trigger.serialize()
        assert kwargs["deadline_before_end"] == trigger.deadline_before_end

    def test_a_deadline_that_is_over_is_told_by_the_trigger(self, gateway: Gateway) -> None:
        trigger = trigger_of(sensor(), now=datetime.now(UTC) - timedelta(seconds=601))
        trigger.video_id = gateway.submit("a fox")
        assert run(trigger)["end"] == "timed_out"

    def test_its_templates_are_what_airflow_renders_there(self) -> None:
        waiting = sensor("{{ params.video_id }}")
        kwargs = waiting.start_trigger_args.trigger_kwargs
        assert kwargs["video_id"] == "{{ params.video_id }}"
        templated = set(kwargs) & set(waiting.template_fields)
        assert templated == {"video_id", "video_conn_id"}
        assert all(hasattr(trigger_of(waiting), name) for name in templated)

    def test_a_worker_comes_back_to_the_result(self, gateway: Gateway) -> None:
        trigger = trigger_of(waiting := sensor())
        trigger.video_id = gateway.submit("a fox")
        gateway.finish()
        kwargs = {"event": run(trigger)}
        result = sensor().resume_execution(waiting.start_trigger_args.next_method, kwargs, context_of())
        assert result["state"] == "succeeded"


def xcom(dag: Any) -> VideoTaskSensor:
    film = VideoGenerateOperator(task_id="film", prompt="a fox", model="veo3.1-fast")
    return sensor(film.output)


def xcom_that_is_mapped_over(dag: Any) -> VideoTaskSensor:
    film = VideoGenerateOperator(task_id="film", prompt="a fox", model="veo3.1-fast")
    output: XComArg = film.output
    return sensor(output.map(lambda video: video["video_id"]))


def in_a_mapped_group(dag: Any) -> VideoTaskSensor:
    made: list[VideoTaskSensor] = []

    @task_group
    def group(video_id: str) -> None:
        made.append(sensor(video_id))

    group.expand(video_id=["a", "b"])
    return made[0]


def one_of_a_mapped_task(dag: Any) -> VideoTaskSensor:
    mapped = VideoTaskSensor.partial(task_id="wait", start_from_trigger=True).expand(video_id=["a", "b"])
    return mapped.unmap({"video_id": "a"} if CAN else None)


CANNOT: dict[str, tuple[Callable[[Any], VideoTaskSensor], str]] = {
    "mapped": (one_of_a_mapped_task, "mapped tasks"),
    "in a mapped group": (in_a_mapped_group, "mapped tasks"),
    "an XCom": (xcom, "another task's XCom"),
    "an XCom that is mapped over": (xcom_that_is_mapped_over, "another task's XCom"),
    "a template of an XCom": (
        lambda _: sensor("{{ ti.xcom_pull('film')['video_id'] }}"),
        "another task's XCom",
    ),
    "a connection by a template of an XCom": (
        lambda _: sensor("a", video_conn_id="{{ ti.xcom_pull('pick') }}"),
        "another task's XCom",
    ),
    "a list": (
        lambda _: VideoTaskSensor(task_id="wait", video_ids=["a"], start_from_trigger=True),
        "through an XCom",
    ),
}


class TestItBeginsInAWorkerWhereAirflowCannot:
    @needs_3_3
    @pytest.mark.parametrize(("make", "why"), CANNOT.values(), ids=CANNOT)
    def test_and_says_why_once(
        self,
        dag: Any,
        gateway: Gateway,
        logged: list[str],
        make: Callable[[Any], VideoTaskSensor],
        why: str,
    ) -> None:
        waiting = make(dag)
        assert waiting.start_from_trigger is False
        video_id = gateway.submit("a fox")
        waiting.video_conn_id = "video_default"
        waiting.video_id, waiting.video_ids = (None, [video_id]) if waiting.many else (video_id, None)
        deferred(waiting.execute, context_of())
        (told,) = [line for line in logged if "begins in a worker" in line]
        assert why in told

    @pytest.mark.skipif(CAN, reason="this Airflow can")
    def test_on_an_older_airflow_too(self, gateway: Gateway, logged: list[str]) -> None:
        waiting = sensor(gateway.submit("a fox"))
        assert waiting.start_from_trigger is False
        deferred(waiting.execute, context_of())
        (told,) = [line for line in logged if "begins in a worker" in line]
        assert "from 3.3 on" in told

    def test_it_is_not_asked_for_by_default(self) -> None:
        assert VideoTaskSensor(task_id="wait", video_id="a", deferrable=True).start_from_trigger is False

    def test_poking_is_refused_while_the_dag_is_parsed(self) -> None:
        with pytest.raises(ValueError, match=r"^start_from_trigger: "):
            sensor(deferrable=False)


def test_the_time_is_not_read_while_the_dag_is_parsed() -> None:
    """A Dag whose serialized form changed at each parse would get a new version each time."""
    if CAN:
        first = sensor().start_trigger_args
        time.sleep(0.01)
        assert sensor().start_trigger_args == first
