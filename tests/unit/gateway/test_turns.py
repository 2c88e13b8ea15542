"""Turns at a gate, on a real event loop; the clock of the gate is the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

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


class Clock:
    """One that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 0.0
        self._timers: list[tuple[float, Callable[..., None], tuple[object, ...]]] = []

    def now(self) -> float:
        return self.time

    def call_later(self, seconds: float, call: Callable[..., None], *args: object) -> SimpleNamespace:
        timer = (self.time + seconds, call, args)
        self._timers.append(timer)
        return SimpleNamespace(cancel=lambda: timer in self._timers and self._timers.remove(timer))

    def move(self, seconds: float) -> None:
        until = self.time + seconds
        while due := [timer for timer in self._timers if timer[0] <= until]:
            first = min(due, key=lambda timer: timer[0])
            self._timers.remove(first)
            self.time = max(self.time, first[0])
            first[1](*first[2])
        self.time = until


def timed(clock: Clock) -> Turns:
    return Turns(Gate(most=1), now=clock.now, call_later=clock.call_later)  # type: ignore[arg-type]


def test_one_that_waits_while_nobody_gets_a_turn_is_told() -> None:
    async def scenario() -> None:
        clock = Clock()
        turns = timed(clock)
        first = Query(turns)
        await first.out.wait()
        second = Query(turns, urgent_in=100.0, patience=60.0)
        await asyncio.sleep(0)
        clock.move(159)
        await asyncio.sleep(0)
        assert not second.task.done()
        clock.move(1)
        with pytest.raises(NoTurn):
            await second.task
        first.end.set()
        await first.task
        assert turns.gate.in_flight == 0

    asyncio.run(scenario())


def test_a_queue_that_moves_is_waited_out_however_long_it_is() -> None:
    async def scenario() -> None:
        clock = Clock()
        turns = timed(clock)
        queries = [Query(turns, urgent_in=0.0, patience=60.0) for _ in range(5)]
        for query in queries:
            await query.out.wait()
            clock.move(50)
            query.end.set()
            await query.task
        assert clock.now() == 250

    asyncio.run(scenario())


def test_one_that_is_cancelled_while_it_is_given_its_turn_hangs_no_other() -> None:
    async def scenario() -> None:
        clock = Clock()
        turns = timed(clock)
        first = Query(turns)
        await first.out.wait()
        first.end.set()
        await first.task
        second, third = Query(turns), Query(turns)  # the first has just gone out: both wait for the alarm
        await asyncio.sleep(0)
        clock.move(1)
        second.task.cancel()
        await asyncio.sleep(0)
        clock.move(1)
        await third.out.wait()
        third.end.set()
        await third.task
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
