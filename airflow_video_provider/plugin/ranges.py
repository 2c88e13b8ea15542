"""The Range header of a request (RFC 9110, section 14): which bytes of a file are asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Part", "Unsatisfiable", "requested"]

#: One range. Several in one request get the whole file, as the RFC allows: no player sends them.
_ONE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.I | re.A)


class Unsatisfiable(ValueError):
    """The range begins behind the end of the file."""


@dataclass(frozen=True)
class Part:
    """The bytes from *begin* up to, not including, *end*."""

    begin: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.begin


def requested(header: str | None, size: int) -> Part | None:
    """Read a Range header.

    :param size: the length of the file, in bytes.
    :returns: None for the whole file: no header, or one that says nothing that is understood.
    :raises Unsatisfiable: there is no such byte.
    """
    match = _ONE.fullmatch(header or "")
    first, last = match.groups() if match else ("", "")
    if not first and not last:
        return None
    if not first:  # the last so many bytes
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise Unsatisfiable(f"of {size} bytes, none was asked for")
    return Part(begin, end)
