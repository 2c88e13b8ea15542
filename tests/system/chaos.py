"""What befalls a distributed Airflow during a test: components die or freeze, and the gateway falters.

Everything is planned from one seed before it begins: which component, at which second, for how long. What a
plan cannot know is what the components do at that second; so the moments that must hit something wait for it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import random
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psutil

from scripts.cluster import HEARTBEAT_TIMEOUT, SCHEDULERS, TRIGGERER_THRESHOLD, TRIGGERERS, WORKERS, Cluster
from scripts.services import Sandbox

GENERATE = "video.generate"


@dataclass(order=True)
class Event:
    """Something that is to happen, so many seconds after the run began.

    :param needs: it waits until this holds, but not beyond `latest`
    """

    at: float
    number: int
    name: str = field(compare=False)
    do: Callable[[], None] = field(compare=False)
    needs: Callable[[], bool] = field(compare=False, default=lambda: True)
    latest: float = field(compare=False, default=0.0)


class Chaos:
    """The plan of one seed, carried out on a run.

    :param cluster: whose components it kills, stops and starts
    :param sandbox: the gateway that it puts into its fault modes
    :param dag_id: the Dag, and `run_id` its run, whose tasks the workers have in hand
    """

    def __init__(self, cluster: Cluster, sandbox: Sandbox, *, seed: int, dag_id: str, run_id: str) -> None:
        self.cluster = cluster
        self.sandbox = sandbox
        self.dag_id = dag_id
        self.run_id = run_id
        self.log: list[str] = []
        self.suspects: set[int] = set()
        """Map indexes of the generations that a worker had in hand when it was killed or stopped."""
        self._began = time.monotonic()
        self._numbers = itertools.count()
        self._events: list[Event] = []
        self._plan(random.Random(seed))  # noqa: S311 - a plan, no secret

    # ------------------------------------------------------------------ carrying out

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def done(self) -> bool:
        return not self._events

    @property
    def waiting(self) -> list[str]:
        return [event.name for event in sorted(self._events)]

    def step(self) -> None:
        """Do what is due."""
        while self._events and self._events[0].at <= self.seconds:
            event = heapq.heappop(self._events)
            if not event.needs() and self.seconds < event.latest:
                event.at = self.seconds + 0.3
                heapq.heappush(self._events, event)
                continue
            self._note(event.name)
            event.do()

    def finish(self) -> None:
        """Bring back what is dead or stopped, and the gateway to its senses."""
        pending, self._events = sorted(self._events), []
        for event in pending:
            if event.name.startswith(("start ", "resume ")):
                self._note(f"{event.name} (at the end)")
                event.do()
        self._faults(None)

    def _note(self, text: str) -> None:
        self.log.append(f"{self.seconds:6.1f} s  {text}")

    # ------------------------------------------------------------------ planning

    def _plan(self, rng: random.Random) -> None:
        frozen, other = rng.sample(WORKERS, 2)
        # Slow answers, so that what dies and what freezes has sent create calls and not heard of them: that
        # is where double payments come from.
        name = "the gateway answers 2 s late, and 4 creates with 429"
        self._at(rng.uniform(2, 3), name, self._mode(delay=2, create=429, times=4))
        self._kill_worker(other, rng.uniform(5, 8), down=rng.uniform(1, 3), needs=self._calls(other))
        froze = rng.uniform(13, 16)
        thaw = froze + HEARTBEAT_TIMEOUT + rng.uniform(8, 14)
        self._freeze(frozen, froze, thaw - froze, needs=self._calls(frozen))
        # While one worker is frozen, the other carries the run: it dies again only after that.
        self._kill_worker(other, thaw + rng.uniform(6, 12), down=rng.uniform(1, 5), needs=self._works(other))
        self._kill_worker(
            frozen, thaw + rng.uniform(35, 45), down=rng.uniform(1, 5), needs=self._works(frozen)
        )
        dead, silent = rng.sample(TRIGGERERS, 2)
        self._kill(dead, rng.uniform(18, 30), down=rng.uniform(1, 5))
        self._freeze(silent, rng.uniform(50, 60), TRIGGERER_THRESHOLD + rng.uniform(5, 10))
        self._kill(rng.choice(SCHEDULERS), rng.uniform(12, 70), down=rng.uniform(1, 8))
        at = froze + rng.uniform(2, 5)
        while at < 110:
            self._at(at, *self._burst(rng))
            at += rng.uniform(6, 12)

    def _burst(self, rng: random.Random) -> tuple[str, Callable[[], None]]:
        times = rng.randint(3, 10)
        answer: int | str = rng.choice([429, 503, 502, "drop"])
        where = rng.choice(["query", "query", "cdn"])
        return f"the gateway fails {times} x {where}: {answer}", self._mode(**{where: answer}, times=times)

    def _at(self, at: float, name: str, do: Callable[[], None], **more: Any) -> None:
        heapq.heappush(self._events, Event(at, next(self._numbers), name, do, **more))

    def _kill(self, name: str, at: float, *, down: float) -> None:
        def kill() -> None:
            self.cluster.kill_component(name)
            self._at(self.seconds + down, f"start {name}", lambda: self._start(name))

        self._at(at, f"kill {name}", kill)

    def _kill_worker(self, name: str, at: float, *, down: float, needs: Callable[[], bool]) -> None:
        def kill() -> None:
            # Stopped first, so that what it had in hand when it died is what is noted.
            self._stop(name)
            self.cluster.kill_component(name)
            self._at(self.seconds + down, f"start {name}", lambda: self._start(name))

        self._at(at, f"kill {name}", kill, needs=needs, latest=at + 20)

    def _freeze(
        self, name: str, at: float, seconds: float, *, needs: Callable[[], bool] = lambda: True
    ) -> None:
        def freeze() -> None:
            self._stop(name)
            self._at(self.seconds + seconds, f"resume {name}", lambda: self.cluster.resume_component(name))

        self._at(at, f"stop {name} for {seconds:.0f} s", freeze, needs=needs, latest=at + 20)

    def _start(self, name: str) -> None:
        self.cluster.start_component(name, wait=False)

    def _stop(self, name: str) -> None:
        self.cluster.pause_component(name)
        if name not in WORKERS:
            return
        hand = self._in_hand(name)
        self._note(f"  {name} had in hand: {', '.join(f'{task}[{index}]' for task, index in sorted(hand))}")
        self.suspects |= {index for task, index in hand if task == GENERATE}

    def _works(self, name: str) -> Callable[[], bool]:
        """Whether a worker has tasks in hand."""
        return lambda: bool(self._in_hand(name))

    def _calls(self, name: str) -> Callable[[], bool]:
        """Whether a process of a worker is connected to the gateway: in the midst of a call."""
        port = urlsplit(self.sandbox.url).port

        def calls() -> bool:
            for process in self.cluster.members(name):
                with contextlib.suppress(psutil.Error):
                    if any(
                        connection.raddr and connection.raddr.port == port
                        for connection in process.net_connections("tcp")
                    ):
                        return True
            return False

        return calls

    def _in_hand(self, name: str) -> set[tuple[str, int]]:
        """The task instances that processes of a worker name in their titles."""
        titles = []
        for process in self.cluster.members(name):
            with contextlib.suppress(psutil.Error):
                titles.append(" ".join(process.cmdline()))
        text = "\n".join(titles)
        return {
            (task.task_id, task.map_index)
            for task in self.cluster.tasks(self.dag_id, self.run_id)
            if task.ti_id and task.ti_id in text
        }

    # ------------------------------------------------------------------ the gateway

    def _mode(self, **mode: Any) -> Callable[[], None]:
        return lambda: self._faults({"retry_after": "1", **mode} if 429 in mode.values() else mode)

    def _faults(self, mode: Mapping[str, Any] | None) -> None:
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.sandbox.url}/sandbox/faults",
            json.dumps(mode).encode() if mode is not None else None,
            method="POST" if mode is not None else "DELETE",
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10):
            pass
