"""Generations whose first attempt is struck at a chosen point; the tests read what the next ones did."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_video_provider.ledger.stores import EntryLedger, StateStoreLedger
from airflow_video_provider.operators.video import VideoGenerateOperator


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def time_out() -> None:
    """What Airflow's own timer does when ``execution_timeout`` is over."""
    signal.raise_signal(signal.SIGALRM)


def fail() -> None:
    raise OSError("struck by the test")


BLOWS: dict[str, Callable[[], None]] = {"kill": kill, "timeout": time_out, "fail": fail}

#: Where it strikes: module, class, method, and whether before or after the method.
POINTS = {
    "before the intent": ("airflow_video_provider.paying", "pay", "before"),
    "after the intent": ("airflow_video_provider.gateway.client.Gateway", "submit", "before"),
    "after the reply": ("airflow_video_provider.gateway.client.Gateway", "submit", "after"),
    "after the record": ("airflow_video_provider.paying._Payment", "_store_id", "after"),
    "before the deferral": (
        "airflow_video_provider.operators.generate.VideoGenerateOperator",
        "_defer",
        "before",
    ),
    "before the list's deferral": (
        "airflow_video_provider.operators.generate_many.VideoList",
        "_defer",
        "before",
    ),
    "in the blocking wait": ("airflow_video_provider.hooks.video.VideoHook", "ask", "after"),
    "in execute_complete": (
        "airflow_video_provider.operators.generate.VideoGenerateOperator",
        "execute_complete",
        "before",
    ),
    "at the end of execute_complete": (
        "airflow_video_provider.operators.generate.VideoGenerateOperator",
        "execute_complete",
        "after",
    ),
}


class StruckOperator(VideoGenerateOperator):
    """A generation whose first attempt is struck.

    :param blow: what strikes: ``kill``, ``timeout`` or ``fail``.
    :param point: where; empty for nowhere.
    """

    def __init__(self, *, blow: str = "", point: str = "", sandbox: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blow, self.point, self.sandbox = blow, point, sandbox

    def execute(self, context: Any) -> Any:
        if not self.point or context["ti"].try_number > 1:
            return super().execute(context)
        if self.point == "in the create":
            threading.Thread(target=self._once_paid, daemon=True).start()
            return super().execute(context)
        if self.point == "the XCom":
            with patch.object(type(context["ti"]), "xcom_push", lambda *_, **__: fail()):
                return super().execute(context)
        with self._struck():
            return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        if context["ti"].try_number > 1 or "execute_complete" not in self.point:
            return super().execute_complete(context, event)
        if self.point.startswith("in"):
            BLOWS[self.blow]()
        result = super().execute_complete(context, event)
        BLOWS[self.blow]()
        return result

    def _struck(self) -> ExitStack:
        stack = ExitStack()
        if "execute_complete" in self.point:
            return stack
        if self.point == "before the intent":
            strike = patch("airflow_video_provider.submitting.pay", lambda *_, **__: BLOWS[self.blow]())
            stack.enter_context(strike)
            return stack
        if self.point.startswith("the memory"):
            for kind in (StateStoreLedger, EntryLedger):
                stack.enter_context(patch.object(kind, "update", self._failing(kind.update)))
            return stack
        import importlib

        path, name, when = POINTS[self.point]
        module, _, kind = path.rpartition(".")
        owner = getattr(importlib.import_module(module), kind)
        real, blow = getattr(owner, name), BLOWS[self.blow]

        def struck(*args: Any, **kwargs: Any) -> Any:
            if when == "before":
                blow()
            result = real(*args, **kwargs)
            if when == "after":
                blow()
            return result

        stack.enter_context(patch.object(owner, name, struck))
        return stack

    def _failing(self, real: Any) -> Any:
        """A memory that fails, for everything or once there is an id to remember."""
        states = {"submitted"} if self.point == "the memory, after" else {"sending", "withdrawn"}

        def update(ledger: Any, submission: Any) -> None:
            if str(submission.state) in states:
                BLOWS[self.blow]()
            real(ledger, submission)

        return update

    def _once_paid(self) -> None:
        """The create call hangs: the worker dies when the gateway has accepted and not answered."""
        while True:
            with urllib.request.urlopen(f"{self.sandbox}/sandbox/payments", timeout=10) as reply:  # noqa: S310
                paid = {payment["prompt"] for payment in json.load(reply)["payments"]}
            if paid.issuperset(self.prompts or [self.prompt]):
                BLOWS[self.blow]()
            time.sleep(0.2)


@dag(schedule=None, catchup=False, params={"rows": Param([], type="array")})
def crash_points() -> None:
    @task
    def rows(**context: Any) -> list[dict[str, Any]]:
        return list(context["params"]["rows"])

    StruckOperator.partial(
        task_id="film",
        model="sora-2",
        poll_interval=1,
        schedule="fixed",
        retries=2,
        retry_delay=timedelta(seconds=1),
        execution_timeout=timedelta(minutes=10),
    ).expand_kwargs(rows())


crash_points()
