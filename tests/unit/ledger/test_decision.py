"""What an attempt does about what is remembered: the table, and that nothing leads to a silent payment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.ledger import (
    Attempt,
    Ended,
    Policy,
    Reattach,
    Stale,
    State,
    Stop,
    Submission,
    Submit,
    decide,
)

REQUEST = {"model": "m", "prompt": "p"}
OTHER = {"model": "m", "prompt": "q"}
FIRST = Attempt(1, 2, run="id=7", clear_number=0)
RETRY = replace(FIRST, try_number=2)
CLEAR = Attempt(2, 3, run="id=7", clear_number=1)
RESET = replace(CLEAR, started_by_operator=True)


def submission(state: State, **facts: Any) -> Submission:
    known = {} if state in {State.SENDING, State.HELD} else {"video_id": "veo:1"}
    return Submission.new(
        **{
            "order": 1, "generation": 1, "model": "m", "video_conn_id": "video_default",
            "gateway": "https://g.example", "begun_at": 1_770_350_082.0, "begun_by": 1, "request": REQUEST,
            "attempt": FIRST, "state": state, **known, **facts,
        }
    )  # fmt: skip


IN_DOUBT = submission(State.SENDING)
TOLD = replace(IN_DOUBT, told=True, ended=Ended.FAILED_FOR_GOOD)
PAID = submission(State.SUBMITTED)
FAILED = submission(State.FAILED)
REFUSED = replace(FAILED, refused_input=True)
WITHHELD = replace(FAILED, refused_output=True)
GONE = submission(State.GONE, told=True)
SECOND = replace(FAILED, generation=2)

TABLE = {
    # name: (remembered, attempt, request, policy, decision, generation)
    "nothing, first": ((), FIRST, REQUEST, {}, Submit, 1),
    "nothing, cleared": ((), CLEAR, REQUEST, {}, Submit, 1),
    "in doubt, retry": ((IN_DOUBT,), RETRY, REQUEST, {}, Stop, None),
    "in doubt, retry, resubmit": (
        (IN_DOUBT,), RETRY, REQUEST, {"on_unknown_submission": "resubmit"}, Submit, 2,
    ),
    "in doubt, resubmit, last one": (
        (replace(IN_DOUBT, generation=2),), RETRY, REQUEST, {"on_unknown_submission": "resubmit"}, Stop, None,
    ),
    "in doubt, cleared": ((IN_DOUBT,), CLEAR, REQUEST, {}, Stop, None),
    "in doubt, cleared, another request": ((IN_DOUBT,), CLEAR, OTHER, {}, Stop, None),
    "in doubt, cleared, reuse": ((IN_DOUBT,), CLEAR, REQUEST, {"on_clear": "reuse"}, Stop, None),
    "in doubt, told, retry": ((TOLD,), RETRY, REQUEST, {}, Stop, None),
    "in doubt, told, cleared": ((TOLD,), CLEAR, REQUEST, {}, Submit, 1),
    "in doubt, cleared, new": ((IN_DOUBT,), CLEAR, REQUEST, {"on_clear": "new"}, Submit, 1),
    "accepted nothing, retry": ((submission(State.HELD),), RETRY, REQUEST, {}, Submit, 1),
    "accepted nothing, cleared": ((submission(State.HELD),), CLEAR, REQUEST, {}, Submit, 1),
    "paid, retry": ((PAID,), RETRY, REQUEST, {}, Reattach, None),
    "paid, retry, another request": ((PAID,), RETRY, OTHER, {}, Reattach, None),
    "paid, retry, no request": ((PAID,), RETRY, None, {}, Reattach, None),
    "paid, retry, new": ((PAID,), RETRY, REQUEST, {"on_clear": "new"}, Reattach, None),
    "paid, cleared": ((PAID,), CLEAR, REQUEST, {}, Reattach, None),
    "paid, cleared, another request": ((PAID,), CLEAR, OTHER, {}, Submit, 1),
    "paid, cleared, new": ((PAID,), CLEAR, REQUEST, {"on_clear": "new"}, Submit, 1),
    "failed, retry": ((FAILED,), RETRY, REQUEST, {}, Submit, 2),
    "failed, retry, only one allowed": ((FAILED,), RETRY, REQUEST, {"max_generations": 1}, Stop, None),
    "failed twice, retry": ((FAILED, replace(SECOND, order=2)), RETRY, REQUEST, {}, Stop, None),
    "failed twice, cleared": ((FAILED, replace(SECOND, order=2)), CLEAR, REQUEST, {}, Submit, 1),
    "refused, retry": ((REFUSED,), RETRY, REQUEST, {"max_generations": 9}, Stop, None),
    "refused, cleared": ((REFUSED,), CLEAR, REQUEST, {}, Stop, None),
    "refused, cleared, another request": ((REFUSED,), CLEAR, OTHER, {}, Submit, 1),
    "refused, cleared, new": ((REFUSED,), CLEAR, REQUEST, {"on_clear": "new"}, Submit, 1),
    "gone, retry": ((GONE,), RETRY, REQUEST, {}, Reattach, None),
    "an older attempt": ((replace(PAID, attempt=RETRY),), FIRST, REQUEST, {}, Stale, None),
    "failed, reset by an operator": ((FAILED,), RESET, REQUEST, {}, Submit, 2),
    "failed twice, reset by an operator": ((SECOND,), RESET, REQUEST, {}, Stop, None),
    "in doubt, told, reset by an operator": ((TOLD,), RESET, REQUEST, {}, Stop, None),
    "gone, reset by an operator": ((GONE,), RESET, REQUEST, {}, Reattach, None),
    "paid, reset by an operator, another request": ((PAID,), RESET, OTHER, {}, Submit, 1),
    "withheld, retry": ((WITHHELD,), RETRY, REQUEST, {"max_generations": 9}, Stop, None),
    "withheld, retry, allowed": ((WITHHELD,), RETRY, REQUEST, {"retry_refused_output": True}, Submit, 2),
    "withheld, retry, allowed, only one": (
        (WITHHELD,), RETRY, REQUEST, {"retry_refused_output": True, "max_generations": 1}, Stop, None,
    ),
    "withheld, cleared": ((WITHHELD,), CLEAR, REQUEST, {}, Submit, 1),
    "gone, cleared": ((GONE,), CLEAR, REQUEST, {}, Submit, 1),
    "an earlier one of the same request, cleared": (
        (PAID, replace(PAID, order=2, request=OTHER)), CLEAR, REQUEST, {}, Reattach, None,
    ),
    "paid, and a doubt of another request after it": (
        (PAID, replace(IN_DOUBT, order=2, request=OTHER)), CLEAR, REQUEST, {}, Reattach, None,
    ),
    "the doubt of an earlier request that comes back": (
        (replace(IN_DOUBT, request=OTHER), replace(PAID, order=2)), CLEAR, OTHER, {}, Stop, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("history", "attempt", "request_", "policy", "decision", "generation"), TABLE.values(), ids=TABLE
)
def test_the_table(
    history: tuple[Submission, ...],
    attempt: Attempt,
    request_: dict[str, str] | None,
    policy: dict[str, Any],
    decision: type,
    generation: int | None,
) -> None:
    made = decide(history, attempt, request_, Policy(**policy))
    assert type(made) is decision
    if isinstance(made, Submit):
        assert made.generation == generation


class TestAClearIsToldBy:
    @pytest.mark.parametrize("max_tries", [0, 1, 3, 9])
    def test_max_tries_that_are_others(self, max_tries: int) -> None:
        attempt = replace(CLEAR, max_tries=max_tries, clear_number=0)
        assert isinstance(decide((PAID,), attempt, OTHER, Policy()), Submit)

    def test_the_end_of_what_nobody_but_a_person_begins_again(self) -> None:
        ended = replace(PAID, ended=Ended.SUCCEEDED)
        assert isinstance(decide((ended,), replace(CLEAR, max_tries=2), OTHER, Policy()), Submit)

    def test_the_end_alone_is_no_proof_because_airflow_may_not_have_heard_of_it(self) -> None:
        ended = replace(TOLD, ended=Ended.FAILED_FOR_GOOD)
        assert isinstance(decide((ended,), RETRY, REQUEST, Policy()), Stop)

    def test_the_number_of_clears_of_the_run_alone_is_no_proof_because_it_counts_other_tasks(self) -> None:
        attempt = replace(RETRY, clear_number=4)
        assert isinstance(decide((PAID,), attempt, OTHER, Policy()), Reattach)


class TestAnotherDagRun:
    @pytest.mark.parametrize(
        "attempt",
        [
            replace(FIRST, run="id=8"),
            replace(RETRY, run="id=8"),
            replace(FIRST, try_number=0, run_started="2026-02-07"),
        ],
    )
    def test_has_nothing_to_do_with_what_is_remembered(self, attempt: Attempt) -> None:
        earlier = replace(PAID, attempt=replace(FIRST, run_started="2026-02-06"))
        made = decide((earlier,), attempt, OTHER, Policy())
        assert isinstance(made, Submit)
        assert made.begins_anew
        assert "veo:1 belongs to another Dag run" in str(made.why)

    def test_is_told_by_the_id_of_the_same_try(self) -> None:
        earlier = replace(PAID, attempt=replace(FIRST, ti_id="one"))
        assert isinstance(decide((earlier,), replace(FIRST, ti_id="two"), REQUEST, Policy()), Submit)
        assert isinstance(decide((earlier,), replace(RETRY, ti_id="two"), REQUEST, Policy()), Reattach)

    def test_is_not_what_an_upgrade_of_airflow_makes_of_it(self) -> None:
        attempt = replace(RETRY, run="run_after=2026-01-01T00:00:00+00:00")
        assert isinstance(decide((PAID,), attempt, REQUEST, Policy()), Reattach)


class TestTheMessage:
    def test_of_a_doubt_says_where_to_look_and_how_to_go_on(self) -> None:
        stop = decide((IN_DOUBT,), RETRY, REQUEST, Policy())
        assert isinstance(stop, Stop)
        for words in (
            "attempt 1", "2026-02-06T03:54:42+00:00", "https://g.example", "video_default", "model m",
            "prompt digest p", "VideoTaskSensor", "no worker of that attempt is alive", "clear this task",
        ):  # fmt: skip
            assert words in stop.why
        assert stop.doubts == (IN_DOUBT,)

    def test_of_a_resubmission_says_that_it_may_pay_twice(self) -> None:
        made = decide((IN_DOUBT,), RETRY, REQUEST, Policy(on_unknown_submission="resubmit"))
        assert isinstance(made, Submit)
        assert "may pay twice for one video" in str(made.why)

    def test_of_a_new_generation_names_the_one_that_is_left(self) -> None:
        made = decide((PAID,), CLEAR, OTHER, Policy())
        assert isinstance(made, Submit)
        assert made.why == (
            "cleared, and prompt changed: submitting anew; video veo:1 was paid for and is left"
        )


class TestWhatHasChanged:
    def test_is_named(self) -> None:
        made = decide((PAID,), RETRY, {**OTHER, "size": "s"}, Policy())
        assert isinstance(made, Reattach)
        assert made.changed == ("prompt", "size")

    def test_is_not_a_reference_file_that_was_moved(self) -> None:
        paid = replace(PAID, request={"input_reference": "a", "input_reference.content": "c"})
        assert paid.changes({"input_reference": "b", "input_reference.content": "c"}) == ()
        assert paid.changes({"input_reference": "a", "input_reference.content": "d"}) == ("input_reference",)

    def test_is_not_a_reference_file_that_can_no_longer_be_read(self) -> None:
        paid = replace(PAID, request={"input_reference": "a", "input_reference.content": "c"})
        assert paid.changes({"input_reference": "a"}) == ()
        assert paid.changes({"input_reference": "b"}) == ("input_reference",)


class TestAPolicy:
    @pytest.mark.parametrize("value", [0, -1, None, True, 1.5, "2"])
    def test_needs_a_number_of_generations(self, value: Any) -> None:
        with pytest.raises(ValueError, match=r"^max_generations: "):
            Policy(max_generations=value)


states = st.sampled_from([s for s in State if s is not State.WITHDRAWN])


@given(
    histories=st.lists(
        st.tuples(states, st.sampled_from([REQUEST, OTHER]), st.booleans(), st.integers(1, 3)), max_size=5
    ),
    attempt=st.sampled_from([RETRY, CLEAR, replace(RETRY, clear_number=2), replace(CLEAR, max_tries=1)]),
    request_=st.sampled_from([REQUEST, OTHER, None]),
    on_clear=st.sampled_from([None, "reuse"]),
    allowed=st.integers(1, 3),
)
def test_no_history_leads_to_a_second_payment_without_a_decision(
    histories: list[tuple[State, dict[str, str], bool, int]],
    attempt: Attempt,
    request_: dict[str, str] | None,
    on_clear: Any,
    allowed: int,
) -> None:
    history = tuple(
        submission(state, request=request, told=told, generation=generation, order=order)
        for order, (state, request, told, generation) in enumerate(histories, 1)
    )
    made = decide(history, attempt, request_, Policy(allowed, on_clear))
    if not isinstance(made, Submit) or request_ is None:
        return
    same = [s for s in history if s.request == request_]
    cleared = attempt.max_tries != FIRST.max_tries
    if cleared:
        assert all(s.state is not State.SUBMITTED for s in same), "a video of this request is paid for"
        assert all(s.told for s in same if s.state is State.SENDING), "a doubt that nobody was told of"
    elif history:
        assert history[-1].state in {State.HELD, State.FAILED}
        assert made.generation <= allowed or history[-1].state is State.HELD
