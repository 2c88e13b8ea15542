"""A list through attempts that die anywhere, while it is reordered and grows: nothing is paid twice."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import AirflowException

from airflow_video_provider.gateway.client import Gateway as Client
from airflow_video_provider.ledger.stores import EntryLedger, StateStoreLedger
from tests.airflow.support import Clock, Gateway, Memory, StateStore

ATTEMPTS = 12
FAULTS = ("", "", "", " [create-drop-paid]", " [moderation]")
PLANS = [pytest.param(seed, marks=[] if seed < 3 else pytest.mark.slow) for seed in range(24)]


class Killed(BaseException):
    """What SIGKILL is to a process, as far as one process can be both the killed one and the test."""


class Blow:
    """Strikes one call of an attempt, whichever thread makes it."""

    def __init__(self, dice: random.Random) -> None:
        self.where = dice.choice(["submit", "update", "nowhere"])
        self.call = dice.randint(1, 8)
        self.after = dice.random() < 0.5
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    def at(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self._calls[name] += 1
                struck = name == self.where and self._calls[name] == self.call
            if struck and not self.after:
                raise Killed
            result = real(*args, **kwargs)
            if struck:
                raise Killed
            return result

        return call


def memory_of(seed: int, folder: Path) -> Memory:
    if seed % 3 == 0:
        return Memory(store=StateStore())
    return Memory(keep="reuse") if seed % 3 == 1 else Memory(path=(folder / "ledger").as_uri())


@pytest.mark.parametrize("seed", PLANS)
def test_nothing_is_paid_twice_wherever_attempts_die_and_however_the_list_changes(
    connection: str,
    gateway: Gateway,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seed: int,
) -> None:
    dice, memory = random.Random(seed), memory_of(seed, tmp_path)  # noqa: S311  a plan, no secret
    prompts = [f"a fox, {seed}, {number}{dice.choice(FAULTS)}" for number in range(6)]
    for attempt in range(ATTEMPTS):
        blow = Blow(dice)
        dice.shuffle(prompts)
        if dice.random() < 0.3:
            prompts.append(f"a heron, {seed}, {attempt}")
        with monkeypatch.context() as patch, suppress(Killed, AirflowException):
            patch.setattr(Client, "submit", blow.at("submit", Client.submit))
            for kind in (EntryLedger, StateStoreLedger):
                patch.setattr(kind, "update", blow.at("update", kind.update))
            memory.attempt(None, prompts=prompts, deferrable=False, parallel=dice.randint(1, 4))
        memory.retry()
    paid = Counter(payment["prompt"] for payment in gateway.payments)
    assert paid
    assert max(paid.values()) == 1, paid
    assert set(paid) <= set(prompts)
