"""What a kill does to a paid video: nothing, unless ``cancel_on_kill`` says so and nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_video_provider.exceptions import VideoTaskFailed
from airflow_video_provider.hooks.video import VideoHook
from airflow_video_provider.ledger import Attempt, ledger_for
from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.triggers import kills
from airflow_video_provider.triggers.video import VideoTaskTrigger
from tests.airflow.support import Gateway, Memory, StateStore, context_of, film


@pytest.fixture
def openai(connect: Callable[..., str]) -> str:
    """A connection whose dialect can cancel."""
    return connect(extra={"dialect": "openai"})


def cancelled(gateway: Gateway) -> list[str]:
    return [request["path"] for request in gateway.requests("DELETE")]


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[..., VideoGenerateOperator]:
    """Run an attempt that waits in the worker, and call ``on_kill`` in the middle of a query."""

    def run(
        memory: Memory, first: Callable[[], Any] = lambda: None, **arguments: Any
    ) -> VideoGenerateOperator:
        operator = film(deferrable=False, **arguments)

        def struck(*_: Any) -> Any:
            first()
            operator.on_kill()
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(VideoHook, "get_task", struck)
            with pytest.raises(Killed):
                operator.execute(context_of(memory.ti, memory.store))
        return operator

    return run


@pytest.fixture
def memory() -> Memory:
    return Memory(store=StateStore())


@pytest.mark.usefixtures("clock")
class TestAWorkerThatWaits:
    def test_cancels_nothing_by_default(
        self, openai: str, gateway: Gateway, memory: Memory, kill: Any, logged: list[str]
    ) -> None:
        kill(memory)
        assert cancelled(gateway) == []
        assert "runs on at the gateway" in logged[-1]

    def test_cancels_where_that_was_asked_for(
        self, openai: str, gateway: Gateway, memory: Memory, kill: Any, logged: list[str]
    ) -> None:
        kill(memory, cancel_on_kill=True)
        (payment,) = gateway.payments
        assert cancelled(gateway) == [f"/v1/videos/{payment['video_id']}"]
        assert any("was cancelled at the gateway" in line for line in logged)
        assert not any("runs on" in line for line in logged)

    def test_the_next_attempt_does_not_wait_for_what_was_cancelled(
        self, openai: str, gateway: Gateway, memory: Memory, kill: Any
    ) -> None:
        kill(memory, cancel_on_kill=True)
        memory.retry()
        assert memory.attempt(cancel_on_kill=True)["state"] == "succeeded"
        assert gateway.paid == 2, "the first one was cancelled"

    def test_it_counts_as_a_generation(
        self, openai: str, gateway: Gateway, memory: Memory, kill: Any
    ) -> None:
        kill(memory, cancel_on_kill=True, max_generations=1)
        memory.retry()
        assert "no other is paid for" in str(memory.refused(cancel_on_kill=True, max_generations=1))
        assert gateway.paid == 1

    def test_not_what_another_attempt_waits_for(
        self, openai: str, gateway: Gateway, memory: Memory, kill: Any, logged: list[str]
    ) -> None:
        """A worker that was frozen comes to after a Clear, when the new attempt has re-attached."""

        def another() -> None:
            ledger = ledger_for(context_of(memory.ti, memory.store), None)
            (mine,) = ledger.read()
            ledger.update(replace(mine, attempt=Attempt(2, 4)))

        kill(memory, another, cancel_on_kill=True)
        assert cancelled(gateway) == []
        assert any("is not cancelled: another attempt waits for it" in line for line in logged)

    def test_not_where_that_cannot_be_read(
        self,
        openai: str,
        gateway: Gateway,
        memory: Memory,
        kill: Any,
        logged: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def lost(*_: Any) -> Any:
            raise ConnectionError("no store")

        kill(memory, lambda: monkeypatch.setattr(StateStore, "get", lost), cancel_on_kill=True)
        assert cancelled(gateway) == []
        assert any("cannot be read" in line for line in logged)

    def test_a_dialect_that_cannot_says_so(
        self, connection: str, gateway: Gateway, memory: Memory, kill: Any, logged: list[str]
    ) -> None:
        kill(memory, cancel_on_kill=True)
        assert any("could not be cancelled: dialect: unified has no route" in line for line in logged)
        assert "runs on at the gateway" in logged[-1]
        memory.retry()
        memory.attempt()
        assert gateway.paid == 1, "it was left running, and is what the next attempt waits for"

    def test_what_has_ended_is_left_alone(self, openai: str, gateway: Gateway, memory: Memory) -> None:
        operator = film(deferrable=False, cancel_on_kill=True)
        operator.execute(context_of(memory.ti, memory.store))
        operator.on_kill()
        assert cancelled(gateway) == []

    def test_airflow_3_goes_on_after_on_kill_and_hears_of_the_end(
        self, openai: str, gateway: Gateway, memory: Memory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        operator = film(deferrable=False, cancel_on_kill=True)
        ask = VideoHook.get_task
        kills = iter([operator.on_kill])

        def struck(hook: VideoHook, video_id: str) -> Any:
            next(kills, lambda: None)()
            return ask(hook, video_id)

        monkeypatch.setattr(VideoHook, "get_task", struck)
        with pytest.raises(AirflowException) as caught:
            operator.execute(context_of(memory.ti, memory.store))
        assert isinstance(caught.value, VideoTaskFailed)
        assert "cancelled" in str(caught.value)


class TestATriggerThatWaits:
    @pytest.fixture
    def killed(
        self, monkeypatch: pytest.MonkeyPatch, openai: str, gateway: Gateway
    ) -> Callable[..., list[str]]:
        """Kill a trigger while its task instance is in a state; returns what was asked to be cancelled."""
        runner = pytest.importorskip("airflow.sdk.execution_time.task_runner", reason="Airflow 3.3")

        def kill(
            state: object, *, map_index: int = -1, ask: bool = True, impatient: bool = False
        ) -> list[str]:
            def states(*, map_index: int, **_: Any) -> dict[str, Any]:
                if isinstance(state, Exception):
                    raise state
                key = "film" if map_index < 0 else f"film_{map_index}"
                return {"manual__1": {key: state}}

            monkeypatch.setattr(runner.RuntimeTaskInstance, "get_task_states", staticmethod(states))
            trigger = VideoTaskTrigger(
                video_conn_id=openai, video_id=gateway.submit("a fox"), poll_interval=10, cancel_on_kill=ask
            )
            trigger.task_instance = SimpleNamespace(
                dag_id="films", task_id="film", run_id="manual__1", map_index=map_index
            )

            async def as_airflow_does() -> None:
                call = asyncio.create_task(trigger.on_kill())
                if impatient:
                    await asyncio.sleep(0)
                    call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await asyncio.gather(*kills._at_work)

            asyncio.run(as_airflow_does())
            return cancelled(gateway)

        return kill

    @pytest.mark.parametrize("state", ["failed", "success", "skipped"])
    @pytest.mark.parametrize("map_index", [-1, 3])
    def test_cancels_what_a_person_has_ended(self, killed: Any, state: str, map_index: int) -> None:
        assert len(killed(state, map_index=map_index)) == 1

    @pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "deferred", "up_for_retry"])
    def test_not_what_a_cleared_task_waits_for(self, killed: Any, state: str | None) -> None:
        assert killed(state) == []

    def test_not_where_the_state_cannot_be_read(self, killed: Any, logged: list[str]) -> None:
        assert killed(RuntimeError("no supervisor")) == []
        assert "runs on at the gateway" in logged[-1]

    def test_though_airflow_cancels_the_call_itself(self, killed: Any) -> None:
        assert len(killed("failed", impatient=True)) == 1

    def test_not_unasked(self, killed: Any) -> None:
        assert killed("failed", ask=False) == []


def test_the_operator_tells_its_trigger(connection: str, gateway: Gateway, memory: Memory) -> None:
    assert memory.submit(cancel_on_kill=True).trigger.cancel_on_kill is True
    memory.retry()
    assert memory.submit().trigger.cancel_on_kill is False
