"""Which memory each item of a list goes by, and what the list may pay for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_video_provider.ledger import Attempt, Decision, Reattach, State, Stop, Submission, Submit
from airflow_video_provider.ledger.items import Memory, assigned, over_budget

FIRST = Attempt(1, 2, run="id=7", clear_number=0)
RETRY = replace(FIRST, try_number=2)


def request(prompt: str, **more: str) -> dict[str, str]:
    return {"model": "m", "prompt": prompt, **more}


def submission(prompt: str, place: int, **facts: Any) -> Submission:
    facts = {"state": State.SUBMITTED, "video_id": f"veo:{prompt}", "request": request(prompt), **facts}
    return Submission.new(
        **{
            "order": 1, "generation": 1, "model": "m", "video_conn_id": "video_default",
            "gateway": "https://g.example", "begun_at": 1.0, "begun_by": 1, "attempt": FIRST, "item": place,
            **facts,
        }
    )  # fmt: skip


def paid(*prompts: str, **facts: Any) -> list[Memory]:
    """What is remembered after each prompt of a list was paid for."""
    keys = [memory.key for memory in assigned([], [request(prompt) for prompt in prompts], FIRST)[0]]
    return [
        Memory(key, (submission(prompt, place, **facts),))
        for place, (key, prompt) in enumerate(zip(keys, prompts, strict=True))
    ]


def found(memories: list[Memory], *prompts: str, attempt: Attempt = RETRY) -> list[str | None]:
    """For each prompt of a list the video that it goes by; None for a new one."""
    mine, _ = assigned(memories, [request(prompt) for prompt in prompts], attempt)
    assert len({memory.key for memory in mine}) == len(prompts), "no two items share a memory"
    return [memory.history[-1].video_id if memory.history else None for memory in mine]


class TestAnItemFindsItsMemory:
    def test_in_the_same_list(self) -> None:
        assert found(paid("a", "b"), "a", "b") == ["veo:a", "veo:b"]

    def test_after_a_reordering(self) -> None:
        assert found(paid("a", "b", "c"), "c", "a", "b") == ["veo:c", "veo:a", "veo:b"]

    def test_after_an_insertion(self) -> None:
        assert found(paid("a", "b"), "new", "a", "b") == [None, "veo:a", "veo:b"]

    def test_where_the_request_has_changed_by_its_place(self) -> None:
        assert found(paid("a", "b", "c"), "a", "B", "c") == ["veo:a", "veo:b", "veo:c"]

    def test_where_all_requests_have_changed(self) -> None:
        assert found(paid("a", "b"), "a on try 2", "b on try 2") == ["veo:a", "veo:b"]

    def test_where_the_request_has_changed_and_the_list_is_shorter(self) -> None:
        assert found(paid("a", "b", "c"), "a", "C") == ["veo:a", "veo:b"]

    def test_where_a_change_was_taken_back(self) -> None:
        (memory,) = paid("a")
        changed = submission("b", 0, order=2)
        assert found([replace(memory, history=(*memory.history, changed))], "a") == ["veo:b"]

    def test_though_there_are_equal_ones(self) -> None:
        assert found(paid("a", "a", "b"), "b", "a", "a") == ["veo:b", "veo:a", "veo:a"]

    def test_where_equal_ones_are_fewer_now_that_was_paid_for(self) -> None:
        first, second = paid("a", "a")
        failed = replace(first, history=(submission("a", 0, state=State.FAILED, video_id="veo:0"),))
        assert found([failed, second], "a") == ["veo:a"]

    def test_with_a_picture_that_can_no_longer_be_read(self) -> None:
        picture = {"input_reference": "1", "input_reference.content": "2"}
        memory = Memory("k", (submission("a", 3, request=request("a", **picture)),))
        (mine,), _ = assigned([memory], [request("a", input_reference="1")], RETRY)
        assert mine == memory

    def test_that_was_a_single_prompts(self) -> None:
        assert found([Memory("", (submission("a", 0),))], "b", "a") == [None, "veo:a"]

    def test_but_not_that_of_a_run_that_was_deleted(self) -> None:
        again = Attempt(1, 2, run="id=8")
        assert found(paid("a"), "b", attempt=again) == [None]


def test_what_is_in_the_list_no_more_is_told() -> None:
    _, left = assigned(paid("a", "b"), [request("b")], RETRY)
    assert [memory.history[-1].video_id for memory in left] == ["veo:a"]


def test_a_request_has_the_same_key_in_whatever_list_it_is() -> None:
    """So that two attempts that overlap meet, one of them frozen before it has paid."""
    (alone,), _ = assigned([], [request("a")], FIRST)
    (_, among), _ = assigned(paid("c"), [request("b"), request("a")], FIRST)
    assert alone.key == among.key


prompts = st.lists(st.sampled_from("abcd"), max_size=6)


@given(before=prompts, after=prompts)
def test_no_list_pays_for_more_than_it_has_new_items(before: list[str], after: list[str]) -> None:
    mine, left = assigned(paid(*before), [request(prompt) for prompt in after], RETRY)
    new = [memory for memory in mine if not memory.history]
    assert len(new) == max(len(after) - len(before), 0)
    assert len(left) == max(len(before) - len(after), 0)
    keys = [memory.key for memory in mine]
    assert len(set(keys)) == len(keys)


@given(before=prompts, order=st.randoms(use_true_random=False))
def test_no_reordering_takes_an_item_its_video(before: list[str], order: Any) -> None:
    after = order.sample(before, len(before))
    assert found(paid(*before), *after) == [f"veo:{prompt}" for prompt in after]


def reattach(memory: Memory, *, cleared: bool = False) -> Decision:
    return Reattach(memory.history[-1], cleared=cleared)


class TestTheBudget:
    def test_is_no_limit_unless_it_is_given(self) -> None:
        assert over_budget([Submit(), Submit(2)], [Memory("a"), *paid("b")], [], None) == set()

    def test_counts_what_was_paid_for(self) -> None:
        memories = [*paid("a"), *paid("b", state=State.FAILED), *paid("c", state=State.FAILED)]
        decisions = [reattach(memories[0]), Submit(2), Submit(2)]
        assert over_budget(decisions, memories, [], 4) == {2}

    def test_is_for_the_items_that_were_never_paid_for_first(self) -> None:
        memories = [*paid("a", state=State.FAILED), Memory("b")]
        assert over_budget([Submit(2), Submit()], memories, [], 2) == {0}

    def test_counts_what_is_in_doubt_and_what_is_in_the_list_no_more(self) -> None:
        doubt = paid("a", state=State.SENDING, video_id=None)
        decisions = [Stop("in doubt", doubt[0].history[-1]), Submit()]
        assert over_budget(decisions, [*doubt, Memory("b")], paid("c"), 2) == {1}

    def test_counts_what_no_gateway_accepted_for_nothing(self) -> None:
        held = paid("a", state=State.HELD, video_id=None)
        assert over_budget([Submit()], held, held, 1) == set()

    @pytest.mark.parametrize(("cleared", "over"), [(True, set()), (False, {1})])
    def test_begins_anew_with_a_clear(self, cleared: bool, over: set[int]) -> None:
        second = paid("a", generation=2)
        decisions = [reattach(second[0], cleared=cleared), Submit()]
        assert over_budget(decisions, [*second, Memory("b")], [], 2) == over
