"""How a fact is found in a JSON reply, and the one table of where a video's URL lies in it.

Two readers share it: the gateway's, for the facts of a task (:mod:`~airflow_video_provider.gateway.places`),
and a download that is answered with JSON in place of a video, as the content routes of some gateways do. A
place that one of them learns is known to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

__all__ = [
    "HOLDERS",
    "SEVERAL_URLS",
    "URLS",
    "Group",
    "Place",
    "Row",
    "at",
    "every",
    "first",
    "nested",
    "only",
    "parse_place",
    "places_in",
    "wrapped",
]

Place = tuple[str | int, ...]
Read = Callable[[object], Any]
#: Places below a common one, which most replies do not have.
Group = tuple[Place, tuple[Place, ...]]
Row = tuple[tuple[Group, ...], Read]


@cache
def parse_place(path: str) -> Place:
    """A dotted path as a place: numbers are positions in lists, ``*`` is every item of one."""
    return tuple(int(step) if step.isdigit() else step for step in path.split("."))


def _under(prefixes: tuple[str, ...], paths: tuple[str, ...]) -> tuple[Group, ...]:
    below = tuple(parse_place(path) for path in paths)
    return tuple((parse_place(prefix) if prefix else (), below) for prefix in prefixes)


def only(*paths: str) -> tuple[Group, ...]:
    """These places and no other."""
    return _under(("",), paths)


def nested(*paths: str) -> tuple[Group, ...]:
    """The same places at the top, under ``data`` and under ``data.data``, outermost first."""
    return _under(("", "data", "data.data"), paths)


#: What providers wrap a task in, by itself and as new-api hands it on: MiniMax V2's ``task``, DashScope's
#: ``output``, Kling's own ``data`` within that of new-api.
_WRAPPERS = (
    "task", "output", "data.task", "data.output", "data.data.task", "data.data.output", "data.data.data",
)  # fmt: skip


#: Where a task may be, outermost first.
HOLDERS = tuple(parse_place(path) if path else () for path in ("", "data", "data.data", *_WRAPPERS))


def wrapped(*paths: str) -> tuple[Group, ...]:
    """The same places within each of the wrappers."""
    return _under(_WRAPPERS, paths)


def at(body: object, place: Place) -> object:
    """The value at a place, None where there is none."""
    for step in place:
        if isinstance(step, int):
            if not isinstance(body, list) or step >= len(body):
                return None
            body = body[step]
        elif isinstance(body, dict):
            body = body.get(step)
        else:
            return None
    return body


def every(body: object, place: Place) -> Iterator[object]:
    """The values at a place that may hold ``*``."""
    if "*" not in place:
        yield at(body, place)
        return
    star = place.index("*")
    items = at(body, place[:star])
    for item in items if isinstance(items, list) else ():
        yield from every(item, place[star + 1 :])


def first(body: object, rows: Iterable[Row]) -> Any:
    """The first readable value of a fact, None where there is none."""
    for groups, read in rows:
        for holder, place in places_in(body, groups):
            value = read(at(holder, place))
            if value is not None:
                return value
    return None


def places_in(body: object, groups: Iterable[Group]) -> Iterator[tuple[object, Place]]:
    """The places of a body that may be there, each below its holder.

    There are hundreds that are not, and passing over them is much of what it costs to read a reply: so a
    look at a place's first step comes before all others.
    """
    if not isinstance(body, dict):
        return
    for common, below in groups:
        if not common or common[0] in body:
            holder = at(body, common)
            if isinstance(holder, dict):
                yield from ((holder, place) for place in below if place[0] in holder)


_LISTS_OF_URLS = (
    "task_result.videos.*.url", "videos.*.url", "videos.*.video_url", "videos.*.uri", "videos.*.gcsUri",
    "videos.*", "output.*", "output.*.url", "outputs.*", "outputs.*.url", "output.videos.*.url",
    "creations.*.url", "result_urls.*", "video_urls.*", "urls.*", "unsigned_urls.*", "results.*.url",
    "result.videos.*.url", "generations.*.url", "response.videos.*.uri", "response.videos.*.gcsUri",
    "response.generateVideoResponse.generatedSamples.*.video.uri",
)  # fmt: skip
_MORE_LISTS_OF_URLS = (
    "video_result.*.url", "response.resultUrls.*", "response.generatedVideos.*.video.uri",
)  # fmt: skip


def _firsts(lists: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(path.replace("*", "0") for path in lists)


#: In order of preference. A new place goes to the end, so that what is read today reads the same tomorrow.
URLS = (
    *nested(
        "video_url", "url", "result_url", "output_url", "content_url", "download_url",
        "metadata.url", "video.url", "output", "output.url", "output.video_url", "result.video_url",
        "content.video_url", "detail.upsample_video_url", "detail.video_url", "detail.url",
        "task_result.videos.0.url",
    ),
    *only("data.videos.0.url", "data.output", "data.outputs.0", "result_urls.0"),
    *nested("assets.video", "content.url", "result.url", "file.download_url", "output_video.uri"),
    *nested(*_firsts(_LISTS_OF_URLS)),
    *wrapped(
        "content.url", "content.video_url", "video_url", "url", "video.url", "task_result.videos.0.url"
    ),
    *nested("result.sample", *_firsts(_MORE_LISTS_OF_URLS)),
)  # fmt: skip
SEVERAL_URLS = (
    *nested(*_LISTS_OF_URLS), *wrapped(*_LISTS_OF_URLS), *nested(*_MORE_LISTS_OF_URLS)
)  # fmt: skip
"""The lists of a task's videos; each item is one of them."""
