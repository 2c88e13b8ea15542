"""Pay once: what every attempt does with what is remembered, and that no crash makes it pay again."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from airflow import __version__
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_video_provider.exceptions import (
    VideoGatewayUnreachable,
    VideoSubmitFailed,
    VideoTaskFailed,
    VideoTaskTimeout,
)
from airflow_video_provider.gateway.client import Gateway as Client
from airflow_video_provider.ledger import (
    Attempt,
    LedgerTaken,
    State,
    StateStoreLedger,
    Submission,
    ledger_for,
    undisturbed,
)
from airflow_video_provider.ledger import variables as kept_in_variables
from scripts.services import S3Server
from tests.airflow.support import (
    MODEL,
    Clock,
    Gateway,
    Listeners,
    Memory,
    StateStore,
    TaskInstance,
    Variables,
    context_of,
    film,
    run,
)

MEMORIES = ("state store", "variable", "file", "s3")
everywhere = pytest.mark.parametrize("memory", MEMORIES, indirect=True)

#: What each Airflow has; files are files on both.
OWN = ("variable", "file") if __version__.startswith("2.") else ("state store", "file")


@pytest.fixture(params=OWN)
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Memory:
    """The places where a submission is remembered."""
    match request.param:
        case "state store":
            return Memory(store=StateStore())
        case "variable":
            return Memory(keep="reuse")
        case "file":
            return Memory(path=(tmp_path / "ledger").as_uri())
    server: S3Server = request.getfixturevalue("s3_server")
    request.getfixturevalue("store_connection")
    return Memory(path=f"s3://store@videos/ledger/{tmp_path.name}", server=server)


@pytest.fixture
def stored() -> Memory:
    """One of the memories, where it does not matter which."""
    return Memory(store=StateStore())


class Killed(BaseException):
    """What SIGKILL is to a process, as far as one process can be both the killed one and the test."""


def killed(*_: Any, **__: Any) -> Any:
    raise Killed


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let one attempt die right before, or after, a call: ``dies(memory, Client, "submit", after=True)``."""

    def die(memory: Memory, where: Any, name: str, *, after: bool = False, **arguments: Any) -> None:
        real = getattr(where, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if after:
                real(*args, **kwargs)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(where, name, call)
            with pytest.raises(Killed):
                memory.attempt(**arguments)

    return die


def broken_once_it_is_paid(patch: pytest.MonkeyPatch, memory: Memory, *causes: BaseException) -> None:
    """Storing an id fails: with each cause in turn, or with the only one always."""
    kind = type(ledger_of(memory))
    real, left = kind.update, list(causes)

    def broken(self: Any, submission: Submission) -> None:
        if submission.state is State.SUBMITTED and left:
            raise left.pop(0) if len(causes) > 1 else left[0]
        real(self, submission)

    patch.setattr(kind, "update", broken)


def once(prompt: str) -> str:
    """A prompt of its own: the sandbox counts a fault's times for each prompt."""
    return f"{prompt} {uuid.uuid4().hex[:8]}"


def a_copy_of(ti: TaskInstance) -> TaskInstance:
    """The task instance as another attempt has it: the frozen one goes on with its own."""
    return replace(ti, dag_run=SimpleNamespace(**vars(ti.dag_run)))


def a_submission() -> Submission:
    return Submission.new(
        order=1, generation=1, model=MODEL, video_conn_id="video_default", gateway="https://g.example",
        begun_at=1.0, begun_by=1, request={}, attempt=Attempt(1, 2),
    )  # fmt: skip


def ledger_of(memory: Memory) -> Any:
    return ledger_for(context_of(memory.ti, memory.store), memory.path, keep=memory.keep == "reuse")


def remembered(memory: Memory) -> tuple[Submission, ...]:
    return ledger_of(memory).read()


class TestARetryPaysNothing:
    @everywhere
    def test_it_reattaches_to_what_the_first_one_submitted(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        first = memory.submit()
        memory.retry()
        result = memory.attempt()
        assert result["video_id"] == first.trigger.video_id == memory.ti.xcoms["video_id"]
        assert gateway.paid == 1
        assert any("re-attaching to video" in line and "nothing is paid" in line for line in logged)

    def test_after_a_timeout(self, memory: Memory, connection: str, gateway: Gateway, clock: Clock) -> None:
        error = memory.refused("slow [slow=3]", timeout=90)
        assert isinstance(error, VideoTaskTimeout)
        assert "A retry re-attaches to it and pays nothing" in str(error)
        assert "was left running" in str(error)
        memory.retry()
        gateway.advance(100)
        assert memory.attempt("slow [slow=3]", timeout=90)["state"] == "succeeded"
        assert gateway.paid == 1

    def test_after_a_gateway_that_was_unreachable(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        waiting = memory.submit()
        gateway.fail(query=502)
        event = run(waiting.trigger)
        gateway.heal()
        with pytest.raises(VideoGatewayUnreachable, match="re-attaches"):
            film(**memory.arguments).execute_complete(context_of(memory.ti, memory.store), event)
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1

    def test_while_the_gateway_is_unreachable_it_submits_nothing(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        memory.submit()
        memory.retry()
        gateway.fail(query=502)
        assert isinstance(memory.refused(deferrable=False), VideoGatewayUnreachable)
        gateway.heal()
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1

    def test_whatever_its_templates_render_to_by_then(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        memory.submit("a fox on try 1")
        memory.retry()
        result = memory.attempt("a fox on try 2", aspect_ratio="16:9")
        assert [payment["prompt"] for payment in gateway.payments] == ["a fox on try 1"]
        assert result["prompt"] is None, "it is not what was paid for"
        assert any("the request has changed since (aspect_ratio, prompt)" in line for line in logged)

    def test_even_when_its_arguments_can_no_longer_be_sent(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        """The reference picture was deleted, a template renders to nothing: the video is paid for."""
        memory.submit()
        memory.retry()
        assert memory.attempt("", input_reference="file:///no/longer/there.png")["state"] == "succeeded"
        assert gateway.paid == 1

    def test_when_the_id_could_not_be_pushed_as_an_xcom(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise OSError("the XCom backend is down")

        with monkeypatch.context() as patch:
            patch.setattr(TaskInstance, "xcom_push", broken)
            with pytest.raises(OSError, match="XCom backend"):
                memory.attempt()
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1

    def test_one_such_task_more_or_less_is_no_reason_to_forget(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        """A server that lags behind the others answers one query with 404."""
        first = memory.submit("a fox [query-404=1]").trigger.video_id
        memory.retry()
        assert memory.attempt("a fox [query-404=1]")["video_id"] == first
        assert gateway.paid == 1

    def test_every_task_instance_has_a_memory_of_its_own(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        if memory.store is not None:
            pytest.skip("Airflow keeps one store for each task instance")
        for map_index in (0, 1):
            memory.ti = TaskInstance(map_index=map_index)
            memory.submit()
        memory.ti = TaskInstance(run_id="manual__2")
        memory.submit()
        assert gateway.paid == 3


class TestTheDeadline:
    def test_counts_from_the_submission_over_all_attempts(
        self, stored: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        first = stored.submit("endless [never]", timeout=600).trigger.deadline
        clock.sleep(200)
        stored.retry()
        assert stored.submit("endless [never]", timeout=600).trigger.deadline == pytest.approx(first, abs=2)

    def test_begins_anew_with_a_clear(
        self, stored: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        stored.submit("endless [never]", timeout=600)
        clock.sleep(5000)
        stored.clear()
        again = stored.submit("endless [never]", timeout=600)
        assert again.trigger.deadline == pytest.approx(clock.time() + 600, abs=5)
        assert gateway.paid == 1


class TestADeathWhilePaying:
    POINTS: ClassVar = {
        "before the intent": ("airflow_video_provider.paying._Payment", "__init__", False, 0, "pays"),
        "after the intent": ("airflow_video_provider.gateway.client.Gateway", "submit", False, 0, "doubts"),
        "after the create": ("airflow_video_provider.gateway.client.Gateway", "submit", True, 1, "doubts"),
        "before the record": ("airflow_video_provider.paying._Payment", "_store_id", False, 1, "doubts"),
        "after the record": ("airflow_video_provider.paying._Payment", "_store_id", True, 1, "re-attaches"),
        "before the deferral": (
            "airflow_video_provider.operators.generate.VideoGenerateOperator", "_defer", False, 1,
            "re-attaches",
        ),
    }  # fmt: skip

    @everywhere
    @pytest.mark.parametrize("point", POINTS)
    def test_leads_to_no_second_payment(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        dies: Callable[..., None],
        point: str,
    ) -> None:
        import importlib

        path, name, after, paid, then = self.POINTS[point]
        module, _, kind = path.rpartition(".")
        if point == "before the intent":
            dies(memory, type(ledger_of(memory)), "update")
        else:
            dies(memory, getattr(importlib.import_module(module), kind), name, after=after)
        assert gateway.paid == paid
        memory.retry()
        if then == "doubts":
            error = memory.refused()
            assert isinstance(error, AirflowFailException)
            for words in (
                "attempt 1 began to submit at", "+00:00", "may have accepted and billed", MODEL,
                "video_default", gateway.url, "prompt digest", "clear this task to submit again",
            ):  # fmt: skip
                assert words in str(error)
        else:
            assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == (1 if then == "pays" else paid)

    def test_between_two_sends_is_no_doubt_because_nothing_was_accepted(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, dies: Callable[..., None]
    ) -> None:
        import tenacity.nap

        prompt = once("a fox [rate-limit=2]")
        dies(memory, tenacity.nap.time, "sleep", prompt=prompt)
        assert gateway.paid == 0
        memory.retry()
        assert memory.attempt(prompt)["state"] == "succeeded"
        assert gateway.paid == 1


class TestWhatAirflowRaisesIntoTheRunningLine:
    """``execution_timeout`` is SIGALRM, whose handler raises where the code happens to be."""

    class Struck(BaseException):
        pass

    @pytest.mark.parametrize(
        ("path", "after"),
        [
            ("airflow_video_provider.gateway.client.Gateway.submit", False),
            ("airflow_video_provider.gateway.client.Gateway.submit", True),
            ("airflow_video_provider.paying._Payment._store_id", False),
            ("airflow_video_provider.paying._Payment._store_id", True),
        ],
    )
    @pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
    def test_waits_until_the_id_is_stored(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
        after: bool,
        number: signal.Signals,
    ) -> None:
        import importlib

        module, kind, name = path.rsplit(".", 2)
        owner = getattr(importlib.import_module(module), kind)
        real = getattr(owner, name)

        def struck(*args: Any) -> Any:
            if after:
                answer = real(*args)
                signal.raise_signal(number)
                return answer
            signal.raise_signal(number)
            return real(*args)

        def handler(*_: object) -> None:
            raise self.Struck

        before = signal.signal(number, handler)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, struck)
                with pytest.raises(self.Struck):
                    memory.attempt()
            assert signal.getsignal(number) is handler, "it is put back"
        finally:
            signal.signal(number, before)
        assert [s.video_id for s in remembered(memory)] == [gateway.payments[0]["video_id"]]
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1


class TestAMemoryThatFails:
    def test_before_the_create_means_that_nothing_is_sent(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(*_: Any) -> None:
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(type(ledger_of(memory)), "update", broken)
            error = memory.refused()
        assert isinstance(error, VideoSubmitFailed)
        assert "nothing was paid" in str(error)
        assert "disk full" in str(error)
        assert not gateway.requests("POST")
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"

    def test_when_it_is_read_is_not_taken_for_an_empty_one(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        memory.submit()
        memory.retry()

        def broken(*_: Any) -> None:
            raise OSError("no route to the store")

        with monkeypatch.context() as patch:
            patch.setattr(type(ledger_of(memory)), "read", broken)
            error = memory.refused()
        assert isinstance(error, VideoSubmitFailed)
        assert "no route to the store" in str(error)
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1

    @pytest.mark.parametrize("cause", [OSError("the store is down"), SystemExit(1), KeyboardInterrupt()])
    def test_after_the_payment_fails_for_good_and_names_the_id(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        cause: BaseException,
        logged: list[str],
    ) -> None:
        with monkeypatch.context() as patch:
            broken_once_it_is_paid(patch, memory, cause)
            error = memory.refused()
        (payment,) = gateway.payments
        assert isinstance(error, AirflowFailException)
        assert payment["video_id"] in str(error)
        assert "VideoTaskSensor" in str(error)
        assert memory.ti.xcoms["video_id"] == payment["video_id"], "a person can go on from the XCom, too"
        assert any(f"will bill, video {payment['video_id']}" in line for line in logged)
        memory.clear()
        assert "may have accepted and billed" in str(memory.refused())
        assert gateway.paid == 1

    def test_for_some_seconds_after_the_payment_is_tried_again(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        broken_once_it_is_paid(monkeypatch, memory, *[OSError("for a moment")] * 3)
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1

    def test_during_a_rate_limit_leaves_the_submission_in_doubt_and_says_so(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        logged: list[str],
    ) -> None:
        kind = type(ledger_of(memory))
        real = kind.update

        def broken(self: Any, submission: Submission) -> None:
            if submission.state is not State.SENDING:
                raise OSError("the store is down")
            real(self, submission)

        monkeypatch.setattr(kind, "update", broken)
        assert "nothing was paid" in str(memory.refused("a fox [quota]"))
        assert any("A retry will take its outcome as unknown" in line for line in logged)


class TestAFailedGeneration:
    @pytest.mark.parametrize("fault", ["fail", "cancelled", "expired"])
    def test_is_worth_one_more_and_no_third(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        fault: str,
        logged: list[str],
    ) -> None:
        error = memory.refused(f"doomed [{fault}]")
        assert isinstance(error, VideoTaskFailed)
        assert "generation 1 of at most 2" in str(error)
        memory.retry()
        error = memory.refused(f"doomed [{fault}]")
        assert isinstance(error, AirflowFailException)
        assert "generation 2 of at most 2. No other is paid for" in str(error)
        assert any("submitting generation 2 of at most 2" in line for line in logged)
        memory.retry()
        assert "no other is paid for" in str(memory.refused(f"doomed [{fault}]"))
        assert gateway.paid == 2

    def test_a_clear_counts_from_one_again(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        assert isinstance(memory.refused("doomed [fail]", max_generations=1), AirflowFailException)
        memory.clear()
        error = memory.refused("doomed [fail]", max_generations=1)
        assert "generation 1 of at most 1" in str(error)
        assert gateway.paid == 2

    def test_airflows_retries_are_not_counted(
        self, stored: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        """An attempt that only re-attached has paid for nothing."""
        stored.submit("doomed [fail]")
        for _ in range(4):
            stored.retry()
            stored.submit("doomed [fail]")
        assert isinstance(stored.refused("doomed [fail]"), VideoTaskFailed)
        assert gateway.paid == 1

    def test_one_that_moderation_refused_is_worth_no_other(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        prompt = "doomed [fail-moderation]"
        assert isinstance(memory.refused(prompt), AirflowFailException)
        memory.retry()
        assert "refused by moderation" in str(memory.refused(prompt))
        memory.clear()
        assert 'on_clear="new" submits it unchanged' in str(memory.refused(prompt))
        assert gateway.paid == 1
        memory.clear()
        assert memory.attempt("a decent fox")["state"] == "succeeded"
        assert gateway.paid == 2


class TestAClear:
    def test_with_the_same_request_reattaches(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        first = memory.attempt()
        memory.clear()
        assert memory.attempt()["video_id"] == first["video_id"]
        assert gateway.paid == 1

    @everywhere
    def test_with_another_request_submits_it(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        first = memory.attempt()
        memory.clear()
        second = memory.attempt("a heron instead")
        assert first["video_id"] != second["video_id"]
        assert gateway.paid == 2
        assert any(
            "cleared, and prompt changed: submitting anew" in line and first["video_id"] in line
            for line in logged
        )

    def test_and_a_retry_after_that_reattaches_to_the_second(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        memory.attempt()
        memory.clear()
        second = memory.submit("a heron on try 2").trigger.video_id
        memory.retry()
        assert memory.attempt("a heron on try 3")["video_id"] == second
        assert gateway.paid == 2

    def test_that_reattached_is_used_up_by_the_attempt_that_did(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        first = memory.submit().trigger.video_id
        memory.clear()
        memory.submit()
        memory.retry()
        assert memory.attempt("a fox on the next try")["video_id"] == first
        assert gateway.paid == 1

    def test_that_puts_an_earlier_request_back_reattaches_to_its_video(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        first = memory.attempt()
        memory.clear()
        memory.attempt("a heron instead")
        memory.clear()
        assert memory.attempt()["video_id"] == first["video_id"]
        memory.retry()
        assert memory.attempt()["video_id"] == first["video_id"]
        assert gateway.paid == 2

    def test_with_on_clear_new_always_submits(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        first = memory.attempt(on_clear="new") if memory.keep is None else memory.attempt()
        memory.clear()
        assert memory.attempt(on_clear="new")["video_id"] != first["video_id"]
        assert gateway.paid == 2
        assert any('cleared, with on_clear="new"' in line for line in logged)

    @pytest.mark.parametrize(
        "change", [{"prompt": "a heron [moderation]"}, {"aspect_ratio": "7:3"}, {"prompt": "a heron [quota]"}]
    )
    def test_with_a_change_that_is_refused_loses_nothing(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, change: dict[str, str]
    ) -> None:
        first = memory.attempt()
        memory.clear()
        error = memory.refused(**change)
        assert "nothing was paid" in str(error)
        assert f"Video {first['video_id']} of an earlier attempt was paid for" in str(error)
        memory.clear()
        assert memory.attempt()["video_id"] == first["video_id"]
        assert gateway.paid == 1

    def test_after_retries_were_lowered_is_a_clear_all_the_same(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        """``max_tries`` is then what it was: here 1 + 1 for 0 + 2."""
        memory.attempt()
        memory.ti.retries = 1
        memory.clear()
        assert memory.ti.max_tries == 2
        memory.attempt("a heron instead")
        assert gateway.paid == 2

    @pytest.mark.parametrize("retries", [0, 5])
    def test_after_retries_were_changed_reattaches_to_the_same_request(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, retries: int
    ) -> None:
        memory.attempt()
        memory.ti.retries = retries
        memory.clear()
        memory.attempt()
        assert gateway.paid == 1

    def test_through_another_connection_to_the_same_gateway_reattaches(
        self, memory: Memory, connect: Callable[..., str], gateway: Gateway, clock: Clock
    ) -> None:
        connect()
        first = memory.attempt()
        memory.clear()
        connect("video_second_key")
        assert memory.attempt(video_conn_id="video_second_key")["video_id"] == first["video_id"]
        assert gateway.paid == 1

    def test_with_a_reference_file_that_is_gone_reattaches(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path
    ) -> None:
        picture = tmp_path / "cat.png"
        picture.write_bytes(b"a cat")
        first = memory.attempt(input_reference=picture.as_uri())
        picture.unlink()
        memory.clear()
        assert memory.attempt(input_reference=picture.as_uri())["video_id"] == first["video_id"]
        memory.clear()
        picture.write_bytes(b"another cat")
        assert memory.attempt(input_reference=picture.as_uri())["video_id"] != first["video_id"]
        assert gateway.paid == 2

    def test_while_another_create_hangs_does_not_lose_its_reply(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        first = memory.attempt()
        memory.clear()
        real = Client.submit

        def cleared_meanwhile(client: Client, request: Any) -> Any:
            monkeypatch.setattr(Client, "submit", real)
            # The request is put back and the task cleared, while this worker waits for the reply.
            stalled, memory.ti = memory.ti, a_copy_of(memory.ti)
            memory.clear()
            assert memory.attempt()["video_id"] == first["video_id"]
            reply = real(client, request)
            memory.ti, cleared[0] = stalled, memory.ti
            return reply

        cleared = [memory.ti]
        monkeypatch.setattr(Client, "submit", cleared_meanwhile)
        memory.submit("a heron instead")
        second = gateway.payments[1]["video_id"]
        assert {s.video_id for s in remembered(memory)} == {first["video_id"], second}
        memory.ti = cleared[0]
        memory.clear()
        assert memory.attempt("a heron instead")["video_id"] == second
        assert gateway.paid == 2


class TestADoubt:
    @everywhere
    def test_that_nobody_was_told_of_is_told_first_and_only_the_next_clear_submits(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, dies: Callable[..., None]
    ) -> None:
        dies(memory, Client, "submit", after=True)
        memory.clear()
        error = memory.refused()
        assert isinstance(error, AirflowFailException)
        assert "clear this task to submit again" in str(error)
        assert gateway.paid == 1
        memory.clear()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 2

    def test_that_was_told_at_once_needs_no_second_telling(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        prompt = once("who knows [create-drop-paid=1]")
        assert "may have accepted" in str(memory.refused(prompt))
        memory.clear()
        assert memory.attempt(prompt)["state"] == "succeeded"
        assert gateway.paid == 2
        assert any("was accepted was never known" in line for line in logged)

    def test_is_told_although_the_clear_brings_another_request(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, dies: Callable[..., None]
    ) -> None:
        dies(memory, Client, "submit", after=True)
        memory.clear()
        assert "may have accepted" in str(memory.refused("a heron instead"))
        assert gateway.paid == 1

    def test_in_a_run_that_an_operator_started_is_never_settled_by_a_clear(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, dies: Callable[..., None]
    ) -> None:
        """``TriggerDagRunOperator(reset_dag_run=True, retries=2)`` clears without any person."""
        memory.ti.dag_run.run_type = "operator_triggered"
        dies(memory, Client, "submit", after=True)
        for _ in range(3):
            memory.clear()
            assert "a Clear may be nobody's decision" in str(memory.refused())
        assert gateway.paid == 1

    @pytest.mark.parametrize("prompt", ["doomed [fail]", "a fox [query-404=always]"])
    def test_nor_is_a_failed_or_lost_generation_there_worth_another_with_each_clear(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, prompt: str
    ) -> None:
        memory.ti.dag_run.run_type = "operator_triggered"
        for _ in range(4):
            memory.refused(prompt)
            memory.clear()
        assert gateway.paid == (2 if "fail" in prompt else 1)

    def test_is_submitted_again_where_the_user_says_so_and_the_log_says_that_it_may_pay_twice(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        dies: Callable[..., None],
        logged: list[str],
    ) -> None:
        dies(memory, Client, "submit", after=True)
        memory.retry()
        assert memory.attempt(on_unknown_submission="resubmit")["state"] == "succeeded"
        assert gateway.paid == 2
        assert any("may pay twice for one video" in line for line in logged)

    def test_is_not_submitted_again_without_end(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, dies: Callable[..., None]
    ) -> None:
        for _ in range(2):
            dies(memory, Client, "submit", after=True, on_unknown_submission="resubmit")
            memory.retry()
        assert "may have accepted" in str(memory.refused(on_unknown_submission="resubmit"))
        assert gateway.paid == 2

    def test_names_what_the_gateway_lists_since_then(
        self, stored: Memory, connect: Callable[..., str], gateway: Gateway, clock: Clock
    ) -> None:
        connect(extra={"dialect": "openai"})
        clock.ahead = gateway.control("GET", "clock")["now"] - time.time()
        gateway.submit("something else, long ago", path="/v1/videos")
        clock.sleep(3600)
        error = stored.refused("who knows [create-drop-paid]")
        assert f"Since then the gateway lists: {gateway.payments[-1]['video_id']}." in str(error)

    @pytest.mark.parametrize("how", ["retry", "another task is cleared"])
    def test_that_airflow_did_not_hear_of_is_not_settled_by_a_clear_of_another_task(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, how: str
    ) -> None:
        """The message was given and noted, and the worker died before Airflow heard of the failure."""
        memory.refused("who knows [create-drop-paid]")
        memory.retry()
        if how != "retry":
            memory.ti.dag_run.clear_number += 1
        assert "may have accepted" in str(memory.refused("who knows [create-drop-paid]"))
        assert gateway.paid == 1

    @pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
    def test_is_told_although_the_time_was_over_while_the_create_broke_off(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        logged: list[str],
        number: signal.Signals,
    ) -> None:
        real = Client.submit

        def struck(*args: Any) -> Any:
            signal.raise_signal(number)
            return real(*args)

        before = signal.signal(number, killed)
        try:
            monkeypatch.setattr(Client, "submit", struck)
            error = memory.refused("who knows [create-drop-paid]")
        finally:
            signal.signal(number, before)
        assert "may have accepted and billed" in str(error)
        assert any("may have accepted and billed" in line for line in logged)

    def test_that_could_not_be_told_is_not_noted_as_told(
        self,
        memory: Memory,
        connect: Callable[..., str],
        gateway: Gateway,
        clock: Clock,
        dies: Callable[..., None],
    ) -> None:
        """The worker dies while it asks the gateway for what helps to find out."""
        connect(extra={"dialect": "openai"})
        dies(memory, Client, "list_tasks", prompt="who knows [create-drop-paid]")
        memory.clear()
        assert "may have accepted" in str(memory.refused("who knows [create-drop-paid]"))
        assert gateway.paid == 1

    def test_that_ends_while_it_is_told_of_is_not_overwritten(
        self,
        memory: Memory,
        connect: Callable[..., str],
        gateway: Gateway,
        clock: Clock,
        dies: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        connect(extra={"dialect": "openai"})
        dies(memory, Client, "submit", after=True)
        video_id = gateway.payments[0]["video_id"]
        real = Client.list_tasks

        def heard(client: Client) -> Any:
            (begun,) = remembered(memory)
            ledger_of(memory).update(replace(begun, state=State.SUBMITTED, video_id=video_id))
            return real(client)

        monkeypatch.setattr(Client, "list_tasks", heard)
        memory.retry()
        assert isinstance(memory.refused(), VideoSubmitFailed)
        memory.retry()
        assert memory.attempt()["video_id"] == video_id
        assert gateway.paid == 1


class TestAVideoThatIsGone:
    def test_only_for_a_wrong_connection_is_reattached_to_once_that_is_right(
        self, memory: Memory, connect: Callable[..., str], gateway: Gateway, clock: Clock
    ) -> None:
        connect()
        prompt = once("a fox [query-404=9]")
        lost = memory.submit(prompt).trigger.video_id
        assert "a Clear of this task queries" in str(memory.refused(prompt))
        for _ in range(9):
            with contextlib.suppress(Exception):
                Client(gateway.url, gateway.key).get_task(lost)
        memory.clear()
        assert memory.attempt(prompt)["video_id"] == lost
        assert gateway.paid == 1

    def test_is_kept_until_somebody_who_was_told_clears_the_task(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        prompt = "a fox [query-404=always]"
        lost = memory.submit(prompt).trigger.video_id
        memory.retry()
        error = memory.refused(prompt)
        assert isinstance(error, AirflowFailException)
        assert "knows no such task" in str(error)
        assert "It is still remembered" in str(error)
        assert len([r for r in gateway.requests("GET") if r["status"] == 404]) >= 3
        memory.retry()
        assert lost in str(memory.refused(prompt))
        assert gateway.paid == 1
        memory.clear()
        memory.submit(prompt)
        assert gateway.paid == 2
        assert any("submitting anew" in line and lost in line for line in logged)


class TestTwoAttemptsThatOverlap:
    @pytest.mark.parametrize(
        ("step", "call", "moment"),
        [("read", 0, "before"), ("read", 0, "after"), ("update", 0, "before"), ("read", 1, "before")],
    )
    def test_cannot_both_believe_that_they_are_the_first(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        call: int,
        moment: str,
    ) -> None:
        """Both read "nothing" before either writes, and a successor runs at every step of the zombie."""
        ledger = type(ledger_of(memory))
        real = getattr(ledger, step)
        calls = iter(range(99))

        def overtaken(self: Any, *args: Any) -> Any:
            if step == "read" and moment == "after":
                result = real(self, *args)
            if next(calls) == call:
                stalled, memory.ti = memory.ti, a_copy_of(memory.ti)
                memory.retry()
                with contextlib.suppress(AirflowException):
                    memory.submit()
                memory.ti = stalled
            return result if step == "read" and moment == "after" else real(self, *args)

        monkeypatch.setattr(ledger, step, overtaken)
        with contextlib.suppress(AirflowException, TaskDeferred):
            memory.attempt()
        monkeypatch.undo()
        assert gateway.paid <= 1

    @pytest.mark.parametrize("path", ["_Payment.send", "_Payment.intend"])
    def test_a_zombie_that_wakes_right_before_a_step_pays_nothing(
        self,
        memory: Memory,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
    ) -> None:
        from airflow_video_provider import paying

        prompt = once("a fox [rate-limit=1]")
        kind, name = path.split(".")
        owner = getattr(paying, kind)
        real, calls = getattr(owner, name), iter(range(9))

        def overtaken(self: Any) -> Any:
            if next(calls) == 1:  # the second time: it was held, and a successor may submit by right
                stalled, memory.ti = memory.ti, a_copy_of(memory.ti)
                memory.retry()
                monkeypatch.setattr(owner, name, real)
                memory.submit(prompt)
                memory.ti = stalled
            return real(self)

        monkeypatch.setattr(owner, name, overtaken)
        assert isinstance(memory.refused(prompt), VideoSubmitFailed)
        assert gateway.paid == 1

    def test_an_older_attempt_leaves_it_to_the_later_one(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        """A worker that was frozen before it read anything wakes when its successor has submitted."""
        frozen, memory.ti = memory.ti, a_copy_of(memory.ti)
        memory.retry()
        memory.submit()
        memory.ti = frozen
        error = memory.refused()
        assert isinstance(error, VideoSubmitFailed)
        assert "attempt 1 is not the latest: attempt 2 has written of video" in str(error)
        assert gateway.paid == 1

    @everywhere
    def test_of_two_that_write_at_the_same_moment_neither_overwrites_the_other(self, memory: Memory) -> None:
        mine, other = a_submission(), replace(a_submission(), begun_by=2)
        ledger_of(memory).update(mine)
        ledger_of(memory).update(other)
        memory.ti.try_number = 2
        assert {s.nonce for s in remembered(memory)} == {mine.nonce, other.nonce}
        for each in (mine, other):
            with pytest.raises(LedgerTaken):
                undisturbed(ledger_of(memory), each, ())


class TestADagRunThatWasDeletedAndMadeAgain:
    def test_with_the_same_name_gets_a_video_of_its_own(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
    ) -> None:
        if memory.store is not None:
            pytest.skip("Airflow deletes the state store with the task instance")
        first = memory.attempt()
        memory.ti = TaskInstance(dag_run=SimpleNamespace(id=2, clear_number=0))
        assert memory.attempt("a heron instead")["video_id"] != first["video_id"]
        assert gateway.paid == 2
        assert any("belongs to another Dag run of the same name" in line for line in logged)

    def test_is_told_on_airflow_3_by_the_id_of_the_try(
        self, memory: Memory, connection: str, gateway: Gateway, clock: Clock
    ) -> None:
        """A scheduled run that is made again has the same dates."""
        for ti_id in ("01a2-one", "01a2-two"):
            memory.ti = TaskInstance(dag_run=SimpleNamespace(run_after="2026-01-01", clear_number=0))
            memory.ti.id = ti_id  # type: ignore[attr-defined]
            memory.attempt()
        assert gateway.paid == 2


class TestAMemoryThatCannotBeUnderstood:
    @pytest.mark.parametrize("page", ["", "{", "[]", '{"video_id": "x"}', '{"schema": 2, "submissions": []}'])
    def test_is_not_taken_for_none_and_deleting_it_helps(
        self, connection: str, gateway: Gateway, clock: Clock, tmp_path: Path, page: str
    ) -> None:
        memory = Memory(path=f"{tmp_path.as_uri()}/")
        memory.submit()
        (path,) = tmp_path.glob("film-*/*.json")
        path.write_text(page)
        memory.clear()
        error = memory.refused()
        assert isinstance(error, AirflowFailException)
        assert f"delete {path.parent.as_uri()}, then clear this task" in str(error)
        assert gateway.paid == 1
        path.unlink()
        memory.clear()
        assert memory.attempt()["state"] == "succeeded"

    def test_of_a_variable_is_named(
        self, connection: str, gateway: Gateway, clock: Clock, variables: Variables
    ) -> None:
        memory = Memory()
        memory.submit()
        (name,) = variables
        variables[name] = "nonsense"
        assert f"delete the Airflow Variables {name} and {name}.*, then clear this task" in str(
            memory.refused()
        )


class TestAVariable:
    def test_is_there_from_before_the_payment_until_airflow_has_stored_the_success(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        variables: Variables,
        listeners: Listeners,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        seen = []
        real = Client.submit

        def look(*args: Any) -> Any:
            seen.append(dict(variables))
            return real(*args)

        monkeypatch.setattr(Client, "submit", look)
        memory = Memory()
        memory.attempt()
        assert len(seen[0]) == 1
        assert [name for name in variables if name.startswith("airflow_video_provider.")]
        listeners.succeed(TaskInstance(task_id="another"))
        assert variables
        listeners.succeed(memory.ti)
        assert variables == {}

    def test_on_2_11_stays_for_a_while_because_airflow_may_take_a_success_back(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        variables: Variables,
        listeners: Listeners,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A late "zombie" callback fails what has succeeded, and the task runs again (seen on 2.11.2)."""
        monkeypatch.setattr(kept_in_variables, "_is_airflow_2", lambda: True)
        monkeypatch.setattr(kept_in_variables, "variables_in_database", lambda: self.listed(variables))
        memory = Memory()
        first = memory.attempt()
        listeners.succeed(memory.ti)
        memory.retry()
        assert memory.attempt()["video_id"] == first["video_id"]
        assert gateway.paid == 1
        clock.sleep(kept_in_variables.SUCCESS_IS_FINAL_AFTER + 60)
        memory.ti = TaskInstance(run_id="manual__2")
        memory.attempt("a heron")
        listeners.succeed(memory.ti)
        assert len(variables) == 1

    @staticmethod
    def listed(variables: Variables) -> list[tuple[str, Any, str]]:
        return [(key, kept_in_variables.understood(text), "") for key, text in sorted(variables.items())]

    @pytest.fixture(autouse=True)
    def airflow_3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept_in_variables, "_is_airflow_2", lambda: False)

    def test_is_left_where_the_task_failed(
        self, connection: str, gateway: Gateway, clock: Clock, variables: Variables, listeners: Listeners
    ) -> None:
        memory = Memory()
        memory.refused("endless [never]", timeout=90)
        assert variables
        assert listeners == []

    def test_is_not_left_behind_by_a_refusal(
        self, connection: str, gateway: Gateway, clock: Clock, variables: Variables
    ) -> None:
        Memory().refused("a fox [quota]")
        assert variables == {}

    def test_that_is_gone_with_the_success_lets_a_clear_pay_anew_with_a_warning(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        variables: Variables,
        listeners: Listeners,
        logged: list[str],
    ) -> None:
        memory = Memory()
        memory.attempt()
        listeners.succeed(memory.ti)
        memory.clear()
        memory.attempt()
        assert gateway.paid == 2
        assert any('on_clear="reuse"' in line and "this pays again" in line for line in logged)

    def test_that_airflow_cannot_read_is_not_taken_for_none(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        variables: Variables,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Airflow 2.11 to 3.2 says "no such Variable" when its database or API server does not answer."""
        memory = Memory()
        memory.submit()
        memory.retry()
        with monkeypatch.context() as patch:
            patch.setattr(Variables, "get", lambda *_: None)
            error = memory.refused()
        assert isinstance(error, VideoSubmitFailed)
        assert "Variables cannot be read at the moment" in str(error)
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1

    def test_that_was_to_be_kept_is_not_swept_on_2_11(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        variables: Variables,
        listeners: Listeners,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(kept_in_variables, "_is_airflow_2", lambda: True)
        monkeypatch.setattr(kept_in_variables, "variables_in_database", lambda: self.listed(variables))
        kept = Memory(keep="reuse")
        kept.attempt()
        clock.sleep(kept_in_variables.SUCCESS_IS_FINAL_AFTER + 60)
        other = Memory(ti=TaskInstance(run_id="manual__2"))
        other.attempt("a heron")
        listeners.succeed(other.ti)
        assert len(variables) == 2
        kept.clear()
        kept.attempt()
        assert gateway.paid == 2

    @pytest.mark.parametrize("airflow_2", [False, True])
    def test_goes_with_the_success_of_a_later_generation(
        self,
        connection: str,
        gateway: Gateway,
        clock: Clock,
        variables: Variables,
        listeners: Listeners,
        monkeypatch: pytest.MonkeyPatch,
        airflow_2: bool,
    ) -> None:
        monkeypatch.setattr(kept_in_variables, "_is_airflow_2", lambda: airflow_2)
        monkeypatch.setattr(kept_in_variables, "variables_in_database", lambda: self.listed(variables))
        memory = Memory()
        memory.refused("a fox [fail]")
        assert variables
        memory.retry()
        memory.attempt("a fox [time=1]")
        assert gateway.paid == 2
        clock.sleep(kept_in_variables.SUCCESS_IS_FINAL_AFTER + 60)
        listeners.succeed(memory.ti)
        assert variables == {}

    def test_is_not_removed_by_a_worker_whose_task_was_cleared_meanwhile(
        self, connection: str, gateway: Gateway, clock: Clock, variables: Variables, listeners: Listeners
    ) -> None:
        memory = Memory()
        memory.attempt()
        memory.clear()
        memory.submit("a heron instead")
        listeners.succeed(memory.ti)
        memory.retry()
        memory.attempt("a heron instead")
        assert gateway.paid == 2

    def test_is_found_after_an_upgrade_to_an_airflow_with_a_state_store(
        self, connection: str, gateway: Gateway, clock: Clock, variables: Variables
    ) -> None:
        memory = Memory()
        memory.submit()
        memory.store = StateStore()
        memory.retry()
        assert memory.attempt()["state"] == "succeeded"
        assert gateway.paid == 1


def test_a_state_store_that_is_cleared_on_success_is_warned_of(
    connection: str, gateway: Gateway, clock: Clock, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
    memory = Memory(store=StateStore())
    memory.attempt()
    assert any("[state_store] clear_on_success" in line for line in logged)


def test_the_log_says_at_every_point_what_runs_what_was_paid_and_what_comes_next(
    stored: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
) -> None:
    video_id = stored.submit().trigger.video_id
    text = "\n".join(logged)
    for words in (
        f"submitting generation 1 of at most 2: model {MODEL}",
        "If this process dies before the gateway has answered, the next attempt stops",
        f"submitted video {video_id} at 20",
        "It is paid for; if this task is killed now, the next attempt re-attaches to it and pays nothing",
    ):
        assert words in text


def test_on_kill_says_what_runs_on(
    stored: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
) -> None:
    operator = film()
    operator.on_kill()
    assert logged == []
    with pytest.raises(BaseException):  # noqa: B017, PT011  the deferral
        operator.execute(context_of(stored.ti, stored.store))
    operator.on_kill()
    assert f"video {gateway.payments[0]['video_id']} runs on at the gateway" in logged[-1]
    assert "re-attaches to it and pays nothing" in logged[-1]


def test_what_is_remembered_in_a_bucket_is_small_and_holds_no_secret(
    connection: str, gateway: Gateway, store_connection: str, s3_server: S3Server, tmp_path: Path
) -> None:
    memory = Memory(path=f"s3://store@videos/pages/{tmp_path.name}")
    memory.submit("a prompt that is not for everybody")
    pages = [key for key in s3_server.objects("videos") if key.startswith(f"pages/{tmp_path.name}/")]
    assert len(pages) == 1
    text = (s3_server.root / "videos" / pages[0]).read_text("utf-8")
    (submission,) = json.loads(text)["submissions"]
    assert submission["video_id"] == gateway.payments[0]["video_id"]
    assert len(text) < 1500
    assert gateway.key not in text
    assert "not for everybody" not in text


def test_an_entry_of_a_later_version_with_more_fields_is_still_understood(
    stored: Memory, connection: str, gateway: Gateway, clock: Clock
) -> None:
    first = stored.attempt()
    assert stored.store is not None
    (record,) = stored.store.values()
    record["submissions"][0] |= {"poster": "x"}
    stored.clear()
    assert stored.attempt()["video_id"] == first["video_id"]
    assert [s.state for s in remembered(stored)] == [State.SUBMITTED]


def test_a_state_store_that_refuses_a_stale_attempt_refuses_its_payment(
    stored: Memory, connection: str, gateway: Gateway, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.3 answers 404 to the write of an attempt that it has given up."""

    def given_up(*_: Any, **__: Any) -> None:
        raise AirflowException("API_SERVER_ERROR: 404")

    monkeypatch.setattr(StateStore, "set", given_up)
    assert isinstance(stored.refused(), VideoSubmitFailed)
    assert gateway.paid == 0
    assert isinstance(ledger_of(stored), StateStoreLedger)
