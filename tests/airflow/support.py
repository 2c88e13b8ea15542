"""What the tests in this folder share: a gateway whose clock they move, and the little of Airflow they need.

Nothing here sleeps. A video takes a minute of the gateway's own clock, and :class:`Clock` moves that one
together with the clocks that the package reads.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import pytest
from airflow.exceptions import AirflowException
from airflow.providers.common.compat.sdk import BaseSensorOperator, TaskDeferred
from airflow.triggers.base import BaseTrigger

from airflow_video_provider.gateway.pace import Gate
from airflow_video_provider.gateway.turns import Turns
from airflow_video_provider.operators.video import VideoGenerateOperator
from scripts.services import S3Server, Sandbox

MODEL = "veo3.1-fast"
SECONDS = 60.0
"""How long a generation takes, on the gateway's clock."""
T = TypeVar("T", bound=BaseTrigger)

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(
    url: str, method: str = "GET", body: object = None, *, headers: Mapping[str, str] | None = None
) -> Any:
    """One JSON request, straight to a server."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)  # noqa: S310
    with _opener.open(request, timeout=10) as reply:
        return json.loads(reply.read())


class Gateway:
    """A sandbox, as one test sees it: nothing paid, nothing asked, no faults."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.url = sandbox.url
        self.key = sandbox.key

    def forget(self) -> None:
        for path in ("payments", "requests", "leaks", "faults"):
            self.control("DELETE", path)

    def control(self, method: str, path: str, body: object = None) -> Any:
        return ask(f"{self.url}/sandbox/{path}", method, body)

    def fail(self, **mode: Any) -> None:
        """Every request of a stage fails, until :meth:`heal`: ``fail(query=503)``."""
        self.control("POST", "faults", mode)

    def heal(self) -> None:
        self.control("DELETE", "faults")

    def advance(self, seconds: float) -> None:
        self.control("POST", "clock", {"advance": seconds})

    def finish(self) -> None:
        """Let every generation under way end."""
        self.advance(SECONDS + 1)

    @property
    def payments(self) -> list[dict[str, Any]]:
        return self.control("GET", "payments")["payments"]

    @property
    def paid(self) -> int:
        return len(self.payments)

    def told(self, video_id: str) -> dict[str, Any]:
        """What the gateway was asked to make."""
        tasks = self.control("GET", "tasks")["tasks"]
        return next(task for task in tasks if task["id"] == video_id)

    @property
    def newest(self) -> dict[str, Any]:
        return self.control("GET", "tasks")["tasks"][-1]

    def requests(self, method: str | None = None) -> list[dict[str, Any]]:
        """What it was asked, oldest first."""
        noted = self.control("GET", "requests")["requests"]
        return [request for request in noted if method in (None, request["method"])]

    @property
    def leaks(self) -> list[dict[str, Any]]:
        """The requests that told the key to the host of the files."""
        return self.control("GET", "leaks")["leaks"]

    def submit(self, prompt: str, *, model: str = MODEL, path: str = "/v1/video/create", **body: Any) -> str:
        """Submit a generation as another system would, and return its id."""
        reply = ask(
            self.url + path,
            "POST",
            {"model": model, "prompt": prompt, **body},
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        return reply.get("id") or reply["task_id"]


IDLE = 0.01
"""Real seconds after which a wait at a gate is believed to be all that goes on."""


@dataclass
class _Timer:
    due: float
    call: Callable[..., None]
    args: tuple[object, ...]
    over: bool = False

    def cancel(self) -> None:
        self.over = True


class Clock:
    """The clocks of the package and of the gateway, moved together by whoever sleeps."""

    def __init__(self, gateway: Gateway | None = None) -> None:
        self._gateway = gateway
        self.ahead = 0.0
        self.sleeps: list[float] = []
        self._timers: WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Timer]] = WeakKeyDictionary()
        self._moving: asyncio.TimerHandle | None = None
        self._gates: list[Gate] = []

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.sleeps.append(seconds)
            self.ahead += seconds
            if self._gateway is not None:
                self._gateway.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        ours = (
            "hooks.video",
            "triggers.video",
            "sensors.video",
            "operators.generate",
            "operators.fetching",
            "operators.generate_many",
            "ledger.record",
            "ledger.variables",
            "paying",
            "submitting",
            "submitting_many",
            "waiting",
            "hooks.shared",
        )
        modules = [importlib.import_module(f"airflow_video_provider.{name}") for name in ours]
        modules += [sys.modules[BaseSensorOperator.__module__], importlib.import_module("tenacity.nap")]
        for module in modules:
            patch.setattr(module, "time", self)
        patch.setattr("airflow_video_provider.triggers.video.asyncio", SimpleNamespace(sleep=self.asleep))
        patch.setattr("airflow_video_provider.hooks.shared.Turns", self.turns)
        beside = SimpleNamespace(**{**vars(asyncio), "sleep": self.asleep_beside})
        patch.setattr("airflow_video_provider.hooks.many.asyncio", beside)

    def turns(self, gate: Gate) -> Turns:
        """Turns by this clock."""
        self._gates.append(gate)
        return Turns(gate, now=self.monotonic, call_later=self.call_later)  # type: ignore[arg-type]

    def call_later(self, seconds: float, call: Callable[..., None], *args: object) -> _Timer:
        """Call it at a time of this clock, which the event loop moves on once nothing else happens."""
        timers = self._timers.setdefault(asyncio.get_running_loop(), [])
        timers.append(timer := _Timer(self.monotonic() + seconds, call, args))
        self._move_on_later(timers)
        return timer

    def _move_on_later(self, timers: list[_Timer]) -> None:
        if self._moving is not None:
            self._moving.cancel()
        self._moving = asyncio.get_running_loop().call_later(IDLE, self._move_on, timers)

    def _move_on(self, timers: list[_Timer]) -> None:
        timers[:] = [timer for timer in timers if not timer.over]
        if not timers:
            return
        if not any(gate.in_flight for gate in self._gates):  # the gateway's answer takes real time
            first = min(timers, key=lambda timer: timer.due)
            self.sleep(first.due - self.monotonic())
            first.cancel()
            first.call(*first.args)
        self._move_on_later(timers)

    async def asleep_beside(self, seconds: float) -> None:
        """Sleep beside others on the same event loop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        self.call_later(seconds, woken.set)
        await woken.wait()


@dataclass
class TaskInstance:
    """As much of a task instance as an operator looks at."""

    dag_id: str = "films"
    run_id: str = "manual__1"
    task_id: str = "film"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 2
    retries: int = 2
    xcoms: dict[str, Any] = field(default_factory=dict)
    dag_run: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(id=1, clear_number=0))

    def retry(self) -> None:
        """Airflow begins the next attempt by itself."""
        self.try_number += 1

    def clear(self) -> None:
        """Somebody clears the task: as Airflow does it, in 2.11 as in 3.x."""
        self.max_tries = self.try_number + self.retries
        self.try_number += 1
        self.dag_run.clear_number += 1

    def xcom_push(self, key: str, value: Any, **_: Any) -> None:
        json.dumps(value)
        self.xcoms[key] = value

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, _: Any) -> datetime | None:
        return None


class StateStore(dict[str, Any]):
    """Airflow 3.3's task state store: JSON in, JSON out."""

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Variables(dict[str, str]):
    """Airflow's Variables, as a worker sees them: texts by name."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default)

    def set(self, key: str, value: str, description: str | None = None) -> None:
        assert description, "a person who finds it in Airflow's list must know what it is"
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Listeners(list[Any]):
    """Airflow's listeners; :meth:`succeed` is what Airflow does once it has stored a success."""

    def add_listener(self, listener: Any) -> None:
        self.append(listener)

    def succeed(self, ti: TaskInstance) -> None:
        for listener in self:
            listener.on_task_instance_success(task_instance=ti)


def context_of(ti: TaskInstance | None = None, store: StateStore | None = None) -> Any:
    ti = ti or TaskInstance()
    context = {"ti": ti, "task_instance": ti, "params": {}, "run_id": ti.run_id, "dag_run": ti.dag_run}
    return context if store is None else {**context, "task_state_store": store}


def deferred(call: Any, *args: Any) -> TaskDeferred:
    """The deferral that a call must end in."""
    with pytest.raises(TaskDeferred) as caught:
        call(*args)
    return caught.value


def resume(operator: Any, waiting: TaskDeferred, event: Mapping[str, Any], context: Any) -> Any:
    """Go on after a deferral, in an instance that knows nothing of it, as a worker does."""
    handed = json.loads(json.dumps({**(waiting.kwargs or {}), "event": event}))
    return operator.resume_execution(waiting.method_name, handed, context)


def restarted(trigger: T, **changes: Any) -> T:
    """The trigger as another triggerer makes it: from nothing but its row in the database."""
    kind = type(trigger)
    path, kwargs = trigger.serialize()
    assert path == f"{kind.__module__}.{kind.__qualname__}"
    return kind(**{**json.loads(json.dumps(kwargs)), **changes})


async def events_of(trigger: BaseTrigger) -> list[dict[str, Any]]:
    return [event.payload async for event in trigger.run()]


def run(trigger: BaseTrigger) -> dict[str, Any]:
    """Run a trigger to its one event, which must be plain JSON."""
    events = asyncio.run(events_of(restarted(trigger)))
    assert len(events) == 1
    assert json.loads(json.dumps(events[0])) == events[0]
    return events[0]


@contextmanager
def dag_file(name: str, source: str) -> Iterator[Any]:
    """A Dag from a file in the Dags folder, where Airflow 3 looks for it, and its module."""
    import os

    path = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]) / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        path.unlink()
        del sys.modules[name]


def states(dag_run: Any) -> dict[str, str]:
    """Each task's state, mapped ones with their index."""
    return {
        ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": str(ti.state)
        for ti in dag_run.get_task_instances()
    }


def film(prompt: str | None = "a fox in the snow", **changes: Any) -> VideoGenerateOperator:
    """The operator as a Dag file makes it; a new one is what every attempt gets."""
    return VideoGenerateOperator(
        **{"task_id": "film", "prompt": prompt, "model": MODEL, "deferrable": True, **changes}
    )


def finish(prompt: str | None = "a fox in the snow", context: Any = None, **changes: Any) -> Any:
    """One attempt to its end: submit, wait in the trigger, come back in a fresh instance."""
    context = context or context_of()
    try:
        return film(prompt, **changes).execute(context)
    except TaskDeferred as waiting:
        return resume(film(prompt, **changes), waiting, run(waiting.trigger), context)


def refused(prompt: str | None = "a fox in the snow", **changes: Any) -> AirflowException:
    """The error of an attempt, as the person on call reads it."""
    with pytest.raises(AirflowException) as caught:
        finish(prompt, **changes)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 1000
    return caught.value


@dataclass
class Memory:
    """A task instance and what outlives its attempts."""

    store: StateStore | None = None
    path: str | None = None
    server: S3Server | None = None
    keep: str | None = None
    ti: TaskInstance = field(default_factory=TaskInstance)

    @property
    def arguments(self) -> dict[str, Any]:
        return {"ledger_path": self.path, "on_clear": self.keep}

    def attempt(self, prompt: str | None = "a fox in the snow", **changes: Any) -> Any:
        """One attempt to its end."""
        return finish(prompt, context_of(self.ti, self.store), **{**self.arguments, **changes})

    def submit(self, prompt: str | None = "a fox in the snow", **changes: Any) -> TaskDeferred:
        """One attempt up to its deferral."""
        operator = film(prompt, **{**self.arguments, **changes})
        return deferred(operator.execute, context_of(self.ti, self.store))

    def refused(self, prompt: str | None = "a fox in the snow", **changes: Any) -> AirflowException:
        context = context_of(self.ti, self.store)
        return refused(prompt, context=context, **{**self.arguments, **changes})

    def retry(self) -> None:
        """Airflow begins the next attempt by itself."""
        self.ti.retry()

    def clear(self) -> None:
        """Somebody clears the task."""
        self.ti.clear()
