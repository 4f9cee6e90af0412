"""Ask a Prefect server over HTTP, as its interface does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx


def ask_prefect(prefect: Mapping[str, str], path: str, body: object = None, *, method: str = "POST") -> Any:
    """What a server answers to its clients, whose environment is given. For a minute it may be away or too busy."""
    end = time.monotonic() + 60
    while True:
        try:
            reply = httpx.request(method, f"{prefect['PREFECT_API_URL']}{path}", json=body, timeout=180)
            if not reply.is_server_error or time.monotonic() > end:
                break
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)
    if not reply.is_success:
        raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text[:2000]}")
    return reply.json() if reply.content else None
