"""The floors of the house: who may import whom, read from the import graph of every module.

Indirect imports count, and so do those inside functions and under TYPE_CHECKING: a floor that needs the
one above it for its types alone needs it all the same. Every rule is also tried against a graph that
breaks it, because a rule that cannot fail holds nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest

grimp = pytest.importorskip("grimp", reason="the rules are checked in the environment that lints")

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_video_provider"

FLOORS = (
    ("decorators", "operators", "sensors", "plugin"),
    (
        "hooks",
        "triggers",
        "ledger",
        "paying",
        "remembering",
        "resuming",
        "submitting",
        "submitting_many",
        "cancelling",
        "costs",
        "metrics",
        "waiting",
        "video_status",
        "exceptions",
    ),
    ("gateway", "media"),
    ("http_common", "reply_places", "get_provider_info", "connection_fields"),
)
"""From the top down. A module imports from its own floor and those below; a new one gets its place here."""

BESIDE = ("sandbox",)
"""Stands beside the house: nothing in it imports this, and this imports nothing of it."""


@dataclass(frozen=True)
class Never:
    """`who` imports none of `whom`, whichever way round. Names of this package are relative to it."""

    why: str
    who: str
    whom: tuple[str, ...]


NEVER = (
    Never(
        "the gateway can be used without Airflow and touches no disk",
        ".gateway",
        ("airflow", ".media", "fsspec", "av"),
    ),
    Never("moving bytes knows neither Airflow nor what a gateway says", ".media", ("airflow", ".gateway")),
    Never(
        "the sandbox is judged by the client and must not share its reading of the wire",
        ".sandbox",
        ("airflow", *(f".{name}" for floor in FLOORS for name in floor)),
    ),
    Never("a trigger polls: it never submits, downloads or remembers", ".triggers", (".media", ".ledger")),
    Never("a trigger is what operators and sensors start", ".triggers", (".operators", ".sensors")),
    Never(
        "every process of Airflow loads the plugin, and what stands in a Dag is not its",
        ".plugin",
        (".operators", ".sensors", ".triggers"),
    ),
    Never("a worker loads no web framework", ".operators", (".plugin", "fastapi", "starlette")),
    Never("Airflow reads the metadata without importing hooks", ".get_provider_info", ("airflow", ".hooks")),
)


def full(name: str) -> str:
    return PACKAGE + name if name.startswith(".") else name


def crossings(graph: grimp.ImportGraph, rule: Never) -> list[str]:
    """The chains of imports that break a rule, written as a reader follows them."""
    who = full(rule.who)
    return sorted(
        " -> ".join(chain)
        for whom in map(full, rule.whom)
        if {who, whom} <= graph.modules
        for chain in graph.find_shortest_chains(who, whom, as_packages=True)
    )


def climbs(graph: grimp.ImportGraph) -> list[str]:
    """Imports that go from a lower floor to a higher one."""
    layers = [grimp.Layer(*floor, independent=False) for floor in (BESIDE, *FLOORS)]
    return sorted(
        f"{dependency.importer} -> {dependency.imported}"
        for dependency in graph.find_illegal_dependencies_for_layers(layers=layers, containers={PACKAGE})
    )


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(PACKAGE, include_external_packages=True, cache_dir=None)


class TestFloors:
    def test_nothing_imports_from_above(self, imports: grimp.ImportGraph) -> None:
        assert climbs(imports) == []

    def test_an_import_from_above_is_found(self, imports: grimp.ImportGraph) -> None:
        broken = deepcopy(imports)
        broken.add_import(importer=f"{PACKAGE}.gateway.task", imported=f"{PACKAGE}.hooks.video")
        assert climbs(broken) == [f"{PACKAGE}.gateway -> {PACKAGE}.hooks"]

    def test_nothing_needs_the_sandbox(self, imports: grimp.ImportGraph) -> None:
        broken = deepcopy(imports)
        broken.add_import(importer=f"{PACKAGE}.operators.video", imported=f"{PACKAGE}.sandbox.app")
        assert climbs(broken) == [f"{PACKAGE}.operators -> {PACKAGE}.sandbox"]

    def test_every_module_has_its_place(self, imports: grimp.ImportGraph) -> None:
        placed = {f"{PACKAGE}.{name}" for floor in (*FLOORS, BESIDE) for name in floor}
        assert imports.find_children(PACKAGE) - placed == set()


class TestBorders:
    @pytest.mark.parametrize("rule", NEVER, ids=lambda rule: f"{rule.who} - {' '.join(rule.whom)}")
    def test_is_kept(self, imports: grimp.ImportGraph, rule: Never) -> None:
        assert crossings(imports, rule) == [], rule.why

    @pytest.mark.parametrize(
        ("rule", "whom"),
        [(rule, whom) for rule in NEVER for whom in rule.whom],
        ids=lambda value: value if isinstance(value, str) else value.who,
    )
    def test_a_crossing_is_found(self, imports: grimp.ImportGraph, rule: Never, whom: str) -> None:
        """By a detour, and from a module deep within one side to one deep within the other."""
        broken = deepcopy(imports)
        importer, imported = f"{full(rule.who)}.deep.within", f"{full(whom)}.deep.within"
        if not whom.startswith("."):
            imported = whom
        for module in {full(rule.who), importer, full(whom), imported} - broken.modules:
            broken.add_module(module)
        broken.add_import(importer=importer, imported=f"{PACKAGE}.detour")
        broken.add_import(importer=f"{PACKAGE}.detour", imported=imported)
        assert f"{importer} -> {PACKAGE}.detour -> {imported}" in crossings(broken, rule)


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages, Python's own left out, that a fresh interpreter has loaded for them."""
    code = (
        "import sys\nbefore = set(sys.modules)\n"
        + "".join(f"import {module}\n" for module in modules)
        + "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


class TestImportsAreCheap:
    def test_the_package_loads_only_itself(self) -> None:
        assert loaded_by(PACKAGE) == {PACKAGE}

    def test_the_metadata_loads_only_itself(self) -> None:
        assert loaded_by(f"{PACKAGE}.get_provider_info") == {PACKAGE}

    def test_the_gateway_loads_no_airflow(self) -> None:
        assert "airflow" not in loaded_by(f"{PACKAGE}.gateway", f"{PACKAGE}.gateway.client")

    def test_a_dag_file_loads_no_decoder_and_no_object_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
        loaded = loaded_by(f"{PACKAGE}.operators.video", f"{PACKAGE}.sensors.video")
        assert loaded & {"av", "s3fs", "aiobotocore", "gcsfs", "adlfs", "starlette", "uvicorn"} == set()


class TestUnitTestsNeedNoAirflow:
    """`make unit` runs them with Airflow made impossible to import; here it is shown that this bites."""

    @pytest.fixture
    def collect(self) -> Callable[[Path], subprocess.CompletedProcess[str]]:
        def run(path: Path) -> subprocess.CompletedProcess[str]:
            options = ["-p", "scripts.no_airflow", "--collect-only", "-q", "-p", "no:cacheprovider"]
            return subprocess.run(
                [sys.executable, "-m", "pytest", *options, str(path)],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTEST_ADDOPTS": ""},
                check=False,
            )

        return run

    def test_none_imports_it(self, collect: Callable[[Path], subprocess.CompletedProcess[str]]) -> None:
        done = collect(ROOT / "tests" / "unit")
        assert done.returncode in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}, done.stdout

    def test_one_that_does_is_found(
        self, tmp_path: Path, collect: Callable[[Path], subprocess.CompletedProcess[str]]
    ) -> None:
        test = tmp_path / "test_imports_airflow.py"
        test.write_text("def test_nothing():\n    pass\n\nfrom airflow.providers.common.compat import sdk\n")
        done = collect(test)
        assert done.returncode == pytest.ExitCode.INTERRUPTED
        assert "needs no Airflow" in done.stdout
