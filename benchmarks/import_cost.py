"""What importing the operators, the sensor and the trigger adds to a Dag file's parse time.

Prints milliseconds on top of Airflow's own base classes, beside common-ai's batch operator where that
provider is installed. Each figure is the median over fresh interpreters, the subjects taken in turn, because
a second import in one process costs nothing.

    python benchmarks/import_cost.py [--runs 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

BASE = (
    "from airflow.providers.common.compat.sdk import "
    "Asset, BaseHook, BaseOperator, BaseSensorOperator, ObjectStoragePath",
    "from airflow.triggers.base import BaseTrigger",
)
SUBJECTS = {
    "airflow_video_provider operators": "import airflow_video_provider.operators.video",
    "airflow_video_provider sensor": "import airflow_video_provider.sensors.video",
    "airflow_video_provider trigger": "import airflow_video_provider.triggers.video",
    "airflow_video_provider all three": (
        "import airflow_video_provider.operators.video, airflow_video_provider.sensors.video"
    ),
    "airflow_video_provider plugin": "import airflow_video_provider.plugin.plugin",
    "common-ai LLMBatchOperator (peer)": "import airflow.providers.common.ai.operators.llm_batch",
    "nothing (noise)": "pass",
}


def cost(statement: str) -> float | None:
    """Milliseconds that an import takes in a fresh interpreter with the base classes; None: not there."""
    script = "\n".join(
        (
            "import time",
            *BASE,
            "start = time.perf_counter()",
            statement,
            "print((time.perf_counter() - start) * 1000)",
        )
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        if "ModuleNotFoundError: No module named 'airflow.providers.common.ai'" in done.stderr:
            return None
        raise SystemExit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="fresh interpreters for each figure")
    runs = parser.parse_args().runs
    for statement in SUBJECTS.values():  # the first import of all compiles
        cost(statement)
    times: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    for _ in range(runs):
        for name, statement in SUBJECTS.items():
            if (taken := cost(statement)) is not None:
                times[name].append(taken)
    print(f"milliseconds on top of Airflow's base classes, {runs} fresh interpreters each")
    print(f"{'':36}{'median':>8}{'min':>8}{'max':>8}")
    for name, taken in times.items():
        if taken:
            print(f"{name:36}{statistics.median(taken):8.1f}{min(taken):8.1f}{max(taken):8.1f}")
        else:
            print(f"{name:36}  not installed")


if __name__ == "__main__":
    main()
