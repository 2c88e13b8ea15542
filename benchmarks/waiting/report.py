"""The measured rows as tables of ``docs/waiting.md``, between its markers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.waiting.simulate import ALL, FAMILIES

__all__ = ["table", "write"]

Record = dict[str, Any]
Column = tuple[str, Callable[[Record], str]]


def _number(key: str, digits: int = 0, suffix: str = "") -> Callable[[Record], str]:
    def shown(record: Record) -> str:
        value = record.get(key)
        return "" if value is None else f"{value:,.{digits}f}{suffix}"

    return shown


def _text(key: str) -> Callable[[Record], str]:
    return lambda record: str(record.get(key, ""))


def _rate(record: Record) -> str:
    return f"{record['polls_per_second']:,.0f} ({record['due_per_second']:,.0f})"


def _blocks(record: Record) -> str:
    blocked = record.get("blocked")
    if blocked is None:
        return ""
    return f"{len(blocked)}, {max(blocked):.2f} s" if blocked else "0"


def _connections(record: Record) -> str:
    return f"{record['connections']:,} ({record['opened']:,})" if "opened" in record else ""


def _late(record: Record) -> str:
    if record.get("late_median") is None:
        return ""
    return f"{record['late_median']:.1f} s, {record['late_most']:.1f} s"


def _phase_rate(record: Record) -> str:
    return _rate(record) if "polls_per_second" in record else ""


_WAITS: tuple[Column, ...] = (
    ("", _text("who")),
    ("polls/s (due)", _rate),
    ("CPU per poll", _number("cpu_ms_per_poll", 2, " ms")),
    ("longest stall", _number("stall_ms", 0, " ms")),
    ("connections at once (new while measured)", _connections),
    ("failed", _number("failed")),
)
_TRIGGERER: tuple[Column, ...] = (
    ("", _text("phase")),
    ("", _text("who")),
    ("polls/s (due)", _phase_rate),
    ("CPU per poll, whole triggerer", _number("cpu_ms_per_poll", 2, " ms")),
    ('"async thread was blocked": how often, longest', _blocks),
    ("connections at once (new)", _connections),
    ("first round, in intervals", _number("first_round_intervals", 2)),
    ("most polls in a second", _number("most_in_a_second")),
    ("`TimeDeltaTrigger` late: median, most", _late),
)
COLUMNS: dict[str, Sequence[Column]] = {
    "cpu-200": _WAITS,
    "cpu-1000": _WAITS,
    "many": (*_WAITS, ("memory per wait", _number("kib_per_wait", 1, " KiB"))),
    "finished": (
        ("", _text("who")),
        ("interval", _number("interval", 1, " s")),
        ("mean delay", _number("delay", 2, " s")),
        ("polls per video", _number("polls_per_video", 1)),
        ("CPU per video", _number("cpu_ms_per_video", 2, " ms")),
        ("failed", _number("failed")),
    ),
    "simulation": (
        ("what is known", _text("guess")),
        *((model, _number(model, 2)) for model in (*(family.model for family in FAMILIES), ALL)),
        ("at most", _number("bound", 1)),
        ("polls per video", _number("polls", 1)),
        ("mean delay", _number("delay", 1, " s")),
    ),
    "limit": (
        ("", _text("who")),
        ("waits", _number("waits")),
        ("queries in flight", _number("in_flight")),
        ("queries in the 5 s beyond those", _number("during_pause")),
        ("waits failed", _number("failed")),
        ("back at the earlier rate after", _number("seconds_until_back", 0, " s")),
        ("most polls in a second after", _number("most_in_a_second")),
    ),
    "sensors": (
        ("", _text("who")),
        ("completed → seen: median", _number("detection_median", 1, " s")),
        ("most", _number("detection_most", 1, " s")),
        ("seen → success (Airflow's own): median", _number("airflow_median", 1, " s")),
        ("completed → success: median", _number("whole_median", 1, " s")),
        ("polls per video", _number("polls_per_video", 1)),
        ("succeeded", _number("succeeded")),
    ),
    "triggerer-3.3": _TRIGGERER,
    "triggerer-2.11": _TRIGGERER,
}
"""The columns of each row's table, by the row's name."""


def _a_line_a_guess(records: Sequence[Record]) -> list[Record]:
    """The ratios of each kind of model in one record, with what holds of all."""
    of_all = [record for record in records if record["who"] == ALL]
    return [
        {**record, **{other["who"]: other["ratio"] for other in records if other["guess"] == record["guess"]}}
        for record in of_all
    ]


def table(row: str, records: Sequence[Record]) -> str:
    """A row's records as a Markdown table, without the columns in which nothing stands."""
    if row == "simulation":
        records = _a_line_a_guess(records)
    cells = [(heading, [shown(record) for record in records]) for heading, shown in COLUMNS[row]]
    kept = [(heading, column) for heading, column in cells if any(column)]
    lines = [" | ".join(heading for heading, _ in kept), " | ".join("---" for _ in kept)]
    lines += [" | ".join(column[line] for _, column in kept) for line in range(len(records))]
    return "\n".join(f"| {line} |" for line in lines)


def write(path: Path, results: Mapping[str, Sequence[Record]]) -> list[str]:
    """Put the tables between their markers, ``<!-- measured: ROW -->`` and ``<!-- end -->``.

    :returns: the rows whose markers are not there.
    """
    text, missing = path.read_text(encoding="utf-8"), []
    for row, records in results.items():
        marked = re.compile(rf"(<!-- measured: {re.escape(row)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(text):
            missing.append(row)
        # The table as a template of `re`: what is in it is no template.
        new = table(row, records).replace("\\", r"\\")
        text = marked.sub(rf"\g<1>\n{new}\n\n\g<2>", text)
    path.write_text(text, encoding="utf-8")
    return missing
