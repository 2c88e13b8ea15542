"""What a task cost, as the gateway tells it: numbers as they are, under the names that it gives them.

No currency is made up: ``{"cost": 0.5}`` is what OpenRouter calls a cost (US dollars, by its documents),
``{"quota": 5750000}`` are units of that new-api site, ``{"cost_in_usd_ticks": …}`` is xAI's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from airflow_video_provider.gateway.places import HOLDERS, Place, at

__all__ = ["read_usage"]

#: Where the numbers lie, below the task: what is in ``usage`` goes by its own name, all else by its path.
#: Sources: LiteLLM, OpenRouter, DashScope, Ark and xAI (usage), Runway (cost.credits), Replicate (metrics),
#: new-api (quota), Vidu (credits), Kling (final_unit_deduction).
_PLACES: tuple[Place, ...] = (
    ("usage",), ("cost",), ("billed_duration",), ("quota",), ("credits",), ("metrics",),
    ("final_unit_deduction",), ("video", "cost"),
)  # fmt: skip
_MOST = 32
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_usage(body: object, more: Iterable[Place] = ()) -> dict[str, int | float] | None:
    """All numbers that tell what a task cost, None where there are none.

    :param body: the decoded reply.
    :param more: further places, a dialect's ``cost_places``.
    """
    found: dict[str, int | float] = {}
    for place in more:
        for name, number in _numbers(_within_task(place), at(body, place)):
            found.setdefault(name, number)
    for holder in HOLDERS:
        task = at(body, holder) if holder else body
        if isinstance(task, dict):
            for place in _PLACES:
                for name, number in _numbers(place, at(task, place)):
                    found.setdefault(name, number)
    return dict(list(found.items())[:_MOST]) or None


def _within_task(place: Place) -> Place:
    """A place without what the task lies in, which is no part of the number's name."""
    common = max((holder for holder in HOLDERS if place[: len(holder)] == holder), key=len)
    return place[len(common) :] or place


def _numbers(place: Place, value: object, depth: int = 0) -> Iterator[tuple[str, int | float]]:
    names = place[1:] if place[0] == "usage" and (len(place) > 1 or isinstance(value, dict)) else place
    if isinstance(value, dict):
        for name, inner in value.items():
            if depth < 3 and isinstance(name, str) and _NAME.fullmatch(name):
                yield from _numbers((*place, name), inner, depth + 1)
    # Beyond 2**53 no metrics backend keeps a number as it is.
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 2**53:
        yield ".".join(map(str, names)), value
