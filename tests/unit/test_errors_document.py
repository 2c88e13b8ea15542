"""docs/errors.md lists every message that the package raises, and none that it does not."""

from __future__ import annotations

import re
from pathlib import Path

from tests.messages import meanings, messages

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def listed() -> list[str]:
    rows = DOCUMENT.read_text(encoding="utf-8").splitlines()
    return [found[1] for row in rows if (found := re.match(r"\| `(.+?)` \|", row))]


def raised() -> set[str]:
    return set(messages()) | meanings()


def covers(row: str, message: str) -> bool:
    """A row that ends in `…` stands for all messages that begin as it does."""
    return row == message or (row.endswith("…") and message.startswith(row[:-1]))


def test_every_message_is_listed() -> None:
    rows = listed()
    missing = [message for message in raised() if not any(covers(row, message) for row in rows)]
    assert not missing, "give each a row in docs/errors.md, with what to do"


def test_every_row_is_a_message() -> None:
    known = raised()
    assert [row for row in listed() if not any(covers(row, message) for message in known)] == []


def test_no_message_is_listed_twice() -> None:
    assert sorted(listed()) == sorted(set(listed()))
