"""Run many waits on one event loop, in a process of its own, and measure that process.

    python -m benchmarks.waiting.drive ORDER RESULT

ORDER is a JSON file with the fields of :class:`Order`, RESULT is written. The connections of the waits are in
the environment. What waits is run as a triggerer runs it: ``async for event in trigger.run()``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.waiting.gateway import number_of
from benchmarks.waiting.waiters import LIST, WAITERS, list_trigger

__all__ = ["Order"]

#: Seconds between the ticks that show when the loop stood still.
TICK = 0.01
#: Seconds over which the process is measured before anything waits: what that costs is taken off.
IDLE = 2.0


@dataclass(frozen=True)
class Order:
    """What to run and how long.

    :param waiter: a name of ``WAITERS``.
    :param waits: how many, all begun in the same second.
    :param interval: seconds between the queries of each.
    :param control: path of the gateway's control socket.
    :param settle: seconds before the first window, at least; the windows begin when every task has been
        queried once, or after three times as long.
    :param windows: how many stretches of time are measured, one after the other.
    :param window: seconds of each.
    :param spread: seconds over which the waits are begun, evenly.
    :param rate: waits begun in a second, for as long as the run takes, beside none at the start.
    :param limits: seconds for which the gateway answers 429 at the start of each window; 0 for never.
    """

    waiter: str
    waits: int
    interval: float
    control: str
    settle: float
    windows: int
    window: float
    spread: float = 0.0
    rate: float = 0.0
    limits: int = 0


@dataclass
class Ticker:
    """The longest time for which the loop stood still since it was last read."""

    longest: float = 0.0

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, time.perf_counter() - before - TICK)

    def read(self) -> float:
        """Return the longest stall, in seconds, and begin anew."""
        longest, self.longest = self.longest, 0.0
        return longest


@dataclass
class Waits:
    """The running waits and what came of them."""

    order: Order
    ended: dict[str, float] = field(default_factory=dict)
    """When the event of a task came, by its number."""
    failed: list[str] = field(default_factory=list)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _count: int = 0

    def begin(self) -> None:
        """Begin one wait for a task that begins now."""
        number = self._new_number()
        self._start(WAITERS[self.order.waiter].trigger(number, self.order.interval), str(number))

    async def begin_all(self) -> None:
        """Begin as many as the order says, or at the rate that it says, for ever."""
        order = self.order
        if order.waiter == LIST:
            numbers = [self._new_number() for _ in range(order.waits)]
            self._start(list_trigger(numbers, order.interval), "list")
            return
        began, apart = time.perf_counter(), 1 / order.rate if order.rate else order.spread / order.waits
        for count in range(sys.maxsize if order.rate else order.waits):
            if apart:
                await asyncio.sleep(began + count * apart - time.perf_counter())
            self.begin()

    def _new_number(self) -> int:
        self._count += 1
        return number_of(time.time(), self._count)

    def _start(self, trigger: Any, name: str) -> None:
        task = asyncio.create_task(self._wait(trigger, name))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _wait(self, trigger: Any, name: str) -> None:
        try:
            async for event in trigger.run():
                self.ended[name] = time.time()
                if not WAITERS[self.order.waiter].succeeded(event.payload):
                    self.failed.append(str(event))
        except Exception as error:  # a triggerer fails the task for whatever a trigger raises
            self.failed.append(repr(error))


class Control:
    """The gateway's control socket, without a stall of the loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return the reply."""
        self._writer.write(json.dumps(command).encode() + b"\n")
        return dict(json.loads(await self._reader.readline()))


async def windows(
    order: Order, control: Control, ticker: Ticker, idle: float
) -> AsyncIterator[dict[str, Any]]:
    """Measure one stretch of time after the other.

    :param idle: seconds of CPU in a second that are spent without any wait.
    """
    for _ in range(order.windows):
        ticker.read()
        before = await control.ask(**({"limit": order.limits} if order.limits else {}))
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(order.window)
        seconds = time.perf_counter() - began
        spent = time.process_time() - cpu - idle * seconds
        after = await control.ask()
        yield {
            "begin": before["now"],
            "seconds": seconds,
            "cpu": spent,
            "gateway_cpu": after["cpu"] - before["cpu"],
            "polls": after["requests"] - before["requests"],
            "opened": after["accepted"] - before["accepted"],
            "stall": ticker.read(),
        }


async def measure(order: Order) -> dict[str, Any]:
    """Begin the waits, let them settle, measure the windows."""
    control = Control(*await asyncio.open_unix_connection(order.control, limit=2**26))
    waits, ticker = Waits(order), Ticker()
    # The first trigger imports what all need, before anything is measured.
    WAITERS[order.waiter].trigger(0, order.interval)
    ticking = asyncio.create_task(ticker.run())
    before = time.process_time()
    await asyncio.sleep(IDLE)
    idle = (time.process_time() - before) / IDLE
    process = psutil.Process()
    memory = process.memory_info().rss
    ticker.read()
    began = time.time()
    beginning = asyncio.create_task(waits.begin_all())
    await asyncio.sleep(order.settle)
    while not order.rate and time.time() - began < 3 * order.settle:
        if (await control.ask())["tasks"] >= order.waits:
            break
        await asyncio.sleep(0.5)
    start_stall = ticker.read()
    measured = [window async for window in windows(order, control, ticker, idle)]
    counts = await control.ask(bins=True)
    result = {
        "windows": measured,
        "idle": idle,
        "memory": process.memory_info().rss - memory,
        "start_stall": start_stall,
        "first_round": (counts["first_round"] or began) - began,
        "counts": counts,
        "told": await control.ask(told=True),
        "ended": waits.ended,
        "failed": waits.failed,
    }
    for task in (ticking, beginning):
        task.cancel()
    return result


def main() -> None:
    """Carry out an order, and end without the ceremony of cancelling thousands of waits."""
    order = Order(**json.loads(Path(sys.argv[1]).read_text()))
    for module in WAITERS[order.waiter].without:
        sys.modules[module] = None  # type: ignore[assignment]  # the import system's word for "is not there"
    result = asyncio.new_event_loop().run_until_complete(measure(order))
    Path(sys.argv[2]).write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
