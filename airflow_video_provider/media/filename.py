"""File names that every store takes, made from ids that nobody vouches for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from airflow_video_provider.media.destination import Destination
from airflow_video_provider.media.errors import BadDestination

MAX_NAME = 200
"""Bytes of a whole name. Most file systems take 255, and the temporary file's name is longer."""

LIKELY_EXTENSIONS = ("mp4", "webm", "mov")
"""Those that a name is looked for under before the content, which tells the right one, has been asked for."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def safe_part(value: str, limit: int = 120) -> str:
    """Return *value* with nothing in it that a store or a shell could read as anything but letters.

    Distinct values give distinct results: whatever had to be replaced or cut is followed by the beginning
    of the value's SHA-256.
    """
    clean = _UNSAFE.sub("_", value).strip("._-") or "_"
    if clean == value and len(value) <= limit and not _RESERVED.fullmatch(value):
        return value
    return f"{clean[: limit - 11]}-{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"


def fields_of(template: str) -> set[str]:
    """Return the names of the fields of *template*.

    :raises BadDestination: the template cannot be read, has a separator or a format in it.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise BadDestination(f"file_name {template!r} is not a readable template: {error}") from None
    names = set()
    for literal, name, form, conversion in pieces:
        if "/" in literal or "\\" in literal or any(ord(c) < 32 or ord(c) == 127 for c in literal):
            raise BadDestination(
                f"file_name {template!r} has a separator or a control character in it; directories belong "
                "into the destination"
            )
        if name is None:
            continue
        if not name.isidentifier() or form or conversion:
            raise BadDestination(f"file_name {template!r}: only plain fields like {{video_id}} are replaced")
        names.add(name)
    return names


def file_name(template: str, fields: Mapping[str, str]) -> str:
    """Fill *template*, each value made safe by itself, the whole kept short.

    :raises BadDestination: a field that has no value, or a template that makes no name.
    """
    wanted = fields_of(template)
    missing = sorted(wanted - fields.keys())
    if missing:
        raise BadDestination(
            f"file_name {template!r}: nothing is known for {{{missing[0]}}}; known are "
            + ", ".join(f"{{{name}}}" for name in sorted(fields))
        )
    name = template.format_map({key: safe_part(str(fields[key])) for key in wanted})
    if name.strip("._ ") == "":
        raise BadDestination(f"file_name {template!r} makes no usable name ({name!r})")
    if len(name.encode()) <= MAX_NAME and not name.startswith(".") and not _RESERVED.fullmatch(name):
        return name
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 8:
        stem, dot, extension = name, "", ""
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    short = stem.lstrip(".").encode()[: MAX_NAME - 20 - len(extension)].decode(errors="ignore")
    return f"{short}-{digest}{dot}{extension}"


@dataclass(frozen=True)
class Naming:
    """Which name a video gets.

    :ivar destination: the directory, or with no *template* the name itself.
    :ivar template: of the name; None to take *destination* as it is.
    :ivar fields: values for the template.
    :raises BadDestination: a directory without a template, or a template that cannot be filled.
    """

    destination: Destination
    template: str | None
    fields: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.template is None and self.destination.is_directory_name:
            raise BadDestination(
                f"{self.destination.uri} is a directory; name the file, or give file_name a template like "
                "'{video_id}.{ext}'"
            )
        self.place(ext="mp4", sha256="0" * 64)

    def place(self, *, ext: str = "", sha256: str = "") -> Destination:
        """Return the final name of a video with this extension and this digest."""
        if self.template is None:
            return self.destination
        return self.destination.child(file_name(self.template, {**self.fields, "ext": ext, "sha256": sha256}))

    def needs(self, field: str) -> bool:
        """Whether the name depends on this field."""
        return self.template is not None and field in fields_of(self.template)

    def likely_places(self) -> list[Destination]:
        """Return the names that the video may get, as far as they can be told before it is fetched."""
        if self.needs("sha256"):
            return []
        extensions = LIKELY_EXTENSIONS if self.needs("ext") else ("",)
        return [self.place(ext=extension) for extension in extensions]
