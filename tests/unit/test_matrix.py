"""`make matrix` writes the table of docs/compatibility.md: only what was run is changed."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.matrix import HEAD, PAGE, PYTHONS, ROOT, SHARED, Outcome, Pair, pairs, row, with_rows

KNOWN = [Pair("2.11.2", "3.11"), Pair("3.3.2", "3.11"), Pair("3.3.2", "3.12")]
EMPTY = f"# Page\n\n{HEAD}\n| --- | --- | --- | --- | --- | --- |\n\nAfter.\n"


def table(page: str) -> list[str]:
    return [line for line in page.splitlines() if re.match(r"\| \d", line)]


def test_a_row_is_put_in_the_order_of_the_pairs() -> None:
    newer = with_rows(EMPTY, [row(KNOWN[2], Outcome(9, 1, 0))], KNOWN)
    both = with_rows(newer, [row(KNOWN[0], Outcome(8, 2, 0))], KNOWN)
    assert [line.split("|")[1:6] for line in table(both)] == [
        [" 2.11.2 ", " 3.11 ", " 8 ", " 2 ", " 0 "],
        [" 3.3.2 ", " 3.12 ", " 9 ", " 1 ", " 0 "],
    ]
    assert both.endswith("\n\nAfter.\n")


def test_a_row_takes_the_place_of_an_older_one() -> None:
    page = with_rows(EMPTY, [row(KNOWN[0], Outcome(8, 2, 1))], KNOWN)
    page = with_rows(page, [row(KNOWN[0], Outcome(9, 2, 0))], KNOWN)
    (line,) = table(page)
    assert "| 9 | 2 | 0 |" in line


def test_a_version_that_is_supported_no_more_goes() -> None:
    page = with_rows(EMPTY, [row(KNOWN[0], Outcome(8, 2, 0))], KNOWN)
    assert table(with_rows(page, [], KNOWN[1:])) == []


def test_a_report_counts_errors_as_failures(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="9" skipped="2" failures="1" errors="1"/></testsuites>', "utf-8"
    )
    assert Outcome.read(report) == Outcome(passed=5, skipped=2, failed=2)


def test_a_pair_is_tested_by_as_many_processes_as_make_test() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert f"SHARED := {' '.join(SHARED)}\n" in makefile


def test_there_are_constraints_for_every_supported_airflow() -> None:
    assert {pair.minor for pair in pairs()} == set(PYTHONS)


def test_the_committed_table_is_of_supported_pairs_and_has_no_failure() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:6]] for line in table(PAGE.read_text("utf-8"))]
    assert {Pair(airflow, python) for airflow, python, *_ in rows} <= set(pairs())
    assert all(int(passed) > 0 and int(failed) == 0 for _, _, passed, _, failed in rows)
