"""A list of prompts in one task instance: each item is paid for once, whatever becomes of the others."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from airflow import __version__
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_video_provider.exceptions import VideoListFailed, VideoSubmitFailed
from airflow_video_provider.gateway.client import AsyncGateway
from airflow_video_provider.gateway.client import Gateway as Client
from airflow_video_provider.ledger import State, Submission, ledger_for
from airflow_video_provider.ledger import variables as kept_in_variables
from airflow_video_provider.ledger.items import ItemLedgers
from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.submitting_many import ManySubmitter
from airflow_video_provider.triggers.video_list import VideoTaskListTrigger
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
    dag_file,
    film,
    restarted,
    resume,
    run,
    states,
)
from tests.conftest import AIRFLOW

FOX, HERON, OWL = "a fox in the snow", "a heron in the reeds", "an owl at night"
#: What each Airflow has; files are files on both.
OWN = ("variable", "file") if __version__.startswith("2.") else ("state store", "file", "variable")


@pytest.fixture(params=OWN)
def memory(request: pytest.FixtureRequest, tmp_path: Path) -> Memory:
    """The places where submissions are remembered."""
    match request.param:
        case "state store":
            return Memory(store=StateStore())
        case "variable":
            return Memory(keep="reuse")
    return Memory(path=(tmp_path / "ledger").as_uri())


@pytest.fixture
def stored() -> Memory:
    """One of them, where it does not matter which."""
    return Memory(store=StateStore())


@pytest.fixture(autouse=True)
def xcoms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, TaskInstance] | None:
    """The XComs that a triggerer reads, of the task instances of the test, where it starts no Airflow."""
    if "airflow_database" in request.fixturenames:
        return None
    known: dict[str, TaskInstance] = {}
    push = TaskInstance.xcom_push

    def pushed(self: TaskInstance, key: str, value: Any, **_: Any) -> None:
        known[self.task_id] = self
        push(self, key, value)

    class XCom:
        @staticmethod
        def get_one(*, dag_id: str, run_id: str, task_id: str, map_index: int, key: str) -> Any:
            ti = known[task_id]
            assert (dag_id, run_id, map_index) == (ti.dag_id, ti.run_id, ti.map_index)
            return json.loads(json.dumps(ti.xcoms.get(key)))

    monkeypatch.setattr(TaskInstance, "xcom_push", pushed)
    monkeypatch.setattr("airflow.providers.common.compat.sdk.XCom", XCom, raising=False)
    return known


def attempt(memory: Memory, *prompts: Any, **arguments: Any) -> Any:
    """One attempt of a list, which waits in the worker."""
    return memory.attempt(None, **{"prompts": list(prompts), "deferrable": False, **arguments})


def fails(memory: Memory, *prompts: Any, **arguments: Any) -> AirflowException:
    """The error of an attempt, as the person on call reads it."""
    return memory.refused(None, **{"prompts": list(prompts), "deferrable": False, **arguments})


def prompts_of(gateway: Gateway) -> list[str]:
    """What was paid for, in whichever order."""
    return sorted(payment["prompt"] for payment in gateway.payments)


def remembered(memory: Memory) -> list[Submission]:
    """The last submission of each item, by its place."""
    context = context_of(memory.ti, memory.store)
    memories = ItemLedgers(ledger_for(context, memory.path, keep=memory.keep == "reuse")).read()
    return sorted((m.history[-1] for m in memories if m.history), key=lambda s: s.item)


class Killed(BaseException):
    """What SIGKILL is to a process, as far as one process can be both the killed one and the test."""


def dies_at_the_create_of(
    patch: pytest.MonkeyPatch, prompt: str, *, after: bool = False, how: Callable[[], None] | None = None
) -> None:
    real = Client.submit

    def submit(self: Client, request: Any) -> Any:
        if request.prompt != prompt:
            return real(self, request)
        if after:
            real(self, request)
        raise Killed

    patch.setattr(Client, "submit", submit)


def struck(memory: Memory, prompt: str, *prompts: str, **how: Any) -> None:
    """The first attempt dies at the create call of one item."""
    with pytest.MonkeyPatch.context() as patch:
        dies_at_the_create_of(patch, prompt, **how)
        with pytest.raises(Killed):
            attempt(memory, *prompts, parallel=1)


@pytest.mark.usefixtures("connection", "clock")
class TestAllIsWell:
    def test_each_is_paid_once_and_told_in_the_order_of_the_list(
        self, memory: Memory, gateway: Gateway
    ) -> None:
        videos = attempt(memory, FOX, {"prompt": HERON, "seconds": 15, "model": "sora-2"}, OWL)
        assert [video["prompt"] for video in videos] == [FOX, HERON, OWL]
        assert [gateway.told(video["video_id"])["body"]["prompt"] for video in videos] == [FOX, HERON, OWL]
        assert {video["state"] for video in videos} == {"succeeded"}
        assert gateway.told(videos[1]["video_id"])["body"]["model"] == "sora-2"
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])
        assert memory.ti.xcoms["video_ids"] == [video["video_id"] for video in videos]

    def test_equal_prompts_are_as_many_videos(self, memory: Memory, gateway: Gateway) -> None:
        videos = attempt(memory, FOX, FOX)
        assert len({video["video_id"] for video in videos}) == gateway.paid == 2

    def test_the_list_may_be_a_text_that_a_template_rendered(self, stored: Memory, gateway: Gateway) -> None:
        for text in (json.dumps([FOX, {"prompt": HERON}]), str([FOX, HERON])):
            videos = stored.attempt(None, prompts=text, deferrable=False, on_clear="reuse")
            assert [video["prompt"] for video in videos] == [FOX, HERON]
            stored.clear()
        assert gateway.paid == 2

    def test_an_empty_list_is_done(self, stored: Memory, gateway: Gateway) -> None:
        assert attempt(stored) == []
        assert gateway.paid == 0

    def test_no_more_create_calls_are_under_way_than_parallel_says(
        self, stored: Memory, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, lock, meeting = Client.submit, threading.Lock(), threading.Barrier(2)
        running, most = 0, 0

        def submit(self: Client, request: Any) -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            meeting.wait(timeout=60)  # so two are under way at the same time
            reply = real(self, request)
            with lock:
                running -= 1
            return reply

        monkeypatch.setattr(Client, "submit", submit)
        attempt(stored, *(f"{FOX} {number}" for number in range(8)), parallel=2)
        assert most == 2
        assert gateway.paid == 8

    def test_without_a_wait_each_is_told_as_it_is(self, memory: Memory, gateway: Gateway) -> None:
        first = attempt(memory, FOX, HERON, wait_for_completion=False)
        assert {video["state"] for video in first} <= {"queued", "running"}
        memory.retry()
        again = attempt(memory, FOX, HERON, wait_for_completion=False)
        assert [video["video_id"] for video in again] == [video["video_id"] for video in first]
        assert gateway.paid == 2

    def test_what_each_cost_is_told(self, stored: Memory, gateway: Gateway, logged: list[str]) -> None:
        stored.submit(None, prompts=[FOX, HERON])
        ids = stored.ti.xcoms["video_ids"]
        ends = [
            {
                "end": "succeeded",
                "video_id": video_id,
                "message": "ready",
                "task": {"video_id": video_id, "state": "succeeded", "usage": {"cost": cost}},
            }
            for video_id, cost in zip(ids, (0.5, 0.75), strict=True)
        ]
        operator = film(None, prompts=[FOX, HERON])
        operator.execute_complete(context_of(stored.ti, stored.store), event={"ends": ends})
        assert [line for line in logged if " used, as the gateway tells: " in line] == [
            f"video {ids[0]} used, as the gateway tells: cost 0.5",
            f"video {ids[1]} used, as the gateway tells: cost 0.75",
        ]


@pytest.mark.usefixtures("connection", "clock")
class TestARetryPaysOnlyForWhatWasNeverPaid:
    def test_after_a_crash_before_a_create(self, memory: Memory, gateway: Gateway) -> None:
        """Whether that one was paid for nobody knows; the others are known."""
        struck(memory, HERON, FOX, HERON, OWL)
        assert prompts_of(gateway) == [FOX]
        memory.retry()
        error = fails(memory, FOX, HERON, OWL)
        assert isinstance(error, AirflowFailException)
        assert "1 of 3 videos failed: prompts[1]: attempt 1 began to submit" in str(error)
        assert prompts_of(gateway) == sorted([FOX, OWL])
        memory.clear()
        assert len(attempt(memory, FOX, HERON, OWL)) == 3
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])

    def test_after_a_crash_behind_a_create(self, memory: Memory, gateway: Gateway) -> None:
        struck(memory, HERON, FOX, HERON, OWL, after=True)
        memory.retry()
        fails(memory, FOX, HERON, OWL)
        memory.retry()
        fails(memory, FOX, HERON, OWL)
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])

    def test_after_a_crash_of_several_create_calls_at_once(self, memory: Memory, gateway: Gateway) -> None:
        with pytest.MonkeyPatch.context() as patch:
            dies_at_the_create_of(patch, HERON, after=True)
            with pytest.raises(Killed):
                attempt(memory, FOX, HERON, OWL, parallel=3)
        memory.retry()
        fails(memory, FOX, HERON, OWL)
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])

    def test_after_the_worker_died_in_the_wait(
        self, memory: Memory, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def dies(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(AsyncGateway, "query", dies)
            with pytest.raises(Killed):
                attempt(memory, FOX, HERON)
        memory.retry()
        assert len(attempt(memory, FOX, HERON)) == 2
        assert gateway.paid == 2

    def test_with_resubmit_it_pays_for_what_is_in_doubt(self, memory: Memory, gateway: Gateway) -> None:
        struck(memory, HERON, FOX, HERON, after=True)
        memory.retry()
        attempt(memory, FOX, HERON, on_unknown_submission="resubmit")
        assert prompts_of(gateway) == sorted([FOX, HERON, HERON])

    def test_of_a_list_in_another_order_with_another_item_it_pays_for_that_one(
        self, memory: Memory, gateway: Gateway
    ) -> None:
        with suppress(BaseException):
            memory.submit(None, prompts=[FOX, HERON])
        ids = {payment["prompt"]: payment["video_id"] for payment in gateway.payments}
        memory.retry()
        videos = attempt(memory, OWL, HERON, FOX)
        assert [video["video_id"] for video in videos[1:]] == [ids[HERON], ids[FOX]]
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])

    def test_of_prompts_that_render_differently_it_waits_for_what_was_paid(
        self, memory: Memory, gateway: Gateway, logged: list[str]
    ) -> None:
        memory.submit(None, prompts=[FOX, HERON])
        memory.retry()
        videos = attempt(memory, f"{FOX}, try 2", HERON)
        assert [video["prompt"] for video in videos] == [None, HERON]
        assert gateway.paid == 2
        assert any("prompts[0]: the request has changed since (prompt)" in line for line in logged)

    def test_a_clear_pays_for_the_items_that_have_changed(self, memory: Memory, gateway: Gateway) -> None:
        first = attempt(memory, FOX, HERON)
        memory.clear()
        videos = attempt(memory, OWL, HERON)
        assert videos[1]["video_id"] == first[1]["video_id"]
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])
        memory.clear()
        attempt(memory, OWL, HERON, on_clear="new")
        assert gateway.paid == 5

    def test_an_item_that_is_gone_is_left_and_told(
        self, memory: Memory, gateway: Gateway, logged: list[str]
    ) -> None:
        memory.submit(None, prompts=[FOX, HERON])
        memory.retry()
        assert len(attempt(memory, HERON)) == 1
        assert gateway.paid == 2
        assert any("is of an item that is in the list no more, and is left" in line for line in logged)

    def test_a_single_prompt_that_became_a_list_is_found(self, memory: Memory, gateway: Gateway) -> None:
        paid = memory.submit(FOX).trigger.video_id
        memory.retry()
        videos = attempt(memory, HERON, FOX)
        assert videos[1]["video_id"] == paid
        assert gateway.paid == 2

    def test_a_run_that_was_deleted_and_made_again_begins_anew(
        self, memory: Memory, gateway: Gateway
    ) -> None:
        if memory.store is not None:
            pytest.skip("Airflow removes it with the task instance")
        attempt(memory, FOX, HERON)
        memory.ti = TaskInstance(dag_run=SimpleNamespace(id=2, clear_number=0))
        attempt(memory, FOX, HERON)
        assert gateway.paid == 4

    def test_on_object_storage(
        self, gateway: Gateway, s3_server: S3Server, store_connection: str, tmp_path: Path
    ) -> None:
        memory = Memory(path=f"s3://store@videos/lists/{tmp_path.name}", server=s3_server)
        memory.submit(None, prompts=[FOX, HERON])
        memory.retry()
        assert len(attempt(memory, FOX, HERON, OWL)) == 3
        assert gateway.paid == 3

    def test_after_an_upgrade_to_an_airflow_with_a_state_store(self, gateway: Gateway) -> None:
        memory = Memory()
        memory.submit(None, prompts=[FOX, HERON])
        memory.store = StateStore()
        for prompts in ((FOX, HERON), (FOX, HERON, OWL), (OWL, FOX, HERON)):
            memory.retry()
            assert len(attempt(memory, *prompts)) == len(prompts)
        assert gateway.paid == 3


@pytest.mark.usefixtures("connection", "clock")
class TestAPartialFailure:
    def test_of_a_refusal_waits_for_the_others_and_names_the_item(
        self, memory: Memory, gateway: Gateway
    ) -> None:
        refused = f"{HERON} [moderation]"
        error = fails(memory, FOX, refused, OWL, parallel=1)
        assert isinstance(error, AirflowFailException)
        assert str(error).startswith("1 of 3 videos failed: prompts[1]: not submitted, nothing was paid")
        assert prompts_of(gateway) == sorted([FOX, OWL])
        memory.clear()
        assert len(attempt(memory, FOX, HERON, OWL)) == 3
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])

    def test_of_an_outcome_in_doubt_ends_the_submitting_and_a_retry_goes_on(
        self, memory: Memory, gateway: Gateway, logged: list[str]
    ) -> None:
        doubt = f"{HERON} [create-drop-paid]"
        error = fails(memory, FOX, doubt, OWL, parallel=1)
        assert isinstance(error, VideoListFailed)
        assert "2 of 3 videos failed" in str(error)
        assert "prompts[2]: not submitted, nothing was paid: the submitting of the list has ended" in str(
            error
        )
        assert prompts_of(gateway) == sorted([FOX, doubt])
        assert any("prompts[1]: the create call broke off" in line for line in logged)
        memory.retry()
        error = fails(memory, FOX, doubt, OWL, parallel=1)
        assert isinstance(error, AirflowFailException)
        assert "prompts[1]: attempt 1 began to submit" in str(error)
        assert prompts_of(gateway) == sorted([FOX, doubt, OWL])
        assert [s.told for s in remembered(memory)] == [False, True, False]

    def test_of_a_generation_is_paid_for_once_more(self, memory: Memory, gateway: Gateway) -> None:
        doomed = f"{HERON} [fail]"
        assert isinstance(fails(memory, FOX, doomed), VideoListFailed)
        memory.retry()
        error = fails(memory, FOX, doomed)
        assert isinstance(error, AirflowFailException)
        assert "generation 2 of at most 2" in str(error)
        memory.retry()
        fails(memory, FOX, doomed)
        assert prompts_of(gateway) == sorted([FOX, doomed, doomed])

    def test_is_not_paid_for_once_more_beyond_the_lists_budget(
        self, memory: Memory, gateway: Gateway
    ) -> None:
        doomed = [f"{prompt} [fail]" for prompt in (FOX, HERON, OWL)]
        fails(memory, *doomed, max_total_generations=4)
        memory.retry()
        error = fails(memory, *doomed, max_total_generations=4)
        assert "the list may pay for 4 generations" in str(error)
        assert gateway.paid == 4

    def test_of_the_key_is_refused_for_all_at_once(
        self, stored: Memory, gateway: Gateway, connect: Any
    ) -> None:
        connect(password="wrong")
        error = fails(stored, *(f"{FOX} {number}" for number in range(20)), parallel=2)
        assert isinstance(error, AirflowFailException)
        assert "20 of 20 videos failed" in str(error)
        assert len(gateway.requests("POST")) <= 2
        assert gateway.paid == 0

    def test_of_the_rate_leaves_the_rest_to_the_retry(self, memory: Memory, gateway: Gateway) -> None:
        slow = f"{HERON} {uuid4().hex} [rate-limit=4]"
        error = fails(memory, FOX, slow, OWL, parallel=1)
        assert isinstance(error, VideoListFailed)
        assert prompts_of(gateway) == [FOX]
        memory.retry()
        assert len(attempt(memory, FOX, slow, OWL)) == 3
        assert gateway.paid == 3

    def test_leaves_what_succeeded_to_the_retry_and_counts_it_once(
        self, memory: Memory, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted: list[Any] = []
        monkeypatch.setattr(
            "airflow_video_provider.operators.generate_many.report_end",
            lambda task, **_: counted.append(task["video_id"]),
        )
        doomed = f"{HERON} [fail]"
        fails(memory, FOX, doomed)
        memory.retry()
        fails(memory, FOX, doomed)
        assert len(counted) == len(set(counted)) == gateway.paid == 3

    def test_is_told_in_one_message_of_bounded_length(self, stored: Memory, logged: list[str]) -> None:
        doomed = [f"{FOX} {number} [fail]" for number in range(12)]
        assert "and 9 more, each with a line in the log" in str(fails(stored, *doomed))
        assert sum(line.startswith("prompts[") and "failed" in line for line in logged) == 12


@pytest.mark.usefixtures("connection", "clock")
class TestBadInput:
    @pytest.mark.parametrize(
        ("prompts", "words"),
        [
            ([FOX, {"prompt": HERON, "seconds": "soon"}], "prompts[1]: the generation was not submitted"),
            ([FOX, {"prompt": HERON, "seconds": "soon"}], "seconds: must be a whole number"),
            ([FOX, {"prompt": HERON, "colour": "red"}], "colour: is no field of a request"),
            ([FOX, "  "], "prompts[1]: the generation was not submitted, nothing was paid: prompt: must not"),
            ([FOX, 5], "prompt: must be text"),
            ([FOX, {"seconds": 15}], "prompt: must not be empty"),
            ([FOX, {"prompt": HERON, "input_reference": "file:///no/such.png"}], "cannot be read"),
            ([FOX, {"prompt": HERON, "metadata": {"fps": 24}}], "metadata: the unified dialect has no such"),
            ("a fox", "prompts: str is no list"),
            ({"prompt": FOX}, "prompts: dict is no list"),
        ],
    )
    def test_is_refused_before_anything_is_paid(
        self, stored: Memory, gateway: Gateway, prompts: Any, words: str
    ) -> None:
        error = stored.refused(None, prompts=prompts, deferrable=False)
        assert isinstance(error, AirflowFailException)
        assert words in str(error)
        assert gateway.requests("POST") == []

    def test_of_one_item_leaves_what_is_paid_for_as_it_is(self, stored: Memory, gateway: Gateway) -> None:
        stored.submit(None, prompts=[FOX])
        stored.retry()
        error = fails(stored, FOX, {"prompt": HERON, "seconds": -1}, OWL)
        assert "prompts[2]: not submitted, nothing was paid: nothing of the list is paid for before" in str(
            error
        )
        assert gateway.paid == 1

    def test_of_a_list_that_is_longer_than_it_may_pay_for(self, stored: Memory, gateway: Gateway) -> None:
        assert "max_total_generations: 1 is too few for a list of 2" in str(
            fails(stored, FOX, HERON, max_total_generations=1)
        )
        assert gateway.paid == 0

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"prompts": None}, "prompt, prompts: give one of them"),
            ({"prompts": [FOX], "prompt": FOX}, "prompt, prompts: give one of them"),
            ({"prompts": [FOX], "parallel": 0}, "parallel: 0 must be a whole number from 1 to 32"),
            ({"prompts": [FOX], "parallel": True}, "parallel: True must be"),
            ({"prompts": [FOX], "max_total_generations": 0}, "max_total_generations: 0 must be"),
            ({"prompts": [FOX], "cancel_on_kill": True}, "cancel_on_kill: is for a single prompt"),
        ],
    )
    def test_of_arguments_is_refused_while_the_dag_is_parsed(
        self, arguments: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ValueError, match=re.escape(words)):
            VideoGenerateOperator(task_id="films", model=MODEL, **arguments)


@pytest.mark.usefixtures("connection", "clock")
class TestASignal:
    def test_is_let_through_once_what_is_paid_for_is_remembered(
        self, memory: Memory, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Timeout(BaseException):
            pass

        def handler(*_: object) -> None:
            raise Timeout

        real, end = Client.submit, ManySubmitter._end
        meeting, seen = threading.Barrier(2), threading.Event()

        def submit(self: Client, request: Any) -> Any:
            reply = real(self, request)
            if not seen.is_set():
                if meeting.wait(timeout=60) == 0:  # both are paid for, and none is remembered
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
                assert seen.wait(timeout=60), "the main thread has noted the signal"
            return reply

        def ended(self: ManySubmitter, why: AirflowException) -> None:
            end(self, why)
            seen.set()

        before = signal.signal(signal.SIGALRM, handler)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Client, "submit", submit)
                patch.setattr(ManySubmitter, "_end", ended)
                with pytest.raises(Timeout):
                    attempt(memory, FOX, HERON, *(f"{OWL} {n}" for n in range(6)), parallel=2)
        finally:
            signal.signal(signal.SIGALRM, before)
        paid = {payment["video_id"] for payment in gateway.payments}
        assert len(paid) == 2
        assert {s.video_id for s in remembered(memory) if s.state is State.SUBMITTED} == paid
        assert State.SENDING not in {s.state for s in remembered(memory)}
        memory.retry()
        assert len(attempt(memory, FOX, HERON, *(f"{OWL} {n}" for n in range(6)))) == 8
        assert gateway.paid == 8


@pytest.mark.usefixtures("connection", "clock")
class TestTheMemory:
    def test_that_cannot_be_written_lets_nothing_be_paid(
        self, memory: Memory, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kind = type(ledger_for(context_of(memory.ti, memory.store), memory.path))

        def broken(*_: Any) -> None:
            raise OSError("the store is down")

        for method in ("note_items", "update"):
            with monkeypatch.context() as patch:
                patch.setattr(kind, method, broken)
                assert not isinstance(fails(memory, FOX, HERON), AirflowFailException)
        assert gateway.paid == 0
        memory.retry()
        assert len(attempt(memory, FOX, HERON)) == 2
        assert gateway.paid == 2

    def test_that_loses_an_id_has_it_in_log_and_xcom_and_no_retry_pays_again(
        self, memory: Memory, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, logged: list[str]
    ) -> None:
        kind = type(ledger_for(context_of(memory.ti, memory.store), memory.path))
        real = kind.update

        def broken(self: Any, submission: Submission) -> None:
            if submission.state is State.SUBMITTED and submission.item == 1:
                raise OSError("the store is down")
            real(self, submission)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "update", broken)
            error = fails(memory, FOX, HERON, OWL, parallel=1)
        ids = {payment["prompt"]: payment["video_id"] for payment in gateway.payments}
        assert f"video {ids[HERON]} was submitted and is paid for, but its id could not be stored" in str(
            error
        )
        assert memory.ti.xcoms["video_ids"] == [ids[FOX], ids[HERON], None]
        memory.retry()
        fails(memory, FOX, HERON, OWL)
        assert prompts_of(gateway) == sorted([FOX, HERON, OWL])

    def test_is_not_disturbed_by_an_attempt_that_was_frozen_before_it_paid(
        self, memory: Memory, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the same list, and with another: what is new to the frozen one makes it stop."""
        if memory.store is not None:
            pytest.skip("Airflow 3.3 refuses the writes of an attempt that it has given up")
        for later in ([FOX, HERON], [OWL, f"{OWL} again"]):
            memory.ti = TaskInstance(run_id=f"manual__{later[0]}")
            before = gateway.paid
            frozen = replace(memory, ti=replace(memory.ti, dag_run=SimpleNamespace(id=1, clear_number=0)))
            memory.retry()
            real = ItemLedgers.note

            def meanwhile(self: Any, memories: Any, real: Any = real, later: Any = later) -> None:
                real(self, memories)
                monkeypatch.setattr(ItemLedgers, "note", real)
                attempt(memory, *later)

            monkeypatch.setattr(ItemLedgers, "note", meanwhile)
            error = fails(frozen, FOX, HERON)
            assert isinstance(error, VideoListFailed)
            assert gateway.paid == before + 2
            assert set(prompts_of(gateway)) >= set(later)

    def test_in_variables_goes_with_the_success(
        self,
        gateway: Gateway,
        variables: Variables,
        listeners: Listeners,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(kept_in_variables, "_is_airflow_2", lambda: False)
        memory = Memory()
        fails(memory, FOX, f"{HERON} [query-404=always]")
        assert listeners == []
        assert variables
        memory.ti = TaskInstance(run_id="manual__2")
        variables.clear()
        memory.submit(None, prompts=[FOX, HERON, OWL])
        memory.retry()
        attempt(memory, HERON, OWL)
        assert variables
        listeners.succeed(memory.ti)
        assert variables == {}

    def test_in_variables_goes_on_2_11_with_a_later_success(
        self,
        gateway: Gateway,
        clock: Clock,
        variables: Variables,
        listeners: Listeners,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(kept_in_variables, "_is_airflow_2", lambda: True)
        monkeypatch.setattr(
            kept_in_variables,
            "variables_in_database",
            lambda: [
                (key, kept_in_variables.understood(text), "") for key, text in sorted(variables.items())
            ],
        )
        memory = Memory()
        attempt(memory, FOX, HERON)
        listeners.succeed(memory.ti)
        assert len(variables) == 3
        clock.sleep(kept_in_variables.SUCCESS_IS_FINAL_AFTER + 60)
        memory.ti = TaskInstance(run_id="manual__2")
        memory.attempt(OWL)
        listeners.succeed(memory.ti)
        assert len(variables) == 1

    def test_stays_small_for_each_item(self, stored: Memory) -> None:
        attempt(stored, *(f"{FOX} {number}" for number in range(30)), parallel=8)
        assert stored.store is not None
        assert len(stored.store) == 31
        assert max(len(json.dumps(value)) for value in stored.store.values()) < 1500


@pytest.mark.usefixtures("connection")
class TestTheDeferredWait:
    def resumed(self, memory: Memory, waiting: Any, prompts: list[Any]) -> Any:
        operator = film(None, prompts=prompts, **memory.arguments)
        event = run(restarted(waiting.trigger, first_poll_at=0.0, poll_interval=0.05))
        return resume(operator, waiting, event, context_of(memory.ti, memory.store))

    def test_is_one_small_trigger_for_all(self, stored: Memory, gateway: Gateway) -> None:
        prompts = [f"{FOX} {number}" for number in range(40)]
        waiting = stored.submit(None, prompts=prompts, parallel=8)
        assert isinstance(waiting.trigger, VideoTaskListTrigger)
        assert len(json.dumps(waiting.trigger.serialize())) < 1000
        gateway.finish()
        videos = self.resumed(stored, waiting, prompts)
        assert [video["prompt"] for video in videos] == prompts
        assert [video["video_id"] for video in videos] == stored.ti.xcoms["video_ids"]
        assert gateway.paid == 40

    def test_reports_what_failed_before_and_in_the_wait(self, memory: Memory, gateway: Gateway) -> None:
        prompts = [FOX, f"{HERON} [moderation]", f"{OWL} [fail]"]
        waiting = memory.submit(None, prompts=prompts)
        gateway.finish()
        with pytest.raises(VideoListFailed) as caught:
            self.resumed(memory, waiting, prompts)
        assert "2 of 3 videos failed: prompts[1]: not submitted" in str(caught.value)
        assert "prompts[2]: video " in str(caught.value)
        told = memory.ti.xcoms["return_value"]
        assert [(video["prompt"], video["state"]) for video in told] == [
            (FOX, "succeeded"),
            (prompts[1], None),
            (prompts[2], None),
        ]
        assert "nothing was paid" in told[1]["message"]
        assert [s.state for s in remembered(memory)] == [State.SUBMITTED, State.FAILED]

    def test_that_breaks_off_fails_nothing_for_good(
        self, memory: Memory, gateway: Gateway, clock: Clock
    ) -> None:
        waiting = memory.submit(None, prompts=[FOX, HERON])
        operator = film(None, prompts=[FOX, HERON], **memory.arguments)
        with pytest.raises(VideoListFailed, match="A retry re-attaches"):
            operator.execute_complete(
                context_of(memory.ti, memory.store), event={"ends": [], "broke_off": "the connection is gone"}
            )
        del memory.ti.xcoms["list_items"]
        with pytest.raises(AirflowException, match="a retry re-attaches to what is paid for"):
            resume(operator, waiting, {"ends": []}, context_of(memory.ti, memory.store))
        memory.retry()
        assert len(attempt(memory, FOX, HERON)) == 2
        assert gateway.paid == 2

    def test_leaves_no_variable_of_an_item_that_was_left(
        self,
        gateway: Gateway,
        variables: Variables,
        listeners: Listeners,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(kept_in_variables, "_is_airflow_2", lambda: False)
        memory = Memory()
        memory.submit(None, prompts=[FOX, HERON])
        memory.retry()
        waiting = memory.submit(None, prompts=[HERON])
        gateway.finish()
        self.resumed(memory, waiting, [HERON])
        assert variables
        listeners.succeed(memory.ti)
        assert variables == {}

    def test_has_the_deadline_of_its_youngest_video(
        self, stored: Memory, gateway: Gateway, clock: Clock
    ) -> None:
        stored.submit(None, prompts=[FOX], timeout=600)
        clock.sleep(300)
        stored.retry()
        waiting = stored.submit(None, prompts=[FOX, HERON], timeout=600)
        assert 590 < waiting.trigger.deadline - clock.time() <= 600


def test_on_kill_says_what_runs_on(
    stored: Memory, connection: str, gateway: Gateway, clock: Clock, logged: list[str]
) -> None:
    operator = film(None, prompts=[FOX, HERON])
    with pytest.raises(BaseException):  # noqa: B017, PT011  the deferral
        operator.execute(context_of(stored.ti, stored.store))
    operator.on_kill()
    assert "2 videos run on at the gateway, and are paid for" in logged[-1]
    assert all(payment["video_id"] in logged[-1] for payment in gateway.payments)


def test_a_stale_attempt_leaves_all_to_the_later_one(
    stored: Memory, connection: str, gateway: Gateway, clock: Clock
) -> None:
    old = TaskInstance()
    stored.retry()
    attempt(stored, FOX, HERON)
    stored.ti = old
    assert isinstance(fails(stored, FOX, HERON), VideoSubmitFailed)
    assert gateway.paid == 2


DAG = """
from datetime import datetime, timedelta
from airflow.providers.common.compat.sdk import DAG, task
from airflow_video_provider.operators.video import VideoGenerateOperator
from airflow_video_provider.sensors.video import VideoTaskSensor
from tests.airflow.support import ask

with DAG("{name}", schedule=None, start_date=datetime(2026, 1, 1), catchup=False) as dag:
    @task
    def prompts():
        return {prompts}

    films = VideoGenerateOperator(
        task_id="films", model="veo3.1-fast", prompts=prompts(), poll_interval=1, timeout={timeout},
        deferrable={deferrable}, retries=2, retry_delay=timedelta(0), schedule="fixed",
        on_retry_callback=lambda context: ask("{clock}", "POST", {{"advance": {seconds}}}),
    )
    VideoTaskSensor(task_id="again", video_ids=films.output, poke_interval=1, deferrable=False)
"""


@pytest.mark.usefixtures("airflow_database", "connection")
class TestInADag:
    """The real task state store of 3.3, real Variables before it, written by threads."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In `dag.test()` no scheduler runs that a short deferral could confuse."""
        monkeypatch.setattr("airflow_video_provider.waiting.SHORTEST_DEFERRAL", 0.0)

    @pytest.mark.parametrize(("deferrable", "timeout", "seconds"), [(True, 1, 90), (False, 60, 1)])
    def test_a_list_from_upstream_is_paid_once_through_all_retries(
        self, gateway: Gateway, deferrable: bool, timeout: int, seconds: int
    ) -> None:
        if deferrable and AIRFLOW == (3, 0):
            pytest.skip("no trigger reads an XCom in the `dag.test()` of 3.0; in its triggerer they do")
        prompts = [f"{animal} [time={seconds}]" for animal in (FOX, HERON, OWL, FOX)]
        name = f"list_{deferrable}_{timeout}"
        source = DAG.format(
            name=name,
            prompts=prompts,
            timeout=timeout,
            deferrable=deferrable,
            clock=f"{gateway.url}/sandbox/clock",
            seconds=seconds,
        )
        with dag_file(name, source) as module:
            done = module.dag.test()
        assert states(done) == {"prompts": "success", "films": "success", "again": "success"}
        assert prompts_of(gateway) == sorted(prompts)
        tries = {ti.task_id: ti.try_number for ti in done.get_task_instances()}
        assert (tries["films"] > 1) == (timeout < seconds)


def test_a_list_that_waits_in_the_worker_keeps_to_the_rate_of_its_connection(
    stored: Memory, connect: Callable[..., str], gateway: Gateway, clock: Clock
) -> None:
    connect(extra={"max_requests_per_second": 2})
    attempt(stored, *(f"fox {number}" for number in range(8)), poll_interval=5, schedule="fixed")
    asked = sorted(request["time"] for request in gateway.requests("GET"))
    assert len(asked) > 8
    assert asked[-1] - asked[0] > 0.4 * (len(asked) - 1), "two a second"
