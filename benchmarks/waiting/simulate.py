"""Polls per video at equal mean delay: our schedule beside a fixed interval, by calculation alone.

No network and no clock: a video is a generation time, a reply is whether it is over and perhaps a progress,
and the schedule is the one that the trigger uses. Beside it a fixed interval of the length at which the same
videos are noticed with the same mean delay.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.waiting.schedules import Poller

__all__ = ["simulation"]

Record = dict[str, Any]
#: Percent that a reply tells of a video, from its share that is done (0 to 1).
Telling = Callable[[float], int | None]


@dataclass(frozen=True)
class Family:
    """The generation times of one kind of model: the wire contract, section 5.

    :param draw: seconds that one video takes.
    """

    model: str
    draw: Callable[[random.Random], float]


def _between(shortest: float, longest: float) -> Callable[[random.Random], float]:
    return lambda chance: chance.uniform(shortest, longest)


def _around(
    median: float, spread: float, shortest: float, longest: float
) -> Callable[[random.Random], float]:
    return lambda chance: min(max(chance.lognormvariate(math.log(median), spread), shortest), longest)


FAMILIES = (
    Family("veo3.1-fast", _around(90.0, 0.5, 30.0, 250.0)),
    Family("veo3", _around(100.0, 0.2, 50.0, 250.0)),
    Family("sora-2", _between(150.0, 300.0)),
    Family("grok-video-3", _between(14.0, 24.0)),
)

#: As many videos of each.
ALL = "all four alike"
#: new-api hears from its upstream so rarely: there a video ends when that is noticed.
NEW_API_REFRESH = 15.0


def _linear(done: float) -> int | None:
    return int(100 * done)


def _in_steps(done: float) -> int | None:
    return int(10 * done) * 10


def _stalls(done: float) -> int | None:
    """Stands still at half for two fifths of the time."""
    return int(100 * (done if done < 0.5 else max(0.5, (done - 0.9) * 5 + 0.5)))


def _sticks(done: float) -> int | None:
    """Is at 99 when three fifths are done."""
    return int(min(99.0, 165 * done))


def _backwards(done: float) -> int | None:
    """Begins anew twice, as a generation that is retried upstream does."""
    return int(100 * done * 3) % 100


def _none(_: float) -> int | None:
    return None


@dataclass(frozen=True)
class Guess:
    """What the schedule knows beforehand and is told on the way.

    :param name: how the tables name it.
    :param kind: ``plain`` (nothing wrong, no progress), ``progress``, or ``wrong``: each has its bound.
    :param history: factor by which earlier videos, which it has seen, differ from these; None: it saw none.
    :param telling: the progress in the replies.
    :param refresh: seconds between the moments at which the gateway itself notices an end.
    """

    name: str
    kind: str
    history: float | None = None
    telling: Telling = _none
    refresh: float = 0.0


GUESSES = (
    Guess("nothing known but the model", "plain"),
    Guess("earlier videos", "plain", history=1.0),
    Guess("earlier videos, gateway refreshes every 15 s", "plain", history=1.0, refresh=NEW_API_REFRESH),
    Guess("progress", "progress", telling=_linear),
    Guess("earlier videos and progress", "progress", history=1.0, telling=_linear),
    Guess("progress in steps of 10", "progress", telling=_in_steps),
    Guess("earlier videos took twice as long", "wrong", history=2.0),
    Guess("earlier videos took half as long", "wrong", history=0.5),
    Guess("progress stalls at 50", "wrong", telling=_stalls),
    Guess("progress sticks at 99", "wrong", telling=_sticks),
    Guess("progress runs backwards", "wrong", telling=_backwards),
)
#: What the ratio of polls may be at most.
BOUNDS = {"plain": 0.5, "progress": 0.3, "wrong": 1.1}
#: No wait is longer than this many seconds: a schedule that never queries again would never be found out.
_END = 86_400.0


def watch(poller: Poller, seconds: float, ends: float, telling: Telling) -> tuple[int, float]:
    """Poll one video until its end is seen.

    :param seconds: that it takes.
    :param ends: when the gateway says so.
    :returns: the polls, and the delay in seconds between its end and the poll that saw it.
    """
    age, polls = poller.first_delay(), 1
    while age < ends:
        if age > _END:
            raise RuntimeError(f"{poller} did not see the end of a video of {seconds:.0f} s within a day")
        age += poller.next_delay(age, telling(min(age / seconds, 0.999)))
        polls += 1
    return polls, age - ends


def fixed_with_delay(delay: float, ends: Iterable[float]) -> tuple[float, float]:
    """The fixed interval that sees videos *delay* seconds late in the mean, and its mean polls per video.

    The first query is a whole interval after the submission, and where in an interval a video ends is chance.
    """
    interval = 2 * delay
    return interval, statistics.mean(ends) / interval + 0.5


def ends_of(videos: Sequence[float], refresh: float, chance: random.Random) -> list[float]:
    """When the gateway says that these are over."""
    if not refresh:
        return list(videos)
    phases = [chance.uniform(0, refresh) for _ in videos]
    return [
        phase + refresh * math.ceil((video - phase) / refresh)
        for video, phase in zip(videos, phases, strict=True)
    ]


def _one(family: Family, guess: Guess, count: int, chance: random.Random) -> Record:
    videos = [family.draw(chance) for _ in range(count)]
    ends = ends_of(videos, guess.refresh, chance)
    earlier: list[float] = []
    if guess.history:
        drawn = [family.draw(chance) * guess.history for _ in range(20)]
        earlier = ends_of(drawn, guess.refresh, chance)
    seen = [
        watch(Poller(family.model, earlier, chance.uniform), video, end, guess.telling)
        for video, end in zip(videos, ends, strict=True)
    ]
    polls = statistics.mean(count for count, _ in seen)
    delay = statistics.mean(late for _, late in seen)
    interval, fixed_polls = fixed_with_delay(delay, ends)
    return {
        "polls": polls,
        "delay": delay,
        "longest_delay": max(late for _, late in seen),
        "interval": interval,
        "fixed_polls": fixed_polls,
        "ratio": polls / fixed_polls,
    }


def simulation(quick: bool) -> Iterator[Record]:
    """Each guess, right or wrong, for each kind of model and all; medians of five draws of 400 videos."""
    for guess in GUESSES:
        told = {"guess": guess.name, "kind": guess.kind, "bound": BOUNDS[guess.kind]}
        of_all: list[Record] = []
        for family in FAMILIES:
            runs = [
                _one(family, guess, 100 if quick else 400, random.Random(seed))  # noqa: S311  no secret
                for seed in range(1 if quick else 5)
            ]
            of_all.append({name: statistics.median(run[name] for run in runs) for name in runs[0]})
            yield {"who": family.model, **told, **of_all[-1]}
        mean = {name: statistics.mean(record[name] for record in of_all) for name in of_all[0]}
        yield {"who": ALL, **told, **mean, "ratio": mean["polls"] / mean["fixed_polls"]}
