"""The table of docs/retries-and-money.md, row by row: what the next attempt does, and what is paid."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from airflow import __version__
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_video_provider.exceptions import VideoSubmitFailed
from airflow_video_provider.gateway.client import Gateway as Client
from airflow_video_provider.hooks.video import VideoHook
from airflow_video_provider.ledger import State, StateStoreLedger, Submission
from airflow_video_provider.paying import _Payment
from airflow_video_provider.submitting_many import ManySubmitter
from tests.airflow.support import (
    Clock,
    Gateway,
    Listeners,
    Memory,
    StateStore,
    TaskInstance,
    context_of,
    film,
    run,
)

pytestmark = pytest.mark.skipif(
    __version__.startswith("2."), reason="it needs no real Airflow, and is the same on each"
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "retries-and-money.md"
ROW = re.compile(r"^\| (?P<happened>[^|]+) \| [^|]+ \| (?P<then>[a-z-]+)[^|]* \| (?P<paid>\d) \|$", re.M)


class Killed(BaseException):
    pass


class World:
    """One task instance, its memory and its gateway."""

    def __init__(self, gateway: Gateway, clock: Clock, listeners: Listeners, connect: Any) -> None:
        self.gateway, self.clock, self.listeners, self.connect = gateway, clock, listeners, connect
        self.memory = Memory(store=StateStore())

    def dies(
        self, owner: Any, name: str, *, after: bool = False, how: Callable[[], Any] | None = None
    ) -> None:
        """The first attempt ends at a call, without any clean-up of its own."""
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs) if after else None
            if how is not None:
                how()
                return result
            raise Killed

        with patch.object(owner, name, call), suppress(Killed, AirflowException):
            self.memory.attempt()

    def then(self, prompt: str | None = "a fox in the snow", **arguments: Any) -> str:
        """What the next attempt does, in one word of the table."""
        before = self.gateway.paid
        try:
            self.memory.attempt(prompt, **arguments)
        except AirflowException as error:
            said = str(error)
            return "submits" if self.gateway.paid > before else "stops" if said else "nothing"
        return "submits" if self.gateway.paid > before else "re-attaches"

    def retry(self, prompt: str | None = "a fox in the snow", **arguments: Any) -> str:
        self.memory.retry()
        return self.then(prompt, **arguments)

    def clear(self, prompt: str | None = "a fox in the snow", **arguments: Any) -> str:
        self.memory.clear()
        return self.then(prompt, **arguments)

    def at_once(self, prompt: str | None, **arguments: Any) -> str:
        """It fails for good, so that Airflow begins no next attempt."""
        assert isinstance(self.memory.refused(prompt, **arguments), AirflowFailException)
        return "stops"


def _struck(world: World) -> str:
    class Timeout(Exception):
        pass

    def handler(*_: object) -> None:
        raise Timeout

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with suppress(Timeout):
            world.dies(Client, "submit", after=True, how=lambda: signal.raise_signal(signal.SIGALRM))
    finally:
        signal.signal(signal.SIGALRM, before)
    return world.retry()


def _struck_and_broken_off(world: World) -> str:
    real = Client.submit

    def struck(*args: Any) -> Any:
        signal.raise_signal(signal.SIGALRM)
        return real(*args)

    def handler(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with patch.object(Client, "submit", struck):
            return world.at_once("who knows [create-drop-paid]")
    finally:
        signal.signal(signal.SIGALRM, before)


def _not_stored(world: World) -> str:
    real = StateStoreLedger.update

    def broken(self: StateStoreLedger, submission: Submission) -> None:
        if submission.state is State.SUBMITTED:
            raise OSError("the store is down")
        real(self, submission)

    with patch.object(StateStoreLedger, "update", broken):
        return world.at_once("a fox in the snow")


def _died_in_execute_complete(world: World) -> str:
    waiting = world.memory.submit()
    run(waiting.trigger)
    return world.retry()


def _unreachable(world: World, *, again: bool = False) -> str:
    world.gateway.fail(query=502)
    world.memory.refused()
    if not again:
        world.gateway.heal()
    return world.retry(deferrable=False)


def _failed(world: World, times: int = 1, fault: str = "fail", **arguments: Any) -> str:
    for _ in range(times):
        world.then(f"doomed [{fault}]", **arguments)
        world.memory.retry()
    return world.then(f"doomed [{fault}]", **arguments)


def _killed(world: World, **arguments: Any) -> str:
    world.connect(extra={"dialect": "openai"})
    operator = film(deferrable=False, **arguments)

    def kill(*_: Any) -> Any:
        operator.on_kill()
        raise Killed

    with patch.object(VideoHook, "get_task", kill), suppress(Killed):
        operator.execute(context_of(world.memory.ti, world.memory.store))
    return world.retry(deferrable=False, **arguments)


def _rate_limited(world: World) -> str:
    prompt = f"a fox {uuid4().hex} [rate-limit=4]"
    assert world.then(prompt) == "stops"
    return world.retry(prompt)


def _running(world: World) -> str:
    with suppress(TaskDeferred):
        film().execute(context_of(world.memory.ti, world.memory.store))
    return world.clear()


def _succeeded_then_clear(world: World, prompt: str = "a fox in the snow", **arguments: Any) -> str:
    world.memory.attempt()
    world.listeners.succeed(world.memory.ti)
    return world.clear(prompt, **arguments)


def _on_variables(scenario: Callable[..., str], **arguments: Any) -> Callable[[World], str]:
    def on_variables(world: World) -> str:
        world.memory = Memory()
        return scenario(world, **arguments)

    return on_variables


def _taken_back(world: World) -> str:
    world.memory.attempt()
    assert world.clear("a heron [moderation]") == "stops"
    return world.clear()


def _in_doubt(world: World, *, told: bool = False) -> str:
    world.dies(Client, "submit", after=True)
    if told:
        assert world.clear() == "stops"
    return world.clear()


def _made_again(world: World) -> str:
    from types import SimpleNamespace

    world.memory.submit()
    world.memory.ti = TaskInstance(dag_run=SimpleNamespace(id=2, clear_number=0))
    return world.then()


def _dies(owner: Any, name: str, *, after: bool = False) -> Callable[[World], str]:
    def scenario(world: World) -> str:
        world.dies(owner, name, after=after)
        return world.retry()

    return scenario


def _resubmitted(world: World) -> str:
    world.dies(Client, "submit", after=True)
    return world.retry(on_unknown_submission="resubmit")


def _timed_out(world: World) -> str:
    world.memory.refused("slow [slow=3]", timeout=90)
    world.gateway.advance(200)
    return world.retry("slow [slow=3]", timeout=90)


def _other_prompt(world: World) -> str:
    world.memory.submit()
    return world.retry("a fox on try 2")


def _lost(world: World) -> str:
    world.memory.refused("a fox [query-404=always]")
    return world.retry("a fox [query-404=always]")


def _lost_and_cleared(world: World, *, found: bool) -> str:
    world.memory.submit()
    world.gateway.fail(query=404)
    assert world.retry() == "stops"
    if found:
        world.gateway.heal()
    return world.clear()


# -- lists ---------------------------------------------------------------------------------------------------

THREE = ["a fox", "a heron", "an owl"]


def _list(*prompts: str, **more: Any) -> dict[str, Any]:
    """Arguments of a list that waits in the worker and submits one after the other."""
    return {"prompts": list(prompts or THREE), "deferrable": False, "parallel": 1, **more}


def _list_dies(world: World, at: int, *, after: bool = False) -> str:
    real, calls = Client.submit, iter(range(1, 10))

    def submit(*args: Any) -> Any:
        if next(calls) != at:
            return real(*args)
        if after:
            real(*args)
        raise Killed

    with patch.object(Client, "submit", submit), suppress(Killed):
        world.memory.attempt(None, **_list())
    return world.retry(None, **_list())


def _list_dies_in_the_wait(world: World) -> str:
    with patch.object(VideoHook, "ask", side_effect=Killed), suppress(Killed):
        world.memory.attempt(None, **_list())
    return world.retry(None, **_list())


def _list_struck(world: World) -> str:
    class Timeout(BaseException):
        pass

    def handler(*_: object) -> None:
        raise Timeout

    def struck(self: Any, place: Any) -> Any:
        settled = real(self, place)
        signal.raise_signal(signal.SIGALRM)
        self._end(VideoSubmitFailed("as the main thread does when it looks"))
        return settled

    real = ManySubmitter._settle
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with patch.object(ManySubmitter, "_settle", struck), suppress(Timeout):
            world.memory.attempt(None, **_list())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert world.gateway.paid == 1
    return world.retry(None, **_list())


def _list_in_part(world: World, *prompts: str, **more: Any) -> str:
    assert world.then(None, **_list(*prompts, **more)) == "submits"
    return world.retry(None, **_list(*prompts, **more))


def _list_budget(world: World) -> str:
    doomed = _list(*(f"{prompt} [fail]" for prompt in THREE), max_total_generations=3)
    world.then(None, **doomed)
    return world.retry(None, **doomed)


def _list_then(world: World, *prompts: str, cleared: bool = False) -> str:
    world.memory.attempt(None, **_list())
    return (world.clear if cleared else world.retry)(None, **_list(*prompts))


SCENARIOS: dict[str, Callable[[World], str]] = {
    "the worker died before the intent was stored": _dies(StateStoreLedger, "update"),
    "the worker died after the intent, before the create call": _dies(Client, "submit"),
    "the worker died while the create call ran": _dies(Client, "submit", after=True),
    "the worker died before the id was stored": _dies(_Payment, "_store_id"),
    "the create call broke off (dropped connection, 5xx, timeout)": lambda world: world.at_once(
        "who knows [create-drop-paid]"
    ),
    "the id could not be stored": _not_stored,
    "`execution_timeout` struck in the create call, and the gateway answers": _struck,
    "`execution_timeout` struck in a create call that breaks off": _struck_and_broken_off,
    "the worker died after the id was stored": _dies(_Payment, "_store_id", after=True),
    "the worker died in `execute_complete`": _died_in_execute_complete,
    "still running at `timeout`": _timed_out,
    "the gateway was unreachable": _unreachable,
    "the gateway was unreachable for the retry, too": lambda world: _unreachable(world, again=True),
    "rate limit, refused connection, no channel for the model": _rate_limited,
    "refused: bad key, no balance, bad request, moderation": lambda world: world.at_once("a fox [quota]"),
    "the generation failed": _failed,
    "the generation failed, and so did `max_generations` - 1 others": lambda world: _failed(world, times=2),
    "the generation was refused by moderation": lambda world: _failed(world, fault="fail-moderation"),
    "the video was withheld by moderation": lambda world: _failed(world, fault="fail-output"),
    "the video was withheld by moderation, with `retry_refused_output=True`": lambda world: _failed(
        world, fault="fail-output", retry_refused_output=True
    ),
    "killed in the wait": _killed,
    "killed in the wait, with `cancel_on_kill=True`": lambda world: _killed(world, cancel_on_kill=True),
    "the gateway no longer knows the video": _lost,
    "templates render to another prompt on the retry": _other_prompt,
    "Clear while it runs or after it failed, same request": _running,
    'Clear after success, same request (state store, `ledger_path`, `on_clear="reuse"`)': (
        _succeeded_then_clear
    ),
    "Clear after success, same request (Variable)": _on_variables(_succeeded_then_clear),
    "Clear with another request": lambda world: _succeeded_then_clear(world, "a heron instead"),
    "Clear with a change that is refused, then the change taken back and another Clear": _taken_back,
    'Clear with `on_clear="new"`': lambda world: _succeeded_then_clear(world, on_clear="new"),
    "Clear after the gateway no longer knew the video, and it knows it again": lambda world: (
        _lost_and_cleared(world, found=True)
    ),
    "Clear after the gateway no longer knew the video, and it still does not": lambda world: (
        _lost_and_cleared(world, found=False)
    ),
    "Clear of an outcome in doubt that nobody was told of": _in_doubt,
    "Clear of an outcome in doubt that was told": lambda world: _in_doubt(world, told=True),
    "the Dag run was deleted and made again with the same run_id (Variable, `ledger_path`)": _on_variables(
        _made_again
    ),
    'an outcome in doubt, with `on_unknown_submission="resubmit"`': _resubmitted,
    "the worker died before the second create call": lambda world: _list_dies(world, 2),
    "the worker died while the second create call ran": lambda world: _list_dies(world, 2, after=True),
    "the worker died in the wait": _list_dies_in_the_wait,
    "`execution_timeout` struck in the first create call": _list_struck,
    "the second create call broke off": lambda world: _list_in_part(
        world, THREE[0], "a heron [create-drop-paid]", THREE[2]
    ),
    "the second was refused by moderation": lambda world: world.at_once(
        None, **_list(THREE[0], "a heron [moderation]", THREE[2])
    ),
    "the rate limit was met at the second": lambda world: _list_in_part(
        world, THREE[0], f"a heron {uuid4().hex} [rate-limit=4]", THREE[2]
    ),
    "bad key, no balance": lambda world: world.at_once(None, **_list("a fox [quota]", *THREE[1:])),
    "an argument of one item is wrong": lambda world: world.at_once(
        None, **_list(prompts=[*THREE[:2], {"prompt": THREE[2], "seconds": -1}])
    ),
    "the generation of the second failed": lambda world: _list_in_part(
        world, THREE[0], "a heron [fail]", THREE[2]
    ),
    "all failed, with `max_total_generations=3`": _list_budget,
    "the list is in another order on the retry, with a fourth item": lambda world: _list_then(
        world, "a lynx", *reversed(THREE)
    ),
    "templates render to other prompts on the retry of a list": lambda world: _list_then(
        world, *(f"{prompt} on try 2" for prompt in THREE)
    ),
    "Clear, same requests": lambda world: _list_then(world, cleared=True),
    "Clear with another request for the second": lambda world: _list_then(
        world, THREE[0], "a lynx", THREE[2], cleared=True
    ),
}

ROWS = {row["happened"]: (row["then"], int(row["paid"])) for row in ROW.finditer(PAGE.read_text("utf-8"))}


def test_every_row_has_its_scenario_and_every_scenario_its_row() -> None:
    assert list(ROWS) == list(SCENARIOS)


@pytest.mark.parametrize("happened", SCENARIOS)
def test_the_row(
    connection: str,
    gateway: Gateway,
    clock: Clock,
    listeners: Listeners,
    connect: Callable[..., str],
    happened: str,
) -> None:
    world = World(gateway, clock, listeners, connect)
    assert (SCENARIOS[happened](world), gateway.paid) == ROWS[happened]
