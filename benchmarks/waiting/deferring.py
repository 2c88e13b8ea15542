"""Defer task instances of a run to triggers, as a worker does; run inside the Airflow that is measured.

    python -m benchmarks.waiting.deferring < ORDERS

A thousand workers that each defer one task would keep two cores busy for a quarter of an hour, and it is not
them that are measured. So the run is Airflow's own, and the rows of its task instances are changed as a
deferral changes them. ORDERS is a JSON list of

    {"run_id", "task_id", "waiter", "numbers", "interval"}  to what waits for the gateway's tasks
    {"run_id", "task_id", "time_delta", "deltas"}           to triggers of a class path, for so many seconds
    {"run_id", "end": true}                                 end what is deferred

Prints the moments that triggers wait for, by map index, as JSON on the last line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from benchmarks.waiting.waiters import WAITERS

__all__: list[str] = []


def _triggers(order: dict[str, Any]) -> Iterator[Any]:
    if "waiter" in order:
        for number in order["numbers"]:
            yield WAITERS[order["waiter"]].trigger(number, order["interval"])
        return
    module, _, name = order["time_delta"].rpartition(".")
    for delta in order["deltas"]:
        yield getattr(import_module(module), name)(timedelta(seconds=delta))


def _defer(instances: Iterable[Any], triggers: Iterable[Any]) -> dict[int, str]:
    now, moments = datetime.now(UTC), {}
    for instance, trigger in zip(instances, triggers, strict=True):
        instance.state, instance.trigger = "deferred", trigger
        instance.next_method, instance.next_kwargs = "execute_complete", {}
        instance.start_date, instance.try_number = now, 1
        if "moment" in (arguments := trigger.kwargs):
            moments[instance.map_index] = arguments["moment"].isoformat()
    return moments


def carry_out(order: dict[str, Any]) -> dict[int, str]:
    """Defer, or end, the task instances of a run; return the moments that triggers wait for."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session

    # Made beforehand: SQLite knows one writer at a time, and the triggerer has its heartbeat to write.
    triggers = [] if order.get("end") else [Trigger.from_object(trigger) for trigger in _triggers(order)]
    with create_session() as session, session.no_autoflush:
        instances = session.query(TaskInstance).filter_by(run_id=order["run_id"])
        if order.get("end"):
            for instance in instances.filter_by(state="deferred"):
                instance.state, instance.trigger = "success", None
            return {}
        of_task = instances.filter_by(task_id=order["task_id"]).order_by(TaskInstance.map_index)
        return _defer(of_task.all(), triggers)


def main() -> None:
    """Carry out the orders on standard input."""
    moments: dict[int, str] = {}
    for order in json.load(sys.stdin):
        moments |= carry_out(order)
    print(json.dumps(moments))


if __name__ == "__main__":
    main()
