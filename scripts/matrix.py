"""`make matrix`: the tests of `tests/airflow` on every supported Airflow and Python.

Each pair gets an environment of its own from a committed file of constraints. What came of each is a row of
`docs/compatibility.md`, which this writes; rows that were not run this time stay as they are.

    python -m scripts.matrix --uv .venvs/uv/bin/uv [--only 3.2/3.12] [-- more arguments of pytest]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"

#: The Pythons that each Airflow takes, of those that this package takes.
PYTHONS = {
    "2.11": ("3.11", "3.12"),
    "3.0": ("3.11", "3.12"),
    "3.1": ("3.11", "3.12", "3.13"),
    "3.2": ("3.11", "3.12", "3.13"),
    "3.3": ("3.11", "3.12", "3.13"),
}
#: Two processes share the files of tests between them, as in the Makefile: a pair takes half the time.
SHARED = ("--numprocesses", "3", "--dist", "loadfile", "--no-loadscope-reorder")
TESTS = (*SHARED, "tests/airflow", "-m", "not slow")
HEAD = "| Airflow | Python | passed | skipped | failed | on |"


@dataclass(frozen=True, order=True)
class Pair:
    """One Airflow on one Python."""

    airflow: str
    python: str

    @property
    def minor(self) -> str:
        return self.airflow.rpartition(".")[0]

    @property
    def constraints(self) -> Path:
        return ROOT / "constraints" / f"airflow-{self.airflow}.txt"

    def folder(self, within: Path, kind: str) -> Path:
        return within / f"{kind}-{self.airflow}-py{self.python}"

    def __str__(self) -> str:
        return f"{self.minor}/{self.python}"


def pairs() -> list[Pair]:
    """Every pair that is supported, from the oldest Airflow to the newest."""
    found = [path.stem.removeprefix("airflow-") for path in (ROOT / "constraints").glob("airflow-*.txt")]
    versions = sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    return [Pair(v, python) for v in versions for python in PYTHONS[v.rpartition(".")[0]]]


def interpreter(version: str) -> str:
    """The Python of a version on this machine.

    pyenv puts a program on the PATH for each version that it has, and lets it run for the active one only.

    :raises SystemExit: there is none.
    """
    found = shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (found, *sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:  # noqa: S603
            return str(candidate)
    raise SystemExit(f"no python{version} on this machine; install it, or leave its pairs out with --only")


def environment(uv: Path, pair: Pair, folder: Path, wanted: Sequence[str]) -> Path:
    """Make a virtual environment of a pair, or take the one that is there; return its interpreter.

    :param wanted: arguments of ``uv pip install``, beside Airflow itself, which is named in each install:
        left out, uv would rather move to another Airflow than refuse a package that does not go with this.
    """
    stamp, python = folder / ".stamp", folder / "bin" / "python"
    inputs = [pair.constraints, ROOT / "pyproject.toml", *(Path(w) for w in wanted if w.endswith(".whl"))]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in inputs) + repr(wanted).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == state:
        return python
    # An interpreter of this machine: never one that uv would download by itself.
    env = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    made = [str(uv), "venv", "--quiet", "--clear", "--python", interpreter(pair.python), str(folder)]
    subprocess.run(made, check=True, cwd=ROOT, env=env)  # noqa: S603 - the commands are ours
    install = [str(uv), "pip", "install", "--quiet", "--python", str(python)]
    install += ["--constraints", str(pair.constraints), *wanted, f"apache-airflow=={pair.airflow}"]
    subprocess.run(install, check=True, cwd=ROOT, env=env)  # noqa: S603
    stamp.write_text(state)
    return python


@dataclass(frozen=True)
class Outcome:
    """What pytest counted."""

    passed: int
    skipped: int
    failed: int

    @classmethod
    def read(cls, report: Path) -> Outcome:
        """Read a JUnit report."""
        suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314 - pytest wrote it just now
        counts = [{name: int(suite.get(name, 0)) for name in _COUNTED} for suite in suites]
        total = {name: sum(count[name] for count in counts) for name in _COUNTED}
        failed = total["failures"] + total["errors"]
        return cls(total["tests"] - total["skipped"] - failed, total["skipped"], failed)


_COUNTED = ("tests", "skipped", "failures", "errors")


def tested(python: Path, folder: Path, instead: Sequence[str]) -> tuple[Outcome, bool]:
    """Run the tests in an environment.

    :param folder: of the environment; what pytest counted is kept beside it.
    :param instead: arguments of pytest, in place of all of :data:`TESTS`.
    :returns: what was counted, and whether pytest calls it a success.
    """
    report = folder.with_name(f"{folder.name}.xml")
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-q", f"--junit-xml={report}", *(instead or TESTS)]
    done = subprocess.run(command, check=False, cwd=ROOT)  # noqa: S603
    return Outcome.read(report) if report.is_file() else Outcome(0, 0, 1), done.returncode == 0


def row(pair: Pair, outcome: Outcome) -> str:
    today = datetime.now(UTC).date().isoformat()
    counts = f"{outcome.passed} | {outcome.skipped} | {outcome.failed}"
    return f"| {pair.airflow} | {pair.python} | {counts} | {today} |"


def with_rows(page: str, rows: Iterable[str], known: Sequence[Pair]) -> str:
    """The page with its table brought up to date: a row for each known pair, newer ones in place of older."""
    head, divider = HEAD, re.sub(r"[^|]+", " --- ", HEAD)
    lines = page.splitlines()
    begin = lines.index(head)
    end = next(i for i in range(begin, len(lines) + 1) if i == len(lines) or not lines[i].startswith("|"))
    by_pair = {tuple(line.split("|")[1:3]): line for line in (*lines[begin + 2 : end], *rows)}
    kept = [by_pair[key] for pair in known if (key := (f" {pair.airflow} ", f" {pair.python} ")) in by_pair]
    return "\n".join([*lines[:begin], head, divider, *kept, *lines[end:]]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make matrix", description=__doc__.splitlines()[0])
    parser.add_argument("--uv", type=Path, required=True, help="the program that makes environments")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="where they are made")
    parser.add_argument("--only", action="append", default=[], metavar="3.2/3.12", help="these pairs only")
    parser.add_argument("pytest", nargs="*", help="in place of: tests/airflow -m 'not slow'")
    arguments = parser.parse_args()
    known = pairs()
    chosen = [pair for pair in known if not arguments.only or str(pair) in arguments.only]
    if unknown := set(arguments.only) - {str(pair) for pair in known}:
        parser.error(f"no such pair: {', '.join(sorted(unknown))}; there are {', '.join(map(str, known))}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    uv, wanted = arguments.uv.absolute(), ["--editable", ".[s3,media,sandbox,fast]", "--group", "test"]
    # All of them first: what cannot be installed is known before an hour of tests, not after it.
    pythons = {
        pair: environment(uv, pair, pair.folder(arguments.folder, "airflow"), wanted) for pair in chosen
    }
    failed = []
    for pair, python in pythons.items():
        print(f"== Airflow {pair.airflow}, Python {pair.python}", flush=True)
        outcome, good = tested(python, pair.folder(arguments.folder, "airflow"), arguments.pytest)
        if not arguments.pytest:  # what is less than all of it proves nothing about a version
            PAGE.write_text(with_rows(PAGE.read_text("utf-8"), [row(pair, outcome)], known), "utf-8")
        if not good:
            failed.append(str(pair))
    print(f"failed: {', '.join(failed)}" if failed else "all passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
