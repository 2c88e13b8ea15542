"""The pages, as a FastAPI application that the api-server imports for the first request.

Every route asks Airflow whether this user may read the Dag's task instances and XComs, for that is what is
shown. No path, URI or connection comes from a request: a route names a task instance and a number, and what
that task recorded says the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from airflow_video_provider.plugin.links import PREFIX, tab_path
from airflow_video_provider.plugin.live import FRESH, Seen, is_allowed, look
from airflow_video_provider.plugin.pages import as_bytes, page, page_headers
from airflow_video_provider.plugin.ranges import Part, Unsatisfiable, requested
from airflow_video_provider.plugin.recorded import TaskKey, recorded, returned, rows_of
from airflow_video_provider.plugin.stored import NotServed, StoredVideo
from airflow_video_provider.plugin.views import Card, State, Tab, cards_of, next_query, of_one, tab_of

__all__ = ["create_app"]

#: Cards of a gallery that are sent at a time, and entries of which they are chosen.
CARDS = 48
ENTRIES = 2000
#: Seconds after which a page about something that goes on asks anew, where no gateway is asked.
CALM = 10.0
#: Videos of a list of which a page that is looked at asks the gateway: a list may have thousands.
LOOKED_AT = 8

_MAY_READ = [
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
]
router = APIRouter(dependencies=_MAY_READ)
_TASK = "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}"


def create_app() -> FastAPI:
    """Make the application that Airflow mounts at :data:`PREFIX`."""
    app = FastAPI(title="Video gateway", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    return app


@dataclass(frozen=True)
class Address:
    """The URLs that a page refers to.

    :param root: the path that Airflow is served under, "" for none.
    :param key: the task instance of a tab; None for a gallery, whose cards lead to their task instances in
        Airflow's UI. Those of a tab lead to themselves, large.
    :param shown: which of several videos the tab shows large.
    """

    root: str
    key: TaskKey | None = None
    shown: int | None = None

    @classmethod
    def of(cls, request: Request, key: TaskKey | None = None, shown: int | None = None) -> Address:
        """The addresses of what this request asks for."""
        return cls(str(request.scope.get("root_path", "")).removesuffix(PREFIX), key, shown)

    def tab(self, key: TaskKey) -> str:
        """A task instance's tab in Airflow's UI."""
        return f"{self.root}/{tab_path(key.dag_id, key.run_id, key.task_id, key.map_index)}"

    def card(self, card: Card, number: int) -> str:
        """Where a card leads to.

        :param number: its place on the page.
        """
        return self.tab(card.key) if self.key is None else f"{self.own(self.key)}?show={number}"

    def own(self, key: TaskKey) -> str:
        """The page of a task instance, which its tab shows."""
        parts = (quote(part, safe=":+") for part in (key.dag_id, key.run_id, key.task_id))
        return f"{self.root}{PREFIX}" + "/dags/{}/runs/{}/tasks/{}".format(*parts) + f"/{key.map_index}"

    def live(self) -> str:
        """The page of this task instance with what the gateway says."""
        if self.key is None:
            return ""
        return f"{self.own(self.key)}/live" + ("" if self.shown is None else f"?show={self.shown}")

    def file(self, card: Card) -> str:
        """The bytes of a file."""
        return f"{self.own(card.key)}/files/{card.file}"


def task_key(dag_id: str, run_id: str, task_id: str, map_index: str) -> TaskKey:
    """The task instance that a path names. Airflow leaves its placeholder where a task is not mapped."""
    if map_index == "{MAP_INDEX}":
        map_index = "-1"
    is_number = map_index.removeprefix("-").isdecimal() and len(map_index) < 10  # its column has 32 bits
    if not is_number or dag_id == "~":
        raise HTTPException(404, "no such task instance")
    return TaskKey(dag_id, run_id, task_id, int(map_index))


Key = Annotated[TaskKey, Depends(task_key)]

# -- the tab -----------------------------------------------------------------------------------------------


@router.get(_TASK)
def tab(request: Request, key: Key, show: int | None = None) -> Response:
    """What is recorded of a task instance; *show* is one of its several videos, from 0."""
    return _tab_page(request, key, _tab_of(key, show), show)


@router.get(_TASK + "/live")
async def live_tab(request: Request, key: Key, show: int | None = None) -> Response:
    """The same, and what the gateway says of the videos that are waited for."""
    found = await run_in_threadpool(_tab_of, key, show)
    seen: dict[str, Seen] = {}
    if found is not None and is_allowed():
        wanted = dict.fromkeys(found.tab.waited_for())
        looks = [look(conn_id, video_id) for conn_id, video_id in [*wanted][:LOOKED_AT]]
        seen = dict(zip((video_id for _, video_id in wanted), await asyncio.gather(*looks), strict=False))
    return await run_in_threadpool(_tab_page, request, key, found, show, seen)


@dataclass(frozen=True)
class _Found:
    tab: Tab
    task_state: str | None
    is_one_of_several: bool


def _tab_of(key: TaskKey, show: int | None) -> _Found | None:
    row = recorded(key)
    if row is None:
        return None
    status, run = row.status, []
    if status is not None and status.kind != "download" and (status.items or row.state == "success"):
        run = rows_of(key.dag_id, key.run_id, limit=ENTRIES)
    told = returned(key) if status is not None and row.state == "success" else None
    every = tab_of(row, run, told)
    one = of_one(every, show)
    return _Found(one or every, row.state, one is not None)


def _tab_page(
    request: Request,
    key: TaskKey,
    found: _Found | None,
    show: int | None,
    seen: Mapping[str, Seen] | None = None,
) -> Response:
    if found is None:
        return _html("error", 404, message="There is no such task instance.")
    address, wait = Address.of(request, key, show), found.tab.wait
    deadline = wait.deadline if wait else None
    return _html(
        "tab",
        tab=found.tab,
        address=address,
        back=address.own(key) if found.is_one_of_several else None,
        seen=seen or {},
        live=is_allowed(),
        looked_at=LOOKED_AT,
        refresh=_refresh(found.tab, found.task_state),
        next_query=next_query(wait, time.time()) if wait else None,
        deadline=datetime.fromtimestamp(deadline, tz=UTC) if deadline else None,
        task_state=found.task_state,
    )


def _refresh(tab: Tab, task_state: str | None) -> float | None:
    """Seconds after which a tab asks anew; None for what is over."""
    if tab.state is State.WAITING:
        return FRESH
    goes_on = tab.state is State.READY or task_state not in {"success", "failed", "skipped", "removed"}
    return CALM if goes_on and tab.state is not State.LANDED else None


# -- the galleries -----------------------------------------------------------------------------------------


@router.get("/dags/{dag_id}/videos")
def videos_of_dag(request: Request, dag_id: str, state: str = "", model: str = "", page: int = 1) -> Response:
    """Everything that the Dag has made."""
    return _gallery(request, dag_id, None, state, model, page)


@router.get("/dags/{dag_id}/runs/{run_id}/videos")
def videos_of_run(
    request: Request, dag_id: str, run_id: str, state: str = "", model: str = "", page: int = 1
) -> Response:
    """Everything that one run has made."""
    return _gallery(request, dag_id, run_id, state, model, page)


def _gallery(
    request: Request, dag_id: str, run_id: str | None, state: str, model: str, number: int
) -> Response:
    rows = rows_of(dag_id, run_id, limit=ENTRIES)
    cards = cards_of(rows)
    fitting = [c for c in cards if state in ("", c.state) and (not model or model == c.model)]
    begin = (max(number, 1) - 1) * CARDS
    more = None
    if begin + CARDS < len(fitting):
        more = "?" + urlencode({"state": state, "model": model, "page": max(number, 1) + 1})
    return _html(
        "gallery",
        address=Address.of(request),
        cards=fitting[begin : begin + CARDS],
        total=len(fitting),
        all=len(cards),
        states=sorted(Counter(str(card.state) for card in cards).items()),
        models=sorted(Counter(card.model for card in cards if card.model).items()),
        chosen={"state": state, "model": model},
        more=more,
        cut=ENTRIES if len(rows) == ENTRIES else None,
    )


def _html(name: str, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(page(name, **values), status, page_headers())


# -- the bytes ---------------------------------------------------------------------------------------------


@router.api_route(_TASK + "/files/{number}", methods=["GET", "HEAD"])
async def file_bytes(request: Request, key: Key, number: int) -> Response:
    """A file that a download recorded, or a range of it."""
    row = await run_in_threadpool(recorded, key)
    status = row.status if row is not None else None
    files = status.files if status is not None and status.kind == "download" else ()
    if not 0 <= number < len(files):
        return _text(404, "this task instance has recorded no such file")
    try:
        video = StoredVideo.from_facts(files[number])
        content_type = await video.content_type()
    except NotServed as why:
        return _text(404, str(why))
    etag = f'"{video.sha256}"'
    headers = {**_byte_headers(), "ETag": etag, "Content-Type": content_type}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    is_for_this = request.method == "GET" and request.headers.get("if-range", etag) == etag
    asked = request.headers.get("range") if is_for_this else None
    try:
        part = requested(asked, video.size)
    except Unsatisfiable:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{video.size}"})
    sent = part or Part(0, video.size)
    headers["Content-Length"] = str(sent.length)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.begin}-{part.end - 1}/{video.size}"
    code = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=code, headers=headers)
    return StreamingResponse(video.blocks(sent.begin, sent.end), code, headers)


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(as_bytes(text), status, _byte_headers())


def _byte_headers() -> dict[str, str]:
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",  # kept, but asked for again: access may have been taken away
        # Else Airflow's middleware may compress, which makes a range another one.
        "Content-Encoding": "identity",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
