"""The rows without an Airflow component: many waits on one event loop, in a process of their own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.waiting.control import ROOT, MeasuredGateway
from benchmarks.waiting.drive import Order
from benchmarks.waiting.waiters import LIST, MODEL, WAITERS

__all__ = ["cpu", "finished", "limited", "many"]

Record = dict[str, Any]
#: Seconds between queries in the rows that compare the cost of one.
INTERVAL = 10.0
#: Seconds that the gateway asks for in the row of 429s.
PAUSE = 5
PEERS = ("http", "dbt", "databricks", "common-ai")


def run(folder: Path, gateway: MeasuredGateway, order: Order, **plan: Any) -> Record:
    """Carry out an order in a process of its own, and return what it measured.

    :param plan: that of the gateway; without one no task ever ends.
    :raises RuntimeError: the process failed, or queried what the gateway does not know.
    """
    gateway.ask(plan=plan)
    written, result, log = folder / "order.json", folder / "result.json", folder / f"{order.waiter}.log"
    written.write_text(json.dumps(asdict(order)))
    result.unlink(missing_ok=True)
    with log.open("wb") as output:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.waiting.drive", str(written), str(result)],
            env={**_environment(folder), **gateway.environment()},
            stdout=output,
            stderr=output,
            cwd=ROOT,
            check=False,
            timeout=600,
        )
    if not result.exists():
        raise RuntimeError(f"{order}:\n{log.read_text(errors='replace')[-3000:]}")
    gateway.ask()
    return dict(json.loads(result.read_text()))


def _environment(folder: Path) -> dict[str, str]:
    """An Airflow of its own, of which only the configuration is read."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
    return {
        **kept,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def over(measured: Record, figure: Callable[[Record], float]) -> float:
    """The median of a figure over the windows."""
    return statistics.median(figure(window) for window in measured["windows"])


def _common(order: Order, measured: Record) -> Record:
    windows = measured["windows"]
    return {
        "who": WAITERS[order.waiter].label,
        "waits": order.waits,
        "due_per_second": order.waits / order.interval,
        "polls_per_second": over(measured, lambda window: window["polls"] / window["seconds"]),
        "cpu_ms_per_poll": over(measured, lambda window: 1000 * window["cpu"] / max(window["polls"], 1)),
        "gateway_cpu": over(measured, lambda window: window["gateway_cpu"] / window["seconds"]),
        "stall_ms": 1000 * max(window["stall"] for window in windows),
        "start_stall_ms": 1000 * measured["start_stall"],
        "first_round_intervals": measured["first_round"] / order.interval,
        "connections": measured["counts"]["peak"],
        "opened": sum(window["opened"] for window in windows),
        "failed": len(measured["failed"]),
        "failure": measured["failed"][:1],
    }


def _order(gateway: MeasuredGateway, waiter: str, waits: int, quick: bool, **more: Any) -> Order:
    order = Order(
        waiter=waiter,
        waits=waits,
        interval=INTERVAL,
        control=str(gateway.control),
        settle=22.0,
        windows=5,
        window=10.0,
    )
    order = replace(order, **more)
    return replace(order, windows=1) if quick else order


def cpu(folder: Path, gateway: MeasuredGateway, quick: bool, waits: int) -> Iterable[Record]:
    """CPU per poll, of ours and of all peers, at 200 waits or 1,000.

    Ours are all begun in the same second. Those of the peers are begun evenly over an interval, which is
    kind: begun together they query together for ever. At 200 waits the interval is 4 s, or too few queries
    would be measured.
    """
    # The thread pool of common-ai's trigger makes a TLS context for each wait: minutes for a thousand.
    waiters, interval = (PEERS, 4.0) if waits <= 200 else (("http",), INTERVAL)
    for waiter in ("ours", "ours-httpx", *waiters):
        order = _order(
            gateway, waiter, waits, quick, interval=interval, settle=2.5 * interval, window=interval
        )
        order = replace(order, spread=interval if waiter in PEERS else 0.0)
        yield _common(order, run(folder, gateway, order))


def many(folder: Path, gateway: MeasuredGateway, quick: bool) -> Iterable[Record]:
    """Ten thousand waits at a thousand polls a second; as many in one list trigger."""
    waits = 10_000
    for waiter in ("ours", LIST):
        order = _order(gateway, waiter, waits, quick, window=6.0)
        measured = run(folder, gateway, order)
        yield {
            **_common(order, measured),
            "kib_per_wait": measured["memory"] / 1024 / waits,
        }


def finished(folder: Path, gateway: MeasuredGateway, quick: bool) -> Iterable[Record]:
    """CPU per finished video: a steady stream of videos of 14 to 24 s, at equal mean detection delay.

    Ours runs with its defaults; a peer's interval is twice the delay that ours had, which is what a fixed
    interval needs for the same mean delay.
    """
    rate, delay = 10.0, 0.0
    for waiter in ("ours-adaptive", "http", "dbt", "databricks"):
        interval = 5.0 if waiter.startswith("ours") else 2 * delay
        order = _order(
            gateway, waiter, round(19 * rate), quick, interval=interval, settle=30.0, window=6.0, rate=rate
        )
        measured = run(folder, gateway, order, shortest=14.0, longest=24.0, model=MODEL)
        # What the tables of CPU hold is of no meaning where waits come and go.
        record = {"who": WAITERS[waiter].label, "interval": interval, **_endings(measured)}
        record["failed"] = len(measured["failed"])
        delay = delay or record["delay"]
        yield record


def _endings(measured: Record) -> Record:
    ended = {number: (moment, *measured["told"][number]) for number, moment in measured["ended"].items()}
    figures: dict[str, list[float]] = {"delay": [], "cpu_ms_per_video": [], "polls_per_video": []}
    for window in measured["windows"]:
        begin, end = window["begin"], window["begin"] + window["seconds"]
        here = [seen - done for seen, done, _ in ended.values() if begin <= seen < end]
        if not here:
            raise RuntimeError("no video ended in a window")
        figures["delay"].append(statistics.mean(here))
        figures["cpu_ms_per_video"].append(1000 * window["cpu"] / len(here))
        figures["polls_per_video"].append(window["polls"] / len(here))
    return {name: statistics.median(values) for name, values in figures.items()}


def limited(folder: Path, gateway: MeasuredGateway, quick: bool) -> Iterable[Record]:
    """429 with ``Retry-After: 5`` in the middle of a thousand waits, several times over."""
    waits = 1000
    for waiter, windows in (("ours", 5), ("http", 1)):
        order = _order(gateway, waiter, waits, quick, window=20.0, limits=PAUSE, windows=windows)
        measured = run(folder, gateway, order)
        due = waits / order.interval
        episodes = [_episode(measured, window, due) for window in measured["windows"]]
        yield {
            "who": WAITERS[waiter].label,
            "waits": waits,
            "failed": len(measured["failed"]),
            "connections": measured["counts"]["peak"],
            **{name: statistics.median(episode[name] for episode in episodes) for name in episodes[0]},
            "most_during_pause": max(episode["during_pause"] for episode in episodes),
        }


def _episode(measured: Record, window: Record, due: float) -> Record:
    """What came in and after one pause."""
    given = [at for at in measured["counts"]["limited"] if window["begin"] <= at < window["begin"] + PAUSE]
    # Queries that were on their way when the first 429 was given arrive within a round trip on this machine.
    in_flight = sum(at - given[0] < 0.1 for at in given)
    bins = measured["counts"]["bins"]
    after = [
        sum(bins.get(str(int((window["begin"] + PAUSE + second) * 10) + part), 0) for part in range(10))
        for second in range(int(window["seconds"]) - PAUSE)
    ]
    back = next((second for second in range(len(after)) if after[second] >= 0.9 * due), len(after))
    return {
        "in_flight": in_flight,
        "during_pause": len(given) - in_flight,
        "seconds_until_back": back,
        "most_in_a_second": max(after),
    }
