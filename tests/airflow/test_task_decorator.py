"""`@task.video`: the function says what to show, the operator does the rest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred, task

from airflow_video_provider.decorators.video import video_task
from airflow_video_provider.get_provider_info import get_provider_info
from airflow_video_provider.operators.video import VideoGenerateOperator
from scripts.local_airflow import LocalAirflow
from scripts.services import Sandbox
from tests.airflow.support import (
    MODEL,
    Clock,
    Gateway,
    StateStore,
    TaskInstance,
    context_of,
    resume,
    run,
)


def made(function: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
    """The operator of one decorated call, as Airflow makes it for an attempt."""
    with DAG("films", schedule=None, start_date=datetime(2026, 1, 1)):
        ways = {"task_id": "film", "model": MODEL, "deferrable": True, **arguments}
        return video_task(function, **ways)(*args).operator


def attempt(function: Callable[..., Any], *args: Any, context: Any = None, **arguments: Any) -> Any:
    """One attempt to its end, with a fresh instance after the wait."""
    context = context or context_of()
    try:
        return made(function, *args, **arguments).execute(context)
    except TaskDeferred as waiting:
        return resume(made(function, *args, **arguments), waiting, run(waiting.trigger), context)


class TestTheFunction:
    def test_returns_the_prompt(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        def of(animal: str) -> str:
            return f"{animal} crosses a field"

        result = attempt(of, "a fox")
        assert (result["state"], result["prompt"]) == ("succeeded", "a fox crosses a field")
        assert gateway.newest["body"]["prompt"] == "a fox crosses a field"
        assert gateway.newest["body"]["model"] == MODEL

    def test_may_return_a_request_that_wins_over_the_decorators_arguments(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        def of() -> dict[str, Any]:
            return {"prompt": "a heron", "model": "sora-2", "extra_body": {"seed": 7}}

        result = attempt(of, orientation="landscape")
        assert result["prompt"] == "a heron"
        told = gateway.newest["body"]
        assert (told["model"], told["orientation"], told["seed"]) == ("sora-2", "landscape", 7)

    def test_gets_the_context_that_it_names(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        def of(animal: str, run_id: str | None = None) -> str:
            return f"{animal} of {run_id}"

        assert attempt(of, "a vole")["prompt"] == "a vole of manual__1"

    def test_is_called_once_in_an_attempt_and_not_after_the_wait(
        self, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        calls: list[str] = []

        def of() -> str:
            calls.append("called")
            return "an owl"

        attempt(of)
        assert calls == ["called"]

    def test_returns_text_that_is_no_template(self, connection: str, gateway: Gateway, clock: Clock) -> None:
        """It may come from a language model, which must not read Variables and connections."""
        assert attempt(lambda: "{{ var.value.secret }}")["prompt"] == "{{ var.value.secret }}"

    @pytest.mark.parametrize(
        ("returned", "said"),
        [
            (None, "must return the prompt, or a dict with prompt, model, …; it returned NoneType"),
            (["a fox"], "it returned list"),
            ({"prompt": "a fox", "lens": "35 mm"}, "returned 'lens', which is no argument of a request"),
            ({"prompt": "a fox", "video_conn_id": "x"}, "returned 'video_conn_id'"),
        ],
        ids=str,
    )
    def test_that_returns_something_else_submits_nothing(
        self, connection: str, gateway: Gateway, returned: object, said: str
    ) -> None:
        def of() -> Any:
            return returned

        with pytest.raises(TypeError) as caught:
            attempt(of)
        assert said in str(caught.value)
        assert str(caught.value).startswith("@task.video of: ")
        assert str(caught.value).endswith("Nothing was submitted by this attempt")
        assert gateway.paid == 0

    def test_that_fails_submits_nothing(self, connection: str, gateway: Gateway) -> None:
        def of() -> str:
            raise LookupError("no prompts today")

        with pytest.raises(LookupError, match="no prompts today"):
            attempt(of)
        assert gateway.paid == 0


class TestARetry:
    def test_reattaches_though_the_function_returns_another_prompt(
        self, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        ti, store = TaskInstance(), StateStore()
        prompts = iter(["a fox", "a hare"])
        context = context_of(ti, store)
        with pytest.raises(TaskDeferred):
            made(lambda: next(prompts)).execute(context)
        ti.retry()
        result = attempt(lambda: next(prompts), context=context)
        assert result["state"] == "succeeded"
        assert result["prompt"] is None, "the video is not of this attempt's prompt"
        assert [payment["prompt"] for payment in gateway.payments] == ["a fox"]
        assert any("the request has changed since (prompt)" in line for line in logged)


class TestTheDecorator:
    def test_takes_every_argument_of_the_operator(self) -> None:
        operator = made(lambda: "a fox", max_generations=1, timeout=60, pool="videos", retries=3)
        assert isinstance(operator, VideoGenerateOperator)
        assert (operator.policy.max_generations, operator.timeout) == (1, 60.0)
        assert (operator.pool, operator.retries) == ("videos", 3)

    def test_does_not_split_the_result_of_a_function_that_is_annotated_as_a_dict(self) -> None:
        def of() -> dict[str, Any]:
            return {"prompt": "a fox"}

        assert made(of).multiple_outputs is False

    def test_is_what_the_metadata_names(self) -> None:
        (told,) = get_provider_info()["task-decorators"]
        assert told == {"class-name": f"{video_task.__module__}.{video_task.__name__}", "name": "video"}
        assert callable(task.video)


def test_in_a_real_airflow_it_is_mapped_and_deferred_and_tells_its_prompt(
    real_airflow: LocalAirflow, sandbox: Sandbox
) -> None:
    done = real_airflow.run("decorated_videos")
    assert done.state == "success", [real_airflow.task_log(each) for each in done.failed]
    mapped = real_airflow.xcoms(done.dag_id, done.run_id, "mapped")
    assert [told["prompt"] for told in mapped.values()] == [
        "a fig rolls off a table",
        "a kumquat rolls off a table",
    ]
    described = real_airflow.xcom(done.dag_id, done.run_id, "described")
    assert described["prompt"] == f"{{{{ ds }}}} a medlar in {done.run_id}"
    assert ("sora-2", described["prompt"]) in {(p["model"], p["prompt"]) for p in sandbox.payments()}
    names = real_airflow.query(
        "SELECT rendered_map_index FROM task_instance WHERE run_id = ? AND map_index >= 0 ORDER BY map_index",
        done.run_id,
    )
    assert [row["rendered_map_index"] for row in names] == [told["prompt"] for told in mapped.values()]
    assert len([p for p in sandbox.payments() if "rolls off a table" in p["prompt"]]) == 2
