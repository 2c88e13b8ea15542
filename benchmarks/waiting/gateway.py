"""A gateway in one process that answers by the clock: what every wait is measured against.

    python -m benchmarks.waiting.gateway --certificate CERT --key KEY --control SOCKET --port-file FILE

It speaks TLS and HTTP/1.1 with as little work as it can, in the words of all who are measured: the unified
dialect, an HTTP status (404 until done), dbt Cloud, Databricks and OpenAI's batches. A task is a number; when
it ends follows from the plan that was set over the control socket, so nothing is submitted.

The control socket takes one JSON object a line and answers with one: ``{"plan": {…}}`` forgets everything and
sets a plan, ``{"limit": 5}`` answers all queries of the next 5 s with 429, ``{"counts": true}`` and
``{"told": true}`` report.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Plan", "number_of"]

#: Numbers of tasks that may begin in the same millisecond.
_IN_A_MILLISECOND = 10_000
_REASONS = {200: b"200 OK", 404: b"404 Not Found", 429: b"429 Too Many Requests"}
#: Arrivals are counted in bins of so many seconds.
BIN = 0.1


def number_of(began: float, count: int) -> int:
    """The number of a task that begins at *began* (seconds since the epoch)."""
    return int(began * 1000) * _IN_A_MILLISECOND + count % _IN_A_MILLISECOND


@dataclass(frozen=True)
class Plan:
    """When tasks end.

    :param shortest: seconds; None for tasks that never end.
    :param longest: seconds; each number has a duration of its own between the two, always the same.
    :param from_number: a task began when its number says, else with its first query.
    :param model: what a reply names as the model.
    """

    shortest: float | None = None
    longest: float = 0.0
    from_number: bool = True
    model: str = "veo3.1-fast"

    def times(self, number: int, now: float) -> tuple[float, float]:
        """When the task of this number, first queried *now*, began and ends, in seconds since the epoch."""
        began = number // _IN_A_MILLISECOND / 1000 if self.from_number else now
        if self.shortest is None:
            return began, float("inf")
        part = random.Random(number).random()  # noqa: S311  no secret
        return began, began + self.shortest + (self.longest - self.shortest) * part


@dataclass(frozen=True)
class Task:
    """One task at the moment of a query."""

    number: int
    model: str
    began: float
    ends: float
    done: bool


@dataclass
class Counts:
    """What arrived since the plan was set."""

    requests: int = 0
    unknown: int = 0
    accepted: int = 0
    peak: int = 0
    """Connections open at the same time, at most."""
    limited: list[float] = field(default_factory=list)
    """When each 429 was given."""
    bins: Counter[int] = field(default_factory=Counter)
    first_round: float | None = None
    """When a task was queried for the first time, at last."""


def _unified(task: Task) -> tuple[int, dict[str, Any]]:
    reply = {
        "id": f"{task.model}:{task.number}",
        "object": "video",
        "model": task.model,
        "status": "completed" if task.done else "processing",
        "video_url": f"https://cdn.example.com/videos/{task.number}.mp4" if task.done else None,
        "enhanced_prompt": "A lighthouse at dawn, seen from the sea, slow aerial shot, volumetric light",
        "created_at": int(task.began),
        "completed_at": int(task.ends) if task.done else None,
        "status_update_time": int(time.time() * 1000),
    }
    return 200, reply


def _http(task: Task) -> tuple[int, dict[str, Any]]:
    return 200 if task.done else 404, {"id": task.number}


def _dbt(task: Task) -> tuple[int, dict[str, Any]]:
    data = {"id": task.number, "status": 10 if task.done else 3}
    return 200, {"status": {"code": 200, "is_success": True}, "data": data}


def _databricks(task: Task) -> tuple[int, dict[str, Any]]:
    ended = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}
    state = ended if task.done else {"life_cycle_state": "RUNNING", "state_message": "In run"}
    return 200, {
        "job_id": 1,
        "run_id": task.number,
        "state": state,
        "run_page_url": "https://example.com/run",
    }


def _batch(task: Task) -> tuple[int, dict[str, Any]]:
    reply = {
        "id": f"batch_{task.number}",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "input_file_id": "file-1",
        "status": "completed" if task.done else "in_progress",
        "created_at": int(task.began),
        "request_counts": {"total": 1, "completed": int(task.done), "failed": 0},
    }
    return 200, reply


Reply = Callable[[Task], tuple[int, dict[str, Any]]]
#: Where each of them queries, with the task's number in the first group; Databricks' trigger sends a body.
_ROUTES: tuple[tuple[re.Pattern[bytes], Reply], ...] = (
    (re.compile(rb"GET /v1/video/query\?id=(\d+) "), _unified),
    (re.compile(rb"GET /http/(\d+)[ ?]"), _http),
    (re.compile(rb"GET /api/v2/accounts/1/runs/(\d+)/[ ?]"), _dbt),
    (re.compile(rb'GET /api/2\.2/jobs/runs/get .*"run_id": ?(\d+)', re.DOTALL), _databricks),
    (re.compile(rb"GET /v1/batches/batch_(\d+) "), _batch),
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Gateway:
    """The tasks, and what is counted."""

    def __init__(self) -> None:
        self.open: set[Exchange] = set()
        self._limited_until, self._retry_after = 0.0, 0
        self.start_over(Plan())

    def start_over(self, plan: Plan) -> None:
        """Forget all tasks and counts."""
        self.plan, self.counts = plan, Counts(peak=len(self.open))
        self._times: dict[int, tuple[float, float]] = {}
        self._told: dict[int, float] = {}

    def answer(self, request: bytes) -> bytes:
        """The reply to a whole request."""
        now = time.time()
        self.counts.requests += 1
        self.counts.bins[int(now / BIN)] += 1
        if now < self._limited_until:
            self.counts.limited.append(now)
            return _packed(429, {"error": {"message": "too many requests"}}, retry_after=self._retry_after)
        for route, reply in _ROUTES:
            if found := route.match(request):
                return _packed(*reply(self._task(int(found[1]), now)))
        self.counts.unknown += 1
        return _packed(404, {"error": {"message": "no such route"}})

    def _task(self, number: int, now: float) -> Task:
        if number not in self._times:
            self._times[number] = self.plan.times(number, now)
            self.counts.first_round = now
        began, ends = self._times[number]
        if now >= ends:
            self._told.setdefault(number, now)
        return Task(number, self.plan.model, began, ends, now >= ends)

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command of the control socket."""
        now = time.time()
        if "plan" in command:
            self.start_over(Plan(**command["plan"]))
        if "limit" in command:
            self._limited_until, self._retry_after = now + command["limit"], command["limit"]
        if "told" in command:
            return {str(number): [self._times[number][1], told] for number, told in self._told.items()}
        bins = self.counts.bins if command.get("bins") else {}
        return {
            "now": now,
            "cpu": time.process_time(),
            "tasks": len(self._times),
            "open": len(self.open),
            **{name: value for name, value in vars(self.counts).items() if name != "bins"},
            "bins": {str(bin_): count for bin_, count in bins.items()},
        }


def _packed(status: int, body: dict[str, Any], retry_after: int | None = None) -> bytes:
    content = json.dumps(body).encode()
    pause = b"Retry-After: %d\r\n" % retry_after if retry_after is not None else b""
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        _REASONS[status], pause, len(content), content,
    )  # fmt: skip


class Exchange(asyncio.Protocol):
    """One connection, kept open for as long as its client likes."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._received = gateway, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See the base class; with TLS this is after the handshake."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        gateway = self._gateway
        gateway.open.add(self)
        gateway.counts.accepted += 1
        gateway.counts.peak = max(gateway.counts.peak, len(gateway.open))

    def data_received(self, data: bytes) -> None:
        """See the base class."""
        self._received += data
        while (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                return
            request, self._received = self._received[:end], self._received[end:]
            self._transport.write(self._gateway.answer(request))

    def connection_lost(self, _: Exception | None) -> None:
        """See the base class."""
        self._gateway.open.discard(self)


async def serve(options: argparse.Namespace) -> None:
    """Serve until the process is ended."""
    gateway = Gateway()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(gateway.obey(json.loads(line))).encode() + b"\n")
        writer.close()

    loop = asyncio.get_running_loop()
    # While it is frozen, connections wait in this queue as they would at a gateway whose workers hang.
    server = await loop.create_server(lambda: Exchange(gateway), "127.0.0.1", 0, ssl=context, backlog=4096)
    controlled = await asyncio.start_unix_server(control, options.control, limit=2**24)
    written = options.port_file.with_suffix(".new")
    written.write_text(str(server.sockets[0].getsockname()[1]))
    written.rename(options.port_file)
    async with server, controlled:
        await asyncio.gather(server.serve_forever(), controlled.serve_forever())


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("certificate", "key", "control", "port-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
