"""The rows with a real triggerer: a thousand waits, calm, after a freeze of the gateway, after a restart.

Nothing but the triggerer runs (and the gateway): the run and its task instances are Airflow's own, deferred
by :mod:`benchmarks.waiting.deferring`. CPU is that of the whole triggerer, all its processes.
"""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.waiting.control import ROOT, MeasuredGateway, sleep_until
from benchmarks.waiting.gateway import number_of
from benchmarks.waiting.waiters import WAITERS
from scripts.local_airflow import LocalAirflow

__all__ = ["triggerer"]

Record = dict[str, Any]
WAITS, INTERVAL, BESIDE = 1000, 10.0, 20
DAG = f"""
from datetime import datetime
from airflow.providers.common.compat.sdk import dag, task

@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False)
def waiting():
    @task
    def wait(number):
        pass

    @task
    def beside(number):
        pass

    wait.expand(number=list(range({WAITS})))
    beside.expand(number=list(range({BESIDE})))

waiting()
"""
#: Where the trigger that waits for a time lies, before Airflow 3 and since.
_TIME_DELTA = {
    2: "airflow.triggers.temporal.TimeDeltaTrigger",
    3: "airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
}
_BLOCKED = re.compile(r"async thread was blocked for (\d+\.\d+) seconds")
#: Seconds of the phases.
CALM, FROZEN, AFTER, RESTARTED = 50.0, 25.0, 40.0, 10.0
#: Windows that the calm phase is measured in.
WINDOWS = 5


class Triggerer(LocalAirflow):
    """A triggerer with its database, and no other component."""

    def commands(self) -> dict[str, list[str]]:
        """See the base class."""
        return {"triggerer": ["triggerer", "--skip-serve-logs", "--capacity", str(WAITS + 5 * BESIDE)]}

    def defer(self, *orders: Record) -> dict[str, str]:
        """Carry out orders of :mod:`benchmarks.waiting.deferring` inside this Airflow."""
        done = subprocess.run(
            [self.python, "-m", "benchmarks.waiting.deferring"],
            input=json.dumps(orders),
            capture_output=True,
            text=True,
            env=self._environment(),
            cwd=ROOT,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def cpu(self) -> float:
        """Seconds of CPU that its living processes have used."""
        used = 0.0
        for process in self.members("triggerer"):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    def log_size(self) -> int:
        """Bytes of the triggerer's log so far."""
        return self._log("triggerer").stat().st_size

    def blocks(self, begin: int, end: int) -> list[float]:
        """Seconds for which its loop was blocked, as it logged between two sizes of its log."""
        with self._log("triggerer").open("rb") as log:
            log.seek(begin)
            return [
                float(found) for found in _BLOCKED.findall(log.read(end - begin).decode(errors="replace"))
            ]

    def unassigned(self) -> int:
        """Triggers that the triggerer of now has not taken yet."""
        rows = self.query(
            "SELECT count(*) AS n FROM trigger WHERE triggerer_id IS NULL"
            " OR triggerer_id <> (SELECT max(id) FROM job WHERE job_type = 'TriggererJob')"
        )
        return int(rows[0]["n"])


class Stretch:
    """What the triggerer does from here to :meth:`end`.

    :param before: the gateway's counts that its own are the difference to; default: those of now.
    """

    def __init__(self, airflow: Triggerer, gateway: MeasuredGateway, before: Record | None = None) -> None:
        self._airflow, self._gateway = airflow, gateway
        self.began, self._cpu, self._log = time.time(), airflow.cpu(), airflow.log_size()
        self._before = before or gateway.ask()

    def end(self) -> Record:
        """The figures of the stretch."""
        seconds, cpu = time.time() - self.began, self._airflow.cpu() - self._cpu
        after, blocks = self._gateway.ask(), self._airflow.blocks(self._log, self._airflow.log_size())
        polls = after["requests"] - self._before["requests"]
        return {
            "polls_per_second": polls / seconds,
            "cpu_ms_per_poll": 1000 * cpu / max(polls, 1),
            "blocked": blocks,
            "connections": after["peak"],
            "opened": after["accepted"] - self._before["accepted"],
        }


def _begin(airflow: Triggerer, gateway: MeasuredGateway, who: str) -> tuple[dict[str, str], Record]:
    """Defer a thousand tasks, and some to a time; return when those are due, and what the start was like."""
    gateway.ask(plan={})
    airflow.cli("dags", "trigger", "--run-id", who, "waiting")
    numbers = [number_of(time.time(), count) for count in range(WAITS)]
    # Those beside fire one after the other: in the calm, while the gateway is frozen, and after.
    deltas = [45.0 + 5 * count for count in range(BESIDE)]
    kind = _TIME_DELTA[airflow.version[0]]
    moments = airflow.defer(
        {"run_id": who, "task_id": "beside", "time_delta": kind, "deltas": deltas},
        {"run_id": who, "task_id": "wait", "waiter": who, "numbers": numbers, "interval": INTERVAL},
    )
    return moments, _first_round(airflow, gateway)


def _first_round(airflow: Triggerer, gateway: MeasuredGateway) -> Record:
    """Wait until every trigger has been taken, and every task queried."""
    began, log = time.time(), airflow.log_size()
    while airflow.unassigned() and time.time() - began < 240:
        time.sleep(0.2)
    assigned = time.time()
    while gateway.ask()["tasks"] < WAITS and time.time() - assigned < 12 * INTERVAL:
        time.sleep(0.2)
    first_round = gateway.ask()["first_round"] or time.time()
    return {
        "first_round_intervals": (first_round - assigned) / INTERVAL,
        "missed": WAITS - gateway.ask()["tasks"],
        "blocked": airflow.blocks(log, airflow.log_size()),
    }


def _late(airflow: Triggerer, run_id: str, moments: dict[str, str]) -> Record:
    """By how much the task instances beside were woken late, in seconds."""
    rows = airflow.query(
        "SELECT map_index, updated_at FROM task_instance"
        " WHERE run_id = ? AND task_id = 'beside' AND state <> 'deferred'",
        run_id,
    )
    late = [
        datetime.fromisoformat(str(row["updated_at"])).replace(tzinfo=UTC).timestamp()
        - datetime.fromisoformat(moments[str(row["map_index"])]).timestamp()
        for row in rows
    ]
    return {
        "fired": len(late),
        "late_median": statistics.median(late) if late else None,
        "late_most": max(late, default=None),
    }


def _calm(airflow: Triggerer, gateway: MeasuredGateway, windows: int) -> Record:
    whole, parts = Stretch(airflow, gateway), []
    for number in range(windows):
        part = Stretch(airflow, gateway)
        sleep_until(whole.began + CALM * (number + 1) / windows)
        parts.append(part.end())
    medians = {
        name: statistics.median(part[name] for part in parts)
        for name in ("polls_per_second", "cpu_ms_per_poll")
    }
    return {**whole.end(), **medians}


def _freeze(airflow: Triggerer, gateway: MeasuredGateway, seconds: float) -> Record:
    """What the time after a freeze is like, with the polls of each second from 10 s before it on."""
    before, began = gateway.ask(), time.time()
    gateway.freeze()
    sleep_until(began + FROZEN)
    gateway.thaw()
    stretch = Stretch(airflow, gateway, before)
    sleep_until(stretch.began + seconds)
    figures = stretch.end()
    timeline = gateway.per_second(began - 10, time.time() - (began - 10))
    return {**figures, "timeline": timeline}


def _restart(airflow: Triggerer, gateway: MeasuredGateway, seconds: float) -> Record:
    """What follows a restart: the polls of each second from then on, and the rate once all wait again."""
    airflow.kill_triggerer(gracefully=True)
    began = gateway.ask(plan={})["now"]
    airflow.start_triggerer()
    figures = _first_round(airflow, gateway)
    stretch = Stretch(airflow, gateway)
    sleep_until(stretch.began + seconds)
    timeline = gateway.per_second(began, time.time() - began)
    return {**figures, **stretch.end(), "most_in_a_second": max(timeline), "timeline": timeline}


def triggerer(
    folder: Path, gateway: MeasuredGateway, quick: bool, python: str, freeze_peer: bool
) -> Iterator[Record]:
    """Ours in all phases, ``HttpSensorTrigger`` calm and, if *freeze_peer*, after a freeze."""
    dags = folder / "dags"
    dags.mkdir()
    (dags / "waiting.py").write_text(DAG)
    part = 0.25 if quick else 1.0
    airflow = Triggerer(home=folder / "home", dags_folder=dags, env=gateway.environment(), python=python)
    with airflow:
        airflow.cli("dags", "reserialize")
        for who in ("ours", "http"):
            common = {"who": WAITERS[who].label, "due_per_second": WAITS / INTERVAL}
            moments, begun = _begin(airflow, gateway, who)
            yield {**common, "phase": "start", **begun}
            yield {**common, "phase": "calm", **_calm(airflow, gateway, 1 if quick else WINDOWS)}
            if who == "ours" or freeze_peer:
                yield {**common, "phase": "after a freeze", **_freeze(airflow, gateway, AFTER * part)}
            yield {**common, "phase": "beside", **_late(airflow, who, moments)}
            if who == "ours":
                yield {**common, "phase": "after a restart", **_restart(airflow, gateway, RESTARTED * part)}
                airflow.defer({"run_id": who, "end": True})
