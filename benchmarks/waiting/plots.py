"""The PNGs of ``docs/waiting.md``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.waiting.simulate import BOUNDS, FAMILIES, GUESSES
from benchmarks.waiting.triggerer import FROZEN, INTERVAL, WAITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

Record = dict[str, Any]
Results = Mapping[str, Sequence[Record]]
OURS, PEER = ("#2a6fdb", "#7da7e8"), "#b0b0b0"
_KINDS = {"plain": "#2a6fdb", "progress": "#3a9d5d", "wrong": "#c0504d"}


def _plain(label: str) -> str:
    return label.replace("`", "")


def _cpu(results: Results, figure: Figure) -> None:
    rows = [row for row in ("cpu-200", "cpu-1000") if row in results]
    for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        _bars(axes, results[row], "cpu_ms_per_poll")
        axes.set_xlabel("ms of CPU per poll, over TLS (less is better)")
        axes.set_title(f"{results[row][0]['waits']:,} waits")


def _bars(axes: Axes, records: Sequence[Record], key: str) -> None:
    ours = iter(OURS)
    for place, record in enumerate(records):
        colour = next(ours, OURS[1]) if record["who"].startswith("ours") else PEER
        axes.barh(place, record[key], color=colour)
        axes.text(record[key], place, f" {record[key]:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(records)), [_plain(record["who"]) for record in records], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def _finished(results: Results, figure: Figure) -> None:
    axes = figure.subplots()
    _bars(axes, results["finished"], "cpu_ms_per_video")
    axes.set_xlabel("ms of CPU per finished video, at equal mean delay (less is better)")


def _simulation(results: Results, figure: Figure) -> None:
    records = results["simulation"]
    models = [family.model for family in FAMILIES]
    axes = figure.subplots()
    height = 0.8 / len(models)
    for number, guess in enumerate(GUESSES):
        for order, model in enumerate(models):
            record = next(r for r in records if (r["who"], r["guess"]) == (model, guess.name))
            place = number - 0.4 + height * (order + 0.5)
            axes.barh(place, record["ratio"], height * 0.9, color=_KINDS[guess.kind], alpha=1 - 0.18 * order)
            axes.text(record["ratio"], place, f" {record['ratio']:.2f} {model}", va="center", fontsize=6)
        axes.plot([BOUNDS[guess.kind]] * 2, [number - 0.45, number + 0.45], color="black", linewidth=0.8)
    axes.set_yticks(range(len(GUESSES)), [guess.name for guess in GUESSES], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(
        "polls per video, as a share of a fixed interval's with the same mean delay (less is better)"
    )


def _freeze(results: Results, figure: Figure) -> None:
    rows = [row for row in ("triggerer-3.3", "triggerer-2.11") if row in results]
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        frozen = [record for record in results[row] if record["phase"] == "after a freeze"]
        for record in frozen:
            colour = OURS[0] if record["who"].startswith("ours") else PEER
            axes.plot(record["timeline"], color=colour, label=_plain(record["who"]))
        axes.axvspan(10, 10 + FROZEN, color="#f0d0d0", label="gateway frozen")
        axes.axhline(WAITS / INTERVAL, color="black", linewidth=0.6, linestyle="--")
        axes.set_title(
            f"Airflow {row.removeprefix('triggerer-')}, {WAITS:,} waits in a real triggerer", fontsize=9
        )
        axes.set_ylabel("polls in each second")
        axes.legend(fontsize=8)
    axes.set_xlabel("seconds")


_PICTURES = {
    "waiting-cpu.png": ("cpu-1000", _cpu, (12, 3)),
    "waiting-finished.png": ("finished", _finished, (8, 2.6)),
    "waiting-simulation.png": ("simulation", _simulation, (10, 9)),
    "waiting-freeze.png": ("triggerer-3.3", _freeze, (10, 6)),
}


def draw(folder: Path, results: Results) -> list[Path]:
    """Draw what there are results for, and return the files."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = []
    for name, (row, picture, size) in _PICTURES.items():
        if row in results:
            figure = pyplot.figure(figsize=size, layout="constrained")
            picture(results, figure)
            figure.savefig(folder / name, dpi=110)
            pyplot.close(figure)
            drawn.append(folder / name)
    return drawn
