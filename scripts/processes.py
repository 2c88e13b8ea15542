"""Child processes that can be waited for and that are gone afterwards, whatever happened.

Airflow's components fork, and some of what they fork moves to a process group of its own (so that a
task can be killed apart from its supervisor). A signal to the component's group would miss those. A
session is what they cannot leave unnoticed: every component gets one, and the whole session is swept.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

T = TypeVar("T")


class ProcessError(RuntimeError):
    """A child ended, or was not ready in time; the message carries the end of its log."""


def tail(path: Path, lines: int = 30) -> str:
    """The last lines of a log, or a word on why there are none."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """What a `with` starts and stops, also when the start itself fails half-way."""

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Process:
    """One child in a session of its own, with everything it prints in one log file.

    :param user: whom it runs as, for a program that refuses to be root; None: as we do
    :param stop_signal: what asks it to end
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603 - the command is ours
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def members(self) -> list[psutil.Process]:
        """Every living process of the session: the child, its children, and orphans among them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def check(self) -> None:
        """Raise when the child has ended, with the last words of its log."""
        code = self._popen.poll()
        if code is not None:
            raise ProcessError(f"{self.name} ended with {code}; the end of {self.log}:\n{tail(self.log)}")

    def ask_to_stop(self) -> None:
        if self._popen.poll() is None:
            self._popen.send_signal(self._stop_signal)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole session, to what is forked meanwhile as well."""
        sent: set[psutil.Process] = set()
        while members := set(self.members()) - sent:
            for member in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(number)
            sent |= members

    def wait_stopped(self, timeout: float) -> bool:
        try:
            self._popen.wait(max(timeout, 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End what is left of the session. A killed process may have just forked, so look again."""
        while members := self.members():
            for member in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.send_signal(signal.SIGKILL)
            self.wait_stopped(5)
            psutil.wait_procs(members, timeout=5)
        self.wait_stopped(5)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back what Ctrl-C and `kill` raise, until the block has noted what it started.

    Between the birth of a child and the line that remembers it, an exception would leave an orphan.
    """
    held: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(handler := signal.getsignal(name)):
                before[name] = handler
                signal.signal(name, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in held:
            signal.raise_signal(number)


def stop_all(processes: Iterable[Process], *, grace: float = 4) -> None:
    """Ask all, wait for all together, then end what is left.

    A second Ctrl-C shortens the asking, never the ending.
    """
    processes = list(processes)
    try:
        for process in processes:
            process.ask_to_stop()
        deadline = time.monotonic() + grace
        for process in processes:
            process.wait_stopped(deadline - time.monotonic())
    finally:
        for process in processes:
            process.kill()


def wait_until(
    condition: Callable[[], T | None],
    *,
    timeout: float,
    what: str,
    needs: Iterable[Process] = (),
    every: float = 0.1,
) -> T:
    """Ask `condition` until it answers with something, while every process of `needs` is alive."""
    needs = list(needs)
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        for process in needs:
            process.check()
        if time.monotonic() > deadline:
            logs = "".join(f"\n--- {process.log}:\n{tail(process.log)}" for process in needs)
            raise ProcessError(f"no {what} within {timeout:g} s{logs}")
        time.sleep(every)
