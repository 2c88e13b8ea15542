"""The store of one sandbox, and a task's state as a pure function of (task, now).

Nothing ticks: a task is what was ordered and when, and its state is worked out whenever somebody asks.
So a test that moves its clock sees exactly what a user who waits sees.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from airflow_video_provider.sandbox.faults import Faults, Mode, base_model


class Dialect(StrEnum):
    """The families of endpoints."""

    UNIFIED = "unified"
    OPENAI = "openai"
    NEWAPI = "newapi"


class Phase(StrEnum):
    """Where a task stands, before any gateway's word for it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Family:
    """What a model's name decides.

    :param cents: price of one create call, in US cents.
    :param steps: (fraction of the generation time, the unified dialect's word from there on).
    :param signed: whether the CDN wants a signature that expires.
    :param seconds: length of the video when none is asked for; only told, never rendered.
    """

    name: str
    prefixes: tuple[str, ...]
    cents: int
    steps: tuple[tuple[float, str], ...]
    seconds: str
    signed: bool = False


_PLAIN_STEPS = ((0.0, "pending"), (0.1, "processing"))

FAMILIES: tuple[Family, ...] = (
    Family(
        "veo",
        ("veo",),
        35,
        (
            (0.0, "pending"),
            (0.05, "image_uploading"),
            (0.1, "image_processing"),
            (0.15, "video_generating"),
            (0.75, "video_generation_completed"),
            (0.8, "video_upsampling"),
        ),
        "8",
    ),
    # The outer word stays "pending" to the end (seed 001); the truth is in detail.pending_info.
    Family("sora", ("sora-2",), 15, ((0.0, "pending"),), "10"),
    Family("grok", ("grok",), 10, _PLAIN_STEPS, "6"),
    Family("kling", ("kling",), 28, _PLAIN_STEPS, "5", signed=True),
    Family(
        "generic",
        (
            "doubao-seedance",
            "hailuo",
            "hunyuan-video",
            "jimeng",
            "luma",
            "ltx",
            "minimax",
            "pika",
            "pixverse",
            "runway",
            "seedance",
            "vidu",
            "wan",
        ),
        25,
        _PLAIN_STEPS,
        "5",
        signed=True,
    ),
)


def family_of(model: str) -> Family | None:
    """The family that a model belongs to, or ``None``: a gateway has no channel for it."""
    name = base_model(model).casefold()
    return next((family for family in FAMILIES if name.startswith(family.prefixes)), None)


@dataclass(frozen=True, slots=True)
class Task:
    """One accepted create call. Never changes; see ``observe``.

    :param row: the number of the row in the gateway's database, which new-api tells as well.
    :param model: as asked for, faults included.
    :param body: the create call's body, files replaced by their description.
    :param created: epoch seconds.
    :param seconds: generation time, faults included.
    """

    id: str
    row: int
    dialect: Dialect
    family: Family
    model: str
    prompt: str
    body: Mapping[str, Any]
    created: float
    seconds: float
    faults: Faults

    @property
    def base(self) -> str:
        """The model's name without the faults in it."""
        return base_model(self.model)

    @property
    def upsampled(self) -> bool:
        """Whether a second, larger file is made (veo only, as on the real gateways)."""
        return self.family.name == "veo" and self.body.get("enable_upsample") is True

    @property
    def videos(self) -> int:
        """How many videos it makes."""
        return int(min(max(self.faults.get("videos", 1), 1), MOST_VIDEOS))

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of its files: of the first video, then the other videos."""
        return (*VARIANTS, *(f"video-{number}.mp4" for number in range(2, self.videos + 1)))


@dataclass(frozen=True, slots=True)
class View:
    """What can be said of a task at one moment.

    :param fraction: how much of the generation time has passed, 0..1.
    :param step: the unified dialect's status word.
    :param changed: when ``step`` was reached, epoch seconds.
    :param ended: when the task ended, epoch seconds; ``None`` while it has not.
    """

    phase: Phase
    fraction: float
    step: str
    changed: float
    ended: float | None = None
    reason: str = ""
    code: str = ""

    @property
    def percent(self) -> int:
        """Progress as 0..100; 100 only for what succeeded."""
        return 100 if self.phase is Phase.SUCCEEDED else min(99, int(self.fraction * 100))


@dataclass(frozen=True, slots=True)
class Ending:
    """How and when a task ends; ``at`` is a fraction of the generation time."""

    phase: Phase
    at: float
    step: str
    reason: str = ""
    code: str = ""


_GOOD_END = Ending(Phase.SUCCEEDED, 1.0, "completed")

ENDINGS: Mapping[str, Ending] = {
    "never": Ending(Phase.RUNNING, math.inf, ""),
    "fail": Ending(
        Phase.FAILED, 0.5, "failed", "generation failed: the upstream model gave up", "generation_failed"
    ),
    "fail-moderation": Ending(
        Phase.FAILED,
        1.0,
        "failed",
        "Your request was blocked by our moderation system.",
        "moderation_blocked",
    ),
    "fail-output": Ending(
        Phase.FAILED,
        1.0,
        "failed",
        "The request failed because the output video may contain sensitive information.",
        "OutputVideoSensitiveContentDetected",
    ),
    "cancelled": Ending(Phase.CANCELLED, 0.5, "cancelled", "cancelled by the operator of the gateway"),
    "expired": Ending(Phase.EXPIRED, 1.0, "expired", "the task waited too long and expired"),
}
"""Fault -> ending; without one of them a task succeeds."""


def ending_of(task: Task) -> Ending:
    """How this task ends."""
    return next((ending for name, ending in ENDINGS.items() if name in task.faults), _GOOD_END)


def observe(task: Task, now: float) -> View:
    """The state of a task at ``now`` (epoch seconds): nothing else goes into it."""
    elapsed = max(0.0, now - task.created)
    fraction = min(1.0, elapsed / task.seconds) if task.seconds > 0 else 1.0
    ending = ending_of(task)
    if fraction >= ending.at:
        ended = task.created + task.seconds * ending.at
        return View(
            ending.phase, min(fraction, ending.at), ending.step, ended, ended, ending.reason, ending.code
        )
    start, step = [(at, word) for at, word in _steps(task) if at <= fraction][-1]
    phase = Phase.QUEUED if fraction < 0.1 else Phase.RUNNING
    return View(phase, min(fraction, 0.99), step, task.created + start * task.seconds)


def _steps(task: Task) -> list[tuple[float, str]]:
    def happens(word: str) -> bool:
        if word.startswith("image_"):
            return bool(task.body.get("images"))
        return task.upsampled or word not in ("video_generation_completed", "video_upsampling")

    return [(at, word) for at, word in task.family.steps if happens(word)]


@dataclass(slots=True)
class Store:
    """Everything a sandbox remembers; under all dialects at once, for they are doors to one gateway.

    Requests and leaks are bounded: a sandbox may run for weeks.
    """

    seed: str
    tasks: dict[str, Task] = field(default_factory=dict)
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    payments: list[dict[str, Any]] = field(default_factory=list)
    cents: int = 0
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))
    leaks: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=1000))
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    mode: Mode = field(default_factory=Mode)
    rows: int = 0
    ahead: float = 0.0

    def count(self, *key: str) -> int:
        """Counts one more event, and returns how many there have been before it."""
        before = self.counts[key]
        self.counts[key] += 1
        return before

    def token(self, *parts: object) -> str:
        """64 hex digits that depend on the seed and ``parts`` alone."""
        return hashlib.blake2b("\n".join(map(str, (self.seed, *parts))).encode(), digest_size=32).hexdigest()

    def accept(
        self,
        *,
        dialect: Dialect,
        family: Family,
        model: str,
        prompt: str,
        body: Mapping[str, Any],
        faults: Faults,
        now: float,
        seconds: float,
    ) -> Task:
        """Takes a create call in: from here on it is paid for."""
        self.rows += 1
        task = Task(
            id=_ID_MAKERS[family.name](base_model(model), now, self.token("id", self.rows)),
            row=self.rows,
            dialect=dialect,
            family=family,
            model=model,
            prompt=prompt,
            body=body,
            created=now,
            seconds=faults.get("time", seconds * faults.get("slow", 1)),
            faults=faults,
        )
        self.tasks[task.id] = task
        self.files.update({file_name(self, task, variant): (task.id, variant) for variant in task.variants})
        self.cents += family.cents
        self.payments.append(
            {
                "time": now,
                "video_id": task.id,
                "model": model,
                "prompt": prompt,
                "dialect": str(dialect),
                "amount": family.cents / 100,
            }
        )
        return task

    def cancel(self, video_id: str, now: float) -> bool:
        """Ends a running task now, forgets an ended one; False where there is no such task."""
        task = self.tasks.get(video_id)
        if task is None:
            return False
        if observe(task, now).ended is not None:
            del self.tasks[video_id]
        else:
            # Half its time is when a cancelled task ends.
            at = ENDINGS["cancelled"].at
            self.tasks[video_id] = replace(
                task, seconds=max(0.0, now - task.created) / at, faults={"cancelled": 1}
            )
        return True

    def forget_payments(self) -> None:
        """Empties the list of payments; the tasks stay, and a ``balance`` is whole again."""
        self.payments.clear()
        self.cents = 0


VARIANTS = ("video.mp4", "upsampled.mp4", "thumbnail.jpg")
"""The files of a task that makes one video."""
MOST_VIDEOS = 8


def file_name(store: Store, task: Task, variant: str) -> str:
    """The name of one file of a task on the CDN: not to be guessed from the id."""
    return store.token("file", task.id, variant)[:30] + variant[-4:]


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def _crockford(token: str, length: int) -> str:
    return "".join(_CROCKFORD[int(token[i * 2 : i * 2 + 2], 16) % 32] for i in range(length))


def _uuid(token: str) -> str:
    return f"{token[:8]}-{token[8:12]}-4{token[13:16]}-a{token[17:20]}-{token[20:32]}"


_ID_MAKERS: Mapping[str, Callable[[str, float, str], str]] = {
    "veo": lambda model, now, token: f"{model}:{int(now)}-{_crockford(token, 10)}",
    "sora": lambda model, _, token: f"{model}:task_01{_crockford(token, 24)}",
    "grok": lambda _, __, token: f"grok:{_uuid(token)}",
    # A colon and a slash: an id goes into a path as one percent-encoded segment, or it does not arrive.
    "kling": lambda model, _, token: f"kling/{model}:{_crockford(token, 16)}",
    "generic": lambda _, __, token: _uuid(token),
}
