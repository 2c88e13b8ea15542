"""The pages, as a FastAPI application that the api-server imports for the first request.

Every route asks Airflow whether this user may read the Dag's task instances and XComs, for that is what is
shown. No path, URI or connection comes from a request: a route names a task instance and a number, and what
that task recorded says the rest.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from airflow_video_provider.plugin.links import PREFIX, tab_path
from airflow_video_provider.plugin.live import FRESH, Seen, is_allowed, look
from airflow_video_provider.plugin.pages import page, page_headers
from airflow_video_provider.plugin.ranges import Part, Unsatisfiable, requested
from airflow_video_provider.plugin.recorded import TaskKey, recorded, returned, rows_of, stored_status
from airflow_video_provider.plugin.stored import NotServed, StoredVideo
from airflow_video_provider.plugin.views import Card, State, Tab, cards_of, next_query, tab_of
from airflow_video_provider.video_status import VideoStatus

__all__ = ["create_app"]

#: Cards of a gallery that are sent at a time, and entries of which they are chosen.
CARDS = 48
ENTRIES = 2000
#: Seconds after which a page about something that goes on asks anew, where no gateway is asked.
CALM = 10.0

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
    :param key: the task instance of a tab.
    :param cards_leave: whether a card leads to its task instance in Airflow's UI; else to itself, large.
    """

    root: str
    key: TaskKey | None = None
    cards_leave: bool = True

    @classmethod
    def of(cls, request: Request, key: TaskKey | None = None, *, cards_leave: bool = True) -> Address:
        """The addresses of what this request asks for."""
        return cls(str(request.scope.get("root_path", "")).removesuffix(PREFIX), key, cards_leave)

    def tab(self, key: TaskKey) -> str:
        """A task instance's tab in Airflow's UI."""
        return f"{self.root}/{tab_path(key.dag_id, key.run_id, key.task_id, key.map_index)}"

    def card(self, card: Card) -> str:
        """Where a card leads to."""
        if self.cards_leave:
            return self.tab(card.key)
        return self.own(card.key) + ("" if card.file is None else f"?file={card.file}")

    def own(self, key: TaskKey) -> str:
        """The page of a task instance, which its tab shows."""
        parts = (quote(part, safe=":+") for part in (key.dag_id, key.run_id, key.task_id))
        return f"{self.root}{PREFIX}" + "/dags/{}/runs/{}/tasks/{}".format(*parts) + f"/{key.map_index}"

    def live(self) -> str:
        """The page of this task instance with what the gateway says."""
        return f"{self.own(self.key)}/live" if self.key else ""

    def file(self, card: Card) -> str:
        """The bytes of a file."""
        return f"{self.own(card.key)}/files/{card.file}"


def task_key(dag_id: str, run_id: str, task_id: str, map_index: str) -> TaskKey:
    """The task instance that a path names. Airflow leaves its placeholder where a task is not mapped."""
    if map_index == "{MAP_INDEX}":
        map_index = "-1"
    if not map_index.removeprefix("-").isdecimal() or dag_id == "~":
        raise HTTPException(404, "no such task instance")
    return TaskKey(dag_id, run_id, task_id, int(map_index))


Key = Annotated[TaskKey, Depends(task_key)]

# -- the tab -----------------------------------------------------------------------------------------------


@router.get(_TASK)
def tab(request: Request, key: Key, file: int | None = None) -> Response:
    """What is recorded of a task instance."""
    return _tab_page(request, key, _tab_values(key), file=file)


@router.get(_TASK + "/live")
async def live_tab(request: Request, key: Key) -> Response:
    """The same, and what the gateway says of a video that is waited for."""
    values = await run_in_threadpool(_tab_values, key)
    shown = values["tab"] if values else None
    seen = None
    if shown is not None and shown.state is State.WAITING and is_allowed():
        video_id = shown.wait.video_id if shown.wait else shown.card.video_id if shown.card else None
        conn_id = shown.wait.conn_id if shown.wait else shown.status.conn_id if shown.status else None
        if video_id and conn_id:
            seen = await look(conn_id, video_id)
    return await run_in_threadpool(partial(_tab_page, request, key, values, seen=seen))


def _tab_values(key: TaskKey) -> dict[str, Any] | None:
    row = recorded(key)
    if row is None:
        return None
    status, run = row.status, []
    if status is not None and status.kind != "download" and row.state == "success":
        run = rows_of(key.dag_id, key.run_id, limit=ENTRIES)
    told = returned(key) if status is not None and row.state == "success" else None
    return {"tab": tab_of(row, run, told), "task_state": row.state}


def _tab_page(
    request: Request,
    key: TaskKey,
    values: Mapping[str, Any] | None,
    *,
    file: int | None = None,
    seen: Seen | None = None,
) -> Response:
    if values is None:
        return _html("error", 404, message="There is no such task instance.")
    address = Address.of(request, key, cards_leave=False)
    shown: Tab = values["tab"]
    back = None
    chosen = [card for card in shown.cards if card.file is not None and card.file == file]
    if chosen:
        shown, back = Tab(State.LANDED, card=chosen[0], usage=chosen[0].facts.get("usage")), address.own(key)
    deadline = shown.wait.deadline if shown.wait else None
    return _html(
        "tab",
        tab=shown,
        address=address,
        back=back,
        seen=seen,
        live=is_allowed(),
        refresh=_refresh(shown, values["task_state"]),
        next_query=next_query(shown.wait, time.time()) if shown.wait else None,
        deadline=datetime.fromtimestamp(deadline, tz=UTC) if deadline else None,
        task_state=values["task_state"],
    )


def _refresh(tab: Tab, task_state: str | None) -> float | None:
    """Seconds after which a tab asks anew; None for what is over."""
    if tab.state is State.WAITING:
        return FRESH
    goes_on = tab.state is State.READY or task_state not in {"success", "failed", "skipped", "removed"}
    return CALM if goes_on and tab.state is not State.LANDED and not tab.cards else None


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
    value = await run_in_threadpool(stored_status, key.dag_id, key.run_id, key.task_id, key.map_index)
    status = VideoStatus.from_json(value)
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
    asked = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
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
    return PlainTextResponse(text, status, _byte_headers())


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
