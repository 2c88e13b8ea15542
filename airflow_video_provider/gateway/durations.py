"""How long a generation is likely to take: by model family, by earlier videos, by progress.

An expectation is a log-logistic distribution, because its hazard (how likely the video ends in this very
second, given that it has not yet) rises to the likely time and falls off slowly after it: a video that is
late is neither polled as if it came any moment nor forgotten. Combining two expectations is an average in
logarithms, weighted by how sure each is.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Expectation", "History", "Progress", "expected_of_family"]

#: The standard deviation of a log-logistic distribution's logarithm, times its shape.
_SPREAD_BY_SHAPE = math.pi / math.sqrt(3)
#: e to the power of which no float holds.
_NO_FLOAT = 700


@dataclass(frozen=True, slots=True)
class Expectation:
    """When a generation is likely to end.

    :param median: seconds from the submission.
    :param spread: standard deviation of the logarithm of those seconds: 0.2 is "give or take 20 %".
    """

    median: float
    spread: float

    @property
    def shape(self) -> float:
        """Above 1, so that the hazard has a peak."""
        return max(_SPREAD_BY_SHAPE / self.spread, 1.2)

    @property
    def peak(self) -> float:
        """The age in seconds at which the hazard is highest."""
        return float(self.median * (self.shape - 1) ** (1 / self.shape))

    def hazard(self, age: float) -> float:
        """How likely a video of this *age* (seconds) ends in the next second."""
        if age < 1e-3:
            return 0.0
        # In logarithms: a narrow expectation raises to powers that no float holds.
        power = self.shape * math.log(age / self.median)
        ended = 1 / (1 + math.exp(-power)) if abs(power) < _NO_FLOAT else float(power > 0)
        return self.shape / age * ended

    def with_(self, other: Expectation) -> Expectation:
        """Both in one, each weighing as much as it is sure."""
        mine, theirs = self.spread**-2, other.spread**-2
        median = math.exp((mine * math.log(self.median) + theirs * math.log(other.median)) / (mine + theirs))
        return Expectation(median, min(self.spread, other.spread))


# -- by family ---------------------------------------------------------------------------------------------

#: Of a model that nothing is known of: the middle, in logarithms, of the 14 to 300 s that were seen of all.
UNKNOWN = Expectation(65.0, 0.8)
#: The wire contract, section 5: what was seen of each family, a part of the model's name. The first that
#: fits counts. The spreads are a little wider than what was seen, since gateways queue and retry.
_FAMILIES: tuple[tuple[str, Expectation], ...] = (
    ("veo3.1-fast", Expectation(100.0, 0.5)),
    ("veo", Expectation(100.0, 0.3)),
    ("sora", Expectation(210.0, 0.28)),
    ("grok", Expectation(19.0, 0.3)),
)


def expected_of_family(model: str | None) -> Expectation:
    """What is to be expected of a *model* of which no video was seen yet; None for an unknown model."""
    name = (model or "").lower()
    return next((expected for part, expected in _FAMILIES if part in name), UNKNOWN)


# -- by earlier videos -------------------------------------------------------------------------------------

#: How many videos a family's row weighs as much as.
_FAMILY_WEIGHS = 2
#: The least that a history can be sure: the next video is not the last one.
_LEAST_SPREAD = 0.1
_REMEMBERED = 40
_MODELS = 256


class History:
    """The generation times of the videos that this process saw end, by connection and model.

    Bounded: the last 40 of each of 256 pairs. Medians, so that one video that hung for an hour changes
    nothing.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._known: dict[tuple[str, str], Expectation] = {}

    def note(self, connection: str, model: str | None, seconds: float) -> None:
        """Remember that a video took so many *seconds* from its submission."""
        if not 1.0 <= seconds <= 86_400.0:
            return
        key = (connection, model or "")
        self._seen.setdefault(key, deque(maxlen=_REMEMBERED)).append(math.log(seconds))
        self._seen.move_to_end(key)
        self._known.pop(key, None)
        if len(self._seen) > _MODELS:
            oldest, _ = self._seen.popitem(last=False)
            self._known.pop(oldest, None)

    def expected(self, connection: str, model: str | None) -> Expectation:
        """What is to be expected of the next video of that *model* on that *connection*."""
        key = (connection, model or "")
        if key not in self._seen:
            return expected_of_family(model)
        if key not in self._known:
            self._known[key] = _learnt(self._seen[key], expected_of_family(model))
        return self._known[key]


def _learnt(logarithms: Iterable[float], family: Expectation) -> Expectation:
    import statistics  # a Dag file that is parsed has no use for it, and it takes 8 ms

    seen = list(logarithms)
    middle = statistics.median(seen)
    # The standard deviation: 1.48 for a normal distribution, 1.15 for a uniform one, rather on the sure side.
    spread = 1.1 * statistics.median(abs(value - middle) for value in seen)
    share = len(seen) / (len(seen) + _FAMILY_WEIGHS)
    median = math.exp(share * middle + (1 - share) * math.log(family.median))
    # The family may be far from what was seen: as long as it has a say, so has the distance.
    apart = abs(math.log(family.median) - middle)
    return Expectation(
        median, max(share * spread + (1 - share) * max(family.spread, apart / 2), _LEAST_SPREAD)
    )


# -- by progress -------------------------------------------------------------------------------------------

#: Percent below which nothing is extrapolated, and how unsure the extrapolation from there is.
_LEAST_PROGRESS = 5
_FIRST_SPREAD = 0.2
_LAST_SPREAD = 0.03


class Progress:
    """What the progress of one video says of its end.

    Extrapolated from the last *change*: a progress that sticks at 50 or at 99 says less the longer it
    sticks, one that has just said something else says less for a while, and one that runs backwards says
    nothing from then on.
    """

    __slots__ = ("_at", "_believed", "_changed_at", "_in_steps", "_moved", "_percent", "_seen_at")

    def __init__(self) -> None:
        self._percent: int = 0
        self._at: float = 0.0
        self._changed_at: float = 0.0
        self._seen_at: float = 0.0
        self._moved: float = 0.0
        self._in_steps = False
        self._believed = True

    def note(self, percent: int | None, age: float) -> None:
        """Take what a reply said.

        :param percent: 0 to 100; None where it said nothing.
        :param age: seconds from the submission.
        """
        age = max(age, 1e-3)  # of which logarithms are taken
        if percent is not None and percent < self._percent:
            self._believed = False
        elif percent is not None and percent > self._percent:
            before = self._median
            # Where it goes in steps, it changed somewhen between the two replies; else just now.
            self._at = (self._seen_at + age) / 2 if self._in_steps else age
            self._percent, self._changed_at = percent, age
            if before and self._median:
                self._moved = max(abs(math.log(self._median / before)), self._moved / 2)
        self._in_steps = percent is not None and age > self._changed_at > 0
        self._seen_at = age

    @property
    def _median(self) -> float:
        """Seconds that the last change extrapolates to; 0 where it does not tell."""
        if not self._believed or self._percent < _LEAST_PROGRESS:
            return 0.0
        return self._at / (min(self._percent, 99) / 100)

    def expected(self, age: float) -> Expectation | None:
        """When the video is likely to end; None where its progress does not tell."""
        if self._median <= 0:
            return None
        done = self._percent / 100
        stuck = max(age - self._changed_at, 0.0) / self._changed_at
        unsure = _FIRST_SPREAD * (1 - done) + _LAST_SPREAD
        return Expectation(self._median, unsure + 0.5 * stuck * done + self._moved)
