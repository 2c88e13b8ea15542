"""The routes. ``create_app`` is the gateway; ``create_cdn_app`` is its CDN at another origin."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from email.utils import formatdate
from typing import Any, cast
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_video_provider.sandbox import faults as trouble
from airflow_video_provider.sandbox import replies
from airflow_video_provider.sandbox.faults import FAULTS, HTML_PAGE, RETRY_AFTER, Answer, Mode, Stage
from airflow_video_provider.sandbox.media import Clip, Studio, frame_size
from airflow_video_provider.sandbox.orders import RefusedError, read_order
from airflow_video_provider.sandbox.page import render_page
from airflow_video_provider.sandbox.serving import Blob, Drop, Hang, Served, padded, serve
from airflow_video_provider.sandbox.settings import Settings
from airflow_video_provider.sandbox.tasks import (
    VARIANTS,
    Dialect,
    Phase,
    Store,
    Task,
    View,
    file_name,
    observe,
)

Clock = Callable[[], float]
Handler = Callable[[Request], Awaitable[Response]]

HANG_SECONDS = 600.0
"""How long a caller is kept waiting by ``POST /sandbox/faults {"query": "hang"}``."""

_AUTHORISED = "sandbox.authorised"

LISTED = 20
"""Tasks on the one page of ``GET /v1/videos``."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One sandbox: what its routes share. Found at ``app.state.sandbox``."""

    settings: Settings
    clock: Clock
    store: Store
    studio: Studio = field(default_factory=Studio)

    def now(self) -> float:
        """Epoch seconds, ahead of the clock by what ``POST /sandbox/clock`` asked for."""
        return self.clock() + self.store.ahead


def create_app(settings: Settings | None = None, *, clock: Clock = time.time) -> Starlette:
    """The gateway as an ASGI application, for a server or for a test in process.

    :param clock: epoch seconds; a test passes its own and moves it, and never sleeps.

    In process there is no connection to drop: faults that drop one raise ``ConnectionResetError``.
    """
    settings = settings or Settings()
    sandbox = Sandbox(settings, clock, Store(settings.seed))
    prefix = settings.prefix
    routes = [
        Route(f"{prefix}/v1/video/create", _create(Dialect.UNIFIED), methods=["POST"]),
        Route(f"{prefix}/v1/video/query", _wire("query", _query_unified), methods=["GET"]),
        Route(f"{prefix}/v1/videos", _create(Dialect.OPENAI), methods=["POST"]),
        Route(f"{prefix}/v1/videos", _wire("query", _list), methods=["GET"]),
        Route(f"{prefix}/v1/videos/{{tail:path}}", _videos, methods=["GET", "DELETE"]),
        Route(f"{prefix}/v1/video/generations", _create(Dialect.NEWAPI), methods=["POST"]),
        Route(f"{prefix}/v1/video/generations/{{tail:path}}", _generations, methods=["GET"]),
        Route(f"{prefix}/api/usage/token/", _wire("balance", _balance), methods=["GET"]),
        Route("/", _page, methods=["GET"]),
        Route("/sandbox/payments", _payments, methods=["GET", "DELETE"]),
        Route("/sandbox/tasks", _tasks, methods=["GET"]),
        Route("/sandbox/requests", _requests, methods=["GET", "DELETE"]),
        Route("/sandbox/leaks", _leaks, methods=["GET", "DELETE"]),
        Route("/sandbox/faults", _faults, methods=["GET", "POST", "DELETE"]),
        Route("/sandbox/clock", _clock, methods=["GET", "POST"]),
        Route("/cdn/{name}", _cdn, methods=["GET"]),
    ]
    return _application(sandbox, routes, is_cdn=False)


def create_cdn_app(gateway: Starlette) -> Starlette:
    """The CDN of a gateway as an application of its own, to be served at another origin."""
    sandbox: Sandbox = gateway.state.sandbox
    return _application(sandbox, [Route("/cdn/{name}", _cdn, methods=["GET"])], is_cdn=True)


def _application(sandbox: Sandbox, routes: list[Route], *, is_cdn: bool) -> Starlette:
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_RequestLog, sandbox=sandbox)],
        exception_handlers={HTTPException: _no_route},
    )
    app.state.sandbox = sandbox
    app.state.is_cdn = is_cdn
    app.router.redirect_slashes = False
    return app


def _sandbox(request: Request) -> Sandbox:
    return cast(Sandbox, request.app.state.sandbox)


async def _no_route(request: Request, error: Exception) -> Response:
    # new-api knows no 405 either: a wrong method is a route that it does not have.
    return JSONResponse(replies.invalid_url(request.method, request.url.path), 404)


class _RequestLog:
    """Remembers the latest gateway and CDN requests: never a header, and never the key."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app, self._sandbox = app, sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope.get("path", "")
        if scope["type"] != "http" or path == "/" or path.startswith("/sandbox/"):
            await self._app(scope, receive, send)
            return
        target = path + (f"?{query}" if (query := scope["query_string"].decode("latin-1")) else "")
        entry: dict[str, Any] = {
            "time": self._sandbox.now(),
            "method": scope["method"],
            "path": target.replace(self._sandbox.settings.key, "***"),
            "status": None,
            "authorised": None,
        }
        self._sandbox.store.requests.append(entry)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                entry["status"] = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            entry["authorised"] = scope.get(_AUTHORISED)


# --- what every gateway route does first --------------------------------------------------------------


def _wire(stage: str, handler: Handler) -> Handler:
    """A gateway route: the mode of the whole gateway comes first, then the key, then the handler."""

    async def guarded(request: Request) -> Response:
        authorised = _authorised(request)
        request.scope[_AUTHORISED] = authorised
        struck = await _struck(request, stage)
        if struck is not None:
            return struck
        if not authorised:
            return JSONResponse(replies.bad_key(_request_id(request)), 401)
        return await handler(request)

    return guarded


def _authorised(request: Request) -> bool:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    wanted = _sandbox(request).settings.key
    return scheme.casefold() == "bearer" and hmac.compare_digest(key.strip().encode(), wanted.encode())


def _request_id(request: Request) -> str:
    store = _sandbox(request).store
    return store.token("request", store.count("request"))[:20]


async def _struck(request: Request, stage: str) -> Response | None:
    sandbox = _sandbox(request)
    mode = sandbox.store.mode
    if mode.delay:
        await sleep(mode.delay)
    action = mode.strike(stage)
    if action is None:
        return None
    if action == "drop":
        return Drop()
    if action == "hang":
        return Hang(HANG_SECONDS, Response(status_code=504))
    if action == "html":
        return HTMLResponse(HTML_PAGE.html)
    status = int(action)
    headers = {"Retry-After": mode.retry_after} if mode.retry_after else {}
    if status in (502, 504, 524):
        return HTMLResponse(f"<html><body><h1>{status}</h1></body></html>", status, headers)
    body = replies.error_body(Dialect.UNIFIED, "", f"the sandbox was asked to answer {status}")
    return JSONResponse(body, status, headers)


def _said(request: Request, answer: Answer, dialect: Dialect) -> Response:
    """An answer of the fault table, in the words of a dialect."""
    headers = {}
    if answer.retry_after:
        at = _sandbox(request).now() + RETRY_AFTER
        headers["Retry-After"] = (
            str(RETRY_AFTER) if answer.retry_after == "seconds" else formatdate(at, usegmt=True)
        )
    match answer.kind:
        case "drop":
            return Drop()
        case "wrapped":
            return JSONResponse({"code": 400, "msg": answer.message, "data": None}, answer.status, headers)
        case "empty-object":
            return JSONResponse({}, answer.status, headers)
    if answer.html:
        return HTMLResponse(answer.html, answer.status, headers)
    if answer.code or answer.message:
        body = replies.error_body(dialect, answer.code, answer.message)
        return JSONResponse(body, answer.status, headers)
    return Response(status_code=answer.status, headers=headers)


def _next_answer(store: Store, faults: trouble.Faults, stage: Stage, *key: str) -> Answer | None:
    """The answer of the first fault of a stage that is not used up for ``key``."""
    for fault, argument in trouble.at(faults, stage):
        if fault.answers and (n := store.count(fault.name, *key)) < argument:
            return fault.answers[n % len(fault.answers)]
    return None


# --- create -------------------------------------------------------------------------------------------


def _create(dialect: Dialect) -> Handler:
    async def create(request: Request) -> Response:
        sandbox = _sandbox(request)
        store = sandbox.store
        content_type = request.headers.get("content-type", "")
        try:
            order = read_order(dialect, content_type, await request.body())
        except RefusedError as error:
            kind = "invalid_request_error" if error.status == 400 else "new_api_error"
            body = replies.error_body(dialect, error.code, error.message, kind)
            return JSONResponse(body, error.status)
        faults = trouble.asked_for(order.model, order.prompt)
        refusal = _next_answer(store, faults, "create", order.model, order.prompt)
        balance = sandbox.settings.balance
        if refusal is None and balance is not None and store.cents + order.family.cents > balance * 100:
            refusal = trouble.BY_NAME["quota"].answers[0]
        if refusal is not None:
            return _said(request, refusal, dialect)
        task = store.accept(
            dialect=dialect,
            family=order.family,
            model=order.model,
            prompt=order.prompt,
            body=order.body,
            faults=faults,
            now=sandbox.now(),
            seconds=sandbox.settings.seconds,
        )
        strict = sandbox.settings.strict_openai
        status, body = replies.created(task, observe(task, task.created), strict=strict)
        reply = JSONResponse(body, status)
        if "create-hang-paid" in faults:
            return Hang(faults["create-hang-paid"], reply)
        answer = _next_answer(store, faults, "paid", order.model, order.prompt)
        return reply if answer is None else _said(request, answer, dialect)

    return _wire("create", create)


# --- query --------------------------------------------------------------------------------------------


async def _query_unified(request: Request) -> Response:
    return await _tell(request, Dialect.UNIFIED, request.query_params.get("id", ""))


def _segments(request: Request, base: str) -> list[str]:
    """The path after ``base``, split as it was sent: an id that was not percent-encoded falls apart."""
    raw = cast(bytes, request.scope.get("raw_path") or request.scope["path"].encode())
    path = raw.partition(b"?")[0].decode("latin-1")
    return [unquote(part) for part in path.removeprefix(_sandbox(request).settings.prefix + base).split("/")]


async def _videos(request: Request) -> Response:
    match _segments(request, "/v1/videos/"):
        case [video_id] if video_id and request.method == "DELETE":
            return await _wire("cancel", lambda r: _cancel(r, video_id))(request)
        case [video_id] if video_id:
            return await _wire("query", lambda r: _tell(r, Dialect.OPENAI, video_id))(request)
        case [video_id, "content"] if video_id and request.method != "DELETE":
            return await _wire("content", lambda r: _content(r, video_id))(request)
        case _:
            raise HTTPException(404)


async def _list(request: Request) -> Response:
    sandbox = _sandbox(request)
    newest = sorted(sandbox.store.tasks.values(), key=lambda task: task.created, reverse=True)
    page = [(task, observe(task, sandbox.now())) for task in newest[:LISTED]]
    return JSONResponse(replies.listed(page, strict=sandbox.settings.strict_openai))


async def _generations(request: Request) -> Response:
    match _segments(request, "/v1/video/generations/"):
        case [video_id] if video_id:
            return await _wire("query", lambda r: _tell(r, Dialect.NEWAPI, video_id))(request)
        case _:
            raise HTTPException(404)


async def _tell(request: Request, dialect: Dialect, video_id: str) -> Response:
    sandbox = _sandbox(request)
    task = sandbox.store.tasks.get(video_id)
    if task is None:
        status, body = replies.unknown_task(dialect)
        return JSONResponse(body, status)
    answer = _next_answer(sandbox.store, task.faults, "query", task.id)
    if answer is not None:
        return _said(request, answer, dialect)
    view = observe(task, sandbox.now())
    links = await _links(request, task, view)
    return JSONResponse(replies.told(dialect, task, view, links, strict=sandbox.settings.strict_openai))


async def _cancel(request: Request, video_id: str) -> Response:
    """Aborts a task that runs, as vLLM-Omni does, and forgets one that has ended; it stays paid for."""
    sandbox = _sandbox(request)
    if not sandbox.store.cancel(video_id, sandbox.now()):
        status, body = replies.unknown_task(Dialect.OPENAI)
        return JSONResponse(body, status)
    return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})


async def _balance(request: Request) -> Response:
    sandbox = _sandbox(request)
    return JSONResponse(replies.token_usage(sandbox.settings.balance, sandbox.store.cents))


async def _links(request: Request, task: Task, view: View) -> replies.Links:
    """The URLs that a reply may tell now; signed ones are fresh each time they are asked for."""
    sandbox = _sandbox(request)
    if view.phase is not Phase.SUCCEEDED or _url_is_withheld(sandbox.store, task):
        return replies.Links()
    content = f"{_origin(request)}{sandbox.settings.prefix}/v1/videos/{quote(task.id, safe='')}/content"
    lower = file_url(request, task, "video.mp4")
    video = file_url(request, task, "upsampled.mp4") if task.upsampled else lower
    if "data-url" in task.faults:
        film = await sandbox.studio.film(_clip(task, "video.mp4"))
        video = lower = "data:video/mp4;base64," + base64.b64encode(film).decode()
    elif "content-url" in task.faults:
        video = lower = content
    more = tuple(file_url(request, task, variant) for variant in task.variants[len(VARIANTS) :])
    return replies.Links(video, lower, file_url(request, task, "thumbnail.jpg"), content, more)


def _url_is_withheld(store: Store, task: Task) -> bool:
    if "url-lost" in task.faults or "url-gone" in task.faults:
        return True
    late = task.faults.get("url-late")
    return late is not None and store.count("url-late", task.id) < late


def _origin(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


# --- the bytes ----------------------------------------------------------------------------------------


def file_url(request: Request, task: Task, variant: str) -> str:
    """Where a file of a task lies, signed where its family wants that."""
    sandbox = _sandbox(request)
    name = file_name(sandbox.store, task, variant)
    url = f"{sandbox.settings.cdn_origin or _origin(request)}/cdn/{name}"
    life = _url_life(sandbox, task, variant)
    return url if life is None else f"{url}?{_signature(sandbox.store, name, int(sandbox.now() + life))}"


def _url_life(sandbox: Sandbox, task: Task, variant: str) -> float | None:
    if variant == "thumbnail.jpg":
        return None
    return task.faults.get("url-expires", sandbox.settings.expire if task.family.signed else None)


def _signature(store: Store, name: str, expires: int) -> str:
    """The query of a signed URL. It is compared byte for byte: a client that tidies up an escape
    (``%2F`` to ``/``) or the order breaks it, as it does on the real ones."""
    day = time.strftime("%Y%m%d", time.gmtime(expires))
    mark = store.token("signature", name, expires)[:40]
    return f"Expires={expires}&X-Sandbox-Credential=sandbox%2F{day}%2Fvideo&X-Sandbox-Signature={mark}"


def _denied(message: str) -> Response:
    error = f"<Error><Code>AccessDenied</Code><Message>{message}</Message></Error>"
    return Response(f'<?xml version="1.0" encoding="UTF-8"?>{error}', 403, media_type="application/xml")


async def _cdn(request: Request) -> Response:
    sandbox = _sandbox(request)
    store = sandbox.store
    _note_leak(request)
    struck = await _struck(request, "cdn")
    if struck is not None:
        return struck
    name = request.path_params["name"]
    video_id, variant = store.files.get(name, ("", ""))
    task = store.tasks.get(video_id)
    if task is None:
        return Response("not found", 404)
    view = observe(task, sandbox.now())
    if view.phase is not Phase.SUCCEEDED:
        return Response("not found", 404)
    query = request.scope["query_string"].decode("latin-1")
    redirected = query.endswith(_REDIRECTED)
    query = query.removesuffix(_REDIRECTED).removesuffix("&")
    if _url_life(sandbox, task, variant) is not None:
        expires = request.query_params.get("Expires", "")
        if not expires.isdecimal() or query != _signature(store, name, int(expires)):
            return _denied("the signature does not match")
        if int(expires) <= sandbox.now():
            return _denied("Request has expired")
    if variant == "thumbnail.jpg":
        still = await sandbox.studio.still(_clip(task, variant))
        return serve(request, Served(Blob(still), _etag(still), "image/jpeg", view.changed))
    if request.method == "GET":
        answer = _next_answer(store, task.faults, "bytes", task.id)
        if answer is not None:
            return _said(request, answer, Dialect.UNIFIED)
        again = task.faults.get("cdn-redirect", 0)
        if not redirected and store.count("cdn-redirect", task.id) < again:
            return RedirectResponse(f"{request.url.path}?{query}{'&' if query else ''}{_REDIRECTED}", 302)
    return await _film(request, task, view, variant)


_REDIRECTED = "X-Sandbox-Hop=1"


async def _content(request: Request, video_id: str) -> Response:
    """The gateway's own route to the bytes; like new-api's it does not honour ranges."""
    sandbox = _sandbox(request)
    task = sandbox.store.tasks.get(video_id)
    if task is None:
        status, body = replies.unknown_task(Dialect.OPENAI)
        return JSONResponse(body, status)
    view = observe(task, sandbox.now())
    if view.phase is not Phase.SUCCEEDED:
        return JSONResponse(replies.not_completed(view), 400)
    if "url-gone" in task.faults:
        body = replies.error_body(Dialect.OPENAI, "video_not_found", "the video is no longer there")
        return JSONResponse(body, 404)
    variant = "upsampled.mp4" if task.upsampled else "video.mp4"
    url = file_url(request, task, variant)
    if "content-json" in task.faults:
        reply = replies.told(Dialect.OPENAI, task, view, replies.Links())
        return JSONResponse(reply | {"url": url, "video_url": url})
    if "content-redirect" in task.faults:
        return RedirectResponse(url, 302)
    return await _film(request, task, view, variant, ranges=False)


async def _film(request: Request, task: Task, view: View, variant: str, *, ranges: bool = True) -> Response:
    sandbox = _sandbox(request)
    film = await sandbox.studio.film(_clip(task, variant))
    blob = padded(film, int(task.faults.get("big", 0) * 2**20))
    if "short" in task.faults:
        blob = Blob(film[: len(film) // 2])
    served = Served(
        blob,
        etag=_etag(blob.data, len(blob)),
        media_type="text/plain" if "wrong-type" in task.faults else "video/mp4",
        modified=view.changed,
        ranges=ranges and "no-range" not in task.faults,
        length="no-length" not in task.faults,
        spread=task.faults.get("slow-bytes", 0.0),
    )
    cut = task.faults.get("truncated", 0)
    if request.method == "GET" and sandbox.store.count("truncated", task.id) < cut:
        served = replace(served, stop_after=0.5)
    return serve(request, served)


def _clip(task: Task, variant: str) -> Clip:
    prompt = task.prompt if variant in VARIANTS else f"{task.prompt} ({variant})"
    return Clip(prompt, *frame_size(task.body, upsampled=variant == "upsampled.mp4"))


def _etag(data: bytes, size: int = 0) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}-{size:x}"'


def _note_leak(request: Request) -> None:
    """A CDN is not the gateway: a request to it that carries a key has told it to a stranger."""
    sandbox = _sandbox(request)
    query = unquote(request.url.query)
    header = request.headers.get("authorization")
    if header is None and sandbox.settings.key not in query:
        return
    sandbox.store.leaks.append(
        {
            "time": sandbox.now(),
            "method": request.method,
            "path": request.url.path,
            "where": "query" if header is None else "Authorization header",
            "is_key": header is None or sandbox.settings.key in header,
            "cross_origin": bool(request.app.state.is_cdn),
        }
    )


# --- control ------------------------------------------------------------------------------------------


async def _payments(request: Request) -> Response:
    sandbox = _sandbox(request)
    if request.method == "DELETE":
        sandbox.store.forget_payments()
    return JSONResponse(payments_json(sandbox))


def payments_json(sandbox: Sandbox) -> dict[str, Any]:
    """The ledger: what was paid, when and for what."""
    store, balance = sandbox.store, sandbox.settings.balance
    return {
        "count": len(store.payments),
        "total": store.cents / 100,
        "currency": "USD",
        "balance": None if balance is None else round(balance - store.cents / 100, 2),
        "payments": store.payments,
    }


async def _tasks(request: Request) -> Response:
    sandbox = _sandbox(request)
    now = sandbox.now()
    return JSONResponse(
        {"tasks": [_task_json(task, observe(task, now)) for task in sandbox.store.tasks.values()]}
    )


def _task_json(task: Task, view: View) -> dict[str, Any]:
    return {
        "id": task.id,
        "dialect": str(task.dialect),
        "model": task.model,
        "prompt": task.prompt,
        "body": dict(task.body),
        "created": task.created,
        "seconds": task.seconds,
        "faults": {name: None if value == trouble.ALWAYS else value for name, value in task.faults.items()},
        "state": str(view.phase),
        "progress": view.percent,
        "reason": view.reason,
    }


async def _requests(request: Request) -> Response:
    store = _sandbox(request).store
    if request.method == "DELETE":
        store.requests.clear()
    return JSONResponse({"requests": list(store.requests)})


async def _leaks(request: Request) -> Response:
    store = _sandbox(request).store
    if request.method == "DELETE":
        store.leaks.clear()
    crossed = sum(leak["cross_origin"] for leak in store.leaks)
    return JSONResponse({"count": len(store.leaks), "cross_origin": crossed, "leaks": list(store.leaks)})


async def _faults(request: Request) -> Response:
    store = _sandbox(request).store
    if request.method == "DELETE":
        store.mode = Mode()
    if request.method == "POST":
        try:
            store.mode = trouble.mode_from(json.loads(await request.body()))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
    table = [
        {"name": fault.name, "when": fault.stage, "what": fault.text, "argument": fault.argument}
        for fault in FAULTS
    ]
    return JSONResponse({"mode": asdict(store.mode), "table": table})


async def _clock(request: Request) -> Response:
    sandbox = _sandbox(request)
    if request.method == "POST":
        try:
            seconds = float(json.loads(await request.body())["advance"])
        except (ValueError, TypeError, KeyError):
            return JSONResponse({"error": 'a JSON object like {"advance": 30} is expected'}, 400)
        sandbox.store.ahead += max(0.0, seconds)
    return JSONResponse({"now": sandbox.now(), "ahead": sandbox.store.ahead})


async def _page(request: Request) -> Response:
    sandbox = _sandbox(request)
    now = sandbox.now()
    newest = list(sandbox.store.tasks.values())[-50:][::-1]
    rows = [(task, observe(task, now)) for task in newest]
    videos = {
        task.id: file_url(request, task, "upsampled.mp4" if task.upsampled else "video.mp4")
        for task, view in rows
        if view.phase is Phase.SUCCEEDED
    }
    html = render_page(
        rows=rows,
        videos=videos,
        payments=payments_json(sandbox),
        leaks=len(sandbox.store.leaks),
        mode=asdict(sandbox.store.mode),
        host=_origin(request) + sandbox.settings.prefix,
        key=sandbox.settings.key,
        now=now,
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
    return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})
