"""Try a built wheel in a bare environment of each Airflow: no extras, nothing of this repository.

`make build` runs it. In each: the package's dependencies hold together, `airflow providers list` names it,
the connection form has its fields, `@task.video` is found, the UI's pages are in it, and what a Dag file
imports can be imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.matrix import ROOT, Pair, environment, pairs

#: Runs in the bare environment, so it imports nothing of this repository. Prints what it found as JSON.
LOOK = """
import json

# Before anything else reads the providers: in a server nothing has, either.
try:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
except ImportError:  # Airflow 2 draws the form with Flask
    from airflow.providers_manager import ProvidersManager

    widgets = ProvidersManager().connection_form_widgets.values()
    form = [w.field_name for w in widgets if "VideoHook" in str(w.hook_class_name)]
    labels = ProvidersManager().field_behaviours["video_gateway"]["relabeling"]
else:
    (meta,) = [m for m in HookMetaService.hook_meta_data() if m.connection_type == "video_gateway"]
    form = list(meta.extra_fields or ())
    labels = {name: f.title for name, f in dict(meta.standard_fields or {}).items() if f and f.title}

import airflow_video_provider
from airflow.providers.common.compat.sdk import task
from airflow_video_provider.operators.video import VideoDownloadOperator, VideoGenerateOperator
from airflow_video_provider.plugin.pages import page
from airflow_video_provider.sensors.video import VideoTaskSensor

print(json.dumps({
    "file": airflow_video_provider.__file__,
    "version": airflow_video_provider.__version__,
    "form": sorted(form),
    "labels": labels,
    "decorator": callable(task.video),
    "page": b"</html>" in page("error", message=""),
}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make build", description=__doc__.splitlines()[0])
    parser.add_argument("--uv", type=Path, required=True, help="the program that makes environments")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="where they are made")
    parser.add_argument("wheel", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wheel, uv = arguments.wheel.resolve(), arguments.uv.absolute()
    newest = {pair.airflow: pair for pair in pairs()}  # the last one wins: the newest Python of each Airflow
    for pair in newest.values():
        python = environment(uv, pair, pair.folder(folder, "bare"), [str(wheel)])
        problems = tried(uv, pair, python, wheel)
        print(f"Airflow {pair.airflow}, Python {pair.python}: {'; '.join(problems) or 'good'}", flush=True)
        if problems:
            return 1
    return 0


def tried(uv: Path, pair: Pair, python: Path, wheel: Path) -> list[str]:
    """What is wrong with the wheel in an environment; nothing, mostly."""
    with tempfile.TemporaryDirectory() as home:
        env = {"AIRFLOW_HOME": home, "PATH": f"{python.parent}:/usr/bin:/bin", "HOME": home}

        def run(*command: str) -> str:
            done = subprocess.run(  # noqa: S603 - the commands are ours
                command, env=env, cwd=home, capture_output=True, text=True, check=False, timeout=300
            )
            if done.returncode:
                raise RuntimeError(f"{command[1:3]} failed: {(done.stdout + done.stderr)[-2000:]}")
            return done.stdout

        try:
            run(str(uv), "pip", "check", "--python", str(python))
            listed = run(str(python), "-m", "airflow", "providers", "list", "--output", "json")
            found = json.loads(run(str(python), "-c", LOOK).splitlines()[-1])
        except RuntimeError as error:
            return [str(error)]
    # Airflow 3.0 logs to where it prints, too, before the list.
    providers, _ = json.JSONDecoder().raw_decode(listed, listed.index('[{"'))
    return _problems(pair, providers, found, wheel)


def _problems(pair: Pair, listed: list[dict[str, str]], found: dict[str, object], wheel: Path) -> list[str]:
    from airflow_video_provider.connection_fields import CONNECTION_FIELDS

    version = wheel.name.split("-")[1]
    ours = [each["version"] for each in listed if each["package_name"] == "airflow-video-provider"]
    form, labels = found["form"], found["labels"]
    fields = sorted(field.name for field in CONNECTION_FIELDS)
    named = {"host": "Base URL", "password": "API key"}
    if pair.minor == "3.0":  # it draws no provider's form unless flask_appbuilder is installed
        fields, named = [], {}
    wanted = {
        "`airflow providers list` does not name it": ours == [version],
        f"another version is imported: {found['version']}": found["version"] == version,
        f"it is imported from {found['file']}": "site-packages" in str(found["file"]),
        f"the connection form has {form}": form == fields,
        f"the connection form is labelled {labels}": isinstance(labels, dict)
        and {name: labels[name] for name in ("host", "password") if name in labels} == named,
        "@task.video is not found": found["decorator"] is True,
        "the UI's pages are not made": found["page"] is True,
    }
    return [problem for problem, holds in wanted.items() if not holds]


if __name__ == "__main__":
    sys.exit(main())
