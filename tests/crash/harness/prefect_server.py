"""A Prefect server of one trial's own, which may be killed, with a limit on the submissions of its flow."""

from __future__ import annotations

import threading
from typing import Any, Final

import httpx
from prefect_servers import OwnPrefect

from harness.stage import Forks

__all__ = ["LimitingPrefect"]

_LIMIT: Final = "submissions"


class LimitingPrefect:
    """`forks` starts processes that use it and keep its limit."""

    def __init__(self, server: OwnPrefect) -> None:
        self._server = server
        self._limits = f"{server.environment['PREFECT_API_URL']}/v2/concurrency_limits/"
        self._coming = threading.Thread()
        # Two, so that one that is lost keeps no flow from its end.
        self._ask("POST", json={"name": _LIMIT, "limit": 2})
        self.forks = Forks({**server.environment, "IVCAP_FLOWS_CONCURRENCY_LIMIT": _LIMIT})

    def restart(self, patience: float) -> None:
        """Kill the server, and wait no longer than this until it is back. One that is not back yet is left alone."""
        if not self._coming.is_alive():
            self._server.kill()
            self._coming = threading.Thread(target=self._server.start, daemon=True)
            self._coming.start()
        self._coming.join(patience)

    @property
    def taken(self) -> int:
        """How many slots it counts as taken."""
        self._wait()
        return int(self._ask("GET", _LIMIT)["active_slots"])

    def end(self) -> None:
        self.forks.close()
        self._wait()
        self._server.kill()

    def _wait(self) -> None:
        """Until it is back."""
        if self._coming.ident is not None:
            self._coming.join()

    def _ask(self, method: str, path: str = "", **content: Any) -> Any:
        return httpx.request(method, f"{self._limits}{path}", timeout=60, **content).raise_for_status().json()
