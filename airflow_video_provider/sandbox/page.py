"""The status page: one file of HTML, nothing loaded from elsewhere, every word of a user escaped."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from airflow_video_provider.sandbox.connection import connection_json, connection_uri
from airflow_video_provider.sandbox.faults import FAULTS, STAGES
from airflow_video_provider.sandbox.tasks import FAMILIES, Task, View

_STYLE = """
:root{--ink:#1d2330;--soft:#667085;--line:#e4e7ec;--back:#f6f7f9;--card:#fff;--good:#12805c;--bad:#b42318;
--run:#3056d3;--warn:#b54708}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaf0;--soft:#98a2b3;--line:#2b3340;--back:#12161d;
--card:#1a202a;--good:#4cc38a;--bad:#f97066;--run:#84a9ff;--warn:#fdb022}}
*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back)}
main{max-width:1080px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:24px;margin:0}h2{font-size:16px;margin:32px 0 8px}
p{margin:4px 0;color:var(--soft)}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;overflow-x:auto}
table{border-collapse:collapse;width:100%}
td,th{padding:8px 12px;text-align:left;border-top:1px solid var(--line);vertical-align:top}
tr:first-child>*{border-top:0}th{color:var(--soft);font-weight:500;font-size:13px}
code,pre{font:13px/1.5 ui-monospace,monospace}pre{margin:0;padding:12px;white-space:pre-wrap;
word-break:break-all}
.bar{background:var(--line);border-radius:4px;height:8px;width:120px;margin-top:7px}
.bar i{display:block;height:8px;border-radius:4px;background:var(--run)}
.succeeded{color:var(--good)}.succeeded+td i{background:var(--good)}
.failed,.expired,.cancelled{color:var(--bad)}.failed+td i,.expired+td i,.cancelled+td i{background:var(--bad)}
.twice{color:var(--warn);font-weight:600}.num{text-align:right;font-variant-numeric:tabular-nums}
.prompt{max-width:360px;overflow-wrap:anywhere}small{color:var(--soft);overflow-wrap:anywhere}
a{color:var(--run)}
"""

_SCRIPT = """
setInterval(async () => {
  if (getSelection().toString()) return;  // somebody is copying
  try {
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    document.getElementById("live").replaceWith(page.getElementById("live"));
  } catch { /* the sandbox was stopped; it may come back */ }
}, 1000);
"""


def render_page(
    *,
    rows: Sequence[tuple[Task, View]],
    videos: Mapping[str, str],
    payments: Mapping[str, Any],
    leaks: int,
    mode: Mapping[str, Any],
    host: str,
    key: str,
    now: float,
) -> str:
    """The page at ``/``.

    :param rows: the latest tasks, newest first.
    :param videos: task id -> URL of the finished video.
    :param payments: what ``GET /sandbox/payments`` says.
    :param host: base URL of the gateway, prefix included.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Video gateway sandbox</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<noscript><meta http-equiv="refresh" content="2"></noscript>
<style>{_STYLE}</style></head><body><main>
<h1>Video gateway sandbox</h1>
<p>A gateway for writing Dags. Nothing here costs money.</p>
<h2>Connection</h2>
<div class="card"><pre>export AIRFLOW_CONN_VIDEO_DEFAULT='{escape(connection_json(host, key))}'</pre></div>
<p>or as a URI: <code>{escape(connection_uri(host, key))}</code></p>
<div id="live">
{_notices(leaks, mode)}
<h2>Tasks</h2><div class="card">{_tasks(rows, videos, now)}</div>
<h2>Payments: {payments["count"]}, {payments["total"]:.2f} {escape(payments["currency"])}</h2>
<div class="card">{_payments(payments["payments"])}</div>
</div>
<h2>Models</h2><div class="card">{_models()}</div>
<h2>Failures on request</h2>
<p>Write <code>[name]</code> or <code>[name=3]</code> into a prompt, or <code>@name=3</code> behind a model's
name. Several at once work.</p>
<div class="card">{_fault_table()}</div>
</main><script>{_SCRIPT}</script></body></html>
"""


def _table(head: Sequence[str], rows: Sequence[str], empty: str) -> str:
    if not rows:
        return f"<pre>{escape(empty)}</pre>"
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{''.join(rows)}</table>"


def _notices(leaks: int, mode: Mapping[str, Any]) -> str:
    notices = []
    if leaks:
        notices.append(f'<p class="twice">{leaks} requests to the CDN carried a key: see /sandbox/leaks</p>')
    if mode["rules"] or mode["delay"]:
        notices.append(f'<p class="twice">The whole gateway is in a mode: {escape(json.dumps(mode))}</p>')
    return "".join(notices)


def _tasks(rows: Sequence[tuple[Task, View]], videos: Mapping[str, str], now: float) -> str:
    cells = []
    for task, view in rows:
        video = videos.get(task.id)
        link = f'<a href="{escape(video)}" target="_blank" rel="noopener">play</a>' if video else ""
        width = max(2, view.percent)
        cells.append(
            f'<tr><td class="prompt">{escape(task.prompt[:300])}<br><small>{escape(task.id)}</small></td>'
            f"<td>{escape(task.model)}<br><small>{task.dialect}</small></td>"
            f'<td class="{view.phase}">{view.phase}<br><small>{escape(view.reason)}</small></td>'
            f'<td><div class="bar"><i style="width:{width}%"></i></div></td>'
            f'<td class="num">{_ago(now - task.created)}</td><td>{link}</td></tr>'
        )
    head = ("Prompt", "Model", "State", "Progress", "Age", "Video")
    return _table(head, cells, "No task yet. Make the connection, and run a Dag.")


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _payments(payments: Sequence[Mapping[str, Any]]) -> str:
    often = Counter((payment["model"], payment["prompt"]) for payment in payments)
    cells = []
    for payment in payments[-50:][::-1]:
        times = often[payment["model"], payment["prompt"]]
        twice = f'<br><span class="twice">paid {times} times</span>' if times > 1 else ""
        clock = time.strftime("%H:%M:%S", time.localtime(payment["time"]))
        cells.append(
            f'<tr><td>{clock}</td><td class="prompt">{escape(payment["prompt"][:300])}{twice}</td>'
            f"<td>{escape(payment['model'])}</td><td><small>{escape(payment['video_id'])}</small></td>"
            f'<td class="num">{payment["amount"]:.2f}</td></tr>'
        )
    return _table(("Time", "Prompt", "Model", "Task", "USD"), cells, "Nothing was paid.")


def _models() -> str:
    cells = []
    for family in FAMILIES:
        names = ", ".join(f"<code>{prefix}…</code>" for prefix in family.prefixes)
        price = f'<td class="num">{family.cents / 100:.2f}</td>'
        cells.append(f"<tr><td>{family.name}</td><td>{names}</td>{price}</tr>")
    return _table(("Family", "Names that begin with", "USD"), cells, "")


def _fault_table() -> str:
    cells = []
    for stage, title in STAGES.items():
        cells.append(f'<tr><th colspan="3">{escape(title)}</th></tr>')
        cells += [
            f"<tr><td><code>[{fault.name}]</code></td><td>{escape(fault.text)}</td>"
            f"<td><small>{escape(fault.argument)}</small></td></tr>"
            for fault in FAULTS
            if fault.stage == stage
        ]
    return _table(("Marker", "What happens", "Argument"), cells, "")
