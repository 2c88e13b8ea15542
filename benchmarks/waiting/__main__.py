"""What a wait costs, how late it notices, and what it does in a herd, beside the waits of other providers.

    python -m benchmarks.waiting [--quick] [--only ROW,ROW] [--results FILE.json] [--docs docs/waiting.md]

Run it from the root of the checkout with the interpreter of ``make benchmark-env``, and openssl on the PATH;
``make benchmark-waiting`` is all of it.

The gateway is a process of its own on 127.0.0.1 that speaks TLS and answers at once
(``benchmarks/waiting/gateway.py``). Who waits is each provider's own trigger class, which gets the answers it
expects. CPU is user and system time of the process that waits, less what it spends while nothing waits. A
figure is the median of five stretches of time, one after the other, in each of which every wait is due; the
longest stall and the number of connections are the largest of all. On a machine that also does other things
the ratios are what to look at.

Results are added to those that the file already holds, so that rows can be measured one by one; tables and
pictures are made of all that it holds.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.waiting import inprocess, plots, report
from benchmarks.waiting.control import ROOT, MeasuredGateway
from benchmarks.waiting.sensors import sensors
from benchmarks.waiting.simulate import simulation
from benchmarks.waiting.triggerer import triggerer

Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What a row works with.

    :param folder: a new one for each row.
    :param quick: one stretch instead of five, to try it.
    :param pythons: the interpreters of the Airflows, by version.
    """

    folder: Path
    gateway: MeasuredGateway
    quick: bool
    pythons: dict[str, str]


@dataclass(frozen=True)
class Row:
    """One table.

    :param measure: yields the table's lines as they are measured.
    :param minutes: that it takes in full.
    """

    what: str
    minutes: float
    measure: Callable[[Bench], Iterable[Record]]


ROWS = {
    "cpu-200": Row(
        "CPU per poll, 200 waits, ours and all peers",
        4,
        lambda bench: inprocess.cpu(bench.folder, bench.gateway, bench.quick, 200),
    ),
    "cpu-1000": Row(
        "CPU per poll, 1,000 waits, ours and HttpSensorTrigger",
        4.5,
        lambda bench: inprocess.cpu(bench.folder, bench.gateway, bench.quick, 1000),
    ),
    "finished": Row(
        "CPU per finished video at equal mean delay",
        4.5,
        lambda bench: inprocess.finished(bench.folder, bench.gateway, bench.quick),
    ),
    "simulation": Row(
        "polls per video at equal mean delay, calculated", 1, lambda bench: simulation(bench.quick)
    ),
    "many": Row(
        "10,000 waits, and one list trigger of 10,000",
        2.5,
        lambda bench: inprocess.many(bench.folder, bench.gateway, bench.quick),
    ),
    "limit": Row(
        "429 in the middle of 1,000 waits",
        3,
        lambda bench: inprocess.limited(bench.folder, bench.gateway, bench.quick),
    ),
    "sensors": Row(
        "a whole Airflow 3.3: from completed to success, three sensors",
        5.5,
        lambda bench: sensors(bench.folder, bench.gateway, bench.quick, bench.pythons["3.3"]),
    ),
    "triggerer-3.3": Row(
        "a real triggerer, 1,000 waits: calm, frozen, restarted",
        6,
        lambda bench: triggerer(
            bench.folder, bench.gateway, bench.quick, bench.pythons["3.3"], freeze_peer=True
        ),
    ),
    "triggerer-2.11": Row(
        "the same on Airflow 2.11",
        5,
        lambda bench: triggerer(
            bench.folder, bench.gateway, bench.quick, bench.pythons["2.11"], freeze_peer=False
        ),
    ),
}


def measured(name: str, bench: Bench) -> list[Record]:
    """Measure a row, and print each line of it as it comes."""
    records = []
    for record in ROWS[name].measure(bench):
        records.append(record)
        shown = {key: value for key, value in record.items() if key != "timeline"}
        print(f"{name:14} " + "  ".join(f"{key}={_short(value)}" for key, value in shown.items()), flush=True)
    return records


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    rows = "\n".join(f"    {name:15} {row.what} ({row.minutes:g} min)" for name, row in ROWS.items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\nrows:\n{rows}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one stretch of each instead of five, to try it")
    parser.add_argument("--only", default=",".join(ROWS), help="some of the rows; empty: measure nothing")
    parser.add_argument("--results", type=Path, help="a JSON file that holds the results, old and new")
    parser.add_argument("--docs", type=Path, help="put tables into this file, and PNGs beside it")
    of_2 = ROOT / ".venvs" / "airflow-2.11" / "bin" / "python"
    parser.add_argument("--python-2.11", dest="of_2", default=str(of_2), help=f"interpreter; default: {of_2}")
    options = parser.parse_args()
    unknown = sorted(set(filter(None, options.only.split(","))) - set(ROWS))
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    return options


def main() -> None:
    """Measure the rows that were asked for, and write down what was found."""
    options = arguments()
    # A triggerer opens a log for each trigger, and some peers a connection for each wait.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    results: dict[str, list[Record]] = {}
    if options.results and options.results.exists():
        results = json.loads(options.results.read_text())
    pythons = {"3.3": sys.executable, "2.11": options.of_2}
    for name in filter(None, options.only.split(",")):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="waiting-benchmark-") as folder:
            at_gateway = Path(folder) / "gateway"
            at_gateway.mkdir()
            with MeasuredGateway(at_gateway) as gateway:
                results[name] = measured(name, Bench(Path(folder), gateway, options.quick, pythons))
        print(f"{name:14} took {time.monotonic() - began:.0f} s", flush=True)
        if options.results:  # after each row: what comes after it may fail
            options.results.write_text(json.dumps(results, indent=1))
    if options.docs:
        for row in report.write(options.docs, results):
            print(f"{options.docs} has no place for {row}")
        for path in plots.draw(options.docs.parent, results):
            print(path)


if __name__ == "__main__":
    main()
