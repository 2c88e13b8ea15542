"""A deferred task goes on in the attempt that deferred it. Airflow 3.0 hands its result to each retry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_video_provider.decorators.video import video_task
from airflow_video_provider.gateway.ends import ListEnd
from airflow_video_provider.gateway.verdict import Done, End
from airflow_video_provider.sensors.video import VideoTaskSensor
from tests.airflow.support import (
    MODEL,
    Clock,
    Gateway,
    StateStore,
    TaskInstance,
    context_of,
    deferred,
    film,
    resume,
)

FOX = "a fox in the snow"


@dataclass
class Task:
    """One task in one of the forms that it may have.

    :param make: an instance for one more attempt, or for what comes after a wait.
    :param is_list: its trigger waits for a list of one video.
    """

    make: Callable[[], Any]
    is_list: bool
    gateway: Gateway

    def execute(self, context: Any) -> TaskDeferred:
        """An attempt up to its deferral."""
        return deferred(self.make().execute, context)

    def resume(self, waiting: TaskDeferred, end: End, context: Any) -> Any:
        done = Done(end, self.gateway.newest["id"], f"the wait has {end}", {})
        event = ListEnd((done,)).as_event() if self.is_list else done.as_event()
        return resume(self.make(), waiting, event, context)


def decorated(function: Callable[[], str]) -> Any:
    with DAG("films", schedule=None, start_date=datetime(2026, 1, 1)):
        return video_task(function, task_id="film", model=MODEL, deferrable=True)().operator


def fox() -> str:
    return FOX


FORMS: dict[str, Callable[[Gateway], Callable[[], Any]]] = {
    "generate": lambda _: film,
    "generate a list": lambda _: lambda: film(None, prompts=[FOX]),
    "decorated": lambda _: lambda: decorated(fox),
    "sensor": lambda gateway: _sensor(video_id=gateway.submit(FOX)),
    "sensor of a list": lambda gateway: _sensor(video_ids=[gateway.submit(FOX)]),
}


def _sensor(**videos: Any) -> Callable[[], VideoTaskSensor]:
    return lambda: VideoTaskSensor(task_id="film", deferrable=True, timeout=1800, **videos)


@pytest.fixture(params=FORMS)
def task(request: pytest.FixtureRequest, connection: str, gateway: Gateway, clock: Clock) -> Task:
    return Task(FORMS[request.param](gateway), "list" in request.param, gateway)


@pytest.fixture
def ti() -> TaskInstance:
    return TaskInstance()


@pytest.fixture
def context(ti: TaskInstance) -> Any:
    return context_of(ti, StateStore())


class TestAResult:
    def test_of_this_attempt_is_taken(self, task: Task, context: Any) -> None:
        waiting = task.execute(context)
        with pytest.raises(AirflowException, match="unreachable"):
            task.resume(waiting, End.UNREACHABLE, context)

    def test_of_an_earlier_attempt_is_not_taken(
        self, task: Task, context: Any, ti: TaskInstance, gateway: Gateway
    ) -> None:
        waiting = task.execute(context)
        ti.retry()
        again = deferred(task.resume, waiting, End.UNREACHABLE, context)
        assert type(again.trigger) is type(waiting.trigger)
        assert gateway.paid == 1
        assert task.resume(again, End.SUCCEEDED, context) is not None
        assert gateway.paid == 1

    def test_of_which_nobody_knows_the_attempt_is_taken(
        self, task: Task, context: Any, ti: TaskInstance
    ) -> None:
        """`dag.test()` keeps the event alone, and `start_from_trigger` knows no attempt."""
        waiting = task.execute(context)
        waiting.kwargs = None
        ti.retry()
        with pytest.raises(AirflowException, match="unreachable"):
            task.resume(waiting, End.UNREACHABLE, context)


@pytest.mark.usefixtures("connection", "clock")
class TestALaterAttempt:
    def test_finds_a_video_that_has_ended_in_the_meantime(
        self, context: Any, ti: TaskInstance, gateway: Gateway
    ) -> None:
        task = Task(film, False, gateway)
        waiting = task.execute(context)
        gateway.finish()
        ti.retry()
        assert task.resume(waiting, End.UNREACHABLE, context)["state"] == "succeeded"
        assert gateway.paid == 1

    def test_says_that_it_begins_anew(
        self, context: Any, ti: TaskInstance, gateway: Gateway, logged: list[str]
    ) -> None:
        task = Task(film, False, gateway)
        waiting = task.execute(context)
        ti.retry()
        deferred(task.resume, waiting, End.UNREACHABLE, context)
        assert "attempt 2 begins anew: what Airflow has handed it is the result of attempt 1" in logged

    def test_calls_the_function_of_a_decorated_task_once_more(
        self, context: Any, ti: TaskInstance, gateway: Gateway
    ) -> None:
        calls: list[int] = []

        def named() -> str:
            calls.append(ti.try_number)
            return FOX

        task = Task(lambda: decorated(named), False, gateway)
        waiting = task.execute(context)
        ti.retry()
        again = deferred(task.resume, waiting, End.UNREACHABLE, context)
        assert task.resume(again, End.SUCCEEDED, context)["prompt"] == FOX
        assert calls == [1, 2]
