"""``python -m airflow_video_provider.sandbox``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from airflow_video_provider.sandbox.connection import connection_json, connection_uri
from airflow_video_provider.sandbox.settings import Settings


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m airflow_video_provider.sandbox",
        description="A local video gateway for writing and testing Dags without paying.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = result.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8899, help="port to listen on; 0 takes a free one")
    add(
        "--cdn-port", type=int, help="serve the videos at an origin of their own, on this port; 0: a free one"
    )
    add("--seconds", type=float, default=20.0, help="generation time of a task, in seconds")
    add("--key", default="sandbox-key", help="the API key that callers must send")
    add("--balance", type=float, help="US dollars that may be spent; without it there is no limit")
    add("--expire", type=float, default=3600.0, help="life of a signed video URL, in seconds")
    add("--prefix", default="", help="path before every gateway route, such as /relay")
    add(
        "--strict-openai", action="store_true", help="/v1/videos as OpenAI's own API tells it, for all models"
    )
    add("--seed", help="makes ids and signatures the same on every run")
    add("--quiet", action="store_true", help="print only the machine-readable lines")
    add("--verbose", action="store_true", help="log every request to stderr")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the sandbox until it is told to stop; returns the exit code."""
    arguments = parser().parse_args(argv)
    seed = {"seed": arguments.seed} if arguments.seed else {}
    try:
        settings = Settings(
            seconds=arguments.seconds,
            key=arguments.key,
            balance=arguments.balance,
            expire=arguments.expire,
            prefix=arguments.prefix.rstrip("/"),
            strict_openai=arguments.strict_openai,
            **seed,
        )
    except ValueError as error:
        parser().error(str(error))
    try:
        from airflow_video_provider.sandbox.server import serve_forever
    except ImportError as error:
        print(f"sandbox: {error}; install airflow-video-provider[sandbox]", file=sys.stderr)
        return 1

    def ready(origin: str, cdn: str) -> None:
        print(f"sandbox: {origin}", flush=True)
        if cdn:
            print(f"sandbox cdn: {cdn}", flush=True)
        if not arguments.quiet:
            # Whoever reads only the first line and closes the pipe has what they came for.
            with contextlib.suppress(BrokenPipeError):
                print(_help(origin + settings.prefix, origin, settings), flush=True)

    try:
        serve_forever(
            settings,
            host=arguments.host,
            port=arguments.port,
            cdn_port=arguments.cdn_port,
            verbose=arguments.verbose,
            ready=ready,
        )
    except OSError as error:
        print(f"sandbox: cannot listen on {arguments.host}: {error}", file=sys.stderr)
        return 1
    return 0


def _help(host: str, origin: str, settings: Settings) -> str:
    return f"""
  Connection  export AIRFLOW_CONN_VIDEO_DEFAULT='{connection_json(host, settings.key)}'
  or          export AIRFLOW_CONN_VIDEO_DEFAULT='{connection_uri(host, settings.key)}'
  Status      {origin}/
  Payments    {origin}/sandbox/payments
  A task takes {settings.seconds:g} s. Ask for failures in the prompt, such as "a cat [flap=2]".
  Ctrl-C stops."""


if __name__ == "__main__":
    sys.exit(main())
