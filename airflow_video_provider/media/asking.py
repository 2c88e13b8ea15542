"""Ask a file system something, within a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

CANCEL_TIME = 10.0
CLEANUP_TIME = 15.0
"""For what is only tidying up, and must not keep an error from being told."""


def ask(fs: Any, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
    """Call *method* of an fsspec file system.

    :param timeout: seconds after which an asynchronous file system's call is cancelled, as it would go on
        for ever with a store that says nothing. Others cannot be interrupted. None: no bound.
    :raises TimeoutError: the time was over.
    """
    if timeout is None or not getattr(fs, "async_impl", False):
        return getattr(fs, method)(*args, **kwargs)
    return run(fs, getattr(fs, f"_{method}")(*args, **kwargs), timeout)


def run(fs: Any, work: Coroutine[Any, Any, Any], timeout: float | None) -> Any:
    """Run *work* in the loop of *fs*; it has ended, or was cancelled, when this returns or is interrupted."""
    over = threading.Event()

    async def until_over() -> Any:
        try:
            return await work
        finally:
            over.set()

    running = asyncio.run_coroutine_threadsafe(until_over(), fs.loop)
    try:
        return running.result(timeout)
    finally:
        if not running.done():
            running.cancel()
            over.wait(CANCEL_TIME)
