"""Turns at a gate, on a real event loop; the clock of the gate is the loop's."""

from __future__ import annotations

import asyncio

import pytest

from airflow_video_provider.gateway.pace import FEWEST_CONNECTIONS, Gate
from airflow_video_provider.gateway.turns import NoTurn, Turns


def now() -> float:
    return asyncio.get_running_loop().time()


class Query:
    """A query that takes until it is told to end."""

    def __init__(self, turns: Turns, **limits: float) -> None:
        self.turns = turns
        self.limits = limits
        self.out = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self.turns.turn(**self.limits):
            self.out.set()
            await self.end.wait()
            self.turns.gate.answered(0.01, now=now())


def test_no_more_are_in_flight_than_the_gate_allows_and_they_go_in_their_order() -> None:
    async def scenario() -> None:
        turns = Turns(Gate())
        queries = [Query(turns) for _ in range(FEWEST_CONNECTIONS + 3)]
        await queries[FEWEST_CONNECTIONS - 1].out.wait()
        assert [query.out.is_set() for query in queries] == [True] * FEWEST_CONNECTIONS + [False] * 3
        for place in range(3):
            queries[place].end.set()
            await queries[FEWEST_CONNECTIONS + place].out.wait()
        for query in queries:
            query.end.set()
        await asyncio.gather(*(query.task for query in queries))
        assert turns.gate.in_flight == 0

    asyncio.run(scenario())


def test_one_that_is_cancelled_at_the_gate_or_in_flight_disturbs_no_other() -> None:
    async def scenario() -> None:
        turns = Turns(Gate(most=1))
        first, second, third, fourth = (Query(turns) for _ in range(4))
        await first.out.wait()
        second.task.cancel()
        first.task.cancel()
        await third.out.wait()
        third.end.set()
        await fourth.out.wait()
        fourth.end.set()
        await fourth.task
        assert turns.gate.in_flight == 0

    asyncio.run(scenario())


def test_one_that_is_cancelled_in_the_moment_of_its_turn_gives_it_on() -> None:
    async def scenario() -> None:
        turns = Turns(Gate(most=1))
        first, second, third = (Query(turns) for _ in range(3))
        await first.out.wait()
        first.end.set()
        await first.task  # the second has its turn and has not run since
        second.task.cancel()
        await third.out.wait()
        third.end.set()
        await third.task
        assert turns.gate.in_flight == 0

    asyncio.run(scenario())


def test_one_at_its_deadline_passes_a_pause_and_all_others() -> None:
    async def scenario() -> None:
        turns = Turns(Gate())
        turns.gate.begin(now())
        turns.gate.refused(3600.0, now=now())
        patient, hurried, late = Query(turns), Query(turns, urgent_in=0.1), Query(turns, urgent_in=0.0)
        await late.out.wait()
        await hurried.out.wait()
        assert not patient.out.is_set()
        for query in (late, hurried):
            query.end.set()
            await query.task
        patient.task.cancel()

    asyncio.run(scenario())


def test_one_that_is_let_wait_for_too_long_is_told() -> None:
    async def scenario() -> None:
        turns = Turns(Gate(most=1))
        first = Query(turns)
        await first.out.wait()
        with pytest.raises(NoTurn):
            async with turns.turn(urgent_in=0.0, give_up_in=0.1):
                raise AssertionError("it had no turn")
        first.end.set()
        await first.task
        assert turns.gate.in_flight == 0

    asyncio.run(scenario())


def test_an_error_within_a_turn_gives_the_place_back() -> None:
    async def scenario() -> None:
        turns = Turns(Gate(most=1))
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with turns.turn():
                    raise ZeroDivisionError
        assert turns.gate.in_flight == 0

    asyncio.run(scenario())
